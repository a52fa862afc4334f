"""Which layers are in front of another one, in the graph of a model."""

import keras
from keras import layers

from keras_sawtooth.graphs import calls_behind
from keras_sawtooth.graphs import has_graph
from keras_sawtooth.graphs import origins

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
    layers.Identity,
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.UnitNormalization,
)


def layers_in_front(model, kinds):
    """The linear layers whose results other layers read.

    They read them directly, or through normalizations, dropout, sums and
    concatenations.

    Args:
        model: a built `keras.Model`.
        kinds: tuple of layer classes to look for.

    Returns:
        Dict from the id of every layer in the graph of a Sequential or functional
        model, and of the models in it, to a list with a list for each of its calls:
        the linear layers of the `kinds` that are in front of it there.
    """
    found = {}
    for graph in _graphs(model):
        for layer, inputs in _calls(graph):
            key = id(_unwrapped(layer))
            found.setdefault(key, []).append(_sources(inputs, kinds))
    return found


def functions_in_graphs(model):
    """The functions of tensors, such as `keras.ops.relu(x)`, in the same graphs."""
    found = {id(x): x for graph in _graphs(model) for x, _ in _calls(graph)}
    return [x for x in found.values() if not isinstance(x, layers.Layer)]


def _graphs(model):
    """A model and the models that are layers of it, but none in the code of a class."""
    models, seen = [model], set()
    while models:
        model = _unwrapped(models.pop())
        if has_graph(model) and id(model) not in seen:
            seen.add(id(model))
            models += model.layers
            yield model


def _calls(graph):
    """Pairs (operation, tensors that it reads), one for every call in a graph."""
    walk = calls_behind(graph.outputs, lambda operation, inputs: True)
    return [(operation, inputs) for operation, inputs, _ in walk]


def _sources(tensors, kinds):
    found = origins(tensors, lambda layer, _: type(_unwrapped(layer)) in BETWEEN)
    found = [_unwrapped(layer) for layer in found]
    return [x for x in found if type(x) in kinds and _is_linear(x)]


def _unwrapped(layer):
    return layer.layer if type(layer) is layers.TimeDistributed else layer


def _is_linear(layer):
    return layer.activation in (None, keras.activations.linear)
