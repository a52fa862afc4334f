"""Layers at any depth of nesting."""

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


def refresh_torch_parameters(model):
    """On torch, let `model.parameters()` list the current variables.

    Keras records them when a layer is built, and has no public way to do it again.
    `zero_grad`, optimizers of torch and `DistributedDataParallel` rely on the list: the
    gradients of variables outside it would add up from step to step.
    """
    if keras.backend.backend() != "torch":
        return
    for layer in flatten_layers(model):
        # A `Sequential` wraps a functional model that is not one of its layers.
        for module in list(layer.modules()):
            if hasattr(module, "_torch_params"):
                module._track_variables()
