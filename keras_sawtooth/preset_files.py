"""The directory of a preset: read and checked before anything is built from it."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile

import keras

from keras_sawtooth.preset_config import check_config
from keras_sawtooth.preset_config import walk
from keras_sawtooth.preset_size import check_size
from keras_sawtooth.weights import refuse_nan

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
METADATA = "metadata.json"
FILES = (CONFIG, WEIGHTS, METADATA)

# A config describes layers, not their numbers.
MAX_JSON_BYTES = 16 * 2**20


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


@contextlib.contextmanager
def errors_naming(label):
    """Errors say which preset cannot be loaded."""
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:
        raise ValueError(f"The {label} cannot be loaded. {error}") from error


def check_files(directory, root, files=FILES):
    """Refuse a preset with a file that is missing, no file, or outside of `root`."""
    for name in files:
        path = pathlib.Path(directory, name)
        if path.is_symlink() and os.path.samefile(directory, root):
            raise ValueError(
                f"{name!r} is a symbolic link to {os.readlink(path)!r}. Copy the file "
                "itself into the directory."
            )
        if not path.exists():
            raise FileNotFoundError(
                f"The preset in {str(directory)!r} has no file {name!r}. It must hold "
                f"{', '.join(files)}."
            )
        if not path.is_file():
            raise ValueError(f"{name!r} is not a regular file.")
        inside = pathlib.Path(os.path.realpath(path))
        if not inside.is_relative_to(os.path.realpath(root)):
            raise ValueError(f"{name!r} leads out of the preset, to {str(inside)!r}.")


def read_json(path):
    """The content of a JSON file, a dict."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ValueError(
            f"{path.name!r} has {size:,} bytes; {MAX_JSON_BYTES:,} are allowed."
        )
    try:
        content = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name!r} is not a valid JSON file. {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path.name!r} must hold a JSON object. Received: {type(content).__name__}"
        )
    try:
        for _ in walk(content):
            pass
    except ValueError as error:
        raise ValueError(f"{path.name!r} is nested too deeply. {error}") from error
    return content


def without_compilation(config):
    """A config without what models, nested ones too, were compiled with."""
    if isinstance(config, list):
        return [without_compilation(value) for value in config]
    if isinstance(config, dict):
        return {
            name: without_compilation(value)
            for name, value in config.items()
            if name != "compile_config"
        }
    return config


def _without_duplicates(pairs):
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"The key {twice!r} occurs twice in an object.")
    return content


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
