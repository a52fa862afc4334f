"""The directories of KerasHub's presets, checked."""

import os
import pathlib
import tempfile

import keras

from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.preset_io.config import check_config
from keras_sawtooth.preset_io.files import FILES
from keras_sawtooth.preset_io.files import WEIGHTS
from keras_sawtooth.preset_io.files import check_files
from keras_sawtooth.preset_io.files import errors_naming
from keras_sawtooth.preset_io.files import read_json
from keras_sawtooth.preset_io.files import without_compilation
from keras_sawtooth.preset_io.handles import label_of
from keras_sawtooth.preset_io.handles import locate
from keras_sawtooth.preset_io.loading import check_preset
from keras_sawtooth.preset_io.size import check_size

TASK = "task.json"
TASK_WEIGHTS = "task.weights.h5"


def locate_checked(preset, backbone_cls, task=False):
    """Check a preset of KerasHub.

    Args:
        preset: str or path. A handle.
        backbone_cls: class that its backbone must be of.
        task: bool. Whether its task will be loaded, too, if it holds one.

    Returns:
        The directory, the dtype policy that the backbone was saved with or `None`, and
        the config of the task or `None`.
    """
    directory, root = locate(preset, (TASK, TASK_WEIGHTS) if task else ())
    label = label_of(preset)
    config, _ = check_preset(directory, root, label)
    if not is_registered(config, backbone_cls):
        raise ValueError(
            f"The {label} holds a {config['class_name']!r}, which is not a backbone. "
            "Load it by `keras_sawtooth.from_preset`."
        )
    dtype = config["config"].get("dtype")
    dtype = None if dtype is None else keras.dtype_policies.get(dtype)
    if not task or not (directory / TASK).exists():
        return directory, dtype, None
    with errors_naming(label):
        return directory, dtype, _checked_task(directory, root)


def _checked_task(directory, root):
    check_files(directory, root, (TASK, TASK_WEIGHTS))
    config = without_compilation(read_json(directory / TASK))
    objects = check_config(config)
    # A task compiles itself, for which its variables need values.
    uncompiled = {**config, "config": {**config["config"], "compile": False}}
    check_size(uncompiled, [directory / WEIGHTS, directory / TASK_WEIGHTS], objects)
    return config


def refuse_older_task(directory):
    """Refuse the directory of a task, whose head would stay beside a new backbone.

    Raises:
        FileExistsError: if there is one.
    """
    path = pathlib.Path(directory)
    # KerasHub writes a task in front of its backbone, which has no files then.
    if (path / TASK).exists() and any((path / name).exists() for name in FILES):
        raise FileExistsError(
            "The directory holds a task, whose head would come with the new backbone. "
            f"Choose another directory, save the task itself, or delete {TASK!r} and "
            f"{TASK_WEIGHTS!r} in it. Received: preset_dir={str(directory)!r}"
        )


def preprocessor_config(preprocessor):
    """The config of a task's preprocessor, if a preset can bring it back.

    Raises:
        ValueError: if it cannot.
    """
    if preprocessor is None:
        return None
    advice = (
        "Before saving, replace it, or set `task.preprocessor = None` and apply it to "
        f"the data yourself. Received: preprocessor={preprocessor!r}"
    )
    if not isinstance(preprocessor, keras.layers.Layer):
        raise ValueError(
            "A preset brings back preprocessors that are layers, such as a registered "
            f"subclass of `keras.layers.Layer`, and no other callables. {advice}"
        )
    for layer in flatten_layers(preprocessor):
        if _has_assets(layer):
            raise ValueError(
                f"The preprocessor's layer {layer.name!r} keeps data outside its "
                "weights, such as a vocabulary that was adapted. Give it to the "
                "constructor of the layer, and it becomes a part of the config. "
                f"{advice}"
            )
    config = without_compilation(keras.saving.serialize_keras_object(preprocessor))
    try:
        check_config(config)
    except ValueError as error:
        raise ValueError(
            f"A preset does not bring back this preprocessor. {error} {advice}"
        ) from error
    return config


def _has_assets(layer):
    if not hasattr(layer, "save_assets"):
        return False
    with tempfile.TemporaryDirectory() as directory:
        layer.save_assets(directory)
        return bool(os.listdir(directory))


def is_registered(config, cls):
    """Whether it is the config of a `cls`, or of a subclass that users registered."""
    found = keras.saving.get_registered_object(config.get("registered_name"))
    return isinstance(found, type) and issubclass(found, cls)
