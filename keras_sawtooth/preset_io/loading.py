"""`from_preset`: the model of a preset, by its handle."""

import json
import os
import shutil
import tempfile

import keras

from keras_sawtooth.preset_io.config import check_config
from keras_sawtooth.preset_io.files import CONFIG
from keras_sawtooth.preset_io.files import METADATA
from keras_sawtooth.preset_io.files import WEIGHTS
from keras_sawtooth.preset_io.files import check_files
from keras_sawtooth.preset_io.files import errors_naming
from keras_sawtooth.preset_io.files import read_json
from keras_sawtooth.preset_io.files import without_compilation
from keras_sawtooth.preset_io.handles import label_of
from keras_sawtooth.preset_io.handles import locate
from keras_sawtooth.preset_io.size import check_size
from keras_sawtooth.saving.weights import refuse_nan


def from_preset(handle, custom_objects=None):
    """Load the model of a preset.

    The model has the weights, phases and dtypes that were saved, and is not compiled.
    The preset need not be trusted: its files are checked before anything is built, no
    code from it runs, and it takes no more memory than its files justify.

    Args:
        handle: str or path. A key of `keras_sawtooth.presets`, a local directory,
            `"hf://{owner}/{name}"` (needs `huggingface_hub`), or
            `"kaggle://{owner}/{model}/{framework}/{variation}[/{version}]"` (needs
            `kagglehub`).
        custom_objects: dict of names and classes or functions that the preset may
            ask for, besides what is registered with Keras.

    Returns:
        The model, a `keras.Model`.

    Raises:
        FileNotFoundError: if there is no such directory, or a file is missing.
        ImportError: if the package that the handle needs is missing.
        TypeError: if `custom_objects` is not a dict.
        ValueError: if the handle is malformed, or the preset is damaged or asks for
            what is not allowed.

    Example:

        >>> model = keras.Sequential([keras.Input((3,)), SawtoothDense(8)])
        >>> directory = os.path.join(tempfile.mkdtemp(), "my_preset")
        >>> save_to_preset(model, directory)
        >>> loaded = from_preset(directory)
        >>> np.array_equal(loaded.get_weights()[0], model.get_weights()[0])
        True
    """
    if custom_objects is not None and not isinstance(custom_objects, dict):
        raise TypeError(
            "`custom_objects` must be a dict of names and classes or functions. "
            f"Received: custom_objects={custom_objects!r}"
        )
    directory, root = locate(handle)
    return load_preset(directory, root, label_of(handle), custom_objects)


def load_preset(directory, root, label, custom_objects=None):
    """Load the model of a preset, after checks of all of its files.

    Args:
        directory, root, label, custom_objects: see `check_preset`.

    Returns:
        The model, uncompiled.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the preset is damaged, asks for what is not allowed, or
            does not fit its weights.
    """
    config, objects = check_preset(directory, root, label, custom_objects)
    with errors_naming(label):
        return _build(config, directory / WEIGHTS, objects)


def check_preset(directory, root, label, custom_objects=None):
    """Check the files of a preset.

    Args:
        directory: path of the preset.
        root: path of the directory that its files must lie in, symbolic links
            resolved. If it is `directory` itself, links are refused.
        label: str. What errors call the preset.
        custom_objects: dict of names and classes or functions.

    Returns:
        Pair of the config, a dict, and a dict of the registered objects in it.

    Raises:
        FileNotFoundError: if a file is missing.
        ImportError: if it needs KerasHub, which is not installed.
        ValueError: if the preset is damaged, asks for what is not allowed, or is not
            of the size of its weights.
    """
    with errors_naming(label):
        check_files(directory, root)
        read_json(directory / METADATA)
        config = without_compilation(read_json(directory / CONFIG))
        objects = check_config(config, custom_objects)
        check_size(config, [directory / WEIGHTS], objects)
    return config, objects


def _build(config, weights, objects):
    # Keras resolves objects that layers share only when it loads a whole directory.
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, CONFIG), "w") as file:
            json.dump(config, file)
        copy = os.path.join(directory, WEIGHTS)
        try:
            os.symlink(os.path.realpath(weights), copy)
        except OSError:
            # Windows asks for a privilege.
            shutil.copyfile(weights, copy)
        model = keras.saving.load_model(
            directory, custom_objects=objects, compile=False, safe_mode=True
        )
    refuse_nan(model.weights)
    return model
