"""Derivatives on TensorFlow."""

import functools

import tensorflow as tf

from keras_sawtooth import sawtooth
from keras_sawtooth.backend import common
from keras_sawtooth.backend import parameter_rows
from keras_sawtooth.backend.common import LONGEST_SUM
from keras_sawtooth.backend.common import triangle_slope
from keras_sawtooth.backend.common import unchanged
from keras_sawtooth.relu_network import hidden_layer

# Its XLA writes sums over up to 32 rows out, one addition per row.
SMALLEST_ROWS = 64

cached = functools.cache
compiled_on_jax = unchanged
on_few_cores = common.on_few_cores


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


def hidden_layers_in_loop(hidden, kernel, bias):
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


def traced_once(function):
    return function if tf.executing_eagerly() else _traced_once(function)


@functools.cache
def _traced_once(function):
    def gradients(*arguments_and_dy):
        *arguments, dy = arguments_and_dy
        return _vjp(function, arguments, dy)

    return with_gradients(function, function, gradients)


@functools.cache
def in_row_blocks(function, number):
    gradients = functools.partial(_gradients_in_row_blocks, function, number)
    return with_gradients(function, function, gradients)


@functools.cache
def with_gradients(function, twin, gradients):
    """`function` with gradients from elsewhere, and other derivatives of `twin`.

    Both are traced once for all layers of the same shapes: tracing takes most of the
    time before a first step. Not the whole, since TensorFlow differentiates a traced
    function only once if there are custom gradients in it.
    """
    values = tf.function(function, autograph=False)
    gradients = tf.function(gradients, autograph=False)

    @tf.custom_gradient
    def whole(*arguments):
        return values(*arguments), lambda dy: pull_back(*arguments, dy)

    @tf.custom_gradient
    def pull_back(*arguments_and_dy):
        def gradient(*upstream):
            def plain(*arguments_and_dy):
                *arguments, dy = arguments_and_dy
                return _vjp(twin, arguments, dy)

            return _vjp(plain, arguments_and_dy, upstream)

        if _has_tangents(arguments_and_dy):
            # Forward-mode derivatives are made here, and there is none of a loop's.
            *arguments, dy = arguments_and_dy
            return _vjp(function, arguments, dy), gradient
        return _call_unrecorded(gradients, arguments_and_dy), gradient

    return whole


def _has_tangents(tensors):
    """Whether a `ForwardAccumulator` watches one of the tensors."""
    # There is no public way to know it.
    from tensorflow.python.eager import forwardprop_util

    return any(forwardprop_util.pack_tangents(tensors).indices)


def _call_unrecorded(function, arguments):
    """Call a traced function so that no tape differentiates what it holds.

    With a persistent tape, or several, TensorFlow does so when the function is called,
    also if nobody will use that derivative; and operations of XLA have none.
    """
    # There is no public way to stop all tapes.
    from tensorflow.python.eager import record

    # Not traced within the block: the function's own tapes would not record, either.
    concrete = function.get_concrete_function(*arguments)
    with record.stop_recording():
        return concrete(*arguments)


def _gradients_in_row_blocks(function, number, z, *parameters_and_dy):
    *parameters, dy = parameters_and_dy
    cut = (number, -1, z.shape[-1])
    blocks = tf.reshape(z, cut), tf.reshape(dy, cut)

    def add_block(i, dz, sums):
        arguments = (blocks[0][i], *parameters)
        first, *terms = _vjp(function, arguments, blocks[1][i])
        return i + 1, dz.write(i, first), [*map(tf.add, sums, terms)]

    start = (0, tf.TensorArray(z.dtype, number), [*map(tf.zeros_like, parameters)])
    _, dz, sums = tf.while_loop(
        lambda i, *_: i < number, add_block, start, maximum_iterations=number
    )
    return tf.reshape(dz.stack(), z.shape), *sums


def gradients_in_one_loop(function, z, *parameters_and_dy):
    """Like that of JAX, for programs that XLA compiles."""
    # There are no public operations of XLA.
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    # Or XLA keeps what the values and the gradients have in common.
    z, *parameters, dy = gen_xla_ops.xla_optimization_barrier([z, *parameters_and_dy])
    rows = tf.unstack(parameter_rows.stack(parameters))
    # In groups, see `LONGEST_SUM`; what fills up the last one has gradients of zero.
    channels = z.shape[-1]
    number = tf.size(z) // channels
    groups = -(-number // LONGEST_SUM)
    size = -(-number // tf.maximum(groups, 1))
    shape = [groups, size, channels]

    def in_groups(x):
        fill = [[0, groups * size - number], [0, 0]]
        return tf.reshape(tf.pad(tf.reshape(x, (-1, channels)), fill), shape)

    wide = [tf.broadcast_to(row, shape) for row in rows]
    of_rows = parameter_rows.of_rows(function, parameters)
    dz, *terms = _vjp(of_rows, (in_groups(z), *wide), in_groups(dy))
    dz = tf.reshape(tf.reshape(dz, (-1, channels))[:number], tf.shape(z))
    scalar = tf.TensorSpec((), rows[0].dtype)

    @tf.function
    def add(*sums_and_terms):
        sums, terms = sums_and_terms[: len(rows)], sums_and_terms[len(rows) :]
        return [*map(tf.add, sums, terms)]

    sums = gen_xla_ops.xla_variadic_reduce_v2(
        terms,
        [tf.zeros((), scalar.dtype)] * len(rows),
        dimensions_to_reduce=[1],
        reducer=add.get_concrete_function(*[scalar] * (2 * len(rows))),
    )
    sums = tf.reduce_sum(tf.stack(sums), axis=1)
    return dz, *parameter_rows.unstack(sums, parameters)
