"""Save a `RegionConstraint`, and load it from a weights file of either phase."""

import contextlib
import contextvars
import warnings

import numpy as np

from keras_sawtooth import layer_phase
from keras_sawtooth.saving import checked_store

# Layers that changed their phase to follow a file, where someone collects them.
_followers = contextvars.ContextVar("followers", default=None)


@contextlib.contextmanager
def collect_followers():
    """The layers that follow a weights file into its phase meanwhile, as a list.

    Without a collector, every such layer gives a warning.
    """
    token = _followers.set([])
    try:
        yield _followers.get()
    finally:
        _followers.reset(token)


def save(layer, store):
    """Save the variables of a `RegionConstraint`, and what their numbers stand for."""
    units = ("domain", "margin" if layer.constrained else "relu_rate")
    values = {name: np.array(getattr(layer, name), "float64") for name in units}
    checked_store.write(
        store, {**values, **{v.name: v for v in layer_phase.own_variables(layer)}}
    )


def load(layer, store):
    """Load the variables of a `RegionConstraint`, and follow their phase.

    Constrained layers follow a released file. Released ones go back only within
    `collect_followers`.

    Raises:
        ValueError: if the file is damaged or of another layer.
    """
    values = checked_store.read(store, layer.path or layer.name)
    for name in ("domain", "margin", "relu_rate"):
        # Files that other programs wrote may come without.
        own = getattr(layer, name)
        found = values.pop(name, own)
        if not np.array_equal(found, own):
            raise ValueError(
                f"Layer {layer.path or layer.name!r} has {name}={own!r}, and the "
                f"variables in the file are those of a layer with {name}="
                f"{found.tolist()!r}: here they would be another function. Create the "
                "layer with the arguments of that one."
            )
    if not layer.built:
        if values:
            raise ValueError(
                f"Layer {layer.name!r} is not built yet and cannot take the "
                f"variables {sorted(values)} of the file. Build its model, or "
                "call it on data, first."
            )
        return
    others = {v.name for v in layer_phase.added_variables(layer)}
    found = {name: v.shape for name, v in values.items() if name not in others}
    if found != layer.variable_shapes(layer.constrained):
        _follow(layer, found)
    for variable in layer_phase.own_variables(layer):
        if variable.name not in values:
            raise ValueError(
                f"The file has no variable {variable.name!r} of layer {layer.path!r}: "
                "it is that of a layer of another class."
            )
        variable.assign(values[variable.name])


def _follow(layer, found):
    """Change to the phase in which the variables have the shapes `found`."""
    followers = _followers.get()
    # Going back takes a caller that rebuilds the model: it collects followers.
    follows = layer.constrained or followers is not None
    if not follows or found != layer.variable_shapes(not layer.constrained):
        raise ValueError(_mismatch(layer, found))
    layer_phase.change_phase(layer)
    if followers is not None:
        followers.append(layer)
        return
    warnings.warn(
        f"Layer {layer.path!r} was constrained and is released now, as its weights "
        "in the file are. Call `compile` before its model trains or predicts "
        "again; `keras_sawtooth.load_weights` makes that unnecessary and loads "
        "the state of the optimizer, too.",
        stacklevel=4,
    )


def _mismatch(layer, found):
    phase = "constrained" if layer.constrained else "released"
    message = (
        f"Layer {layer.path!r} is {phase} and expects the variables "
        f"{layer.variable_shapes(layer.constrained)}, but the file holds {found}. "
    )
    if found == layer.variable_shapes(not layer.constrained):
        return message + (
            "These are the weights of a constrained layer. "
            "`keras_sawtooth.load_weights(model, file)` takes the layer back to "
            "that phase."
        )
    return message + (
        "It must be the file of a layer with the same number of channels, "
        "`depth`, `scales` and `tails`."
    )
