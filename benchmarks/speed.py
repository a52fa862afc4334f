"""What does the sawtooth cost? Time and memory next to `Dense(relu)`.

    python benchmarks/speed.py [--backends jax ...] [--sections layer ...] [--quick]

Sections: `layer` (forward pass and training step on every backend), `growth` (with
the depth, the units and the batch), `peers` (layers of other packages), `vgg` (in
the classifier of VGG-16), `startup` (import, first training steps), `gpu`. Every
section runs in a process of its own for every backend.

Prints Markdown tables; writes benchmarks/results/speed.json, section by section,
and from it pictures to docs/images. `--plot-only` makes tables and pictures from
the file. With `--quick`, nothing is written unless `--output` or `--pictures` says
where.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import speed_report
from files import read_results
from files import write_whole

HERE = Path(__file__).parent
BACKENDS = ("jax", "tensorflow", "torch")
SECTIONS = {
    "layer": BACKENDS,
    "growth": ("jax",),
    "peers": BACKENDS,
    "vgg": ("jax",),
    "startup": BACKENDS,
    "gpu": ("jax", "torch"),
}


def measure(section, backend, arguments):
    """One section on one backend in a child process; `None` if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        if backend == "tensorflow" and section != "startup":
            # Only XLA's dump tells how large the temporaries are.
            environment["XLA_FLAGS"] = (
                f"--xla_dump_to={folder}/xla --xla_dump_hlo_as_text"
            )
        output = Path(folder) / "result.json"
        command = [
            sys.executable,
            str(HERE / "speed_worker.py"),
            section,
            str(arguments.repeats),
            "quick" if arguments.quick else "full",
            " ".join(["python benchmarks/speed.py", *sys.argv[1:]]),
            str(output),
        ]
        finished = subprocess.run(command, env=environment).returncode == 0
        return json.loads(output.read_text()) if finished else None


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, values in (("backends", BACKENDS), ("sections", SECTIONS)):
        parser.add_argument(
            f"--{name}", nargs="+", choices=values, default=values, help="all of them"
        )
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--repeats", type=int, help="rounds of timing (30; quick: 2)")
    parser.add_argument(
        "--output", type=Path, help="of results (benchmarks/results/speed.json)"
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        help="folder of pictures (docs/images, or that of a given --output)",
    )
    parser.add_argument(
        "--plot-only", action="store_true", help="from the results, without measuring"
    )
    arguments = parser.parse_args()
    if arguments.output is not None:
        arguments.pictures = arguments.pictures or arguments.output.parent
    elif not arguments.quick:
        arguments.output = HERE / "results" / "speed.json"
        arguments.pictures = arguments.pictures or HERE.parent / "docs" / "images"
    arguments.repeats = arguments.repeats or (2 if arguments.quick else 30)
    return arguments


def main():
    arguments = parse_arguments()
    output = arguments.output
    known = output is not None and output.exists()
    results = read_results(output) if known else {}
    chosen = [
        (section, backend)
        for section in arguments.sections
        for backend in SECTIONS[section]
        if backend in arguments.backends
    ]
    failed = []
    for section, backend in [] if arguments.plot_only else chosen:
        entry = measure(section, backend, arguments)
        if entry is None:
            failed.append(f"{section} on {backend}")
            continue
        results.setdefault(section, {})[backend] = entry
        if output is not None:
            write_whole(output, json.dumps(results, indent=1) + "\n")
    for section, backend in chosen:
        if backend in results.get(section, {}):
            entry = results[section][backend]
            print(speed_report.report(section, backend, entry), flush=True)
    if arguments.pictures is not None:
        for path in speed_report.draw(results, arguments.pictures):
            print(f"Wrote {path}")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
