"""Derivatives on JAX."""

import contextlib
import functools

import jax
import keras

from keras_sawtooth import sawtooth
from keras_sawtooth.backend import jax_gpu_kernels
from keras_sawtooth.backend.common import cut_channels
from keras_sawtooth.backend.common import cut_rows
from keras_sawtooth.backend.common import join_channels
from keras_sawtooth.backend.common import triangle_slope
from keras_sawtooth.relu_network import hidden_layer

# JAX compiles the derivative of one function once, where nothing else is jitted.
cached_on_jax = functools.cache
compiled_on_jax = functools.cache(jax.jit)


def xla_on_cpu():
    return jax_gpu_kernels.platform() == "cpu"


init_scope = contextlib.nullcontext


def can_fuse(z, *parameters):
    distributed = keras.distribution.distribution() is not None
    return not distributed and jax_gpu_kernels.fits(z, parameters)


def fused_sawtooth(function, domain):
    # XLA is as fast for the values.
    return jax_gpu_kernels.fused(function, values=False)


def fused_relu_network(function, domain):
    return jax_gpu_kernels.fused(function, values=True)


@jax.custom_jvp
def triangle(w, peak):
    return sawtooth.triangle(w, peak)


@triangle.defjvp
def triangle_jvp(primals, tangents):
    w, peak = primals
    dw, dpeak = tangents
    value = triangle(w, peak)
    return value, triangle_slope(w, peak) * (dw - value * dpeak)


def loop(hidden, kernel, bias):
    def step(hidden, weights):
        return hidden_layer(hidden, *weights), None

    return jax.lax.scan(step, hidden, (kernel, bias))[0]


def _with_derivative_of(twin, function):
    """`function` with the derivative of `twin`, which has the same values."""
    whole = jax.custom_jvp(function)

    # For a backward pass, JAX before 0.10 needs a loop that `jvp` itself has
    # differentiated: it does not transpose a loop over tangents written by hand.
    @jax.jit
    def derivative(primals, tangents):
        return jax.jvp(twin, primals, tangents)[1]

    @whole.defjvp
    def jvp(primals, tangents):
        return whole(*primals), derivative(primals, tangents)

    return whole


# In both functions a block keeps only its arguments, and is computed again.
@functools.cache
def in_row_blocks(function, differentiated, number):
    if number == 1:
        return _with_derivative_of(jax.checkpoint(differentiated), function)

    def blocks(z, *parameters):
        block = jax.checkpoint(lambda rows: differentiated(rows, *parameters))
        return jax.lax.map(block, cut_rows(z, number)).reshape(z.shape)

    return _with_derivative_of(blocks, function)


@functools.cache
def in_channel_blocks(function, number):
    def blocks(*arguments):
        block = jax.checkpoint(lambda channels: function(*channels))
        cut = cut_channels(number, *arguments)
        return join_channels(jax.lax.map(block, cut), arguments[0].shape)

    return _with_derivative_of(blocks, function)
