"""The functions of the layers: the plain formulas, differentiated fast.

`sawtooth` and `relu_network` here have the values and the derivatives of the
plain formulas in the modules of these names, to rounding. Compilers fuse those
formulas into one loop behind the matrix product, so the values need no help.
Their derivatives do:

* Automatic differentiation of a triangle makes two sums over the batch for its
  peak, one a side. `triangle` has a derivative in which they are one.
* XLA on CPUs cannot make several sums in one loop. It writes the terms of every
  sum to memory first: a dozen tensors of the size of the input, and more time
  than their arithmetic takes. Here it differentiates block by block, so that the
  terms of one block at a time are in memory.
* XLA on GPUs makes two sums in one kernel, and dozens of kernels for a released
  layer. On JAX, `gpu_kernels` makes one.

Forward-mode derivatives, derivatives of derivatives and `vmap` work as with the
plain formulas. Only this module and those for GPUs call a backend by its name: Keras
has `ops.custom_gradient`, but its result has no forward mode on JAX and no `vmap`
on torch.
"""

import functools
import math
from collections import namedtuple

import keras
from keras import ops

from keras_sawtooth import relu_network as plain_relu_network
from keras_sawtooth import sawtooth as plain_sawtooth

# An input is cut into `number` blocks, or fewer where blocks would have less than
# `size` elements and their loops would cost more to start than they save.
Blocks = namedtuple("Blocks", ["number", "size"])
SAWTOOTH_BLOCKS = Blocks(4, 2**16)
# Many more terms wait for their sums in the derivative of a ReLU network.
RELU_NETWORK_BLOCKS = Blocks(16, 2**14)
# The XLA of TensorFlow writes sums over up to 32 rows out, one addition a row.
SMALLEST_ROWS = 64 if keras.backend.backend() == "tensorflow" else 1
# XLA computes a neuron anew for every sum that it is in. In deeper networks this
# takes most of the time, and half as much of it if the batch is the fastest axis,
# where the weights of a channel stay in registers.
LARGEST_UNROLLED_DEPTH = 3
SMALLEST_FAST_AXIS = 256


def sawtooth(z, peaks, scales, slopes, domain):
    """`keras_sawtooth.sawtooth.sawtooth`, differentiated fast."""
    function = _sawtooth_on(domain)
    if fits_one_kernel(z, peaks, scales, slopes):
        return in_one_kernel(function, values=False)(z, peaks, scales, slopes)
    number = number_of_blocks(SAWTOOTH_BLOCKS, z.shape, by_channels=False)
    if number > 1:
        function = in_row_blocks(function, function, number)
    return function(z, peaks, scales, slopes)


def relu_network(z, blocks, slopes, domain):
    """`keras_sawtooth.relu_network.relu_network`, differentiated fast."""
    depth = blocks.kernel.shape[0] + 1
    function = _relu_network_on(domain, plain_relu_network.unrolled)
    if fits_one_kernel(z, slopes, *blocks):
        return in_one_kernel(function, values=True)(z, slopes, *blocks)
    if compiled_for_cpu() and depth > 1:
        axis, number, looped = cut_of_relu_network(z.shape, depth)
        if axis == "channels":
            function = in_channel_blocks(function, number)
        else:
            like = _relu_network_on(domain, loop) if looped else function
            function = in_row_blocks(function, like, number)
    return function(z, slopes, *blocks)


# JAX compiles the derivative of one function once, where nothing else is jitted.
# `torch.compile` warns of a cache, and needs none.
_once = functools.cache if keras.backend.backend() == "jax" else lambda make: make


@_once
def _sawtooth_on(domain):
    def function(z, peaks, scales, slopes):
        return plain_sawtooth.sawtooth(z, peaks, scales, slopes, domain, triangle)

    return function


@_once
def _relu_network_on(domain, fold):
    def function(z, slopes, *blocks):
        blocks = plain_relu_network.ReluBlocks(*blocks)
        return plain_relu_network.relu_network(z, blocks, slopes, domain, fold)

    return function


