"""Damaged and foreign files: an error that says so, and the model as it was.

A flipped bit may also leave the file as good as it was (unused bytes, time stamps).
Then the model must load to exactly what was saved.
"""

import functools
import io
import json
import pathlib
import tempfile
import zipfile

import h5py
import keras
import numpy as np
import pytest
from backend import to_numpy
from keras import layers
from models import PHASES
from models import assert_same_state
from models import continue_training
from models import phases
from models import state
from models import trained

import keras_sawtooth as ks
from keras_sawtooth.variable_shapes import variable_shapes

pytestmark = pytest.mark.workflow("hostile files")
each_phase = pytest.mark.parametrize("phase", PHASES)
REGION = "layers/region_constraint/vars"


def build(constrained=True):
    # Without a layer of Keras: those have no checksums.
    arguments = {"constrained": constrained, "use_bias": True}
    return keras.Sequential(
        [
            keras.Input((5,)),
            ks.RegionConstraint(depth=2, constrained=constrained),
            ks.SawtoothDense(4, depth=2, **arguments),
            ks.SawtoothDense(1, depth=1, **arguments),
        ]
    )


@functools.cache
def files(phase):
    """Contents of a good weights file and archive, and the state they hold."""
    model = trained(build, phase, keep=False)
    with tempfile.TemporaryDirectory() as directory:
        model.save_weights(f"{directory}/m.weights.h5")
        model.save(f"{directory}/m.keras")
        weights = pathlib.Path(directory, "m.weights.h5").read_bytes()
        archive = pathlib.Path(directory, "m.keras").read_bytes()
    return weights, archive, state(model)


@functools.cache
def victim(phase):
    model = trained(build, phase)
    return model, state(model)


def assert_refused(path, phase, message, model=None):
    model, before = victim(phase) if model is None else (model, state(model))
    variables = list(model.variables)
    with pytest.raises(ValueError, match=message) as error:
        ks.load_weights(model, path)
    assert str(path) in str(error.value)
    assert phases(model) == [phase] * 3
    assert all(a is b for a, b in zip(model.variables, variables, strict=True))
    assert_same_state(model, before, atol=0)


def edit(path, content, change):
    """Write `content`, an HDF5 file, with a change of its arrays."""
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


# Every variable of every layer, made wrong

DENSE = "layers/sawtooth_dense/vars"
GROUPS = [
    REGION,
    DENSE,
    "layers/sawtooth_dense/region_constraint/vars",
    "layers/sawtooth_dense_1/region_constraint/vars",
]
NAMES = {p: list(variable_shapes(p == "constrained", 3, 1)) for p in PHASES}
CASES = [
    (phase, group, name)
    for phase in PHASES
    for group in GROUPS
    for name in (["0", "1"] if group is DENSE else NAMES[phase])
    # At depth 1 there is one block and nothing between blocks.
    if not (group is GROUPS[-1] and name in ("relu_kernel", "relu_bias"))
]


def replaced(group, name, make):
    def change(file):
        value = file[group][name][()]
        del file[group][name]
        new = make(value)
        if new is not None:
            file[group][name] = new

    return change


WRONG = {
    "missing": (lambda v: None, r"expect|variables"),
    "shape": (lambda v: np.zeros((*v.shape, 2), "float32"), "expect|checksum"),
    "transposed": (lambda v: np.zeros((*v.shape[::-1], 1)), "expect|checksum"),
    "values": (lambda v: v + np.float32(1), "checksum"),
    "NaN": (lambda v: np.where(v == v.max(), np.nan, v), "NaN or infinite"),
    "infinite": (lambda v: np.where(v == v.max(), -np.inf, v), "NaN or infinite"),
    "text": (lambda v: "kernel", "cannot be read as numbers"),
    "complex": (lambda v: v.astype("complex64"), "cannot be read as numbers"),
    "integers": (lambda v: (v + 1).astype("int32"), "checksum"),
    "empty": (lambda v: v[:0], "expect|checksum"),
}
# The layers read their variables alike: behind the first, three ways will do.
WRONG_CASES = [
    (*case, wrong)
    for case in CASES
    for wrong in WRONG
    if case[1] == REGION or wrong in ("missing", "shape", "NaN")
]


# As outside of these tests, where NumPy warns of what it drops and goes on.
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize(("phase", "group", "name", "wrong"), WRONG_CASES)
def test_a_wrong_variable(phase, group, name, wrong, tmp_path):
    make, message = WRONG[wrong]
    path = edit(tmp_path / "m.weights.h5", files(phase)[0], replaced(group, name, make))
    assert_refused(path, phase, message)


