"""Replacements for `model.load_weights` and `model.set_weights` that follow phases."""

import types
import warnings

import numpy as np

from keras_sawtooth.nested_layers import built_region_layers
from keras_sawtooth.nested_layers import compiled_models
from keras_sawtooth.saving.weights import load_weights
from keras_sawtooth.training.model_phase import change_phase
from keras_sawtooth.training.optimizer_state import start_value_slots


def follow_phases(model):
    """Let `model.load_weights` and `model.set_weights` follow phases, too.

    Callbacks such as `BackupAndRestore` and `EarlyStopping` restore a model by these
    methods. Keras offers no other place to tell a model from its layers that its
    variables are to change.
    """
    model.load_weights = types.MethodType(load_weights, model)
    model.set_weights = types.MethodType(set_weights, model)


def set_weights(model, weights):
    """Set the weights of a model from a list, of either phase.

    Does what `model.set_weights` does; layers whose weights in the list are of the
    other phase are released or constrained first, and a warning says so at the end.

    Args:
        model: a built `keras.Model`.
        weights: list of arrays, as `model.get_weights()` returned it.

    Raises:
        ValueError: if the shapes fit in neither phase.
    """
    layers = _layers_of_other_phase(model, weights)
    if layers:
        change_phase(model, layers)
    type(model).set_weights(model, weights)
    changed = [v for layer in layers for v in layer.trainable_variables]
    for trainer in compiled_models(model):
        if trainer.optimizer is not None:
            start_value_slots(trainer.optimizer, changed)
    if layers:
        phases = [
            f"{layer.path!r} is {'constrained' if layer.constrained else 'released'}"
            for layer in layers
        ]
        # Last: a warning may be an error.
        warnings.warn(
            f"The weights that were set are of the other phase. In {model.name!r}, "
            f"{', '.join(phases)} now.",
            stacklevel=2,
        )


def _layers_of_other_phase(model, weights):
    """Layers to be changed so that the list fits; none if it fits in no way."""
    owners = {
        id(variable): layer
        for layer in built_region_layers(model)
        for variable in layer.weights
        if variable.name in layer.variable_shapes(layer.constrained)
    }
    shapes = [np.shape(value) for value in weights]
    changed, seen, start = [], set(), 0
    for variable in model.weights:
        layer = owners.get(id(variable))
        if layer is None:
            expected = [tuple(variable.shape)]
        elif layer in seen:
            continue
        else:
            seen.add(layer)
            expected = list(layer.variable_shapes(layer.constrained).values())
            other = list(layer.variable_shapes(not layer.constrained).values())
            if shapes[start : start + len(other)] == other:
                expected = other
                changed.append(layer)
        if shapes[start : start + len(expected)] != expected:
            return []
        start += len(expected)
    return changed if start == len(shapes) else []
