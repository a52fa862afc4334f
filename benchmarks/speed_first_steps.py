"""One model's first two training steps in a fresh process, for `speed.py`.

    python benchmarks/speed_first_steps.py relu|constrained|released WIDTH LAYERS

Prints JSON: seconds of the first step, which compiles, and of the second.
"""

import json
import sys
import time

import keras
import numpy as np

import keras_sawtooth as ks

LAYERS = {
    "relu": lambda units: keras.layers.Dense(units, activation="relu"),
    "constrained": lambda units: ks.SawtoothDense(units),
    "released": lambda units: ks.SawtoothDense(units, constrained=False),
}


def main():
    layer, units, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    model = keras.Sequential([keras.Input((units,))])
    for _ in range(count):
        model.add(LAYERS[layer](units))
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(128, units)).astype("float32")
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        # Returns the loss as a float, so it has to wait for it.
        model.train_on_batch(x, x)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(dict(zip(("first", "second"), seconds, strict=True))))


if __name__ == "__main__":
    main()
