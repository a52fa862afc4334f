"""The functions of the layers: the plain formulas, differentiated fast.

`sawtooth` and `relu_network` here have the values and the derivatives of the
plain formulas in the modules of these names, to rounding. Compilers fuse those
formulas into one loop after the matrix product, so the values need no help. Their
derivatives do:

* Automatic differentiation of a triangle makes two sums over the batch for its peak,
  one per side. `triangle` has a derivative in which they are one.
* XLA on CPUs cannot make several sums in one loop. It writes the terms of every
  sum to memory first: a dozen tensors of the size of the input, and more time
  than their arithmetic takes. Here it differentiates block by block, so that the
  terms of one block at a time are in memory.
* XLA on GPUs makes two sums in one kernel, and dozens of kernels for a released
  layer; torch makes one for every operation. `backend/jax_gpu_kernels.py` and
  `backend/torch_gpu_kernels.py` make one.
* Torch without a compiler goes through memory for every operation.
  `backend/torch_eager.py` does so for blocks that stay in the cache.

Inputs of half precision are widened, and results narrowed again, in here: so a
block or a kernel reads and writes no more than it has to.

Forward-mode derivatives, derivatives of derivatives and `vmap` work as with the
plain formulas, but for compiled jacobians of released layers on TensorFlow. Only
`keras_sawtooth.backend` imports a backend: Keras has `ops.custom_gradient`, but its
result has no forward mode on JAX and no `vmap` on torch.
"""

import math
from collections import namedtuple

import keras
from keras import ops

from keras_sawtooth import relu_network as plain_relu_network
from keras_sawtooth import sawtooth as plain_sawtooth
from keras_sawtooth.backend import current as backend

# An input is cut into `most` blocks, or fewer where blocks would have less than
# `least_elements` and their loops would cost more to start than they save.
Blocks = namedtuple("Blocks", ["most", "least_elements"])
SAWTOOTH_BLOCKS = Blocks(4, 2**16)
# Many more terms wait for their sums in the derivative of a ReLU network.
RELU_NETWORK_BLOCKS = Blocks(16, 2**14)
# The XLA of TensorFlow writes sums over up to 32 rows out, one addition per row.
SMALLEST_ROWS = 64 if keras.backend.backend() == "tensorflow" else 1
# XLA computes a neuron again for every sum that it is in. In deeper networks this takes
# most of the time, and half as much of it if the batch is the fastest axis, where the
# weights of a channel stay in registers.
LARGEST_UNROLLED_DEPTH = 3
SMALLEST_FAST_AXIS = 256
# At depth 3 it saves a tenth of a step with so many channels. With fewer the
# transpositions cost as much, and with 4,096 they miss the cache.
FAST_AXIS_CHANNELS = range(512, 4096)


def sawtooth(z, peaks, scales, slopes, domain):
    """`keras_sawtooth.sawtooth.sawtooth`, differentiated fast.

    `z` may have a narrower floating-point dtype than the parameters, in which all is
    computed; the result has that of `z`.
    """
    function = _sawtooth_on(domain)
    if backend.can_fuse(z, peaks, scales, slopes):
        function = backend.fused_sawtooth(function, domain)
        return function(z, peaks, scales, slopes)
    number = number_of_blocks(SAWTOOTH_BLOCKS, z.shape, by_channels=False)
    if number > 1:
        function = backend.in_row_blocks(function, function, number)
    return function(z, peaks, scales, slopes)


def relu_network(z, blocks, slopes, domain):
    """`keras_sawtooth.relu_network.relu_network`, differentiated fast.

    `z` may have a narrower dtype than the parameters, see `sawtooth`.
    """
    depth = blocks.kernel.shape[0] + 1
    function = _relu_network_on(domain, plain_relu_network.unrolled)
    if backend.can_fuse(z, slopes, *blocks):
        function = backend.fused_relu_network(function, domain)
        return function(z, slopes, *blocks)
    if backend.xla_on_cpu() and depth > 1:
        axis, number, looped = blocks_of_relu_network(z.shape, depth)
        if axis == "channels":
            function = backend.in_channel_blocks(function, number)
        else:
            differentiated = (
                _relu_network_on(domain, backend.loop) if looped else function
            )
            function = backend.in_row_blocks(function, differentiated, number)
    return function(z, slopes, *blocks)


@backend.cached_on_jax
def _sawtooth_on(domain):
    def function(z, *parameters):
        wide = ops.cast(z, parameters[0].dtype)
        y = plain_sawtooth.sawtooth(wide, *parameters, domain, backend.triangle)
        return ops.cast(y, z.dtype)

    return function


@backend.cached_on_jax
def _relu_network_on(domain, fold):
    def function(z, slopes, *blocks):
        blocks = plain_relu_network.ReluBlocks(*blocks)
        wide = ops.cast(z, slopes.dtype)
        y = plain_relu_network.relu_network(wide, blocks, slopes, domain, fold)
        return ops.cast(y, z.dtype)

    return function


def blocks_of_relu_network(shape, depth):
    """How a ReLU network is differentiated for an input of `shape`.

    Returns:
        Along which axis it is cut into blocks, `"rows"` or `"channels"`; into how
        many; and whether the layers of the network are a loop, bool.
    """
    deep = depth > LARGEST_UNROLLED_DEPTH
    pays = deep or (depth == LARGEST_UNROLLED_DEPTH and shape[-1] in FAST_AXIS_CHANNELS)
    if pays and _is_known(shape) and math.prod(shape[:-1]) >= SMALLEST_FAST_AXIS:
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
    """Number of equal blocks for an input of `shape`, from 1 to `blocks.most`.

    It is 1 where the batch size is not known yet, where the batch is distributed,
    and where XLA does not compile for a CPU.
    """
    if (
        not _is_known(shape)
        or keras.distribution.distribution()
        or not backend.xla_on_cpu()
    ):
        return 1
    rows, channels = math.prod(shape[:-1]), shape[-1]
    length, shortest = (channels, 1) if by_channels else (rows, SMALLEST_ROWS)
    number = min(
        blocks.most, rows * channels // blocks.least_elements, length // shortest
    )
    while number > 1 and length % number:
        number -= 1
    return max(number, 1)
