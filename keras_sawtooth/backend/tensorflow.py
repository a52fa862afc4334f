"""Derivatives on TensorFlow."""

import tensorflow as tf

from keras_sawtooth import sawtooth
from keras_sawtooth.backend.common import cut_channels
from keras_sawtooth.backend.common import cut_rows
from keras_sawtooth.backend.common import join_channels
from keras_sawtooth.backend.common import join_parameter
from keras_sawtooth.backend.common import triangle_slope
from keras_sawtooth.relu_network import hidden_layer


def cached_on_jax(make):
    return make


def compiled_on_jax(function):
    return function


def xla_on_cpu():
    # There is no public way to know whether `jit_compile` is on.
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    compiled = control_flow_util.GraphOrParentsInXlaContext(graph)
    devices = tf.config.list_logical_devices()
    return compiled and all(device.device_type == "CPU" for device in devices)


# TensorFlow lifts variables out of the function that makes them, if it can compute
# their values without reading others.
init_scope = tf.init_scope


def can_fuse(z, *parameters):
    return False


@tf.custom_gradient
def triangle(w, peak):
    def gradient(dy):
        dw = dy * triangle_slope(w, peak)
        terms = dw * sawtooth.triangle(w, peak)
        return dw, -tf.reduce_sum(terms, list(range(len(w.shape) - 1)))

    return sawtooth.triangle(w, peak), gradient


def loop(hidden, kernel, bias):
    def step(i, hidden):
        return i + 1, hidden_layer(hidden, kernel[i], bias[i])

    number = kernel.shape[0]
    # XLA cannot differentiate a loop without a bound.
    return tf.while_loop(
        lambda i, _: i < number, step, (0, hidden), maximum_iterations=number
    )[1]


def _vjp(function, arguments, dy):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        y = function(*arguments)
    # Depth 1 has a kernel without elements, which nothing uses.
    gradients = tape.gradient(y, arguments, dy, unconnected_gradients="zero")
    return list(gradients)


def in_row_blocks(function, differentiated, number):
    @tf.custom_gradient
    def whole(z, *parameters):
        def gradient(dy):
            if number == 1:
                return _vjp(differentiated, (z, *parameters), dy)
            blocks = cut_rows(z, number), cut_rows(dy, number)

            def add_block(i, dz, sums):
                arguments = (blocks[0][i], *parameters)
                first, *terms = _vjp(differentiated, arguments, blocks[1][i])
                return i + 1, dz.write(i, first), [*map(tf.add, sums, terms)]

            start = (
                0,
                tf.TensorArray(z.dtype, number),
                [*map(tf.zeros_like, parameters)],
            )
            _, dz, sums = tf.while_loop(
                lambda i, *_: i < number,
                add_block,
                start,
                maximum_iterations=number,
            )
            return tf.reshape(dz.stack(), z.shape), *sums

        return function(z, *parameters), gradient

    return whole


def in_channel_blocks(function, number):
    @tf.custom_gradient
    def whole(*arguments):
        z = arguments[0]

        def gradient(dy):
            dz, *dparameters = tf.map_fn(
                lambda block: _vjp(function, block[1:], block[0]),
                (
                    *cut_channels(number, dy),
                    *cut_channels(number, *arguments),
                ),
                fn_output_signature=[a.dtype for a in arguments],
            )
            dz = join_channels(dz, z.shape)
            return dz, *map(join_parameter, dparameters)

        return function(*arguments), gradient

    return whole
