"""Weights of a layer, for a copy whose activations were replaced."""

import re

import keras

from keras_sawtooth.cloning import copy_assets
from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.region_constraint import RegionConstraint
from keras_sawtooth.sawtooth_dense import SawtoothDense
from keras_sawtooth.swap.pointwise import ACTIVATION_LAYERS


def carry_weights(old, new, chosen, regions):
    """Give a copy the weights of what it was made from, and what is frozen of it.

    Args:
        old: built layer or model.
        new: built layer or model, made from the configuration of `old`.
        chosen: set of the ids of the layers that were replaced, or whose activations
            were.
        regions: set of the names of the `RegionConstraint` layers that became the
            activation of a layer which kept its class.

    Returns:
        List of pairs (layer in `old`, its counterpart in `new`), outer layers first.

    Raises:
        ValueError: if the two differ in anything else. Nothing is changed then.
    """
    gone = _activation_layers([x for x in flatten_layers(old) if id(x) in chosen])
    layers, added = _pair_layers(old, new, chosen, regions, gone)
    old_weights, new_weights = _weights_without(old, gone), _weights_without(new, added)
    _check_equal(
        old, [_shape(x) for x in old_weights], [_shape(x) for x in new_weights]
    )
    weights = list(zip(old_weights, new_weights, strict=True))
    for source, target in weights:
        # Through NumPy: on JAX the two would share a buffer, and training the copy
        # would delete it under the old model.
        target.assign(keras.ops.convert_to_numpy(source))
    for source, target in layers:
        _carry_state(source, target)
    for source, target in weights:
        # Variables may be frozen without their layer.
        if not source.trainable:
            target.trainable = False
    return layers


def _pair_layers(old, new, chosen, regions, gone):
    """Pairs of layers and their counterparts, and list of the layers that were added.

    `gone` are the layers of `old` that were activations, or inside of them.
    """
    # Activations that were arguments of other layers are no layers of the copy.
    arguments = {id(x) for x in gone} - chosen
    sources = [x for x in flatten_layers(old) if id(x) not in arguments]
    targets, added, inside, left = [], [], set(), iter(sources)
    for layer in flatten_layers(new):
        if layer.name in regions or id(layer) in inside:
            added.append(layer)
            continue
        # A layer comes before those that it holds.
        if id(next(left, None)) in chosen and _is_sawtooth(layer):
            inside.add(id(layer.region_constraint))
        targets.append(layer)
    _check_equal(
        old, [_kind(x, chosen) for x in sources], [_kind(x, ()) for x in targets]
    )
    pairs = list(zip(sources, targets, strict=True))
    added += [b for a, b in pairs if id(a) in chosen and type(b) is RegionConstraint]
    return pairs, added


def _carry_state(source, target):
    """Give a layer what its counterpart has besides weights."""
    if not source.trainable:
        # What was added inside has to follow, also where the two agree already; then
        # TensorFlow would not hand it down.
        for layer in flatten_layers(target):
            layer.trainable = False
    elif not target.trainable:
        target.trainable = True
    copy_assets(source, target)
    if isinstance(target, keras.layers.Normalization):
        # Constants that it makes from its weights.
        target.finalize_state()


def check_copy(model, result, replaced, rewriter):
    """Refuse a copy in which anything is not as it was asked for.

    Args:
        model: the model that was copied.
        result: its copy.
        replaced: list of pairs (chosen layer of `model`, its counterpart).
        rewriter: the `Rewriter` that made the layers of `result`.

    Raises:
        ValueError: if a chosen layer kept its activation, weights that were shared
            are not, or the copy cannot be called.
    """
    added = []
    for old, new in replaced:
        region = replaced_activation(new)
        if not isinstance(region, RegionConstraint):
            raise ValueError(
                f"Layer {old.path!r} was not replaced, although the configuration of "
                "what holds it was: it has its activation from elsewhere. Leave it "
                f"out: `where=lambda layer: layer.name != {old.name!r}`."
            )
        added.append(region)
    found = len(_weights_without(result, added))
    gone = _ids_of_weights(_activation_layers([old for old, _ in replaced]))
    # A layer that is kept may use the same activation.
    others = [x for x in flatten_layers(model) if not rewriter.holds_chosen(x)]
    gone -= _ids_of_weights(_flattened(getattr(x, "activation", None) for x in others))
    kept = len([weight for weight in model.weights if id(weight) not in gone])
    if found != kept:
        raise ValueError(
            f"{model.name!r} has {kept} weights to be kept, but its copy would have "
            f"{found} for them. Weights that several layers share, such as tied "
            "embeddings, are not shared in a copy of a functional model, and layers "
            "outside of its graph are lost. Replace the layers of a part of it."
        )
    if rewriter.entered and hasattr(result, "input"):
        _check_call(model, result, rewriter.entered)


def replaced_activation(layer):
    """The activation of a layer that took the place of another, or the layer itself."""
    if isinstance(layer, RegionConstraint):
        return layer
    return layer.region_constraint if _is_sawtooth(layer) else layer.activation


def same_variables(old, new):
    """Pairs of the variables that a layer and its counterpart have in common."""
    pairs = zip(old.weights, new.weights, strict=False)
    return [(a, b) for a, b in pairs if _shape(a) == _shape(b)]


def _activation_layers(chosen):
    """The layers that were the activations of replaced layers, or inside of them."""
    return _flattened(
        x if type(x) in ACTIVATION_LAYERS else x.activation for x in chosen
    )


def _flattened(activations):
    return [
        inner
        for x in activations
        if isinstance(x, keras.layers.Layer)
        for inner in flatten_layers(x)
    ]


def _weights_without(model, layers):
    """The weights of a model, without those of some layers."""
    left_out = _ids_of_weights(layers)
    return [weight for weight in model.weights if id(weight) not in left_out]


def _ids_of_weights(layers):
    return {id(weight) for layer in layers for weight in layer.weights}


def _check_call(model, result, entered):
    # Layers may know the shape of their output without calling what they hold.
    inputs = keras.tree.map_structure(
        lambda x: keras.KerasTensor([1 if n is None else n for n in x.shape], x.dtype),
        result.input,
    )
    try:
        keras.Operation.compute_output_spec(result, inputs)
    except Exception as error:
        try:
            keras.Operation.compute_output_spec(model, inputs)
        except Exception:
            # It has no output for the smallest inputs, as before.
            return
        raise ValueError(
            f"{entered} do not work with a `RegionConstraint` in place of an "
            f"activation: {error} Leave out the layers inside of them by `where`."
        ) from error


def _kind(layer, chosen):
    if id(layer) in chosen and type(layer) in ACTIVATION_LAYERS:
        return RegionConstraint.__name__
    return "Dense" if _is_sawtooth(layer) else type(layer).__name__


def _is_sawtooth(layer):
    return type(layer) is SawtoothDense


def _shape(weight):
    # Keras counts those that got no name.
    name = "variable" if re.fullmatch(r"variable_\d+", weight.name) else weight.name
    return f"{name} {tuple(weight.shape)}"


def _check_equal(layer, wanted, found):
    if wanted == found:
        return
    raise ValueError(
        f"A copy of {layer.name!r} ({type(layer).__name__}) that was made from its "
        f"configuration has other parts: {found} instead of {wanted}. Its "
        "`get_config()`, and the `build` of every layer, must lead to the same ones. "
        "If Keras could not build it before its first call: give it a `build` method."
    )
