"""Weights of a layer, for a copy whose activations were replaced."""

import keras

from keras_sawtooth.release import flatten_layers
from keras_sawtooth.sawtooth_dense import SawtoothDense


def carry_weights(old, new, chosen, regions):
    """Give a copy the weights of what it was made from, and what is frozen of it.

    Args:
        old: built layer or model.
        new: built layer or model, made from the configuration of `old`.
        chosen: set of the ids of the layers whose activations were replaced.
        regions: set of the names of the `RegionConstraint` layers that became the
            activation of a layer which kept its class.

    Returns:
        List of pairs (layer in `old`, its counterpart in `new`), outer layers first.

    Raises:
        ValueError: if the two differ in anything else. Nothing is changed then.
    """
    sources = flatten_layers(old)
    # What was replaced may have been a layer, too, such as `ReLU()`.
    gone = [getattr(x, "activation", None) for x in sources if id(x) in chosen]
    sources = [x for x in sources if not any(x is y for y in gone)]
    targets, added = [], []
    for layer in flatten_layers(new):
        # The layer that holds it, and its counterpart, are in the lists by now.
        is_added = layer.name in regions or any(
            id(source) in chosen and getattr(target, "region_constraint", None) is layer
            for source, target in zip(sources, targets, strict=False)
        )
        (added if is_added else targets).append(layer)
    _check_equal(old, *([_kind(x) for x in layers] for layers in (sources, targets)))
    pairs = list(zip(sources, targets, strict=True))

    added = {id(weight) for layer in added for weight in layer.weights}
    sources = old.weights
    targets = [weight for weight in new.weights if id(weight) not in added]
    _check_equal(old, *([_shape(x) for x in weights] for weights in (sources, targets)))
    for source, target in zip(sources, targets, strict=True):
        # Through NumPy: on JAX the two would share a buffer, and training the copy
        # would delete it under the old model.
        target.assign(keras.ops.convert_to_numpy(source))
    for source, target in pairs:
        if target.trainable != source.trainable:
            target.trainable = source.trainable
    return pairs


def _kind(layer):
    replaced = type(layer) is SawtoothDense
    return "Dense" if replaced else type(layer).__name__


def _shape(weight):
    return f"{weight.name} {tuple(weight.shape)}"


def _check_equal(layer, wanted, found):
    if wanted == found:
        return
    raise ValueError(
        f"A copy of {layer.name!r} ({type(layer).__name__}) that was made from its "
        f"configuration has other parts: {found} instead of {wanted}. Its "
        "`get_config()`, and the `build` of every layer, must lead to the same ones. "
        "If Keras could not build it before its first call: give it a `build` method."
    )
