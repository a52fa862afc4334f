"""CIFAR-10, and VGG-16's classifier, with relu or with sawtooth hidden layers.

Where the images are (a folder with x_train.npy and x_test.npy, `(images, height, width,
channels)` from 0 to 255, and y_train.npy and y_test.npy, numbers of classes from 0;
without `--data` Keras downloads CIFAR-10):

    python benchmarks/images.py [--data FOLDER] [--network cnn|vgg16] [--quick]

`cnn` is a small convolutional network with one hidden dense layer; `vgg16` is
`keras.applications.VGG16` with two hidden layers of 4,096 units, trained as a whole
from scratch. The dense layers are
`Dense(relu)`, or `SawtoothDense` that is released after half of the epochs.

Prints the test accuracy after 1, 2, 5 and all epochs, and writes
benchmarks/results/images.json. No results of it are kept in the repository: it needs
images that the repository does not have, and for VGG-16 a GPU.
"""

import hashlib
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from runs import Progress
from runs import Runs
from runs import parse_arguments
from tables import markdown

import keras_sawtooth as ks

MODELS = ("relu", "sawtooth released")
SHOWN_EPOCHS = (1, 2, 5)
BATCH_SIZE = 128


def load(folder):
    """Images in [0, 255] and labels, to train and to test."""
    if folder is None:
        train, test = keras.datasets.cifar10.load_data()
        return *train, *test
    return [
        np.load(folder / f"{name}.npy")
        for name in ("x_train", "y_train", "x_test", "y_test")
    ]


def checksum(arrays):
    """Of images and labels, a str."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def generate():
    """Small images whose class is the place of a bright square."""
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 4
    images = rng.uniform(0, 100, (64, 32, 32, 3))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 150
    return images[:48], labels[:48], images[48:], labels[48:]


def hidden(model, units):
    if model == "relu":
        return keras.layers.Dense(units, activation="relu")
    return ks.SawtoothDense(units)


def build(network, model, image_shape, classes, units):
    layers = [keras.Input(image_shape)]
    if network == "vgg16":
        # Smaller images do not survive five poolings.
        size = max(32, *image_shape[:2])
        base = keras.applications.VGG16(
            weights=None, include_top=False, input_shape=(size, size, 3)
        )
        layers += [
            keras.layers.Resizing(size, size),
            keras.layers.Rescaling(1 / 64, offset=-2),
            base,
            keras.layers.Flatten(),
            hidden(model, units or 4096),
            hidden(model, units or 4096),
        ]
    else:
        layers.append(keras.layers.Rescaling(1 / 64, offset=-2))
        for channels in (32, 64):
            layers += [
                keras.layers.Conv2D(channels, 3, activation="relu"),
                keras.layers.MaxPooling2D(),
            ]
        layers += [keras.layers.Flatten(), hidden(model, units or 512)]
    return keras.Sequential([*layers, keras.layers.Dense(classes)])


def train(data, network, model, rate, epochs, units, seed):
    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test = data
    classifier = build(network, model, x.shape[1:], int(y.max()) + 1, units)
    steps = epochs * -(-len(x) // BATCH_SIZE)
    classifier.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [Progress()]
    if model == "sawtooth released":
        callbacks.append(ks.ReleaseConstraints(epoch=epochs // 2))
    history = classifier.fit(
        x,
        y,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        validation_data=(x_test, y_test),
        callbacks=callbacks,
        verbose=0,
    )
    accuracy = [round(float(a), 4) for a in history.history["val_accuracy"]]
    return {"accuracy": accuracy, "parameters": classifier.count_params()}


def main():
    def add_arguments(parser):
        parser.add_argument(
            "--data", type=Path, help="folder of images (that of CIFAR-10)"
        )

        def add(name, default, text, **arguments):
            parser.add_argument(
                name, default=default, help=f"{text} (%(default)s)", **arguments
            )

        add("--network", "cnn", "around the layers", choices=("cnn", "vgg16"))
        add("--units", 0, "of hidden layers; 0: the network's own number", type=int)
        add("--epochs", 30, "of every training", type=int)
        add("--rate", 1e-3, "peak of the learning rate", type=float)
        add("--seeds", 3, "trainings of every model", type=int)

    arguments = parse_arguments(__doc__, "images.json", add_arguments)
    if arguments.quick:
        data = generate()
        arguments.epochs, arguments.seeds, arguments.units = 2, 1, 8
    else:
        data = load(arguments.data)
    runs = Runs(arguments.output, arguments.quick, data=checksum(data))
    rows = []
    for model in MODELS:
        settings = {"network": arguments.network, "model": model}
        settings |= {"rate": arguments.rate, "epochs": arguments.epochs}
        settings |= {"units": arguments.units}
        results = [
            runs(lambda **s: train(data, **s), **settings, seed=seed)
            for seed in range(arguments.seeds)
        ]
        accuracy = 100 * np.mean([run["accuracy"] for run in results], axis=0)
        row = [model, f"{results[0]['parameters']}"]
        for epoch in (*SHOWN_EPOCHS, len(accuracy)):
            row.append(f"{accuracy[min(epoch, len(accuracy)) - 1]:.2f}")
        rows.append(row)
    header = ["hidden layers", "parameters"]
    header += [f"epoch {epoch}" for epoch in SHOWN_EPOCHS] + ["last"]
    print()
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