@each_phase
@pytest.mark.parametrize("group", GROUPS)
def test_an_extra_variable(group, phase, tmp_path):
    def change(file):
        file[group]["extra"] = np.zeros(4)

    path = edit(tmp_path / "m.weights.h5", files(phase)[0], change)
    assert_refused(path, phase, "extra|checksum")


@each_phase
@pytest.mark.parametrize("group", GROUPS)
def test_a_missing_layer(group, phase, tmp_path):
    def change(file):
        del file[group]

    path = edit(tmp_path / "m.weights.h5", files(phase)[0], change)
    assert_refused(path, phase, r"expect|variables")


@each_phase
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_are_not_followed(kind, phase, tmp_path):
    def change(file):
        del file[REGION]["slope"]
        file[REGION]["slope"] = (
            h5py.SoftLink(f"/{REGION}/amplitude")
            if kind == "soft"
            else h5py.ExternalLink("other.h5", "/slope")
        )

    path = edit(tmp_path / "m.weights.h5", files(phase)[0], change)
    assert_refused(path, phase, "cannot be read.*Not allowed")


@each_phase
def test_a_shape_that_no_memory_holds(phase, tmp_path):
    def change(file):
        del file[REGION]["slope"]
        file[REGION].create_dataset("slope", (10**12, 5), "f4", chunks=(1024, 5))

    path = edit(tmp_path / "m.weights.h5", files(phase)[0], change)
    assert_refused(path, phase, "cannot be read.*bomb")


# Damaged bytes


@each_phase
@pytest.mark.parametrize("share", np.linspace(0, 0.999, 13).round(3).tolist())
def test_a_truncated_file(share, phase, tmp_path):
    weights, archive, _ = files(phase)
    path = tmp_path / "m.weights.h5"
    path.write_bytes(weights[: int(share * len(weights))])
    assert_refused(path, phase, "cannot be loaded")
    path = tmp_path / "m.keras"
    path.write_bytes(archive[: int(share * len(archive))])
    assert_refused(path, phase, "cannot be loaded")
    with pytest.raises(Exception, match=r"."):
        keras.saving.load_model(path)


def flipped(content, position, bit):
    content = bytearray(content)
    content[position] ^= 1 << bit
    return bytes(content)


def positions(content, count, seed):
    rng = np.random.default_rng(seed)
    return [
        (int(p), int(b))
        for p, b in zip(
            rng.integers(0, len(content), count), rng.integers(0, 8, count), strict=True
        )
    ]


def assert_refused_or_the_same(model, path, good):
    before = state(model)
    try:
        ks.load_weights(model, path)
    except ValueError as error:
        assert "cannot be loaded" in str(error)
        assert_same_state(model, before, atol=0)
        return True
    assert_same_state(model, good, atol=0)
    return False


@each_phase
def test_a_flipped_bit_in_the_numbers_of_a_layer(phase, tmp_path, record_property):
    """The numbers of every layer are found in the file by their bytes."""
    weights, _, good = files(phase)
    path = tmp_path / "m.weights.h5"
    model, _ = victim(phase)
    cases = 0
    for name, value in good:
        content = np.asarray(value, "float32").tobytes()
        start = weights.find(content)
        assert start >= 0, name
        for position, bit in positions(content, 4, cases):
            path.write_bytes(flipped(weights, start + position, bit))
            refused = assert_refused_or_the_same(model, path, good)
            assert refused, (name, position, bit)
            cases += 1
    assert cases >= 40
    record_property("cases", cases)


@each_phase
@pytest.mark.parametrize("kind", ["weights", "archive"])
def test_flipped_bits_anywhere(kind, phase, tmp_path, record_property):
    record_property("cases", 60)
    weights, archive, good = files(phase)
    model = build(constrained=phase == "constrained")
    content = weights if kind == "weights" else archive
    path = tmp_path / ("m.weights.h5" if kind == "weights" else "m.keras")
    for position, bit in positions(content, 60, 7):
        path.write_bytes(flipped(content, position, bit))
        assert_refused_or_the_same(model, path, good)


# Other files


def of_another_class(directory):
    other = keras.Sequential([keras.Input((5,)), layers.Dense(4), layers.PReLU()])
    other.save_weights(directory / "m.weights.h5")
    return "m.weights.h5"


def of_another_depth(directory):
    other = keras.Sequential(
        [
            keras.Input((5,)),
            ks.RegionConstraint(depth=4),
            ks.SawtoothDense(4, depth=2),
            ks.SawtoothDense(1, depth=1),
        ]
    )
    other.save_weights(directory / "m.weights.h5")
    return "m.weights.h5"


