"""Layers at any depth of nesting, and the graphs in which they are called."""

import keras

from keras_sawtooth.region_constraint import RegionConstraint


def flatten_layers(model):
    # Keras has no public way to walk nested layers of every kind.
    return model._flatten_layers()


def region_layers(model):
    """All `RegionConstraint` layers inside a model or layer, itself included."""
    return [x for x in flatten_layers(model) if isinstance(x, RegionConstraint)]


def built_region_layers(model):
    """All built `RegionConstraint` layers inside a model or layer."""
    return [layer for layer in region_layers(model) if layer.built]


def constrained_layers(model):
    """All constrained `RegionConstraint` layers inside a model or layer."""
    return [layer for layer in region_layers(model) if layer.constrained]


def compiled_models(model):
    """All compiled models inside a model, itself included."""
    return [
        layer
        for layer in flatten_layers(model)
        if isinstance(layer, keras.Model) and layer.compiled
    ]


def made_by(tensor):
    """The operation that a symbolic tensor comes from, and the tensors that it read."""
    # Keras has no public way to walk the graph of a model.
    operation, node_index, _ = tensor._keras_history
    return operation, _read_tensors(operation)[node_index]


def read_shapes(layer):
    """The shape of the first tensor that a layer reads, for each of its calls."""
    return [tensors[0].shape for tensors in _read_tensors(layer)]


def _read_tensors(operation):
    return [node.input_tensors for node in operation._inbound_nodes]
