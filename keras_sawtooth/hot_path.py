"""The functions of the layers: the plain formulas, differentiated fast.

`sawtooth` and `relu_network` here have the values and the derivatives of the
plain formulas in the modules of these names, to rounding. Compilers fuse those
formulas into one loop after the matrix product, so the values need no help. Their
derivatives do:

* Automatic differentiation of a triangle makes two sums over the batch for its peak,
  one per side. `triangle` has a derivative in which they are one.
* XLA on CPUs makes a loop for every sum, which computes the function again and writes
  its terms to memory first. Constrained layers have few sums: here they are taken block
  by block of the batch, so that the terms of one block at a time are in memory.
* Released layers have dozens of sums. On few cores, their gradients are written by
  hand, in small blocks on one core (`backend/relu_network_gradients.py`). On many, the
  sums are a reduction of many operands: one loop, which does one number at a time, but
  which all cores share.
* TensorFlow builds the operations of every layer in Python, which takes longer than to
  compile them. Here it does so once for all layers of the same shapes.
* XLA on GPUs makes two sums in one kernel, and dozens of kernels for a released
  layer; torch makes one for every operation. `backend/jax_gpu_kernels.py` and
  `backend/torch_gpu_kernels.py` make one.
* Torch without a compiler goes through memory for every operation.
  `backend/torch_eager.py` does so for blocks that stay in the cache.

Inputs of half precision are widened, and results narrowed again, in here: so a
block or a kernel reads and writes no more than it has to.

Forward-mode derivatives, derivatives of derivatives and `vmap` work as with the
plain formulas. Only `keras_sawtooth.backend` imports a backend: Keras has
`ops.custom_gradient`, but its result has no forward mode on JAX and no `vmap` on torch.
"""

import functools
import math

import keras
from keras import ops

from keras_sawtooth import relu_network as plain_relu_network
from keras_sawtooth import sawtooth as plain_sawtooth
from keras_sawtooth.backend import current as backend
from keras_sawtooth.backend.relu_network_gradients import gradients_in_blocks

# An input is cut into so many blocks, or fewer where blocks would have less elements
# and their loops would cost more to start than they save.
MOST_BLOCKS = 4
SMALLEST_BLOCK = 2**16


def sawtooth(z, peaks, scales, slopes, domain):
    """`keras_sawtooth.sawtooth.sawtooth`, differentiated fast.

    `peaks` has all of its `depth + 1` rows. `z` may have a narrower floating-point
    dtype than the parameters, in which all is computed; the result has that of `z`.
    """
    function, number = _sawtooth_on(domain), number_of_blocks(z.shape)
    if backend.can_fuse(z, peaks, scales, slopes):
        function = backend.fused(function, "sawtooth", domain)
    elif number > 1:
        function = backend.in_row_blocks(function, number)
    else:
        function = backend.traced_once(function)
    return function(z, peaks, scales, slopes)


def relu_network(z, blocks, slopes, domain):
    """`keras_sawtooth.relu_network.relu_network`, differentiated fast.

    `z` may have a narrower dtype than the parameters, see `sawtooth`.
    """
    depth = blocks.kernel.shape[0] + 1
    function = _relu_network_on(domain, plain_relu_network.hidden_layers)
    if backend.can_fuse(z, slopes, *blocks):
        function = backend.fused(function, "relu_network", domain)
    elif backend.xla_on_cpu():
        # Other derivatives need a loop over the layers. Unrolled, XLA writes them out
        # once for every path through the network.
        twin = function
        if depth > 1:
            twin = _relu_network_on(domain, backend.hidden_layers_in_loop)
        # At depth 1 there is too little to do in a block.
        gradients = _gradients(domain, in_blocks=depth > 1 and backend.on_few_cores())
        function = backend.with_gradients(function, twin, gradients)
    else:
        function = backend.traced_once(function)
    return function(z, slopes, *blocks)


@backend.cached
def _sawtooth_on(domain):
    def function(z, *parameters):
        wide = ops.cast(z, parameters[0].dtype)
        y = plain_sawtooth.sawtooth(wide, *parameters, domain, backend.triangle)
        return ops.cast(y, z.dtype)

    return function


@backend.cached
def _relu_network_on(domain, hidden_layers):
    def function(z, slopes, *blocks):
        blocks = plain_relu_network.ReluBlocks(*blocks)
        wide = ops.cast(z, slopes.dtype)
        y = plain_relu_network.relu_network(wide, blocks, slopes, domain, hidden_layers)
        return ops.cast(y, z.dtype)

    return function


@backend.cached
def _gradients(domain, in_blocks):
    if in_blocks:
        return functools.partial(gradients_in_blocks, domain)
    function = _relu_network_on(domain, plain_relu_network.hidden_layers)
    return functools.partial(backend.gradients_in_one_loop, function)


def number_of_blocks(shape):
    """Number of equal blocks of rows for an input of `shape`, 1 to `MOST_BLOCKS`.

    It is 1 where the batch size is not known yet, where the batch is distributed,
    and where XLA does not compile for a CPU.
    """
    # Unknown are `None`, and the symbolic sizes of `jax.export`.
    known = all(isinstance(size, int) for size in shape)
    if not known or keras.distribution.distribution() or not backend.xla_on_cpu():
        return 1
    rows, channels = math.prod(shape[:-1]), shape[-1]
    most = min(rows * channels // SMALLEST_BLOCK, rows // backend.SMALLEST_ROWS)
    number = min(MOST_BLOCKS, most)
    while number > 1 and rows % number:
        number -= 1
    return max(number, 1)
