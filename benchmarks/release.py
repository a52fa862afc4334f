"""Does the training loss jump at the release?

Trains the same model twice from the same seed: once it stays constrained, once
it is released by `ReleaseConstraints` with default arguments. Prints the ratio of
the two training losses (released / constrained) in the first epoch after the
release and ten epochs later, for four problems and several optimisers:

    python benchmarks/release.py [--seeds 3] [--quick]

and writes benchmarks/results/release.json. With `--relu-rate 0.03125` it tries
another rate, with `--optimizer Lion` one of the optimisers; neither is written.
"""

import argparse
import json
import os
import platform
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import keras_sawtooth as ks

HERE = Path(__file__).parent
ENERGY = HERE.parent / "examples" / "data" / "energy.csv"


def energy(rng):
    """The demo's data: heating load of 768 buildings."""
    rows = np.loadtxt(ENERGY, delimiter=",", skiprows=1)
    return rows[:, :-1], rows[:, -1:]


def friedman(rng):
    """Friedman's first function of 5 of 10 variables, with noise."""
    x = rng.uniform(size=(2000, 10))
    y = (
        10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        + 20 * (x[:, 2] - 0.5) ** 2
        + 10 * x[:, 3]
        + 5 * x[:, 4]
    )
    return x, y[:, None] + rng.normal(size=(2000, 1))


def ripple(rng):
    """A smooth wave in two dimensions, without noise."""
    x = rng.uniform(-1, 1, (2000, 2))
    return x, np.sin(6 * np.hypot(*x.T))[:, None]


def spirals(rng):
    """Two spirals, as a regression on their labels."""
    t = np.sqrt(rng.uniform(0.05, 1, (2000, 1)))
    label = rng.choice([-1.0, 1.0], (2000, 1))
    x = label * t * np.hstack([np.cos(9 * t), np.sin(9 * t)])
    return x + 0.02 * rng.normal(size=x.shape), label


PROBLEMS = {f.__name__: f for f in (energy, friedman, ripple, spirals)}
OPTIMIZERS = {
    "Adam": lambda: keras.optimizers.Adam(),
    "Adam 3e-3": lambda: keras.optimizers.Adam(3e-3),
    "AdamW": lambda: keras.optimizers.AdamW(),
    "RMSprop": lambda: keras.optimizers.RMSprop(),
    "SGD 1e-2, momentum 0.9": lambda: keras.optimizers.SGD(1e-2, momentum=0.9),
    "Lion 3e-4": lambda: keras.optimizers.Lion(3e-4),
}


def losses(x, y, optimizer, seed, epochs, callbacks, relu_rate):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            ks.SawtoothDense(50, relu_rate=relu_rate),
            ks.SawtoothDense(50, relu_rate=relu_rate),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse")
    history = model.fit(x, y, epochs=epochs, callbacks=callbacks, verbose=0)
    return history.history["loss"]


def ratios(problem, optimizer, seed, release_epoch, relu_rate):
    """Loss ratios in the first epoch after the release and ten epochs later."""
    rng = np.random.default_rng(seed)
    x, y = ((a - a.mean(axis=0)) / a.std(axis=0) for a in PROBLEMS[problem](rng))
    epochs = release_epoch + 11
    stays, released = (
        losses(x, y, OPTIMIZERS[optimizer](), seed, epochs, callbacks, relu_rate)
        for callbacks in ([], [ks.ReleaseConstraints(epoch=release_epoch)])
    )
    return [released[e] / stays[e] for e in (release_epoch, release_epoch + 10)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--release-epoch", type=int, default=50)
    parser.add_argument("--relu-rate", type=float)
    parser.add_argument("--optimizer", default="")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    default_rate = ks.RegionConstraint().relu_rate
    relu_rate = arguments.relu_rate or default_rate
    optimizers = [o for o in OPTIMIZERS if o.startswith(arguments.optimizer)]
    problems = list(PROBLEMS)
    if arguments.quick:
        arguments.seeds, arguments.release_epoch = 1, 2
        optimizers, problems = optimizers[:1], problems[:1]

    results = {
        "backend": keras.backend.backend(),
        "keras": keras.version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seeds": arguments.seeds,
        "release_epoch": arguments.release_epoch,
        "ratios": {},
    }
    print(f"{'optimiser':24}{'problem':10}{'first epoch':>13}{'ten later':>11}")
    for optimizer in optimizers:
        for problem in problems:
            runs = [
                ratios(problem, optimizer, seed, arguments.release_epoch, relu_rate)
                for seed in range(arguments.seeds)
            ]
            first, later = np.median(runs, axis=0)
            results["ratios"][f"{optimizer} | {problem}"] = runs
            print(
                f"{optimizer:24}{problem:10}{first:13.3f}{later:11.3f}",
                flush=True,
            )
    if relu_rate == default_rate and len(optimizers) == len(OPTIMIZERS):
        path = HERE / "results" / "release.json"
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"Wrote {path}")


if __name__ == "__main__":
    main()
