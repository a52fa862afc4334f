"""Which objects the config of a preset may ask for."""

import importlib
import re
import sys

import keras

from keras_sawtooth.preset_io.allocation import check_allocation
from keras_sawtooth.preset_io.files import walk

# Layers that run code from the preset, or load files that it names.
REFUSED = ("FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper")

# Classes of `keras_sawtooth.hub`.
HUB = (
    "keras_sawtooth>SawtoothBackbone",
    "keras_sawtooth>SawtoothClassifier",
    "keras_sawtooth>SawtoothRegressor",
)

# Public modules of Keras whose classes a config may name.
MODULES = (
    "keras",
    "keras.activations",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.losses",
    "keras.metrics",
    "keras.models",
    "keras.ops",
    "keras.quantizers",
    "keras.random",
    "keras.regularizers",
)
FUNCTION_MODULES = (
    "builtins",
    "keras.activations",
    "keras.constraints",
    "keras.initializers",
    "keras.losses",
    "keras.metrics",
    "keras.ops",
    "keras.regularizers",
)
# Values that Keras writes like objects.
VALUES = (
    "__bytes__",
    "__ellipsis__",
    "__keras_tensor__",
    "__numpy__",
    "__slice__",
    "__tensor__",
)
NUMERIC_DTYPE = re.compile(r"bool|u?int\d+|b?float\d+(_e\d+m\d+\w*)?|complex\d+")


def check_config(config, custom_objects=None):
    """Refuse a config that asks for anything but layers that are known to be safe.

    Those are layers of Keras, of this package, and what was registered with Keras or
    is in `custom_objects`. Keras itself refuses most of the rest, but only while it
    builds the model, and after it has imported modules.

    Args:
        config: dict, a serialized model.
        custom_objects: dict of names and classes or functions.

    Returns:
        Dict of the registered objects that the config names, `custom_objects`
        included: scopes such as `keras.saving.custom_object_scope` hold in one thread
        only.

    Raises:
        ValueError: if the config asks for anything else.
    """
    objects = dict(custom_objects or {})
    if not isinstance(config.get("class_name"), str):
        raise ValueError("Its config describes no object: it has no 'class_name'.")
    values = list(walk(config))
    for name in {value for value in values if isinstance(value, str)}:
        if name in HUB:
            # Registers them. Not at import time: it needs KerasHub.
            importlib.import_module("keras_sawtooth.hub")
        item = objects.get(name) or keras.saving.get_registered_object(name)
        if item is not None:
            objects[name] = item
    for value in values:
        if isinstance(value, dict):
            if "class_name" in value or "registered_name" in value:
                _check_object(value, objects)
            _check_vocabulary(value)
            check_allocation(value)
    return objects


def _check_object(value, objects):
    names = [value.get(key) for key in ("class_name", "registered_name")]
    module = value.get("module")
    for name in (*names, module):
        if name is not None and not isinstance(name, str):
            raise ValueError(f"Its config names an object by no name: {name!r}.")
    name, registered = names
    if name == "__lambda__":
        raise ValueError("Its config holds Python code, a lambda, which is not run.")
    if name in VALUES:
        return _check_value(name, value.get("config"))
    if name == "function":
        name, registered = value.get("config"), value.get("config")
        if not isinstance(name, str):
            raise ValueError(f"Its config names a function by no name: {name!r}.")
        allowed = module is None or module in FUNCTION_MODULES
    else:
        allowed = _is_keras(module, name)
    item = objects.get(registered) or objects.get(name)
    if item is None and module and module.split(".")[0] == "keras_hub":
        item = _of_keras_hub(module, name)
    for refused in REFUSED:
        if refused in (name, registered) or item is getattr(keras.layers, refused, 0):
            raise ValueError(
                f"Its config asks for a `{refused}` layer, which may run any code. "
                "Only those who trust the preset should load it, by "
                "`keras.saving.load_model(directory, safe_mode=False)`."
            )
    if item is not None:
        _check_keras_hub(item)
    elif not allowed:
        raise ValueError(
            f"Its config asks for {registered or name!r} of the module {module!r}, "
            "which is neither a part of Keras nor registered with it. Import the "
            "package that defines it, or give it in `custom_objects`, if you trust it."
        )


def _is_keras(module, name):
    if module is None:
        # Then Keras takes the name for one of its own.
        return True
    # Functional models and operations are saved by their private modules. Some of the
    # others import a package when they are imported.
    private = module.split(".")[:2] == ["keras", "src"] and module in sys.modules
    public = module in MODULES and isinstance(
        getattr(sys.modules.get(module), name or "", None), type
    )
    return private or public


def _of_keras_hub(module, name):
    if module not in sys.modules:
        raise ValueError(
            f"Its config asks for {name!r} of KerasHub. Import `keras_hub` first."
        )
    return getattr(sys.modules[module], name, None)


def _check_keras_hub(item):
    """Of KerasHub, single layers: its models load files, and loop over any number."""
    if getattr(item, "__module__", "").split(".")[0] != "keras_hub":
        return
    layer = isinstance(item, type) and issubclass(item, keras.layers.Layer)
    if not layer or issubclass(item, keras.Model) or hasattr(item, "save_assets"):
        raise ValueError(
            f"Its config asks for {item.__name__!r} of KerasHub. Load such presets by "
            "KerasHub itself."
        )


def _check_value(name, content):
    if name in ("__tensor__", "__numpy__"):
        dtype = content.get("dtype") if isinstance(content, dict) else None
        # A dtype such as "U1000000000" takes gigabytes a letter.
        if not isinstance(dtype, str) or not NUMERIC_DTYPE.fullmatch(dtype):
            raise ValueError(f"Its config holds an array of dtype {dtype!r}.")


def _check_vocabulary(value):
    vocabulary = value.get("vocabulary")
    if isinstance(vocabulary, str):
        raise ValueError(
            f"Its config asks for the file {vocabulary!r}, a vocabulary. The terms "
            "themselves must be in the config."
        )
