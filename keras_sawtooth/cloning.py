"""What `replace_dense` and `to_standard_layers` share: how models are copied."""

import tempfile
from contextlib import contextmanager

import keras

from keras_sawtooth.graphs import is_graph
from keras_sawtooth.nested_layers import compiled_models

# Layers that apply their `activation` to their result, and nothing after it.
ENDS_IN_ACTIVATION = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def clone_graph(model, clone, copies=None):
    """A copy of a Sequential or functional model, made of copies of its layers.

    Args:
        model: a built `keras.Model` with a graph.
        clone: function of a layer or operation that returns its copy.
        copies: dict of the copies that were made before, by the id of the layer.

    Raises:
        TypeError: if a class in `model` has a `call` that its copy has not.
    """
    copies = {} if copies is None else copies

    def copy_of(layer):
        # Several models may share it.
        if id(layer) not in copies:
            copies[id(layer)] = (
                clone_graph(layer, clone, copies) if is_graph(layer) else clone(layer)
            )
        return copies[id(layer)]

    copy = keras.models.clone_model(model, _new_inputs(model), clone_function=copy_of)
    if type(model).call is not type(copy).call:
        raise TypeError(
            f"{model.name!r} cannot be copied: it is a functional model, but "
            f"{type(model).__name__} has a `call` and an `__init__` of its own. "
            f"Received: model={model!r}"
        )
    return copy


def _new_inputs(model):
    """Inputs like those of a model; Keras' own cloning loses more than their names."""
    if isinstance(model, keras.Sequential):
        return None
    known = {
        id(layer.output): layer.get_config()
        for layer in model.layers
        if isinstance(layer, keras.layers.InputLayer)
    }
    return keras.tree.map_structure(
        lambda x: keras.layers.InputLayer.from_config(known[id(x)]).output, model.input
    )


@contextmanager
def uncompiled(model):
    """Mark compiled models as not compiled for a while.

    Keras would compile their clones, too, and for that needs the code of their losses.
    """
    compiled = compiled_models(model)
    for trainer in compiled:
        trainer.compiled = False
    try:
        yield
    finally:
        for trainer in compiled:
            trainer.compiled = True


def copy_assets(layer, copy):
    """Copy what a layer keeps besides its variables, such as a vocabulary."""
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copy.load_assets(folder)
