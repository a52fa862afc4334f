"""Results of training runs: stored one by one, so that a killed benchmark goes on."""

import argparse
import atexit
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
from files import read_results
from files import write_whole

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "images"
VERSIONS = ("backend", "numpy", "keras")


class Runs:
    """A JSON file of results; what stands in it is not computed again.

    Example: `runs(train, set="energy", rate=0.01)` calls
    `train(set="energy", rate=0.01)`, which returns a dict of numbers and lists, and
    files it under "set=energy rate=0.01", with its seconds.

    Args:
        path: where the file is or will be.
        quick: bool. Whether the runs are tiny ones, which is part of the recipe.
        **recipe: what all runs have in common and changes their results, as numbers,
            strings, lists and dicts. A file with another recipe is refused.
    """

    def __init__(self, path, quick=False, **recipe):
        self.path = Path(path)
        if quick:
            recipe["quick"] = True
        now = about()
        self.results = {"about": now | recipe, "runs": {}}
        if self.path.exists():
            self.results = read_results(self.path, "about", "runs")
        found = self.results["about"]
        for name in sorted(recipe.keys() | found.keys() - now.keys()):
            if found.get(name) != recipe.get(name):
                raise ValueError(
                    f"{self.path} has results for {name}={found.get(name)!r}, and this "
                    f"run has {recipe.get(name)!r}. Move the file away, or give "
                    f"another --output."
                )
        # A file may have a backend without its version, or no version at all.
        self.other_versions = [
            f"{name} {found[name]}, now {now[name]}"
            for name in VERSIONS
            if found.get(name, now[name]) not in (now[name], now[name].split()[0])
        ]

    def __call__(self, train, **settings):
        key = " ".join(f"{name}={value}" for name, value in settings.items())
        runs = self.results["runs"]
        if key not in runs:
            if self.other_versions:
                print(f"{self.path} was begun with {'; '.join(self.other_versions)}")
                self.other_versions = []
            print(f"{len(runs) + 1:4}  {key}", end="", flush=True)
            started = time.perf_counter()
            result = train(**settings)
            seconds = round(time.perf_counter() - started, 1)
            runs[key] = {**result, "seconds": seconds}
            self.write()
            print(f"  {seconds} s", flush=True)
        return runs[key]

    def write(self):
        # A line a run.
        lines = [
            f"  {json.dumps(key)}: {json.dumps(run)}"
            for key, run in self.results["runs"].items()
        ]
        about = json.dumps(self.results["about"])
        text = ",\n".join(lines)
        text = f'{{"about": {about},\n "runs": {{\n{text}\n }}}}\n'
        write_whole(self.path, text)


def fields(key):
    """The settings in a key of `Runs`: `row=tied scales rate=0.01` as a dict."""
    parts = key.split("=")
    names = [parts[0], *(part.rsplit(" ", 1)[1] for part in parts[1:-1])]
    values = [*(part.rsplit(" ", 1)[0] for part in parts[1:-1]), parts[-1]]
    return dict(zip(names, values, strict=True))


def select(runs, **settings):
    """The runs with these settings, and maybe more: pairs of `fields` and result."""
    wanted = {name: str(value) for name, value in settings.items()}.items()
    found = [(fields(key), run) for key, run in runs.items()]
    return [(settings, run) for settings, run in found if wanted <= settings.items()]


def least(candidates, error):
    """The candidate with the least `error(candidate)`; one with NaN comes last."""
    return min(candidates, key=lambda c: np.nan_to_num(error(c), nan=np.inf))


def typical(errors):
    """The logarithm of the geometric mean, which single failures do not decide."""
    return np.mean(np.log(errors))


def about():
    backend = keras.backend.backend()
    # Not the package's version: TensorFlow comes in packages of several names.
    version = import_module(backend).__version__
    return {
        "backend": f"{backend} {version}",
        "numpy": np.__version__,
        "keras": keras.version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


class Progress(keras.callbacks.Callback):
    """The epochs of the current run, behind its name, where a terminal looks on."""

    def on_epoch_begin(self, epoch, logs=None):
        if sys.stdout.isatty() and epoch % 20 == 0:
            text = f"  epoch {epoch} of {self.params['epochs']}"
            print(text + "\b" * len(text), end="", flush=True)


def parse_arguments(documentation, output, add_arguments=None):
    """The arguments all benchmarks share: where results and pictures go, `--quick`.

    Args:
        documentation: str, of the benchmark.
        output: str. The file or folder of its results, in benchmarks/results.
        add_arguments: function of the parser.
    """
    parser = argparse.ArgumentParser(
        description=documentation,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny runs, kept only in an --output"
    )
    parser.add_argument(
        "--output", type=Path, help=f"of results (benchmarks/results/{output})"
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        help="folder of pictures (docs/images, or that of a given --output)",
    )
    if add_arguments:
        add_arguments(parser)
    arguments = parser.parse_args()
    folder = RESULTS
    if arguments.quick and arguments.output is None:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder)
    # Only the recorded results have their pictures in the documentation.
    elsewhere = arguments.quick or arguments.output is not None
    arguments.output = arguments.output or folder / output
    if arguments.pictures is None:
        arguments.pictures = arguments.output.parent if elsewhere else PICTURES
    return arguments
