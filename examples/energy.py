"""Heating load of buildings: Dense(relu) beside SawtoothDense, one `fit` each.

Trains both models on the UCI energy-efficiency data with the same widths,
optimizer and epochs, prints a table and writes two pictures:

    python examples/energy.py [--epochs 300] [--learning-rate 0.001]

The backend is TensorFlow with XLA, or what KERAS_BACKEND says. Both models train
with Adam at the learning rate that Keras gives it by default, decayed to zero.
`--search` prints the errors at other rates, on validation parts of the training
rows.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_sawtooth as ks
from keras_sawtooth.plotting import draw_regions

DATA = Path(__file__).parent / "data" / "energy.csv"
UNITS = 50
BATCH_SIZE = 64
MODELS = ("Dense(relu)", "SawtoothDense")
DRAWN_UNITS = (0, 1, 2, 3, 4)


def load_energy():
    """Training rows and test rows, a fixed split of 614 and 154."""
    rows = np.loadtxt(DATA, delimiter=",", skiprows=1)
    return split(rows)


def split(rows, seed=0, share=0.2):
    """A random split of `rows`, the same one for a seed at every call."""
    rows = np.random.default_rng(seed).permutation(rows)
    n_held_out = round(share * len(rows))
    return rows[n_held_out:], rows[:n_held_out]


def standardize(train, test):
    """Features and target of both parts, with the moments of the first."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = (
        ((part - mean) / deviation).astype("float32") for part in (train, test)
    )
    return train[:, :-1], train[:, -1:], test[:, :-1], test[:, -1:], deviation[-1]


def build_model(name, seed=0):
    keras.utils.set_random_seed(seed)
    if name == "SawtoothDense":
        hidden = [ks.SawtoothDense(UNITS, depth=3) for _ in range(2)]
    else:
        hidden = [keras.layers.Dense(UNITS, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((8,)), *hidden, keras.layers.Dense(1)])


