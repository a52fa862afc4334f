"""Makes the built-in presets of the package, and a table of them.

    python tools/make_presets.py [names] [--out DIRECTORY] [--quick]

Without names, all of them: `energy`, the regressor of examples/energy.py, and the
functions of `functions.py`, trained as `train_functions.py` says. Every function takes
about half a minute on one core. The backend is JAX, or what KERAS_BACKEND says; seeds
are fixed, and `metadata.json` of a preset names the command. The shipped energy preset
was trained on TensorFlow, as the demo is, and is the model in the README.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import train_functions
from exact_error import count_pieces
from exact_error import largest_error
from functions import FUNCTIONS
from presets_table import table

import keras_sawtooth as ks

ROOT = Path(__file__).parents[1]
OUT = ROOT / "keras_sawtooth" / "builtin_presets"
# Entries of Keras 3.15, here without a value. Older versions refuse to read them.
NEWS = ("quantization_config", "input_axes", "output_axes")
ENERGY_EPOCHS, ENERGY_RATE = 300, 1e-3
FEATURES = (
    "relative compactness",
    "surface area, m2",
    "wall area, m2",
    "roof area, m2",
    "overall height, m",
    "orientation, 2 to 5",
    "glazing area, share of the floor area",
    "glazing area distribution, 0 to 5",
)


def make_function(name, quick):
    """The model of a function, and what there is to say about it."""
    function, recipe = FUNCTIONS[name], train_functions.RECIPES[name]
    shortened = {}
    if quick:
        phases = train_functions.PHASES[-1:]
        shortened = {"phases": phases, "steps": 10, "points": 65}
    model = train_functions.make(function, recipe, **shortened)
    low, high = function.interval
    return model, {
        "description": (
            f"{function.formula} on [{low:.6g}, {high:.6g}], for inputs of shape "
            "(batch, 1). Outside the interval the model goes on as a line."
        ),
        "function": function.formula,
        "interval": [low, high],
        "max_error": largest_error(model, function),
        "pieces": count_pieces(model, low, high),
    }


def make_energy(quick):
    """The demo's regressor between raw features and kWh/m2."""
    sys.path.append(str(ROOT / "examples"))
    import energy

    train_rows, test_rows = energy.load_energy()
    epochs = 2 if quick else ENERGY_EPOCHS
    trained, _, _ = energy.train(
        "SawtoothDense", train_rows, test_rows, epochs, ENERGY_RATE
    )
    *hidden, head = trained.layers
    features, target = train_rows[:, :-1], train_rows[:, -1]
    normalization = keras.layers.Normalization()
    normalization.adapt(features.astype("float32"))
    rescaled = keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((8,)), normalization, *hidden, rescaled])
    kernel, bias = head.get_weights()
    # The target was standardized, too.
    rescaled.set_weights(
        [kernel * target.std(), bias * target.std() + target.mean()],
    )
    predicted = model.predict(test_rows[:, :-1].astype("float32"), verbose=0)
    error = np.sqrt(np.mean((predicted[:, 0] - test_rows[:, -1]) ** 2))
    return model, {
        "description": (
            "Heating load of residential buildings in kWh/m2, from raw features: the "
            "regressor of examples/energy.py, with the normalization of its inputs."
        ),
        "data": "UCI Energy efficiency (Tsanas and Xifara, 2012), CC BY 4.0",
        "features": list(FEATURES),
        "target": "heating load, kWh/m2",
        "test_rmse": float(error),
        "split": "614 training and 154 test rows, seed 0: energy.load_energy()",
        "training": f"python examples/energy.py --epochs {epochs} "
        f"--learning-rate {ENERGY_RATE}, seed 0",
    }


def without_news(entries):
    """What older versions of Keras know of an object in a config."""
    return {k: v for k, v in entries.items() if k not in NEWS or v is not None}


MAKERS = {"energy": make_energy}
MAKERS |= {
    name: lambda quick, name=name: make_function(name, quick) for name in FUNCTIONS
}


def make(name, out, quick):
    """Make one preset in a directory of `out`."""
    # Names of layers count up from here.
    keras.utils.clear_session()
    model, metadata = MAKERS[name](quick)
    backend = keras.backend.backend()
    option = " --quick" if quick else ""
    metadata["source"] = (
        f"KERAS_BACKEND={backend} python tools/make_presets.py {name}{option}"
    )
    directory = out / f"sawtooth_{name}"
    ks.save_to_preset(model, directory, metadata, overwrite=True)
    config = directory / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text(), object_hook=without_news))
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(MAKERS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="hardly trained")
    arguments = parser.parse_args()
    names = [name.removeprefix("sawtooth_") for name in arguments.names or MAKERS]
    for name in names:
        if name not in MAKERS:
            parser.error(f"there is no preset {name!r}, but {', '.join(MAKERS)}")
    out = arguments.out or OUT
    if arguments.quick and arguments.out is None:
        # Not in the place of the real ones.
        out = Path(tempfile.mkdtemp())
    for name in names:
        make(name, out, arguments.quick)
        print(f"Wrote {out / f'sawtooth_{name}'}", flush=True)
    print()
    print(table(out))


if __name__ == "__main__":
    main()
