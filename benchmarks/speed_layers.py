"""The layers that `speed.py` compares, functions of their number of units."""

from functools import partial

import keras
import numpy as np

import keras_sawtooth as ks


def relu(units):
    return keras.layers.Dense(units, activation="relu")


def gelu(units):
    return keras.layers.Dense(units, activation="gelu")


def prelu(units):
    return keras.Sequential([keras.layers.Dense(units), keras.layers.PReLU()])


def constrained(units, depth):
    return ks.SawtoothDense(units, depth)


def released(units, depth):
    return ks.SawtoothDense(units, depth, constrained=False)


def table(units, depth):
    """Dense with an explicit function of `2 ** depth` pieces per unit behind it."""
    import jax
    from jax import numpy as jnp

    class Table(keras.layers.Layer):
        def build(self, input_shape):
            ends = np.linspace(-2, 2, 2**depth + 1, dtype="float32")[:, None]
            start = np.repeat(ends, input_shape[-1], axis=1)
            self.breakpoints, self.values = (
                self.add_weight(shape=start.shape, initializer=lambda *_, **__: start)
                for _ in range(2)
            )

        def call(self, z):
            x, y = self.breakpoints.value, self.values.value
            find = jax.vmap(jnp.searchsorted, in_axes=1, out_axes=1)
            i = jnp.clip(find(x, z), 1, 2**depth)
            x0, x1, y0, y1 = (
                jnp.take_along_axis(a, j, axis=0) for a in (x, y) for j in (i - 1, i)
            )
            return y0 + (z - x0) * (y1 - y0) / (x1 - x0)

    return keras.Sequential([keras.layers.Dense(units), Table()])


def sawtooth_layers(depths):
    return {
        f"{layer.__name__} {depth}": partial(layer, depth=depth)
        for depth in depths
        for layer in (constrained, released)
    }


def other_packages():
    """Layers of other packages on this backend: name, package, how to install."""
    extra = "pip install 'keras_sawtooth[peers]'"
    found = [("KANLinear", "keras_efficient_kan", extra, kan_linear)]
    if keras.backend.backend() == "jax":
        found.append(("jaxkan SplineLayer", "jaxkan", extra, jaxkan_layer))
    if keras.backend.backend() == "tensorflow":
        # Its requirements say Keras 2, but it runs with Keras 3.
        install = "pip install --no-deps tfkan"
        found.append(("tfkan DenseKAN", "tfkan", install, tfkan_layer))
    return found


def kan_linear(units):
    from keras_efficient_kan import KANLinear

    return KANLinear(units)


def jaxkan_layer(units):
    from jaxkan.layers import SplineLayer

    return SplineLayer(units, units)


def tfkan_layer(units):
    from tfkan.layers import DenseKAN

    return DenseKAN(units)
