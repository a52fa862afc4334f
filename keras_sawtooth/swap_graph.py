"""Layers whose activation is a layer of its own, in the graph of a model."""

import keras
from keras import layers

from keras_sawtooth.cloning import is_graph
from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.nested_layers import made_by

# May stand between a layer and its activation: a channel stays a channel.
BETWEEN = (
    layers.Add,
    layers.AlphaDropout,
    layers.BatchNormalization,
    layers.Concatenate,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.UnitNormalization,
)


def followed_layers(model, kinds):
    """The linear layers behind which another layer is called.

    A layer follows a dense one if it reads its result, directly or through
    normalizations, dropout, sums or concatenations.

    Args:
        model: a built `keras.Model`.
        kinds: tuple of layer classes to look for.

    Returns:
        Dict from the id of every layer in a Sequential or functional model, at any
        depth, to a list with a list for each of its calls: the linear layers of the
        `kinds` that it follows there.
    """
    found = {}
    for graph in flatten_layers(model):
        # Keras has no graph of a Sequential model whose layers it cannot see through.
        if is_graph(graph) and hasattr(graph, "outputs"):
            for operation, inputs in _calls(graph):
                found.setdefault(id(operation), []).append(_sources(inputs, kinds))
    return found


def _calls(graph):
    """Pairs (operation, tensors that it reads), one for every call in a graph."""
    tensors, seen = keras.tree.flatten(graph.outputs), set()
    while tensors:
        operation, inputs = made_by(tensors.pop())
        # The tensors, as one operation may be called on several.
        key = (id(operation), *(id(x) for x in inputs))
        if key not in seen:
            seen.add(key)
            tensors += inputs
            yield operation, inputs


def _sources(tensors, kinds):
    tensors, seen, sources = list(tensors), set(), []
    while tensors:
        tensor = tensors.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, inputs = made_by(tensor)
        if type(operation) in BETWEEN:
            tensors += inputs
        elif type(operation) in kinds and _is_linear(operation):
            sources.append(operation)
    return sources


def _is_linear(layer):
    return layer.activation in (None, keras.activations.linear)
