"""Where does it help? Dense(relu), Dense(gelu) and SawtoothDense side by side.

Three generated problems, two hidden layers of 50 units, Adam with cosine decay,
the same epochs for all. The learning rate is chosen for every model on a
validation part; printed is the RMSE on a test part, in deviations of the target:

    python benchmarks/regression.py [--seeds 3] [--quick]

Writes benchmarks/results/regression.json.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from release import PROBLEMS

import keras_sawtooth as ks

RESULTS = Path(__file__).parent / "results" / "regression.json"
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
BATCH_SIZE = 32


def relu():
    return keras.layers.Dense(50, activation="relu")


def gelu():
    return keras.layers.Dense(50, activation="gelu")


def sawtooth():
    return ks.SawtoothDense(50)


def errors(problem, layer, rate, seed, epochs):
    """RMSE on the validation and on the test part."""
    x, y = PROBLEMS[problem](np.random.default_rng(seed))
    n = len(x) // 5
    parts = [slice(2 * n, None), slice(n), slice(n, 2 * n)]
    x, y = ((a - a[parts[0]].mean(axis=0)) / a[parts[0]].std(axis=0) for a in (x, y))
    train, validation, test = ((x[part], y[part]) for part in parts)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), layer(), layer(), keras.layers.Dense(1)]
    )
    steps = epochs * -(-len(train[0]) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), "mse")
    callbacks = []
    if layer is sawtooth:
        callbacks = [ks.ReleaseConstraints(epoch=epochs // 2)]
    model.fit(
        *train, epochs=epochs, batch_size=BATCH_SIZE, callbacks=callbacks, verbose=0
    )
    return [
        float(np.sqrt(model.evaluate(*part, verbose=0))) for part in (validation, test)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    rates, problems = LEARNING_RATES, ("friedman", "ripple", "spirals")
    if arguments.quick:
        arguments.seeds, arguments.epochs = 1, 2
        rates, problems = rates[:1], problems[:1]
    results = {"epochs": arguments.epochs, "seeds": arguments.seeds, "runs": {}}
    print(f"{'problem':10}{'layer':10}{'rate':>7}{'test RMSE':>11}")
    for problem in problems:
        for layer in (relu, gelu, sawtooth):
            runs = {
                rate: [
                    errors(problem, layer, rate, seed, arguments.epochs)
                    for seed in range(arguments.seeds)
                ]
                for rate in rates
            }
            best = min(rates, key=lambda rate: np.mean(runs[rate], axis=0)[0])
            test = np.mean(runs[best], axis=0)[1]
            results["runs"][f"{problem} | {layer.__name__}"] = runs
            print(f"{problem:10}{layer.__name__:10}{best:7.0e}{test:11.3f}", flush=True)
    if not arguments.quick:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(f"Wrote {RESULTS}")


if __name__ == "__main__":
    main()
