"""The state of a model from a tree of values by paths, of this or the other phase.

`keras.callbacks.OrbaxCheckpoint` writes such trees. Keras' own `set_state_tree` skips
what is only in the tree or only in the model without a word.
"""

import warnings

from keras_sawtooth.nested_layers import region_layers
from keras_sawtooth.optimizer_state import start_at_values
from keras_sawtooth.phase_change import build_optimizer
from keras_sawtooth.phase_change import change_phase


def set_state_tree(model, state_tree):
    """Set the weights of a model, and if the tree has it, the state of the optimizer.

    Args:
        model: a built and compiled `keras.Model`.
        state_tree: nested dict as `model.get_state_tree()` returns it.

    Returns:
        List of the layers that were released or constrained first, as those in the
        tree are.

    Raises:
        ValueError: if weights are missing or have other shapes.
    """
    values = _by_path(state_tree, "trainable_variables", "non_trainable_variables")
    layers = [layer for layer in region_layers(model) if _other_phase(layer, values)]
    if layers:
        change_phase(model, layers)
    missing = [v.path for v in model.weights if v.path not in values]
    if missing:
        raise ValueError(
            f"It has no values for {missing}. All layers must have the names that they "
            "had when it was written."
        )
    _assign(model.trainable_variables + model.non_trainable_variables, values)
    if not _set_optimizer_state(model, state_tree.get("optimizer_variables")):
        changed = [v for layer in layers for v in layer.trainable_variables]
        start_at_values(model.optimizer, changed)
    return layers


def _other_phase(layer, values):
    """Whether the values of a layer are those of the phase in which it is not."""
    prefix = layer.slope.path.removesuffix("slope")

    def has(constrained):
        names = layer.variable_shapes(constrained)
        return all(prefix + name in values for name in names)

    return has(not layer.constrained) and not has(layer.constrained)


def _set_optimizer_state(model, state):
    """Whether there is a state, and it is that of such an optimizer."""
    if state is None:
        return False
    build_optimizer(model)
    optimizer = model.optimizer
    if len(state) == 1:
        # Keras numbers the names of optimizers.
        state = {optimizer.name: next(iter(state.values()))}
    values = _by_path({"": state}, "")
    if {*values} != {v.path for v in optimizer.variables}:
        warnings.warn(
            f"The state of the optimizer of {model.name!r} is not loaded: in the "
            "checkpoint is that of another kind of optimizer, or of one for other "
            "variables.",
            stacklevel=2,
        )
        return False
    _assign(optimizer.variables, values)
    return True


def _assign(variables, values):
    for variable in variables:
        if variable.path in values:
            variable.assign(values[variable.path])


def _by_path(state_tree, *kinds):
    """The values of these branches by the paths of their variables."""
    values = {}

    def add(branch, prefix):
        for name, value in branch.items():
            if isinstance(value, dict):
                add(value, f"{prefix}{name}/")
            else:
                values[prefix + name] = value

    for kind in kinds:
        add(state_tree.get(kind, {}), "")
    return values
