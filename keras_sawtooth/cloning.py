"""Cloning layers and models, which may end in an activation.

Shared by `replace_dense` and `to_standard_layers`.
"""

import tempfile
from contextlib import contextmanager

import keras

from keras_sawtooth.graphs import is_graph
from keras_sawtooth.nested_layers import compiled_models
from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.sawtooth_dense import SawtoothDense

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


def check_same_call(model, result):
    """Refuse a clone that would compute something else than the model does.

    Args:
        model: a Sequential or functional model.
        result: what `keras.models.clone_model` made of it.

    Raises:
        TypeError: if a class in `model` has a `call` that its clone has not.
    """
    if type(model).call is not type(result).call:
        raise TypeError(
            f"{model.name!r} cannot be copied: it is a functional model, but "
            f"{type(model).__name__} has a `call` and an `__init__` of its own. "
            f"Received: model={model!r}"
        )
    # There may be layers outside of the graph, which are not copied.
    copies = {layer.name: layer for layer in result.layers}
    for layer in model.layers:
        if is_graph(layer) and layer.name in copies:
            check_same_call(layer, copies[layer.name])


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


def layer_pairs(layer, copy):
    """Pairs of every layer inside `layer`, itself included, and its copy."""
    for old, new in zip(flatten_layers(layer), flatten_layers(copy), strict=False):
        # Keras builds the `activation` of a layer when that is called on data.
        if old.built and not new.built:
            new.build_from_config(old.get_build_config())
    return zip(flatten_layers(layer), flatten_layers(copy), strict=True)


def copy_state(layer, copy):
    """Copy what a layer itself would save: its variables, not those of its layers,
    and its assets."""
    store = {}
    if type(layer) is SawtoothDense:
        # With LoRA merged into the kernel, and without a checksum.
        keras.layers.Dense.save_own_variables(layer, store)
    else:
        layer.save_own_variables(store)
    # Through NumPy: on JAX the two would share a buffer.
    store = {k: keras.ops.convert_to_numpy(v) for k, v in store.items()}
    copy.load_own_variables(store)
    copy_assets(layer, copy)


def copy_assets(layer, copy):
    """Copy what a layer keeps besides its variables, such as a vocabulary."""
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copy.load_assets(folder)
