"""Classification: are sawtooth layers faster at first, or better at last?

Scikit-learn's digits (1,797 images of 8 x 8), another random split for every seed:

    python benchmarks/digits.py [--quick]

- `mlp`: two hidden layers of 64.
- `cnn`: two convolutions of 8 and 16 channels with poolings, one hidden layer of 64,
  the activation under test behind each of them.

Adam with a cosine to zero, batches of 32, 30 epochs. The rate is chosen for every
model alike by its final accuracy on a fifth of the training part. Sawtooth layers have
their default arguments; "released" ones are released after half of the epochs.

Prints the test accuracy after 1, 2, 5 and all epochs, mean and standard error over ten
seeds, at the chosen rate and at Adam's default rate. Writes
benchmarks/results/digits.json and docs/images/digits.png.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import members
import numpy as np
from keras import ops
from runs import Progress
from runs import Runs
from runs import parse_arguments
from runs import select
from tables import markdown
from tables import mean_and_error

import keras_sawtooth as ks

NETWORKS = ("mlp", "cnn")
MODELS = ("relu", "gelu", "prelu", "sawtooth constrained", "sawtooth released")
RATES = (1e-3, 3e-4, 3e-3, 1e-2)
DEFAULT_RATE = RATES[0]
SEEDS, EPOCHS, BATCH_SIZE, SHOWN_EPOCHS = 10, 30, 32, (1, 2, 5)


def split(seeds, validation):
    """Images and labels to train and to judge on, `(rows, members, ...)`."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn: `pip install scikit-learn`."
        ) from error
    images, labels = load_digits(return_X_y=True)
    images = (images / 8 - 1).astype("float32")
    parts = []
    for seed in range(seeds):
        rows = np.random.default_rng(seed).permutation(len(images))
        train, test = rows[360:], rows[:360]
        if validation:
            train, test = train[287:], train[:287]
        parts.append((images[train], labels[train], images[test], labels[test]))
    return [np.stack(arrays, axis=1) for arrays in zip(*parts, strict=True)]


class Neighbors(keras.layers.Layer):
    """The 3 x 3 neighbors of every pixel, zero outside of the image.

    `(batch, height, width, members, channels)` to `9 * channels`. A dense layer on them
    is a convolution, and for members far faster than one with groups.
    """

    def call(self, images):
        height, width = images.shape[1:3]
        padded = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0], [0, 0]])
        shifted = [
            padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)
        ]
        return ops.concatenate(shifted, axis=-1)


