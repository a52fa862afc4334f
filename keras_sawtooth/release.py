"""Release the constrained layers of a model by hand."""

import keras
import numpy as np

from keras_sawtooth.optimizer_state import carry_over
from keras_sawtooth.optimizer_state import copy_optimizer
from keras_sawtooth.optimizer_state import slot_value
from keras_sawtooth.region_constraint import RegionConstraint

# How much more sensitive a function is to its ReLU weights than to its peaks.
SENSITIVITY = 16


def release(model):
    """Release every constrained layer of a model, and keep its function.

    Finds `RegionConstraint` and `SawtoothDense` at any depth of nesting. If the
    model is compiled, its optimiser is replaced by one for the new variables,
    which keeps the class, the step count, the learning rate and the state of all
    variables that stay; the compiled training, test and prediction functions are
    made anew. Training goes on with `fit` as if nothing had happened.

    Args:
        model: a built `keras.Model`; of nested models, the outermost one that is
            compiled. A single layer has its own `layer.release()`.

    Returns:
        List of the `RegionConstraint` layers that were released.

    Raises:
        TypeError: if `model` is no model.
        ValueError: if there is nothing to release, a layer is not built, or the
            optimiser cannot be copied. The model is unchanged then.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), SawtoothDense(8)])
    >>> len(release(model))
    1
    >>> model.layers[0].constrained
    False

    Reference:
        - [Milkert et al., 2025](https://arxiv.org/abs/2311.18022), section 3.2.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`release` takes a `keras.Model`; a layer has `layer.release()`. "
            f"Received: model={model!r}"
        )
    layers = constrained_layers(model)
    if not layers:
        raise ValueError(
            f"{model.name!r} has no constrained layer to release: it holds no "
            "`SawtoothDense` or `RegionConstraint`, or all of them were "
            "released before."
        )
    for layer in layers:
        if not layer.built:
            raise ValueError(
                f"Layer {layer.path or layer.name!r} of {model.name!r} is not "
                "built yet, so there is nothing to release. Call the model on "
                "data, or build it, first."
            )
    replaced = [(layer.peak_logits, layer.amplitude) for layer in layers]
    # Whatever can fail comes before the first change.
    copies = [
        (
            trainer,
            copy_optimizer(trainer.optimizer) if _has_state(trainer) else None,
            trainer.trainable_variables,
        )
        for trainer in flatten_layers(model)
        if isinstance(trainer, keras.Model) and trainer.compiled
    ]
    for layer in layers:
        layer.release()
    _register_with_torch(model)
    for trainer, optimizer, trained in copies:
        if optimizer is not None:
            velocities = []
            for layer, variables in zip(layers, replaced, strict=True):
                velocities += _velocities(trainer.optimizer, trained, layer, variables)
            carry_over(
                trainer.optimizer, optimizer, trainer.trainable_variables, velocities
            )
            trainer.optimizer = optimizer
        trainer.test_function = trainer.predict_function = None
        if trainer.train_function is not None:
            trainer.make_train_function(force=True)
    return layers


def constrained_layers(model):
    """All constrained `RegionConstraint` layers inside a model or layer."""
    return [
        layer
        for layer in flatten_layers(model)
        if isinstance(layer, RegionConstraint) and layer.constrained
    ]


def flatten_layers(model):
    # Keras has no public way to walk nested layers of every kind.
    return model._flatten_layers()


def _register_with_torch(model):
    """Let torch see the new variables, and the old ones no more.

    The layers around a released one keep lists of their own, made when they were
    built. `zero_grad` clears the gradients of what is in them; those of all other
    variables would add up from step to step.
    """
    if keras.backend.backend() != "torch":
        return
    for layer in flatten_layers(model):
        # A `Sequential` wraps a functional model that is no layer of it.
        for module in layer.modules():
            if isinstance(module, keras.layers.Layer):
                module.torch_params.clear()
                module.torch_params.update({v.path: v.value for v in module.variables})


def _has_state(model):
    return model.optimizer is not None and model.optimizer.built


def _velocities(optimizer, trained, layer, replaced):
    """Second moments for the ReLU weights, from the variables they replace.

    Their gradients are at most about `SENSITIVITY` times as large, and stored as
    they are `relu_rate` times that. So the largest second moment of the channel
    gives a safe start: an estimate that is too large shortens the first steps and
    decays by itself.
    """
    known = [slot_value(optimizer, v, "velocity", trained) for v in replaced]
    known = [np.atleast_2d(value) for value in known if value is not None]
    if not known:
        return []
    largest = np.concatenate(known).max(axis=0)
    estimate = largest * (SENSITIVITY * layer.relu_rate) ** 2
    return [
        (v, np.broadcast_to(estimate, v.shape))
        for v in layer.weights
        if v.name.startswith("relu_")
    ]
