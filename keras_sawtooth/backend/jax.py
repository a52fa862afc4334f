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

# JAX compiles the derivative of one function once, where nothing else is jitted.
cached_on_jax = functools.cache


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


def loop(layer, hidden, *weights):
    def step(hidden, weights):
        return layer(hidden, *weights), None

    return jax.lax.scan(step, hidden, weights)[0]


# For the backward pass a block keeps only its arguments, and is computed again.
def _jvp(function, primals, tangents):
    return jax.checkpoint(lambda *a: jax.jvp(function, *a)[1])(primals, tangents)


def _differentiated(function, derivative):
    whole = jax.custom_jvp(function)
    derivative = jax.jit(derivative)

    @whole.defjvp
    def jvp(primals, tangents):
        return whole(*primals), derivative(primals, tangents)

    return whole


@functools.cache
def in_row_blocks(function, differentiated, number):
    def derivative(primals, tangents):
        z, *parameters = primals
        dz, *dparameters = tangents
        dy = jax.lax.map(
            lambda block: _jvp(
                differentiated, (block[0], *parameters), (block[1], *dparameters)
            ),
            (cut_rows(z, number), cut_rows(dz, number)),
        )
        return dy.reshape(z.shape)

    if number == 1:
        derivative = functools.partial(_jvp, differentiated)
    return _differentiated(function, derivative)


@functools.cache
def in_channel_blocks(function, number):
    def derivative(primals, tangents):
        dy = jax.lax.map(
            lambda block: _jvp(function, *block),
            (cut_channels(number, *primals), cut_channels(number, *tangents)),
        )
        return join_channels(dy, primals[0].shape)

    return _differentiated(function, derivative)
