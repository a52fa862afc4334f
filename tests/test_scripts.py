"""The demo and the benchmarks run; their figures are nobody's business here."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from exports import code_by_heading

import keras_sawtooth as ks

ROOT = Path(__file__).parents[1]
BACKEND = keras.backend.backend()
on_one_backend = pytest.mark.skipif(
    BACKEND != "torch", reason="not about backends; XLA takes minutes"
)


def run(script, *arguments):
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@on_one_backend
def test_curve(tmp_path):
    output = run("examples/curve.py", "--epochs", 2, "--out", tmp_path)
    assert "SawtoothDense(16), released" in output
    assert [path.name for path in tmp_path.iterdir()] == ["curve_wave.png"]


@on_one_backend
@pytest.mark.parametrize(
    "recipe, features",
    [("A table of measurements", 3), ("A function of one variable", 1)],
)
def test_recipe(recipe, features):
    code = code_by_heading(ROOT / "docs" / "recipes.md")[recipe, ""]
    code, replaced = re.subn(r"4_000|(?<=epochs=)102", "1", code)
    assert replaced == 1
    rows = np.linspace(-1, 1, 8 * features).reshape(8, features)
    x = rows if features > 1 else rows[:, 0]
    names = {"keras": keras, "ks": ks, "np": np, "x": x, "y": np.sin(rows[:, 0])}
    exec(code, names)
    model = names["model"]
    assert int(model.optimizer.iterations) in (1, 100)
    assert np.isfinite(model.predict(rows, verbose=0)).all()


@pytest.mark.skipif(BACKEND == "jax", reason="the same Keras code as on TensorFlow")
def test_demo(tmp_path):
    output = run("examples/energy.py", "--epochs", 2, "--out", tmp_path)
    assert "test RMSE" in output and "release epoch" in output
    pictures = sorted(path.name for path in tmp_path.iterdir())
    assert pictures == ["energy_functions.png", "energy_training.png"]


@pytest.mark.skipif(
    BACKEND != "torch" and not find_spec("onnxruntime"),
    reason="its end needs onnxruntime, which tox' `hub` has",
)
def test_from_an_ordinary_classifier_to_onnx(tmp_path):
    output = run("examples/swap.py", "--epochs", 2, "--out", tmp_path)
    assert "SawtoothDense depth=3" in output
    assert "config.json, metadata.json, model.weights.h5" in output
    assert "in onnxruntime" in output or "No ONNX without" in output


@pytest.fixture
def data_dir(tmp_path):
    """A folder of sets like those of the UCI benchmarks."""
    folder = tmp_path / "line"
    folder.mkdir()
    x = np.linspace(0, 1, 40)
    table = np.stack([x, np.ones(40), 2 * x], axis=1)
    header = "x0,x1,y"
    np.savetxt(folder / "data.csv", table, "%g", ",", header=header, comments="")
    # Splits need not be of one size.
    (folder / "test_rows.txt").write_text("0 5 9\n3 4\n7 8 39\n")
    return tmp_path


@pytest.mark.skipif(BACKEND != "jax", reason="measures JAX alone")
def test_gpu_section_of_the_speed_benchmark(tmp_path):
    """Without a GPU: the section is told that there is one."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "sys.path.insert(0, 'benchmarks')\n"
        "import speed_programs, speed_report, speed_worker\n"
        "speed_programs.on_gpu = lambda: True\n"
        "print(speed_report.gpu('jax', speed_worker.gpu_section(1, True)))\n"
    )
    output = run(program)
    for part in ("mixed_bfloat16", "float32", "without kernels", "scaling"):
        assert part in output


@on_one_backend
@pytest.mark.parametrize(
    "name, printed",
    [
        ("ablations", "| he_normal |"),
        ("digits", "| cnn | sawtooth released |"),
        ("images", "| sawtooth released |"),
        ("own_functions", "| `exp(-3 * x)` | tied scales |"),
        ("paper_1d", "| tied scales |"),
        ("paper_2d", "| spirals | sawtooth released |"),
        ("release", "| energy |"),
        ("uci", "## line"),
    ],
)
def test_benchmark(name, printed, data_dir):
    arguments = ["--quick"]
    if name in ("ablations", "uci"):
        arguments += ["--data-dir", data_dir]
    if name == "own_functions":
        arguments += ["exp(-3 * x)"]
    assert printed in run(f"benchmarks/{name}.py", *arguments)


