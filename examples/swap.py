"""From an ordinary Keras classifier to a sawtooth model, and out again.

    python examples/swap.py [--epochs 150] [--out DIR]

1. An ordinary classifier (Dense with relu) is trained on two spirals.
2. `replace_dense` puts `SawtoothDense` in place of its hidden layers; the copy starts
   with the weights of the original.
3. The copy trains in both phases: constrained, then released.
4. It is saved as a preset and loaded back.
5. It leaves for where this package is not installed: the same function in layers of
   Keras alone, exported to ONNX, and run by onnxruntime.

The backend is JAX, or what KERAS_BACKEND says. The last step needs the packages of
`pip install 'keras-sawtooth[export-jax]'` (or `export-tensorflow`, `export-torch`);
without them the example says so and ends.
"""

import argparse
import importlib.util
import os
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_sawtooth as ks

TURNS, POINTS = 1.5, 600


def spirals(seed):
    """Points of two noisy spirals, `(points, 2)`, and which of the two they are on."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=POINTS)
    radius = np.sqrt(rng.uniform(0.05, 1, POINTS))
    angle = 2 * np.pi * TURNS * radius + np.pi * labels
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points += rng.normal(scale=0.02, size=points.shape)
    return (2 * points).astype("float32"), labels


def ordinary_classifier():
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(32, activation="relu", name="first"),
            keras.layers.Dense(32, activation="relu", name="second"),
            keras.layers.Dense(2, activation="softmax", name="head"),
        ],
        name="classifier",
    )


def train(model, epochs, callbacks=()):
    points, labels = spirals(seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(points, labels, epochs=epochs, callbacks=list(callbacks), verbose=0)
    return model.evaluate(*spirals(seed=1), return_dict=True, verbose=0)["accuracy"]


def largest_difference(a, b):
    return float(np.abs(a - keras.ops.convert_to_numpy(b)).max())


def run_in_onnxruntime(model, path, inputs):
    import onnxruntime

    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return session.run(None, {name: inputs})[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    epochs = arguments.epochs
    keras.utils.set_random_seed(0)

    model = ordinary_classifier()
    print(f"Dense(relu), accuracy on new points: {train(model, epochs):.3f}\n")

    swapped = ks.replace_dense(model, depth=3, verbose=1)
    release = ks.ReleaseConstraints(epoch=epochs // 2)
    print(f"\nSawtoothDense, the same: {train(swapped, epochs, [release]):.3f}")
    pieces = ks.count_linear_regions(swapped.get_layer("first"))
    print(f"Released at epoch {epochs // 2}; {pieces.mean():.1f} pieces per unit.\n")

    points, _ = spirals(seed=2)
    outputs = swapped.predict(points, verbose=0)
    preset = arguments.out / "sawtooth_spirals"
    ks.save_to_preset(swapped, preset, overwrite=True)
    loaded = ks.from_preset(preset)
    difference = largest_difference(outputs, loaded.predict(points, verbose=0))
    print(f"Preset in {preset}: {', '.join(sorted(p.name for p in preset.iterdir()))}")
    print(f"Loaded back, largest difference of its outputs: {difference:.1e}\n")

    standard = ks.to_standard_layers(loaded)
    # Keras exports only models that were called on data.
    difference = largest_difference(outputs, standard(points))
    print(f"In Keras' own layers, largest difference: {difference:.1e}")
    if importlib.util.find_spec("onnxruntime") is None:
        extra = f"export-{keras.backend.backend()}"
        print(f"No ONNX without: pip install 'keras-sawtooth[{extra}]'")
        return
    path = str(arguments.out / "sawtooth_spirals.onnx")
    difference = largest_difference(outputs, run_in_onnxruntime(standard, path, points))
    print(f"{path} in onnxruntime, largest difference: {difference:.1e}")


if __name__ == "__main__":
    main()
