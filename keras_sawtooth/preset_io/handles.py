"""Handles of presets: built-in names, local directories, and hubs."""

import importlib
import json
import os
import pathlib
import re

from keras_sawtooth.preset_io.files import FILES

BUILT_IN = pathlib.Path(__file__).parents[1] / "builtin_presets"

# No part of a handle is "..", or anything else that leads elsewhere.
PART = r"\w(?:[\w.-]*\w)?"
HF = re.compile(rf"hf://({PART}/{PART})", re.ASCII)
KAGGLE = re.compile(rf"kaggle://({PART}(?:/{PART}){{3}}(?:/\d+)?)", re.ASCII)


def built_in_presets():
    """What is known of the built-in presets, from their metadata.

    Returns:
        Dict of names, in alphabetical order, and dicts with `"description"`,
        `"parameters"`, `"source"`, and what else was saved with the preset.
    """
    presets = {}
    for path in sorted(BUILT_IN.glob("*/metadata.json")):
        metadata = json.loads(path.read_text(encoding="utf-8"))
        for name in ("keras", "keras_hub", "keras_sawtooth"):
            metadata.pop(f"{name}_version", None)
        for name in ("date_saved", "tasks"):
            metadata.pop(name, None)
        presets[path.parent.name] = {
            "description": metadata.pop("description", ""),
            "parameters": metadata.pop("parameter_count", None),
            "source": metadata.pop("source", ""),
            **metadata,
        }
    return presets


def check_directory(argument, directory):
    """Refuse to save, to the value of an argument, what `locate` would not find."""
    if not isinstance(directory, str | os.PathLike) or "://" in str(directory):
        raise ValueError(
            f"`{argument}` must be a local path. To share a preset, save it and upload "
            f"the directory. Received: {argument}={directory!r}"
        )
    if isinstance(directory, str) and directory in built_in_presets():
        raise ValueError(
            "This is the name of a built-in preset, and `from_preset` would load that "
            f"one. Choose another name. Received: {argument}={directory!r}"
        )


def label_of(handle):
    """What errors call the preset of a handle."""
    return f"preset {str(handle)!r}"


def locate(handle, optional=()):
    """Where the files of a preset are.

    Args:
        handle: str or path, see `from_preset`.
        optional: names of files to be downloaded, too, if there are any.

    Returns:
        Pair of paths: the directory of the files, and the one that they must not
        leave. The cache of Hugging Face keeps its files elsewhere, behind links.
    """
    if not isinstance(handle, str | os.PathLike) or not str(handle):
        raise ValueError(
            "`handle` must be the name of a built-in preset, a local directory, or "
            f"start with 'hf://' or 'kaggle://'. Received: handle={handle!r}"
        )
    name = os.fspath(handle)
    if "://" in name:
        scheme = name.split("://")[0]
        if scheme == "hf":
            return _download_hf(name, optional)
        if scheme == "kaggle":
            return _download_kaggle(name, optional)
        raise ValueError(
            "Handles of hubs start with 'hf://' or 'kaggle://'. "
            f"Received: handle={handle!r}"
        )
    known = built_in_presets()
    if isinstance(handle, str) and name in known:
        return BUILT_IN / name, BUILT_IN / name
    directory = pathlib.Path(name)
    if directory.is_file():
        raise ValueError(
            f"{name!r} is a file, and a preset is a directory. Models that were saved "
            "by `model.save` load by `keras.saving.load_model`. "
            f"Received: handle={handle!r}"
        )
    if not directory.is_dir():
        raise FileNotFoundError(
            f"There is no directory {name!r}, and no built-in preset of that name. "
            f"Built-in presets: {', '.join(known)}."
        )
    return directory, directory


def _download_hf(handle, optional):
    match = HF.fullmatch(handle)
    if not match:
        raise ValueError(
            "Handles of Hugging Face have the form 'hf://{owner}/{name}'. "
            f"Received: handle={handle!r}"
        )
    hub = _import("huggingface_hub", handle)
    directory = pathlib.Path(
        hub.snapshot_download(repo_id=match[1], allow_patterns=[*FILES, *optional])
    )
    # Its cache: models--owner--name/snapshots/revision/ with links to .../blobs/.
    linked = any((directory / name).is_symlink() for name in FILES)
    return directory, directory.parents[1] if linked else directory


def _download_kaggle(handle, optional):
    match = KAGGLE.fullmatch(handle)
    if not match:
        raise ValueError(
            "Handles of Kaggle have the form "
            "'kaggle://{owner}/{model}/{framework}/{variation}[/{version}]'. "
            f"Received: handle={handle!r}"
        )
    hub = _import("kagglehub", handle)
    paths = [pathlib.Path(hub.model_download(match[1], path=name)) for name in FILES]
    for name in optional:
        try:
            hub.model_download(match[1], path=name)
        except Exception as error:
            # How the two servers say that there is no such file; as in KerasHub.
            absent = ("404 Client Error", "is not present in the model files")
            if not any(text in str(error) for text in absent):
                raise
    return paths[0].parent, paths[0].parent


def _import(package, handle):
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"The preset {handle!r} needs the package `{package}`: "
            f"pip install {package}"
        ) from error
