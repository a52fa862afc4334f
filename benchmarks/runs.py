"""Results of training runs: stored one by one, so that a killed benchmark goes on."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import keras
import numpy

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "images"


class Runs:
    """A JSON file of results; what stands in it is not computed again.

    Example: `runs(train, set="energy", rate=0.01)` calls
    `train(set="energy", rate=0.01)`, which returns a dict of numbers and lists, and
    files it under "set=energy rate=0.01", with its seconds.

    Args:
        path: where the file is or will be.
        **recipe: what all runs have in common and changes their results, as numbers,
            strings, lists and dicts. A file with another recipe is refused.
    """

    def __init__(self, path, **recipe):
        self.path = Path(path)
        self.results = {"about": about(), "runs": {}}
        if self.path.exists():
            self.results = json.loads(self.path.read_text())
        for name, value in recipe.items():
            found = self.results["about"].setdefault(name, value)
            if found != value:
                raise ValueError(
                    f"{self.path} has results for {name}={found!r}, and this run has "
                    f"{value!r}. Move the file away, or give another --output."
                )

    def __call__(self, train, **settings):
        key = " ".join(f"{name}={value}" for name, value in settings.items())
        runs = self.results["runs"]
        if key not in runs:
            print(f"{len(runs) + 1:4}  {key}", end="", flush=True)
            started = time.perf_counter()
            result = train(**settings)
            seconds = round(time.perf_counter() - started, 1)
            runs[key] = {**result, "seconds": seconds}
            self.write()
            print(f"  {seconds} s", flush=True)
        return runs[key]

    def write(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A line a run.
        lines = [
            f"  {json.dumps(key)}: {json.dumps(run)}"
            for key, run in self.results["runs"].items()
        ]
        about = json.dumps(self.results["about"])
        text = ",\n".join(lines)
        # A kill while writing must not take the earlier results along.
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(f'{{"about": {about},\n "runs": {{\n{text}\n }}}}\n')
        unfinished.replace(self.path)


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


def about():
    backend = keras.backend.backend()
    # Not the package's version: TensorFlow comes in packages of several names.
    version = import_module(backend).__version__
    return {
        "backend": f"{backend} {version}",
        "numpy": numpy.__version__,
        "keras": keras.version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


class Progress(keras.callbacks.Callback):
    """The epochs of the current run, behind its name, where a terminal looks on."""

    def on_epoch_begin(self, epoch, logs=None):
        if sys.stdout.isatty() and epoch % 20 == 0:
            text = f"  epoch {epoch} of {self.params['epochs']}"
            print(text + "\b" * len(text), end="", flush=True)


def parse_arguments(description, name, add_arguments=None):
    """The arguments all benchmarks share: where results go, and `--quick`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="tiny runs, stored nowhere"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    if add_arguments:
        add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        folder = Path(tempfile.mkdtemp())
        arguments.output = folder / arguments.output.name
        arguments.pictures = folder
    return arguments
