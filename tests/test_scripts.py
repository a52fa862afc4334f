"""The demo and the benchmarks run; their figures are nobody's business here."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
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


@on_one_backend
def test_recipe_after_a_convolution():
    code = code_by_heading(ROOT / "docs" / "recipes.md")
    names = {"keras": keras, "ks": ks}
    exec(code["After a convolution, or any other layer", ""], names)
    assert names["model"].predict(np.zeros((2, 24, 1)), verbose=0).shape == (2, 1)


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
def benchmarks(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module


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


def test_tables_that_had_no_part_in_the_choices(tmp_path, benchmarks):
    pytest.importorskip("sklearn")
    assert "ishigami: 1000 rows, 3 features" in run(
        "benchmarks/make_tables.py", tmp_path
    )
    make_tables, tabular = benchmarks("make_tables"), benchmarks("tabular")
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


def test_results_of_another_recipe_are_refused(tmp_path, benchmarks):
    runs = benchmarks("runs").Runs
    path = tmp_path / "results.json"
    runs(path, data="a")(lambda **_: {}, rate=1)
    assert list(runs(path, data="a").results["runs"]) == ["rate=1"]
    with pytest.raises(ValueError, match="data='a', and this run has 'b'"):
        runs(path, data="b")
    with pytest.raises(ValueError, match="quick=None, and this run has True"):
        runs(path, quick=True, data="a")


@pytest.mark.parametrize("text", ['{"about": {}, "ru', "[]", "{}", "\xff"])
def test_damaged_results_are_named(text, tmp_path, benchmarks):
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"results.json is damaged.*Mend it, or delete"
    ):
        benchmarks("runs").Runs(path)
    assert path.read_bytes() == text.encode("latin-1")


def test_other_versions_are_told_when_a_file_is_continued(tmp_path, benchmarks, capsys):
    runs = benchmarks("runs")
    path = tmp_path / "results.json"
    # Old files have the backend alone.
    old = runs.about() | {"keras": "3.1", "backend": BACKEND}
    path.write_text(json.dumps({"about": old, "runs": {"rate=1": {}}}))
    found = runs.Runs(path)
    found(dict, rate=1)
    assert capsys.readouterr().out == ""
    for rate in (2, 3):
        found(lambda **_: {}, rate=rate)
    output = capsys.readouterr().out
    assert output.count("was begun with keras 3.1, now ") == 1
    assert "backend" not in output


@pytest.mark.parametrize(
    "arguments, results, pictures",
    [
        ([], "benchmarks/results/name.json", "docs/images"),
        (["--output", "a/b.json"], "a/b.json", "a"),
        (["--output", "a/b.json", "--quick"], "a/b.json", "a"),
        (["--output", "a/b.json", "--pictures", "c"], "a/b.json", "c"),
    ],
)
def test_where_results_and_pictures_go(
    arguments, results, pictures, benchmarks, monkeypatch
):
    monkeypatch.setattr("sys.argv", ["name.py", *arguments])
    found = benchmarks("runs").parse_arguments("Title.", "name.json")
    # Relative to the working folder, or to the repository if nothing is given.
    assert (ROOT / found.output) == ROOT / results
    assert (ROOT / found.pictures) == ROOT / pictures


@pytest.mark.parametrize(
    "name",
    [
        *("ablations", "digits", "images", "make_tables", "own_functions"),
        *("paper_1d", "paper_2d", "release", "speed", "uci"),
    ],
)
def test_help(name, benchmarks, monkeypatch):
    if name == "make_tables":
        pytest.importorskip("sklearn")

    def parse(parser):
        assert all(action.help for action in parser._actions)
        sys.exit(parser.format_help())

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    module = benchmarks(name)
    with pytest.raises(SystemExit) as found:
        module.main()
    assert module.__doc__.strip() in str(found.value)


def test_tiny_runs_leave_nothing_behind(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "sys.path.insert(0, 'benchmarks')\n"
        "sys.argv = ['name.py', '--quick']\n"
        "import runs\n"
        "found = runs.parse_arguments('Title.', 'name.json')\n"
        "runs.Runs(found.output, found.quick)(lambda **_: {}, rate=1)\n"
        "assert found.output.exists() and found.pictures == found.output.parent\n"
        "print(found.pictures)"
    )
    assert not Path(run(program).splitlines()[-1]).exists()


def test_rates_without_an_error_are_not_chosen(benchmarks):
    nan = float("nan")
    for module, task, judged in (
        (benchmarks("paper_1d_report"), {"task": "dense"}, "train"),
        (benchmarks("paper_2d_report"), {"problem": "cubic"}, "train"),
    ):
        (task,) = task.items()
        found = {
            f"{task[0]}={task[1]} row=He rate={rate}": {judged: errors}
            for rate, errors in {0.1: [nan, 1.0], 0.2: [2.0, 3.0]}.items()
        }
        assert float(module.chosen(found, task[1], "He")[0]) == 0.2


def test_splits_that_decide_a_mean_are_named(benchmarks):
    nan, inf = float("nan"), float("inf")
    found = {
        ("relu", 1): {"rmse": [1.0, 1.1, 0.9]},
        ("gelu", 1): {"rmse": [1.0, nan, 9.0, 1.1, inf]},
        ("prelu", 2): {"rmse": [nan, nan]},
    }
    assert benchmarks("uci").outliers(found).split("\n\n") == [
        "\n1 of gelu: no finite error on split 1, 4.",
        "1 of gelu: split 2 has 9, the median of the splits is 1.1.",
        "2 of prelu: no finite error on split 0, 1.\n",
    ]


def test_results_on_other_images_are_refused(benchmarks):
    images = benchmarks("images")
    data = images.generate()
    checksum = images.checksum(data)
    assert checksum == images.checksum(images.generate())
    data[0][0, 0, 0, 0] += 1
    assert checksum != images.checksum(data)


@pytest.mark.parametrize(
    "expression, values",
    [
        ("x > 0.5", [0, 0, 1]),
        ("2 + 0 * floor(x).astype(int)", [2, 2, 2]),
        ("where(x > 0, sin(x) / x, 1)", [1, np.sin(0.25) / 0.25, np.sin(1)]),
        ("exp(-10000 * x)", [1, 0, 0]),
    ],
)
def test_functions_of_your_own(expression, values, benchmarks):
    function = benchmarks("own_functions").parse(expression)
    y = function(np.array([0, 0.25, 1]))
    assert y.dtype == "float64"
    np.testing.assert_allclose(y, values)


@pytest.mark.parametrize(
    "expression, message",
    [
        ("1 / x", "at x = 0 it is inf"),
        ("log(x - 0.5)", "at x = 0 it is nan"),
        ("1e20 * x**2", r"at x = 0.0\d+ it is 1.\d+e\+16, and must .* below 1e\+16"),
        ("x + 0j", "it is complex"),
        ("x[1:]", r"its shape is \(499,\)"),
        ("x +", "invalid syntax"),
    ],
)
def test_what_is_no_function_is_refused(expression, message, benchmarks):
    with pytest.raises(SystemExit, match=message):
        benchmarks("own_functions").parse(expression)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_nothing_is_set_beside_errors_that_are_rounding(benchmarks, monkeypatch):
    pytest.importorskip("scipy")
    own, paper = benchmarks("own_functions"), benchmarks("paper_1d")
    known = {text: own.parse(text) for text in ("0 * x", "0.1 + 3 * x", "x**2")}
    monkeypatch.setattr(paper, "KNOWN_FUNCTIONS", known)
    errors = {name: paper.floor(name, 4)["error"] for name in known}
    best = [own.beyond_rounding(error, name) for name, error in errors.items()]
    assert best[:2] == [0, 0]
    # Of the best line on a quarter of [0, 1].
    assert best[2] == pytest.approx(0.25**4 / 180, rel=0.05)


@pytest.mark.parametrize("sets", [["--sets", "line", "circle"], []])
def test_sets_that_are_not_there_are_named(sets, data_dir, benchmarks, monkeypatch):
    folder, missing = (data_dir, "circle") if sets else (data_dir / "line", "line")
    arguments = ["uci.py", "--data-dir", str(folder), *sets]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match=f"Not found: .*{missing}"):
        benchmarks("tabular").parse_arguments("Title.", "uci")


def test_other_sets_do_not_replace_pictures(data_dir, benchmarks, monkeypatch):
    tabular = benchmarks("tabular")

    def pictures(*arguments):
        arguments = ["uci.py", "--data-dir", data_dir, *arguments]
        monkeypatch.setattr("sys.argv", list(map(str, arguments)))
        return tabular.parse_arguments("Title.", "uci").pictures

    assert pictures() is None
    assert pictures("--pictures", "a") == Path("a")
    assert pictures("--output", "a/b", "--sets", "line") == Path("a")
    for name in tabular.DOCUMENTED:
        shutil.copytree(data_dir / "line", data_dir / name)
    assert pictures() is None
    assert pictures("--sets", *tabular.DOCUMENTED) == ROOT / "docs" / "images"


@pytest.mark.parametrize("name", ["uci", "ablations"])
def test_all_sets_are_checked_before_training(name, data_dir, benchmarks, monkeypatch):
    shutil.copytree(data_dir / "line", data_dir / "other")
    (data_dir / "other" / "test_rows.txt").write_text("99\n")
    module = benchmarks(name)
    monkeypatch.setattr(module, "run_set", lambda *_: pytest.fail("trained"))
    arguments = ["--data-dir", data_dir, "--output", data_dir / "results"]
    monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
    with pytest.raises(
        SystemExit, match="line 1: '99' must be one of the rows 0 to 39"
    ):
        module.main()
    # And their results.
    (data_dir / "other" / "test_rows.txt").write_text("9\n")
    benchmarks("runs").Runs(data_dir / "results" / "other.json", data="a").write()
    with pytest.raises(ValueError, match=r"other.json has results for"):
        module.main()


def test_fewer_splits_than_are_used_to_validate(data_dir, benchmarks):
    tabular = benchmarks("tabular")
    (data_dir / "line" / "test_rows.txt").write_text("0 5 9\n3.0 4e0\n\n")
    table = tabular.load(data_dir / "line")
    assert [list(rows) for rows in table.test_rows] == [[0, 5, 9], [3, 4]]
    trained, judged, deviations = tabular.validation_parts(table, 2)
    assert trained.x.shape == (31, 4, 2) and judged.x.shape == (7, 4, 2)
    assert len(deviations) == 4
    results = {
        "one": {"runs": {"argument=a value=1": {"rmse": [1.0, 1.0]}}},
        "two": {"runs": {"argument=a value=1": {"rmse": [1.0, 1.0, 1.0, 1.0]}}},
    }
    for result in results.values():
        first = result["runs"]["argument=a value=1"]["rmse"]
        result["runs"]["argument=a value=2"] = {"rmse": [2 * e for e in first]}
    report = benchmarks("ablations").report(results, {"a": ((1, 2), None)}, {})
    assert "| 2 | 2.0000 | 2.0000 | +69.3 ± 0.0 % |" in report


def test_only_columns_of_equal_values_are_constant(benchmarks):
    rng = np.random.default_rng(0)
    columns = [np.full(40, 0.1), 1e6 + 1e-4 * rng.normal(size=40), np.full(40, 1e-200)]
    columns[2][0] = 2e-200
    deviations = benchmarks("tabular").deviation(np.stack(columns, axis=1))
    assert deviations[0] == 1 and deviations[2] == 1
    assert deviations[1] == pytest.approx(1e-4, rel=0.3)


ROWS = 6 * "1,2\n"


@pytest.mark.parametrize(
    "data, splits, message",
    [
        ("x,y\n" + ROWS, "0\n1 6", "rows.txt, line 2: '6' must be .* rows 0 to 5"),
        ("x,y\n" + ROWS, "0.5", "line 1: '0.5' must be one of the rows"),
        ("x,y\n" + ROWS, "0,1", "line 1: '0,1' must be one of .* with spaces"),
        ("x,y\n" + ROWS, "nan inf", "line 1: 'nan' must be one of the rows"),
        ("x,y\n" + ROWS, "0 0", "line 1: row 0 must be there once only"),
        ("x,y\n" + ROWS, "0 1", "2 of 6 rows, and must leave 5 to train on"),
        ("x,y\n" + ROWS, "0\n\n1\n", "rows.txt, line 2: it is empty"),
        ("x,y\n" + ROWS, "", "rows.txt, line 1: it is empty"),
        ("x,y\n1,2\n\n" + ROWS, "0", "data.csv, line 3: it is empty"),
        ("", "0", "data.csv, line 1: it is empty"),
        ("x,y\n", "0", "must have rows of numbers"),
        (ROWS, "0", "line 1: '1,2' must be the names"),
        ("x\n1\n", "0", "line 1: 'x' must be the names of at least one feature"),
        ("x;y\n1;2\n", "0", "line 1: 'x;y' must be .* with commas"),
        ("x,y\n1;2\n", "0", "line 2: '1;2' must be 2 numbers with commas .* is 1"),
        ("x,y\n" + ROWS + "1,2,3\n", "0", "line 8: '1,2,3' must be 2 .* is 3"),
        ("x,y\n#1,2\n" + ROWS, "0", "line 2, column 'x': '#1' must be a number"),
        ('x,y\n"1",2\n', "0", "line 2, column 'x': '\"1\"' must .* without quotes"),
        ("x,y\n1,2\n1,\n", "0", "line 3, column 'y': '' must be a number"),
        ("x,y\n1,2\nnan,4\n", "0", "line 3, column 'x': 'nan' must .* finite"),
        ("x,y\n1,1e160\n" + ROWS, "0", "line 2, column 'y': '1e160' .* below 1e\\+150"),
        ("\xff\xfe", "0", "data.csv is not to be read as text in UTF-8"),
    ],
)
def test_tables_that_cannot_be_trained_on_are_refused(
    data, splits, message, tmp_path, benchmarks
):
    (tmp_path / "data.csv").write_bytes(data.encode("latin-1"))
    (tmp_path / "test_rows.txt").write_text(splits)
    with pytest.raises(SystemExit, match=message):
        benchmarks("tabular").load(tmp_path)
