"""Copying the state of layers, through what Keras saves of them."""

import tempfile

import keras
from keras import layers

from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.sawtooth_dense import SawtoothDense


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
        layers.Dense.save_own_variables(layer, store)
    else:
        layer.save_own_variables(store)
    # Through NumPy: on JAX the two would share a buffer.
    store = {k: keras.ops.convert_to_numpy(v) for k, v in store.items()}
    copy.load_own_variables(store)
    copy_assets(layer, copy)


def copy_assets(layer, copy):
    """Copy what a layer keeps beside its variables, such as a vocabulary."""
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copy.load_assets(folder)
