"""Derivatives on JAX."""

import contextlib
import functools

import jax
import keras

from keras_sawtooth import sawtooth
from keras_sawtooth.backend import common
from keras_sawtooth.backend import jax_gpu_kernels
from keras_sawtooth.backend import jax_gradients
from keras_sawtooth.backend.common import triangle_slope
from keras_sawtooth.backend.common import unchanged
from keras_sawtooth.relu_network import hidden_layer

SMALLEST_ROWS = 1

# JAX compiles the derivative of one function once, where nothing else is jitted.
cached = functools.cache
compiled_on_jax = functools.cache(jax.jit)
traced_once = unchanged


def xla_on_cpu():
    return jax_gpu_kernels.platform() == "cpu"


def on_few_cores():
    # A loop over rows cannot be split over devices.
    return jax.device_count() == 1 and common.on_few_cores()


gradients_in_one_loop = jax_gradients.gradients_in_one_loop

init_scope = contextlib.nullcontext


def can_fuse(z, *parameters):
    distributed = keras.distribution.distribution() is not None
    return not distributed and jax_gpu_kernels.fits(z, parameters)


def fused(function, name, domain):
    # For the values of constrained layers, XLA is as fast.
    return jax_gpu_kernels.fused(function, values=name == "relu_network")


@jax.custom_jvp
def triangle(w, peak):
    return sawtooth.triangle(w, peak)


@triangle.defjvp
def triangle_jvp(primals, tangents):
    w, peak = primals
    dw, dpeak = tangents
    value = triangle(w, peak)
    return value, triangle_slope(w, peak) * (dw - value * dpeak)


def hidden_layers_in_loop(hidden, kernel, bias):
    def step(hidden, weights):
        return hidden_layer(hidden, *weights), None

    return jax.lax.scan(step, hidden, (kernel, bias))[0]


@functools.cache
def in_row_blocks(function, number):
    def blocks(z, *parameters):
        # A block keeps only its arguments, and is computed again.
        block = jax.checkpoint(lambda rows: function(rows, *parameters))
        cut = z.reshape(number, -1, z.shape[-1])
        return jax.lax.map(block, cut).reshape(z.shape)

    whole = jax.custom_jvp(function)

    # For a backward pass, JAX before 0.10 needs a loop that `jvp` itself has
    # differentiated: it does not transpose a loop over tangents written by hand.
    @jax.jit
    def derivative(primals, tangents):
        return jax.jvp(blocks, primals, tangents)[1]

    @whole.defjvp
    def jvp(primals, tangents):
        return whole(*primals), derivative(primals, tangents)

    return whole


def with_gradients(function, twin, gradients):
    # What is the same on all devices of a mesh has gradients that are summed over them,
    # which a primitive of our own does not tell JAX. JAX 0.5 has none of this.
    mesh = getattr(jax.sharding, "get_abstract_mesh", None)
    if mesh is not None and not mesh().empty:
        return twin
    return _with_gradients(function, twin, gradients)


@functools.cache
def _with_gradients(function, twin, gradients):
    return jax_gradients.with_gradients(function, twin, jax.jit(gradients))