def convolution(model, size, n_members, channels):
    """A convolution of images of `size`, its activation and a pooling. Layers."""
    return [
        Neighbors(),
        keras.layers.EinsumDense(
            "bhwmi,mio->bhwmo",
            output_shape=(size, size, n_members, channels),
            bias_axes="mo",
            kernel_initializer=members.PerMember(
                "lecun_normal" if "sawtooth" in model else "he_normal"
            ),
        ),
        keras.layers.Reshape((size, size, n_members * channels)),
        shared_over_pixels(model),
        keras.layers.MaxPooling2D(),
        keras.layers.Reshape((size // 2, size // 2, n_members, channels)),
    ]


def build(network, model, n_members):
    layers = [keras.Input((n_members, 64))]
    if network == "cnn":
        layers += [
            keras.layers.Permute((2, 1)),
            keras.layers.Reshape((8, 8, n_members, 1)),
            *convolution(model, 8, n_members, 8),
            *convolution(model, 4, n_members, 16),
            keras.layers.Permute((3, 1, 2, 4)),
            keras.layers.Reshape((n_members, 4 * 16)),
            *members.hidden(model, n_members, 64),
        ]
    else:
        layers += [
            *members.hidden(model, n_members, 64),
            *members.hidden(model, n_members, 64),
        ]
    return keras.Sequential([*layers, members.dense(n_members, 10)])


def shared_over_pixels(model):
    if model == "prelu":
        return keras.layers.PReLU(shared_axes=[1, 2])
    return members.activation(model)


def cross_entropy(labels, logits):
    """Summed over the members."""
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    return ops.sum(losses, axis=-1)


class Accuracies(keras.callbacks.Callback):
    """Accuracy of every member after every epoch, `[epoch][member]`."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels, self.accuracies = images, labels, []

    def on_epoch_end(self, epoch, logs=None):
        logits = self.model.predict(self.images, batch_size=360, verbose=0)
        right = (logits.argmax(axis=-1) == self.labels).mean(axis=0)
        self.accuracies.append([round(float(a), 4) for a in right])


def train(part, network, model, rate, seeds, epochs):
    keras.utils.set_random_seed(0)
    images, labels, judged_images, judged_labels = split(seeds, part == "validation")
    classifier = build(network, model, seeds)
    steps = epochs * -(-len(images) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    classifier.compile(keras.optimizers.Adam(schedule), cross_entropy)
    accuracies = Accuracies(judged_images, judged_labels)
    callbacks = [Progress(), accuracies]
    if model == "sawtooth released":
        callbacks.append(ks.ReleaseConstraints(epoch=epochs // 2))
    classifier.fit(
        images,
        labels,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        callbacks=callbacks,
        verbose=0,
    )
    parameters = classifier.count_params() // seeds
    return {"accuracy": accuracies.accuracies, "parameters": parameters}


def chosen_rate(runs, network, model):
    """The rate with the best final accuracy on the validation part."""
    found = select(runs, part="validation", network=network, model=model)
    best, _ = max(found, key=lambda pair: np.mean(pair[1]["accuracy"][-1]))
    return float(best["rate"])


def test_run(runs, network, model, rate):
    ((_, run),) = select(runs, part="test", network=network, model=model, rate=rate)
    return run


def report(runs, models):
    lines = []
    for network in NETWORKS:
        for model in models:
            best = chosen_rate(runs, network, model)
            for rate in dict.fromkeys((DEFAULT_RATE, best)):
                run = test_run(runs, network, model, rate)
                accuracy = 100 * np.array(run["accuracy"])
                line = [network, model, f"{run['parameters']}", f"{rate:g}"]
                line[-1] += ", chosen" if rate == best else ""
                for epoch in (*SHOWN_EPOCHS, len(accuracy)):
                    values = accuracy[min(epoch, len(accuracy)) - 1]
                    line.append("{:.2f} ± {:.2f}".format(*mean_and_error(values)))
                lines.append(line)
    header = ["network", "activation", "parameters", "rate"]
    header += [f"epoch {epoch}" for epoch in SHOWN_EPOCHS] + ["last"]
    return markdown(header, lines) + "\n"


def draw(runs, models, path):
    """Test accuracy over the epochs at Adam's default rate."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(NETWORKS), figsize=(9, 3.6), sharey=True)
    for axis, network in zip(axes, NETWORKS, strict=True):
        for model in models:
            run = test_run(runs, network, model, DEFAULT_RATE)
            accuracy = 100 * np.array(run["accuracy"])
            error = accuracy.std(axis=1, ddof=1) / np.sqrt(accuracy.shape[1])
            epochs = np.arange(1, len(accuracy) + 1)
            axis.errorbar(epochs, accuracy.mean(axis=1), error, label=model, lw=1)
        axis.set(title=network, xlabel="epoch", xscale="log")
    axes[0].set(ylabel="test accuracy, %")
    axes[0].legend(fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main():
    arguments = parse_arguments(__doc__, "digits.json")
    runs = Runs(arguments.output, arguments.quick)
    size = {"seeds": SEEDS, "epochs": EPOCHS}
    models, rates = MODELS, RATES
    if arguments.quick:
        size = {"seeds": 2, "epochs": 2}
        models, rates = MODELS[-1:], RATES[:1]
    results = runs.results["runs"]
    for network in NETWORKS:
        for model in models:
            names = {"network": network, "model": model}
            for rate in rates:
                runs(train, part="validation", **names, rate=rate, **size)
            best = chosen_rate(results, network, model)
            for rate in dict.fromkeys((DEFAULT_RATE, best)):
                runs(train, part="test", **names, rate=rate, **size)
    print()
    print(report(results, models))
    draw(results, models, arguments.pictures / "digits.png")


if __name__ == "__main__":
    main()
