"""A function of one variable as a small network: relu and gelu beside sawtooth.

    python examples/curve.py [--function wave] [--epochs 100] [--out DIR]

All networks learn 500 points of a function on [-1, 1] with the same optimizer and the
same number of steps. Prints their errors between the points, and draws them. For a
function of your own, put it into FUNCTIONS. The models and the optimizer are those of
docs/recipes.md. Needs matplotlib.

The backend is JAX, or what KERAS_BACKEND says.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sawtooth as ks

FUNCTIONS = {
    "wave": lambda x: x * np.sin(10 * x),
    "bump": lambda x: 1 / (1 + 25 * x**2),
    "edge": lambda x: np.tanh(20 * x),
    "exp": np.exp,
}
POINTS = np.linspace(-1, 1, 500)
BETWEEN = np.linspace(-1, 1, 4001)
STEPS_PER_EPOCH = 100
MODELS = (
    "Dense(32, relu)",
    "Dense(32, gelu)",
    "SawtoothDense(16)",
    "SawtoothDense(16), released",
)


def build_model(name):
    keras.utils.set_random_seed(0)
    if name.startswith("SawtoothDense"):
        hidden = [ks.SawtoothDense(16), ks.SawtoothDense(16)]
    else:
        activation = name.removeprefix("Dense(32, ").removesuffix(")")
        hidden = [keras.layers.Dense(32, activation=activation) for _ in range(2)]
    return keras.Sequential([keras.Input((1,)), *hidden, keras.layers.Dense(1)])


def train(name, x, y, epochs, rate=1e-2):
    """The model with this name, fitted to all points at once in every step."""
    model = build_model(name)
    steps = epochs * STEPS_PER_EPOCH
    warm_up = min(200, steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 100, steps - warm_up, warmup_target=rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.Adam(schedule, beta_1=0.98, beta_2=0.98)
    # On torch, compiling takes longer than the training.
    jit = keras.backend.backend() != "torch"
    model.compile(optimizer, "mse", jit_compile=jit)
    callbacks = [Progress(name)]
    if name.endswith("released"):
        callbacks.append(ks.ReleaseConstraints(epoch=epochs // 10))
    # Many full batches an epoch: what Keras does between epochs takes longer.
    repeated = [np.tile(a[:, None], (STEPS_PER_EPOCH, 1)) for a in (x, y)]
    model.fit(*repeated, len(x), epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return model


class Progress(keras.callbacks.Callback):
    """A progress bar over the epochs."""

    def __init__(self, title):
        super().__init__()
        self.title = title

    def on_train_begin(self, logs=None):
        print(self.title)
        self.bar = keras.utils.Progbar(
            self.params["epochs"], unit_name="epoch", stateful_metrics=["loss"]
        )

    def on_epoch_end(self, epoch, logs=None):
        self.bar.update(epoch + 1, [("loss", logs["loss"])])


def plot(function, errors, path):
    """The function, and the error of every model on one scale."""
    _, axes = plt.subplots(
        1 + len(errors), figsize=(6.4, 7.6), sharex=True, layout="constrained"
    )
    axes[0].plot(BETWEEN, function(BETWEEN), color="0.2")
    axes[0].set_title("function", fontsize="medium")
    largest = max(np.abs(error).max() for error in errors.values())
    for axis, (name, error) in zip(axes[1:], errors.items(), strict=True):
        axis.plot(BETWEEN, error, linewidth=0.8)
        axis.set_ylim(-1.1 * largest, 1.1 * largest)
        axis.set_title(f"error of {name}", fontsize="medium")
        axis.grid(alpha=0.3)
    plt.savefig(path, dpi=110)
    plt.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--function", choices=FUNCTIONS, default="wave")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("examples/output"))
    arguments = parser.parse_args()
    function = FUNCTIONS[arguments.function]

    errors, rows = {}, []
    for name in MODELS:
        model = train(name, POINTS, function(POINTS), arguments.epochs)
        x = BETWEEN[:, None]
        prediction = model.predict(x, batch_size=len(x), verbose=0)[:, 0]
        error = errors[name] = prediction - function(BETWEEN)
        rmse, largest = np.sqrt(np.mean(error**2)), np.abs(error).max()
        parameters = model.count_params()
        rows.append(f"{name:28} {parameters:10,} {rmse:10.1e} {largest:10.1e}")

    print(f"\n{'two hidden layers of':28} parameters       RMSE    largest")
    print(*rows, sep="\n")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"curve_{arguments.function}.png"
    plot(function, errors, path)
    print(f"\nErrors: {path}")


if __name__ == "__main__":
    main()
