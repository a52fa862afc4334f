"""`save_to_preset`: a model as a directory that others can load."""

import json
import os
import pathlib
import shutil

import keras

from keras_sawtooth.arguments import check_boolean
from keras_sawtooth.arguments import check_model
from keras_sawtooth.nested_layers import compiled_models
from keras_sawtooth.preset_io.atomic_directory import written_whole
from keras_sawtooth.preset_io.config import check_config
from keras_sawtooth.preset_io.files import CONFIG
from keras_sawtooth.preset_io.files import FILES
from keras_sawtooth.preset_io.files import METADATA
from keras_sawtooth.preset_io.files import WEIGHTS
from keras_sawtooth.preset_io.files import read_json
from keras_sawtooth.preset_io.files import without_compilation
from keras_sawtooth.preset_io.handles import check_directory
from keras_sawtooth.preset_io.loading import load_preset
from keras_sawtooth.preset_io.size import leaving_no_trace
from keras_sawtooth.version import __version__

# Kept when a preset is replaced.
README = "README.md"


def save_to_preset(model, directory, metadata=None, overwrite=False):
    """Save a model as a preset: a directory with its config and weights.

    Writes `config.json`, `model.weights.h5` and `metadata.json`, as Keras and KerasHub
    do. The preset is uncompiled and has no optimizer state; the model stays as it is.
    Loaded, the layers are in the phase that they have now. `from_preset` loads the
    directory, and so does `keras.saving.load_model`.

    A new directory appears when it is complete, and only if it can be loaded. In one
    that exists the files are replaced one after the other, `config.json` last: without
    it, after a crash in between, nothing can be loaded. After an error the old files
    are there again.

    Args:
        model: a built `keras.Model`. Models of KerasHub have a `save_to_preset` method.
        directory: str or path. Has to be new or empty.
        metadata: dict of entries for `metadata.json`, such as `"description"` and
            `"source"`, of plain JSON data.
        overwrite: bool. Whether to replace a preset in the directory. A `README.md`
            stays.

    Raises:
        FileExistsError: if there are files in the directory, and `overwrite` is false
            or they are not those of a preset.
        TypeError: if `model` is not a `keras.Model`, or `metadata` not a dict of JSON
            data.
        ValueError: if the model is not built, `overwrite` is not a boolean, or what was
            written cannot be loaded: a custom class is not registered, say, or a
            weight is NaN.

    Example:

        >>> model = keras.Sequential([keras.Input((3,)), SawtoothDense(8)])
        >>> directory = os.path.join(tempfile.mkdtemp(), "my_preset")
        >>> save_to_preset(model, directory, {"description": "An example."})
        >>> sorted(os.listdir(directory))
        ['config.json', 'metadata.json', 'model.weights.h5']
    """
    check_model("save_to_preset", model)
    if callable(getattr(model, "save_to_preset", None)):
        raise TypeError(
            f"{model.name!r} is a model of KerasHub, whose presets have files of their "
            "own. Call its method `save_to_preset(directory)`. "
            f"Received: model={model!r}"
        )
    metadata = _check_metadata(metadata)
    overwrite = check_boolean("overwrite", overwrite)
    with written_whole(check_target(directory, overwrite)) as draft:
        _write(model, draft, metadata)
        # Here, because scopes of custom objects hold in this thread only.
        objects = check_config(read_json(draft / CONFIG))
        label = f"preset in {str(directory)!r}"
        leaving_no_trace(load_preset, draft, draft, label, objects)


def check_target(directory, overwrite):
    """Refuse a directory whose files a preset would destroy."""
    check_directory("directory", directory)
    path = pathlib.Path(directory)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise FileExistsError(
            "There is a file or a symbolic link in the place of the directory. "
            f"Received: directory={str(directory)!r}"
        )
    found = sorted(os.listdir(path)) if path.exists() else []
    others = sorted({*found} - {*FILES, README})
    if found and not overwrite:
        raise FileExistsError(
            f"The directory holds {found} already. Choose another one, or replace a "
            f"preset by `overwrite=True`. Received: directory={str(directory)!r}"
        )
    if others:
        raise FileExistsError(
            f"`overwrite` replaces presets only, and the directory also holds "
            f"{others}. Received: directory={str(directory)!r}"
        )
    return path


def _write(model, draft, metadata):
    model.save(draft, zipped=False)
    assets = draft / "assets"
    if assets.is_dir():
        # Keras makes a directory for every layer that could have some.
        if any(path.is_file() for path in assets.rglob("*")):
            raise ValueError(
                f"{model.name!r} keeps data outside its weights, such as a vocabulary "
                f"that was adapted: {sorted(os.listdir(assets))}. Give it to the "
                "constructor of its layer, and it becomes a part of the config."
            )
        shutil.rmtree(assets)
    config = json.loads((draft / CONFIG).read_text())
    (draft / CONFIG).write_text(json.dumps(without_compilation(config)))
    optimizers = [trainer.optimizer for trainer in compiled_models(model)]
    if any(optimizer is not None for optimizer in optimizers):
        # Keras writes the state of optimizers with the weights.
        (draft / WEIGHTS).unlink()
        keras.saving.save_weights(model, draft / WEIGHTS, objects_to_skip=optimizers)
    written = json.loads((draft / METADATA).read_text())
    written["keras_sawtooth_version"] = __version__
    written["parameter_count"] = model.count_params()
    taken = sorted({*metadata} & {*written})
    if taken:
        raise ValueError(
            f"The entries {taken} are written by `save_to_preset` itself. "
            f"Received: metadata={metadata!r}"
        )
    (draft / METADATA).write_text(json.dumps({**written, **metadata}, indent=4))


def _check_metadata(metadata):
    if metadata is None:
        return {}
    try:
        if not isinstance(metadata, dict):
            raise TypeError("It is not a dict.")
        if not all(isinstance(name, str) for name in metadata):
            raise TypeError("Its keys must be strings.")
        # A copy, and what a reader of the file will see.
        return json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"`metadata` must be a dict of plain JSON data. {error} "
            f"Received: metadata={metadata!r}"
        ) from error
