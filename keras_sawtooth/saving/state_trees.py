"""Set a model's state from a nested dict of values, saved in either phase.

`keras.callbacks.OrbaxCheckpoint` writes such trees. Keras' own `set_state_tree` skips
what is only in the tree or only in the model without a word.
"""

import re
import warnings

import numpy as np

from keras_sawtooth.nested_layers import built_region_layers
from keras_sawtooth.training.model_phase import build_optimizer
from keras_sawtooth.training.model_phase import change_phase
from keras_sawtooth.training.optimizer_state import start_value_slots

SEED_STATE = "seed_generator_state"


def set_state_tree(model, state_tree):
    """Set the weights of a model, and if the tree has it, the state of the optimizer.

    Args:
        model: a built and compiled `keras.Model`.
        state_tree: nested dict as `model.get_state_tree()` returns it.

    Returns:
        List of the layers that were released or constrained first, as those in the
        tree are.

    Raises:
        ValueError: if the weights in the tree have other names or shapes.
    """
    # Both branches: a layer may have been frozen since.
    values = {}
    for branch in ("trainable_variables", "non_trainable_variables"):
        values |= _by_path(state_tree.get(branch, {}))
    layers = [x for x in built_region_layers(model) if _other_phase(x, values)]
    if layers:
        change_phase(model, layers)
    _check_weights(model.weights, values)
    for variable in model.trainable_variables + model.non_trainable_variables:
        # Keras numbers seed generators: their states may have other names.
        if variable.path in values:
            variable.assign(values[variable.path])
    if not _set_optimizer_state(model, state_tree.get("optimizer_variables")):
        changed = [v for layer in layers for v in layer.trainable_variables]
        start_value_slots(model.optimizer, changed)
    return layers


def _other_phase(layer, values):
    """Whether the values of a layer are those of the phase in which it is not."""
    prefix = layer.slope.path.removesuffix("slope")

    def has(constrained):
        names = layer.variable_shapes(constrained)
        return all(prefix + name in values for name in names)

    return has(not layer.constrained) and not has(layer.constrained)


def _check_weights(weights, values):
    expected = {v.path: tuple(v.shape) for v in weights}
    if len(expected) < len(weights):
        raise ValueError(
            "Orbax knows variables by their names, and some have the same one: "
            f"{sorted(v.path for v in weights)}. Give the layers other names."
        )
    found = {
        path: np.shape(value)
        for path, value in values.items()
        if not path.endswith(SEED_STATE)
    }
    if found != expected:
        missing = dict(expected.items() - found.items())
        unknown = dict(found.items() - expected.items())
        raise ValueError(
            f"The model expects the variables {missing}, and the checkpoint has "
            f"{unknown} in their place. Layers and models must have the names and "
            "arguments that they had when it was written."
        )


def _set_optimizer_state(model, state):
    """Whether there is a state, and the optimizer has taken it."""
    if state is None:
        return False
    build_optimizer(model)
    own = model.optimizer.variables
    # Keras numbers the names of optimizers.
    for name in (str, _without_number):
        values = {name(path): value for path, value in _by_path(state).items()}
        variables = {name(v.path): v for v in own}
        if variables.keys() == values.keys() and len(variables) == len(own):
            for path, variable in variables.items():
                variable.assign(values[path])
            return True
    warnings.warn(
        f"The state of the optimizer of {model.name!r} is not loaded: the one in the "
        "checkpoint has other variables.",
        stacklevel=2,
    )
    return False


def _without_number(path):
    """The path of a variable of `adam_1` as that of one of `adam`."""
    return re.sub(r"^([^/]+?)_\d+(?=/|$)", r"\1", path)


def _by_path(branch, prefix=""):
    """The values of a nested dict by the paths of their variables."""
    values = {}
    for name, value in branch.items():
        if isinstance(value, dict):
            values |= _by_path(value, f"{prefix}{name}/")
        else:
            values[prefix + name] = value
    return values