def test_tables_that_had_no_part_in_the_choices(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    assert "ishigami: 1000 rows, 3 features" in run(
        "benchmarks/make_tables.py", tmp_path
    )
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import make_tables
    import tabular

    found = {path.name: tabular.load(path) for path in tmp_path.iterdir()}
    assert len(found) == 6
    for table in found.values():
        assert np.std(table.x, axis=0).min() > 0 and np.std(table.y) > 0
        assert len(table.test_rows) == 20
        assert {len(set(rows)) for rows in table.test_rows} == {len(table.y) // 10}
    # Gramacy, Surrogates (2020): an unpainted wing.
    wing = 174, 252, 7.52, 0, 33.98, 0.672, 0.12, 3.795, 2004, 0
    assert make_tables.wing_weight(*wing) == pytest.approx(233.90840542)


@pytest.mark.parametrize(
    "backend",
    # Only JAX has all sections.
    [
        pytest.param(BACKEND, marks=[] if BACKEND == "jax" else pytest.mark.long),
    ],
)
def test_speed_benchmark(backend, tmp_path):
    output = run(
        *("benchmarks/speed.py", "--quick", "--backends", backend),
        *("--output", tmp_path / "speed.json", "--pictures", tmp_path),
    )
    sections = ["layer", "peers", "startup"]
    sections += ["growth", "vgg", "gpu"] if backend == "jax" else []
    for section in sections:
        assert f"## {section}, {backend}" in output
    again = run(
        *("benchmarks/speed.py", "--plot-only", "--backends", backend),
        *("--output", tmp_path / "speed.json", "--pictures", tmp_path),
    )
    assert again == output


def test_results_of_another_recipe_are_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from runs import Runs

    path = tmp_path / "results.json"
    Runs(path, data="a")(lambda **_: {}, rate=1)
    assert list(Runs(path, data="a").results["runs"]) == ["rate=1"]
    with pytest.raises(ValueError, match="data='a', and this run has 'b'"):
        Runs(path, data="b")


@pytest.mark.parametrize("sets", [["--sets", "line", "circle"], []])
def test_sets_that_are_not_there_are_named(sets, data_dir, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tabular

    folder, missing = (data_dir, "circle") if sets else (data_dir / "line", "line")
    arguments = ["uci.py", "--data-dir", str(folder), *sets]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match=f"Not found: .*{missing}"):
        tabular.parse_arguments("Title.", "uci")


@pytest.mark.parametrize(
    "data, split, message",
    [
        (6 * "1,2\n", "6", "must be some of the rows 0 to 5.*to 6"),
        (6 * "1,2\n", "0 0", "each once"),
        (6 * "1,2\n", "0.5", "must be some of the rows"),
        (6 * "1,2\n", "0 1", "leave 5 to train on"),
        (6 * "1,2\n", "", "at least one split"),
        (6 * "1,2\n", "0,1", "cannot be read"),
        (6 * "1;2\n", "0", "cannot be read"),
        (6 * "1\n", "0", "features, a target"),
        ("1,2\nnan,4\n" + 6 * "1,2\n", "0", "Row 1 of .*csv has a missing value"),
    ],
)
def test_tables_that_cannot_be_trained_on_are_refused(
    data, split, message, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import tabular

    (tmp_path / "data.csv").write_text("x,y\n" + data)
    (tmp_path / "test_rows.txt").write_text(split)
    with pytest.raises(SystemExit, match=message):
        tabular.load(tmp_path)
    (tmp_path / "data.csv").write_text(data)
    with pytest.raises(SystemExit, match=r"line of names|cannot be read"):
        tabular.load(tmp_path)
