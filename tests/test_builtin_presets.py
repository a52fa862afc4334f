"""The presets in the package: what is said of them is true of the files."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import reference

import keras_sawtooth as ks

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tools")]

from exact_error import count_pieces  # noqa: E402
from exact_error import extreme_errors  # noqa: E402
from exact_error import largest_error  # noqa: E402
from exact_error import vertices  # noqa: E402
from functions import FUNCTIONS  # noqa: E402
from functions import Function  # noqa: E402
from presets_table import table  # noqa: E402

DIRECTORY = ROOT / "keras_sawtooth" / "builtin_presets"
NAMES = sorted(ks.presets)


def predict(model, x):
    x = np.reshape(x, (len(x), -1)).astype("float32")
    return model.predict(x, batch_size=len(x), verbose=0)[:, 0].astype("float64")


def test_names():
    assert NAMES == sorted(f"sawtooth_{name}" for name in ["energy", *FUNCTIONS])


@pytest.mark.parametrize("name", NAMES)
def test_preset(name):
    files = list((DIRECTORY / name).iterdir())
    assert sorted(file.name for file in files) == [
        "config.json",
        "metadata.json",
        "model.weights.h5",
    ]
    assert sum(file.stat().st_size for file in files) < 200_000
    model, known = ks.from_preset(name), ks.presets[name]
    assert model.count_params() == known["parameters"]
    assert known["description"] and "tools/make_presets.py" in known["source"]
    assert not model.compiled
    assert all(v.trainable for layer in model.layers[1:] for v in layer.weights)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_largest_error(name):
    function, known = FUNCTIONS[name], ks.presets[f"sawtooth_{name}"]
    model = ks.from_preset(f"sawtooth_{name}")
    assert known["function"] == function.formula
    assert tuple(known["interval"]) == function.interval
    assert largest_error(model, function) == pytest.approx(known["max_error"], rel=1e-6)
    assert count_pieces(model, *function.interval) == known["pieces"]
    # The same of the float32 model, and by sampling. Points are rounded first.
    low, high = function.interval
    x = low + (high - low) * np.linspace(0, 1, 20_001) ** 4
    x = np.clip(np.union1d(x, low + high - x).astype("float32"), low, high)
    errors = np.abs(predict(model, x) - function.function(x.astype("float64")))
    assert errors.max() <= known["max_error"] + 1e-6
    assert errors.max() >= 0.9 * known["max_error"] - 1e-6


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exact_function(name):
    """Knots and values against plain NumPy, at a million points, and the model."""
    model = ks.from_preset(f"sawtooth_{name}")
    layer, head = model.layers
    region_constraint = layer.region_constraint
    low, high = FUNCTIONS[name].interval
    # Neither the ends nor the middle of sections only.
    x = np.sort(np.random.default_rng(0).uniform(low, high, 10**6 // layer.units))
    weights = {
        v.name: keras.ops.convert_to_numpy(v).astype("float64")
        for v in (*layer.weights, *region_constraint.weights)
    }
    z = x[:, None] * weights["kernel"] + weights["bias"]
    margin = region_constraint.margin
    peaks = margin + (1 - 2 * margin) / (1 + np.exp(-weights["peak_logits"]))
    scales = reference.tied_scales(weights["amplitude"], peaks)
    units = reference.sawtooth(z, peaks, scales, weights["slope"][None], (-2, 2))
    kernel, bias = (w.astype("float64") for w in head.get_weights())
    expected = (units @ kernel + bias)[:, 0]
    knots, values = vertices(model, low, high)
    assert knots[0] == low and knots[-1] == high
    np.testing.assert_allclose(
        np.interp(x, knots, values), expected, rtol=0, atol=1e-12
    )
    rounding = 1e-6 * max(1, np.abs(values).max())
    np.testing.assert_allclose(predict(model, x), expected, rtol=0, atol=rounding)
    sampled = np.abs(expected - FUNCTIONS[name].function(x)).max()
    assert sampled <= ks.presets[f"sawtooth_{name}"]["max_error"] + 1e-12


def test_extreme_errors():
    """Of chords of x^3, where they are known in closed form."""
    cube = Function("x^3", lambda x: x**3, lambda x: 3 * x**2, (-1, 2), (0,))
    # x - x^3 is extreme at +-3^-1/2; 7 x - 6 - x^3 on [1, 2] at (7 / 3)^1/2.
    lowest, highest = extreme_errors(np.array([-1.0, 1.0]), np.array([-1.0, 1.0]), cube)
    assert (lowest, highest) == pytest.approx((-2 / 27**0.5, 2 / 27**0.5), rel=1e-14)
    knots = np.array([-1.0, 1.0, 2.0])
    lowest, highest = extreme_errors(knots, knots**3, cube)
    assert lowest == pytest.approx(-2 / 27**0.5, rel=1e-14)
    assert highest == pytest.approx(14 / 3 * (7 / 3) ** 0.5 - 6, rel=1e-14)


def test_peaks_of_one_half_are_the_chords_of_the_square():
    knots, values = vertices(ks.from_preset("sawtooth_square"), -1, 1)
    np.testing.assert_allclose(knots, np.linspace(-1, 1, 257), atol=1e-15)
    np.testing.assert_allclose(values, knots**2 - 4.0**-8 / 2, atol=1e-15)


def test_energy():
    """As in the metadata: 154 rows that were not trained on."""
    known = ks.presets["sawtooth_energy"]
    rows = np.loadtxt(
        ROOT / "examples" / "data" / "energy.csv", delimiter=",", skiprows=1
    )
    rows = np.random.default_rng(0).permutation(rows)[:154]
    model = ks.from_preset("sawtooth_energy")
    errors = predict(model, rows[:, :-1]) - rows[:, -1]
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(known["test_rmse"], rel=1e-4)
    assert len(known["features"]) == model.input_shape[-1]
    assert not any(layer.constrained for layer in model.layers[1:3])


def test_the_table_in_the_docs_is_that_of_the_files():
    pages = (ROOT / "docs").glob("*.md")
    assert any(table(DIRECTORY) in page.read_text(encoding="utf-8") for page in pages)


def test_script(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "make_presets.py")]
    arguments = ["--quick", "square", "cube", "--out", str(tmp_path)]
    result = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "| `sawtooth_square` | x^2 |" in result.stdout
    assert "| `sawtooth_cube` | x^3 |" in result.stdout
    made = json.loads((tmp_path / "sawtooth_square" / "metadata.json").read_text())
    for name in ("max_error", "interval", "pieces", "function"):
        assert made[name] == ks.presets["sawtooth_square"][name]