def train(name, train_rows, test_rows, epochs, learning_rate, callbacks=(), seed=0):
    """Fit one model; its history and its RMSE on the test rows, in kWh/m2."""
    x, y, x_test, y_test, unit = standardize(train_rows, test_rows)
    model = build_model(name, seed)
    steps = epochs * -(-len(x) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(keras.optimizers.Adam(schedule), loss="mse", jit_compile=jit())
    callbacks = list(callbacks)
    if name == "SawtoothDense":
        callbacks.append(ks.ReleaseConstraints(epoch=epochs // 2))
    history = model.fit(
        x,
        y,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        callbacks=callbacks,
        verbose=0,
    )
    rmse = unit * np.sqrt(model.evaluate(x_test, y_test, verbose=0))
    return model, history.history, rmse


def jit():
    """XLA, where there is one; torch compiles for longer than it trains here."""
    return keras.backend.backend() != "torch"


class Progress(keras.callbacks.Callback):
    """A progress bar over the epochs, and the time that each took."""

    def __init__(self, title):
        super().__init__()
        self.title = title
        self.seconds = []

    def on_train_begin(self, logs=None):
        print(f"{self.title}, {self.model.count_params():,} parameters")
        self.bar = keras.utils.Progbar(
            self.params["epochs"], unit_name="epoch", stateful_metrics=["loss"]
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.started)
        self.bar.update(epoch + 1, [("loss", logs["loss"])])


class Regions(keras.callbacks.Callback):
    """Pieces of all units, and the functions of some, around the release.

    Stands in front of `ReleaseConstraints` in the list of callbacks, so that an
    epoch begins here in the phase in which the one before ended.
    """

    def on_train_begin(self, logs=None):
        self.layers = [
            layer for layer in self.model.layers if isinstance(layer, ks.SawtoothDense)
        ]
        self.at_start = self.count()

    def on_epoch_begin(self, epoch, logs=None):
        if self.layers[0].constrained:
            self.before_release, self.constrained = self.count(), self.functions()

    def on_train_end(self, logs=None):
        self.after_release, self.released = self.count(), self.functions()

    def count(self):
        counts = [ks.count_linear_regions(layer) for layer in self.layers]
        return np.mean(counts)

    def functions(self):
        return [ks.linear_regions(self.layers[0], k) for k in DRAWN_UNITS]


def plot_functions(regions, path):
    _, axes = plt.subplots(
        2,
        len(DRAWN_UNITS),
        figsize=(2.6 * len(DRAWN_UNITS), 4.6),
        sharex=True,
        sharey="col",
        layout="constrained",
    )
    for row, functions, color in (
        (axes[0], regions.constrained, "C0"),
        (axes[1], regions.released, "C1"),
    ):
        for axis, function in zip(row, functions, strict=True):
            draw_regions(axis, function, color=color)
    for axis, unit in zip(axes[0], DRAWN_UNITS, strict=True):
        axis.set_title(f"unit {unit}", fontsize="medium")
    axes[0, 0].set_ylabel("constrained,\nat the release")
    axes[1, 0].set_ylabel("released,\nat the end")
    for axis in axes[1]:
        axis.set_xlabel("pre-activation")
    plt.savefig(path, dpi=150)
    plt.close()


def plot_training(histories, release_epoch, path):
    _, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, color in zip(MODELS, ("0.5", "C0"), strict=True):
        axis.semilogy(histories[name]["loss"], color=color, label=name)
    axis.axvline(release_epoch, color="C1", linestyle="--", label="release")
    axis.set_xlabel("epoch")
    axis.set_ylabel("training loss, MSE of the\nstandardized target")
    axis.grid(alpha=0.3)
    axis.legend()
    plt.savefig(path, dpi=150)
    plt.close()


def search(rows, epochs):
    """Print the validation RMSE of every learning rate, mean of three splits."""
    for name in MODELS:
        for rate in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1):
            errors = [
                train(name, *split(rows, seed), epochs, rate, seed=seed)[2]
                for seed in (1, 2, 3)
            ]
            mean = np.mean(errors)
            print(f"{name:14} learning rate {rate:.0e}  RMSE {mean:.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=Path("examples/output"))
    parser.add_argument("--search", action="store_true")
    arguments = parser.parse_args()
    train_rows, test_rows = load_energy()
    if arguments.search:
        search(train_rows, arguments.epochs)
        return

    print(f"Backend: {keras.backend.backend()}, XLA: {jit()}")
    regions = Regions()
    histories, table = {}, []
    for name in MODELS:
        progress = Progress(name)
        callbacks = [progress] + ([regions] if name == "SawtoothDense" else [])
        model, history, rmse = train(
            name,
            train_rows,
            test_rows,
            arguments.epochs,
            arguments.learning_rate,
            callbacks,
        )
        histories[name] = history
        # A ReLU unit has two pieces.
        pieces, released = ("2", "2", "2"), "-"
        if name == "SawtoothDense":
            pieces = (
                f"{regions.at_start:.1f}",
                f"{regions.before_release:.1f}",
                f"{regions.after_release:.1f}",
            )
            released = str(history["constrained"].index(0.0))
        table.append(
            (
                name,
                f"{rmse:.3f}",
                f"{model.count_params():,}",
                *pieces,
                released,
                f"{np.median(progress.seconds):.3f}",
            )
        )

    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = (
        arguments.out / "energy_functions.png",
        arguments.out / "energy_training.png",
    )
    plot_functions(regions, pictures[0])
    plot_training(histories, int(released), pictures[1])
    print_table(table)
    for picture in pictures:
        print(f"Wrote {picture}")


def print_table(rows):
    header = (
        "model",
        "test RMSE, kWh/m2",
        "parameters",
        "pieces per unit: start",
        "before release",
        "at the end",
        "release epoch",
        "seconds per epoch",
    )
    print()
    for row in zip(header, *rows, strict=True):
        print(f"{row[0]:>22}" + "".join(f"{cell:>16}" for cell in row[1:]))
    print()


if __name__ == "__main__":
    main()
