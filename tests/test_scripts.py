"""The demo and the benchmarks run; their figures are nobody's business here."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]


def run(script, *arguments):
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_demo(tmp_path):
    output = run("examples/energy.py", "--epochs", 2, "--out", tmp_path)
    assert "test RMSE" in output and "release epoch" in output
    pictures = sorted(path.name for path in tmp_path.iterdir())
    assert pictures == ["energy_functions.png", "energy_training.png"]


@pytest.mark.parametrize(
    "name, problem", [("release", "energy"), ("regression", "friedman")]
)
def test_benchmark(name, problem):
    assert problem in run(f"benchmarks/{name}.py", "--quick")


@pytest.mark.long
def test_speed_benchmark(tmp_path):
    backend = keras.backend.backend()
    output = run(
        *("benchmarks/speed.py", "--quick", "--backends", backend),
        *("--output", tmp_path / "speed.json", "--pictures", tmp_path),
    )
    for section in ("layer", "peers", "startup"):
        assert f"## {section}, {backend}" in output
    again = run(
        *("benchmarks/speed.py", "--plot-only", "--backends", backend),
        *("--output", tmp_path / "speed.json", "--pictures", tmp_path),
    )
    assert again == output