def of_another_width(directory):
    other = keras.Sequential(
        [
            keras.Input((5,)),
            ks.RegionConstraint(depth=2),
            ks.SawtoothDense(7, depth=2),
            ks.SawtoothDense(1, depth=1),
        ]
    )
    other.save_weights(directory / "m.weights.h5")
    return "m.weights.h5"


def no_hdf5(directory):
    (directory / "m.weights.h5").write_text("weights")
    return "m.weights.h5"


def empty(directory):
    (directory / "m.weights.h5").write_bytes(b"")
    return "m.weights.h5"


def a_directory(directory):
    (directory / "m.weights.h5").mkdir()
    return "m.weights.h5"


def no_archive(directory):
    (directory / "m.keras").write_bytes(b"PK\x03\x04 and no more")
    return "m.keras"


def archive_without_weights(directory):
    with zipfile.ZipFile(directory / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    return "m.keras"


def no_shards(directory):
    (directory / "m.weights.json").write_text(json.dumps({"weight_map": {}}))
    return "m.weights.json"


def no_json(directory):
    (directory / "m.weights.json").write_text("{")
    return "m.weights.json"


def wrong_ending(directory):
    (directory / "m.txt").write_text("weights")
    return "m.txt"


FOREIGN = [
    (of_another_class, "expects the variables"),
    (of_another_depth, "expects the variables"),
    (of_another_width, "shape|expects the variables"),
    (no_hdf5, "file signature not found"),
    (empty, "file signature not found"),
    (a_directory, "Is a directory"),
    (no_archive, "not a zip file"),
    (archive_without_weights, "no item named 'model.weights.h5'"),
    (no_shards, "m_00000.weights.h5'.*No such file"),
    (no_json, "Expecting property name"),
    (wrong_ending, "File format not supported"),
]


@each_phase
@pytest.mark.parametrize(("write", "message"), FOREIGN)
def test_another_file(write, message, phase, tmp_path):
    path = tmp_path / write(tmp_path)
    assert_refused(path, phase, message)


def test_nan_in_a_layer_of_keras_is_refused_too(tmp_path):
    def build(constrained=True):
        return keras.Sequential(
            [
                keras.Input((5,)),
                *(ks.RegionConstraint(constrained=constrained) for _ in range(3)),
                layers.Dense(1),
            ]
        )

    model = trained(build, "constrained")
    weights = model.get_weights()
    model.save_weights(tmp_path / "m.weights.h5")

    def change(file):
        file["layers/dense/vars/0"][0] = np.nan

    path = tmp_path / "m.weights.h5"
    edit(path, path.read_bytes(), change)
    assert_refused(path, "constrained", "holds NaN values", model)
    for value, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(value, before)


def test_the_optimizers_state_is_part_of_the_transaction(tmp_path):
    """The layers are released already when the optimizer's state turns out bad."""
    source = trained(build, "released")
    source.save_weights(tmp_path / "m.weights.h5")

    def change(file):
        del file["optimizer/vars/5"]
        file["optimizer/vars/5"] = np.zeros((99, 3))

    path = tmp_path / "m.weights.h5"
    edit(path, path.read_bytes(), change)
    model = trained(build, "constrained")
    optimizer = model.optimizer
    assert_refused(path, "constrained", "cannot be loaded", model)
    assert model.optimizer is optimizer
    twin = trained(build, "constrained")
    twin.set_weights(model.get_weights())
    twin.optimizer.load_own_variables(
        {str(i): to_numpy(v.value) for i, v in enumerate(optimizer.variables)}
    )
    for m in (model, twin):
        continue_training(m)
    assert_same_state(model, twin)


@each_phase
def test_a_damaged_model_is_refused_as_a_whole(phase, tmp_path, record_property):
    """`load_model` raises; it never returns a model with half of its weights."""
    record_property("cases", 40)
    _, archive, good = files(phase)
    path = tmp_path / "m.keras"
    for position, bit in positions(archive, 40, 3):
        path.write_bytes(flipped(archive, position, bit))
        try:
            model = keras.saving.load_model(path)
        except Exception as error:
            assert str(error)
            continue
        assert_same_state(model, good, atol=0)


def test_safe_mode_stays_on(tmp_path):
    """A lambda in the place of an initializer is no way to run code."""
    _, archive, _ = files("constrained")
    path, ran = tmp_path / "m.keras", str(tmp_path / "ran")
    with pytest.warns(UserWarning, match="includes a `lambda`"):
        code = keras.saving.serialize_keras_object(
            lambda shape, dtype=None: __import__("pathlib").Path(ran).touch()
        )
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["layers"][1]["config"]["peak_initializer"] = code
                content = json.dumps(config)
            target.writestr(name, content)
    with pytest.raises((TypeError, ValueError), match="lambda"):
        keras.saving.load_model(path)
    assert not pathlib.Path(ran).exists()
