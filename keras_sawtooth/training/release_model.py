"""Release the constrained layers of a model by hand."""

import keras

from keras_sawtooth.nested_layers import constrained_layers
from keras_sawtooth.training.model_phase import change_phase
from keras_sawtooth.training.weight_methods import follow_phases


def release(model):
    """Release every constrained layer of a model, and keep its function.

    Finds `RegionConstraint` and `SawtoothDense` at any depth of nesting. If the
    model is compiled, its optimizer is replaced by one for the new variables,
    which keeps the class, the step count, the learning rate and the state of all
    variables that stay; the compiled training, test and prediction functions are
    rebuilt. Training continues with `fit` as if nothing had happened. If you hold the
    optimizer in a variable, take `model.optimizer` from now on. `model.load_weights`
    and `model.set_weights` follow the phase of what they are given, too.

    Args:
        model: a built `keras.Model`; of nested models, the outermost one that is
            compiled. A single layer has its own `layer.release()`.

    Returns:
        List of the `RegionConstraint` layers that were released. One that the model
        does not call will start in the released phase.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if there is nothing to release, the model is not built, or the
            optimizer cannot be copied. The model is unchanged then.

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
    unbuilt = [layer for layer in layers if not layer.built]
    if unbuilt and not model.built:
        raise ValueError(
            f"Layer {unbuilt[0].path or unbuilt[0].name!r} of {model.name!r} is not "
            "built yet, so there is nothing to release. Call the model on "
            "data first: `model(x[:1])`."
        )
    change_phase(model, [layer for layer in layers if layer.built])
    for layer in unbuilt:
        # The model does not call it.
        layer.constrained = False
    follow_phases(model)
    return layers
