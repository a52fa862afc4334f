"""The directory of a preset: read and checked before anything is built from it."""

import contextlib
import json
import os
import pathlib

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
METADATA = "metadata.json"
FILES = (CONFIG, WEIGHTS, METADATA)

# A config describes layers, not their numbers.
MAX_JSON_BYTES = 16 * 2**20
# Levels of brackets. Keras needs several frames of the stack for each.
MAX_LEVELS = 100


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
    for _ in walk(content, path.name):
        pass
    return content


def walk(content, name=CONFIG):
    """All values inside of the content of a JSON file, itself included.

    Raises:
        ValueError: if it is nested too deeply.
    """
    level = [content]
    for _ in range(MAX_LEVELS):
        yield from level
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError(f"{name!r} is nested more than {MAX_LEVELS} levels deep.")


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