def cut_of_relu_network(shape, depth):
    """How a ReLU network is differentiated for an input of `shape`.

    Returns:
        Along which axis it is cut into blocks, `"rows"` or `"channels"`; into how
        many; and whether the layers of the network are a loop, bool.
    """
    deep = depth > LARGEST_UNROLLED_DEPTH
    if deep and _is_known(shape) and math.prod(shape[:-1]) >= SMALLEST_FAST_AXIS:
        number = number_of_blocks(RELU_NETWORK_BLOCKS, shape, by_channels=True)
        if number > 1:
            return "channels", number, False
    number = number_of_blocks(RELU_NETWORK_BLOCKS, shape, by_channels=False)
    # A loop keeps XLA from writing the layers out once for every path through the
    # network: at depth 5 and 50 units, a step takes a thousandth of the time.
    return "rows", number, deep or number == 1


def _is_known(shape):
    # Unknown are `None`, and the symbolic sizes of `jax.export`.
    return all(isinstance(size, int) for size in shape)


def number_of_blocks(blocks, shape, by_channels):
    """Number of equal blocks for an input of `shape`, from 1 to `blocks.number`.

    It is 1 where the batch size is not known yet, where the batch is distributed,
    and where XLA does not compile for a CPU.
    """
    if (
        not _is_known(shape)
        or keras.distribution.distribution()
        or not compiled_for_cpu()
    ):
        return 1
    rows, channels = math.prod(shape[:-1]), shape[-1]
    length, shortest = (channels, 1) if by_channels else (rows, SMALLEST_ROWS)
    number = min(blocks.number, rows * channels // blocks.size, length // shortest)
    while number > 1 and length % number:
        number -= 1
    return max(number, 1)


def _cut_rows(z, number):
    return ops.reshape(z, (number, -1, z.shape[-1]))


def _cut_channels(number, z, *parameters):
    """Blocks `(number, channels / number, rows)` of `z`, and their parameters.

    Parameters become `(number, ..., channels / number, 1)`, for broadcasting.
    """
    z = ops.transpose(ops.reshape(z, (-1, z.shape[-1])))
    blocks = [ops.reshape(z, (number, -1, z.shape[-1]))]
    for parameter in parameters:
        shape = (*parameter.shape[:-1], number, -1, 1)
        blocks.append(ops.moveaxis(ops.reshape(parameter, shape), -3, 0))
    return blocks


def _join_channels(blocks, shape):
    """Inverse of `_cut_channels` for `z` of `shape`."""
    return ops.reshape(ops.transpose(ops.reshape(blocks, (shape[-1], -1))), shape)


def _join_parameter(blocks):
    """Inverse of `_cut_channels` for one parameter."""
    blocks = ops.moveaxis(blocks, 0, -3)
    return ops.reshape(blocks, (*blocks.shape[:-3], -1))


def _triangle_slope(w, peak):
    """Slope `t` of a triangle `T`, whose derivative is `t * (dw - T * dpeak)`.

    Both sides are `T = (w - side) / (peak - side)`, with `side` 0 or 1.
    """
    side = ops.cast(ops.logical_not(w <= peak), w.dtype)
    return 1 / (peak - side)


if keras.backend.backend() == "jax":
    import jax

    from keras_sawtooth import gpu_kernels

    def compiled_for_cpu():
        return gpu_kernels.platform() == "cpu"

    def fits_one_kernel(z, *parameters):
        distributed = keras.distribution.distribution() is not None
        return not distributed and gpu_kernels.fits(z, parameters)

    in_one_kernel = gpu_kernels.in_one_kernel

    @jax.custom_jvp
    def triangle(w, peak):
        return plain_sawtooth.triangle(w, peak)

    @triangle.defjvp
    def triangle_jvp(primals, tangents):
        w, peak = primals
        dw, dpeak = tangents
        value = triangle(w, peak)
        return value, _triangle_slope(w, peak) * (dw - value * dpeak)

    def loop(layer, hidden, *weights):
        def step(hidden, weights):
            return layer(hidden, *weights), None

        return jax.lax.scan(step, hidden, weights)[0]

    # A block keeps its arguments alone for the backward pass.
    def _jvp(function, primals, tangents):
        return jax.checkpoint(lambda *a: jax.jvp(function, *a)[1])(primals, tangents)

    def _differentiated(function, derivative):
        whole = jax.custom_jvp(function)
        derivative = jax.jit(derivative)

        @whole.defjvp
        def jvp(primals, tangents):
            return whole(*primals), derivative(primals, tangents)

        return whole

    @_once
    def in_row_blocks(function, like, number):
        def derivative(primals, tangents):
            z, *parameters = primals
            dz, *dparameters = tangents
            dy = jax.lax.map(
                lambda block: _jvp(
                    like, (block[0], *parameters), (block[1], *dparameters)
                ),
                (_cut_rows(z, number), _cut_rows(dz, number)),
            )
            return dy.reshape(z.shape)

        if number == 1:
            derivative = functools.partial(_jvp, like)
        return _differentiated(function, derivative)

    @_once
    def in_channel_blocks(function, number):
        def derivative(primals, tangents):
            dy = jax.lax.map(
                lambda block: _jvp(function, *block),
                (_cut_channels(number, *primals), _cut_channels(number, *tangents)),
            )
            return _join_channels(dy, primals[0].shape)

        return _differentiated(function, derivative)

elif keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def compiled_for_cpu():
        # There is no public way to know whether `jit_compile` is on.
        from tensorflow.python.ops import control_flow_util

        graph = tf.compat.v1.get_default_graph()
        compiled = control_flow_util.GraphOrParentsInXlaContext(graph)
        devices = tf.config.list_logical_devices()
        return compiled and all(device.device_type == "CPU" for device in devices)

    def fits_one_kernel(z, *parameters):
        return False

    @tf.custom_gradient
    def triangle(w, peak):
        def gradient(upstream):
            upstream = upstream * _triangle_slope(w, peak)
            terms = upstream * plain_sawtooth.triangle(w, peak)
            return upstream, -tf.reduce_sum(terms, list(range(len(w.shape) - 1)))

        return plain_sawtooth.triangle(w, peak), gradient

    def loop(layer, hidden, kernel, bias):
        def step(i, hidden):
            return i + 1, layer(hidden, kernel[i], bias[i])

        number = kernel.shape[0]
        # XLA cannot differentiate a loop without a bound.
        return tf.while_loop(
            lambda i, _: i < number, step, (0, hidden), maximum_iterations=number
        )[1]

    def _vjp(function, arguments, upstream):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            y = function(*arguments)
        # Depth 1 has a kernel without elements, which nothing uses.
        gradients = tape.gradient(y, arguments, upstream, unconnected_gradients="zero")
        return list(gradients)

    def in_row_blocks(function, like, number):
        @tf.custom_gradient
        def whole(z, *parameters):
            def gradient(upstream):
                if number == 1:
                    return _vjp(like, (z, *parameters), upstream)
                blocks = _cut_rows(z, number), _cut_rows(upstream, number)

                def add_block(i, dz, sums):
                    arguments = (blocks[0][i], *parameters)
                    first, *terms = _vjp(like, arguments, blocks[1][i])
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

            def gradient(upstream):
                dz, *dparameters = tf.map_fn(
                    lambda block: _vjp(function, block[1:], block[0]),
                    (
                        *_cut_channels(number, upstream),
                        *_cut_channels(number, *arguments),
                    ),
                    fn_output_signature=[z.dtype] * len(arguments),
                )
                dz = _join_channels(dz, z.shape)
                return dz, *map(_join_parameter, dparameters)

            return function(*arguments), gradient

        return whole

else:
    import torch

    def compiled_for_cpu():
        # By XLA: `torch.compile` makes all sums in one loop.
        return False

    def fits_one_kernel(z, *parameters):
        return False

    def triangle(w, peak):
        # `torch.compile` makes far better loops of this than of `where`. At the
        # peak `clamp` has the derivative of the left side, other than `minimum`.
        rising = torch.clamp(w, max=peak)
        return rising * (1 / peak) - torch.relu(w - peak) * (1 / (1 - peak))
