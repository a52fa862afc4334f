"""Which layers of a model have an activation that can be replaced."""

import re

import keras

from keras_sawtooth.graphs import has_graph
from keras_sawtooth.graphs import origins
from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.swap.layers_in_front import functions_in_graphs
from keras_sawtooth.swap.layers_in_front import layers_in_front
from keras_sawtooth.swap.pointwise import is_activation_layer
from keras_sawtooth.swap.pointwise import is_pointwise

# Operations and layers that put tensors together and change no value.
JOINING = ("Concatenate", "Hstack", "Stack", "Vstack")


def choose_layers(model, kinds, where):
    """The layers of a model to replace.

    Args:
        model: a built `keras.Model`.
        kinds: tuple of layer classes.
        where: callable that takes a layer to be replaced and returns a bool, or `None`.

    Returns:
        List of layers, and list of pairs (layer that is left alone, reason).

    Raises:
        ValueError: if there is no such layer, or one that cannot be replaced.
    """
    found, left = [], []
    layers = [x for x in flatten_layers(model) if x is not model]
    given = {id(getattr(x, "activation", None)) for x in layers}
    outputs = {id(x) for x in _output_layers(model)}
    wrapped = _wrapped_layers(layers)
    in_front = layers_in_front(model, kinds)
    for layer in layers:
        # The layers whose channels get functions, or why they get none.
        sources, reason = [layer], None
        if is_activation_layer(layer) and id(layer) not in given:
            sources, reason = _owners(layer, in_front, kinds)
        elif type(layer) not in kinds or not is_pointwise(layer.activation):
            continue
        if reason is None:
            if where is not None and not where(layer):
                continue
            if id(layer) in outputs:
                reason = "an output of the model, whose range may matter"
            elif id(layer) in wrapped:
                reason = "inside of a wrapper that uses its variables"
        if reason is not None:
            left.append((layer, reason))
            continue
        _refuse(layer)
        for source in sources:
            _check_channels(source, layer)
        found.append(layer)
    for function in functions_in_graphs(model):
        if any(in_front[id(function)]) and is_pointwise(function):
            left.append((function, "a function of a tensor, not a layer"))
    if not found:
        raise ValueError(
            f"{model.name!r} has no layer to replace: no {_names(kinds)} with a "
            "nonlinear pointwise activation, or with one in a layer behind it"
            f"{'' if where is None else ' for which `where` is true'}. `kinds` says "
            f"which layers to look for. {_listed(layers, left)}"
        )
    return found, left


def _wrapped_layers(layers):
    """The ids of all layers in wrappers that have variables, or read those inside."""
    return {
        id(x)
        for wrapper in layers
        if isinstance(wrapper, keras.layers.Wrapper)
        and type(wrapper) is not keras.layers.TimeDistributed
        for x in flatten_layers(wrapper)
    }


def _listed(layers, left):
    reasons = [f"{x.name!r} is left alone: {reason}. " for x, reason in left[:5]]
    names = [f"{x.name} ({type(x).__name__})" for x in layers[:20]]
    more = ", ..." if len(layers) > len(names) else "."
    return f"{''.join(reasons)}Its {len(layers)} layers: {', '.join(names)}{more}"


def _owners(layer, in_front, kinds):
    """The layers whose activation a layer is, and why it is left alone, or `None`."""
    calls = in_front.get(id(layer))
    if calls is None:
        return [], "an activation outside of the graph of the model"
    if not any(calls):
        return [], f"an activation without a linear {_names(kinds)} in front"
    if len(calls) > 1:
        return [], "an activation in several places"
    return calls[0], None


def _names(kinds):
    return " or ".join(f"`{kind.__name__}`" for kind in kinds)


def _output_layers(model):
    """The layers that compute the outputs of a Sequential or functional model."""
    if has_graph(model):
        last = origins(model.outputs, _passes_on)
    elif isinstance(model, keras.Sequential):
        layers = model.layers
        while len(layers) > 1 and _passes_on(layers[-1], layers[-1:]):
            layers = layers[:-1]
        last = layers[-1:]
    elif type(model) is keras.layers.TimeDistributed:
        last = [model.layer]
    else:
        return [model]
    return [x for layer in last for x in _output_layers(layer)]


def _passes_on(operation, inputs):
    """Whether the range of what an operation reads decides about that of its result.

    As it does of operations of one tensor without weights, such as reshapes, casts,
    factors, dropout and pooling, and of those that join tensors.
    """
    if type(operation) is keras.layers.Normalization:
        return True
    if isinstance(operation, keras.layers.Layer) and (
        operation.weights or any(map(is_activation_layer, flatten_layers(operation)))
    ):
        return False
    return len(inputs) == 1 or type(operation).__name__ in JOINING


def _refuse(layer):
    # Not every kind can have LoRA, or be quantized.
    lora = getattr(layer, "lora_enabled", False)
    if lora or getattr(layer, "quantization_mode", None) is not None:
        state = "has LoRA enabled" if lora else "is quantized"
        raise ValueError(
            f"Layer {layer.name!r} {state} and cannot be replaced. Replace it before, "
            f"or {_leave_out(layer)}"
        )
    if not layer.built:
        raise ValueError(
            f"Layer {layer.name!r} is not built, so it has no weights to start from. "
            f"Call the model on data once, or {_leave_out(layer)}"
        )


def _check_channels(layer, replaced):
    if not _channels_are_last(layer):
        raise ValueError(
            f"The last axis of what layer {layer.name!r} computes is not an axis of "
            "channels, and a `RegionConstraint` has one function for every channel of "
            "the last axis. Make the model with channels last, or "
            f"{_leave_out(replaced)}"
        )


def _leave_out(layer):
    return f"leave it out: `where=lambda layer: layer.name != {layer.name!r}`."


def _channels_are_last(layer):
    if type(layer) is keras.layers.EinsumDense:
        # A channel is what the kernel makes, not what the input brings.
        _, kernel, output = re.split(",|->", layer.equation.replace(" ", ""))
        return output[-1] in kernel
    return getattr(layer, "data_format", "channels_last") == "channels_last"
