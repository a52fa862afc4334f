"""What the package promises as a whole, and bad arguments."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_sawtooth as ks

ROOT = Path(__file__).parents[1]


def test_import_loads_keras_and_numpy_only():
    """Compared with what `import keras` loads by itself."""
    program = (
        "import keras, sys; before = set(sys.modules); import keras_sawtooth;"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    # Keras does not load all of a backend.
    own = {"keras_sawtooth", keras.backend.backend()}
    assert set(output.stdout.split()) <= own | set(sys.stdlib_module_names)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="NumPy's needs JAX")
def test_another_backend_is_refused():
    output = subprocess.run(
        [sys.executable, "-c", "import keras_sawtooth"],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
    )
    assert output.returncode == 1
    assert "set the environment variable KERAS_BACKEND" in output.stderr
    assert "Received: 'numpy'" in output.stderr


# `presets` is plain data.
@pytest.mark.parametrize("name", sorted({*ks.__all__} - {"presets"}))
def test_every_public_name_is_documented(name):
    item = getattr(ks, name)
    assert len(item.__doc__.split("\n\n")) > 1
    if name not in ("LinearRegions",):
        assert ">>>" in item.__doc__
        assert "Args:" in item.__doc__


def test_the_readme_gives_the_command_that_ci_runs():
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^python3 .*$", readme, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("tox run -e demo")
    assert commands[1].endswith("tox run")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_no_backend_and_no_private_keras_inside_the_package():
    for path in (ROOT / "keras_sawtooth").rglob("*.py"):
        text = path.read_text()
        assert "keras.src" not in text
        if path.parent.name != "backend":
            imports = re.findall(r"^\s*(?:import|from) (\w+)", text, re.M)
            assert not {"tensorflow", "jax", "torch"} & {*imports}


# What Keras and torch have no public way for, and who depends on it.
PRIVATE_NAMES = {
    # Of torch: whether there are transforms like `torch.func.vmap`, or dual numbers.
    "_are_functorch_transforms_active": "backend/torch.py",
    "_current_level": "backend/torch.py",
    "_compile_config": "training/model_phase.py",
    # Of functions that are decorated with `tf.function`.
    "_descriptor_cache": "training/model_phase.py",
    "_exclude_from_weight_decay": "training/optimizer_state.py",
    "_exclude_from_weight_decay_pattern": "training/optimizer_state.py",
    "_flatten_layers": "nested_layers.py",
    "_inbound_nodes": "graphs.py",
    "_initial_epoch": "training/backup_and_restore.py",
    "_keras_history": "graphs.py",
    "_torch_params": "nested_layers.py",
    "_track_variable": "layer_phase.py",
    "_track_variables": "nested_layers.py",
    "_tracker": "layer_phase.py",
    # Of one optimizer: `variables` has those of the optimizers inside of it, too.
    "_trainable_variables": "training/optimizer_state.py",
    "_untrack_variable": "layer_phase.py",
    "_use_weight_decay": "training/optimizer_state.py",
    "_var_key": "training/optimizer_state.py",
    "_variables": "training/optimizer_state.py",
}


def test_private_names_of_others_are_listed():
    package = ROOT / "keras_sawtooth"
    texts = {
        path.relative_to(package).as_posix(): path.read_text()
        for path in package.rglob("*.py")
    }
    own = {"_fields", "_replace"}  # Of named tuples.
    for text in texts.values():
        own.update(re.findall(r"^\s*def (_\w+)", text, re.M))
        own.update(re.findall(r"^(?:\s*self\.)?(_\w+)(?= =)", text, re.M))
    found = {
        (name, path)
        for path, text in texts.items()
        for name in re.findall(r"[.\"](_[a-z]\w+)", text)
        if name not in own
    }
    assert found == set(PRIVATE_NAMES.items())


NAN, INFINITY = float("nan"), float("inf")
BAD_ARGUMENTS = [
    ("depth", [0, -1, True, 2.0, "3", None, 25, 10**9]),
    (
        "domain",
        [
            *[(0, 0), (1, -1), (0, NAN), (-INFINITY, 0), (0,), (0, 1, 2), 3],
            *[None, "ab", "12", (False, True), (-1e308, 1e308)],
            # No numbers of float32 are between them.
            *[(0, 1e-40), (1e8, 1e8 + 1)],
        ],
    ),
    ("scales", ["loose", None, 1, True]),
    ("constrained", [1, None, "yes"]),
    ("margin", [0, 1e-8, 0.5, -0.1, 1, NAN, "0.1", True, None]),
    ("relu_rate", [0, -1.0, 1e39, NAN, INFINITY, "1", None]),
]
CASES = [(name, value) for name, values in BAD_ARGUMENTS for value in values]


@pytest.mark.parametrize("name, value", CASES)
def test_bad_arguments_are_quoted(name, value):
    message = re.escape(f"{name}={value!r}")
    with pytest.raises(ValueError, match=message):
        ks.RegionConstraint(**{name: value})
    with pytest.raises(ValueError, match=message):
        ks.SawtoothDense(2, **{name: value})


@pytest.mark.parametrize("units", [0, -1, True, 2.0, "3", None])
def test_bad_units_are_quoted(units):
    with pytest.raises(ValueError, match=re.escape(f"units={units!r}")):
        ks.SawtoothDense(units)


def test_numpy_numbers_are_numbers():
    layer = ks.RegionConstraint(
        depth=np.int64(2), margin=np.float32(0.125), domain=(np.float64(0), 1)
    )
    config = layer.get_config()
    assert type(config["depth"]) is int and type(config["margin"]) is float
    assert config["domain"] == (0.0, 1.0)
    assert ks.RegionConstraint(constrained=np.bool_(False)).constrained is False
    assert ks.ReleaseConstraints(epoch=np.int64(3)).epoch == 3


def test_unknown_arguments_are_refused():
    with pytest.raises((TypeError, ValueError), match="dept"):
        ks.SawtoothDense(2, dept=3)
    with pytest.raises((TypeError, ValueError), match="dept"):
        ks.RegionConstraint(dept=3)


def test_an_activation_in_the_place_of_the_depth():
    with pytest.raises(ValueError, match=r"needs no activation.*depth='relu'"):
        ks.SawtoothDense(64, "relu")
    with pytest.raises(ValueError, match=r"needs no activation.*depth=<function relu"):
        ks.SawtoothDense(64, keras.activations.relu)


def test_a_class_in_the_place_of_a_layer():
    layer = keras.layers.Dense(4, activation=ks.RegionConstraint)
    with pytest.raises(TypeError, match=r"activation=RegionConstraint\(\)"):
        layer(np.zeros((2, 3)))
    with pytest.raises(TypeError, match=r"RegionConstraint\(\)\(x\)"):
        ks.RegionConstraint(keras.Input((3,)))


@pytest.mark.parametrize("cls", [ks.RegionConstraint, lambda: ks.SawtoothDense(2)])
def test_bad_inputs(cls):
    with pytest.raises(ValueError, match=r"min_ndim=2|at least 2"):
        cls()(np.zeros(3))
    with pytest.raises((ValueError, TypeError), match=r"None|known"):
        cls()(keras.Input((4, None)))
    layer = cls()
    layer(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="axis -1"):
        layer(np.zeros((2, 4)))


@pytest.mark.parametrize("arguments", [{"value": "a"}, {"value": NAN}, {"value": None}])
def test_bad_arguments_of_random_sign(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        ks.RandomSign(**arguments)


@pytest.mark.parametrize("name", ["peak", "amplitude", "slope", "tail"])
def test_a_number_is_no_initializer(name):
    with pytest.raises(ValueError, match="Could not interpret initializer"):
        ks.RegionConstraint(**{f"{name}_initializer": 0})


def test_a_bad_region_trainable_is_quoted():
    with pytest.raises(ValueError, match="region_trainable=1"):
        ks.SawtoothDense(2, region_trainable=1)
