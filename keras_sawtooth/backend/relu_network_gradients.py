"""Gradients of a released layer by hand, in blocks of rows, for XLA on CPUs.

XLA makes a loop for every tensor that it keeps, and computes the others again wherever
they are read. Here it keeps the neurons and their gradients, four in a tensor, so that
the loops are few, and vectorized over the channels. A block has few rows, so that its
tensors stay in the cache.
"""

import functools
import math
import operator

from keras import ops
from keras import tree

from keras_sawtooth import sawtooth
from keras_sawtooth.backend.common import LONGEST_SUM

# Of a block. Fewer are not worth starting the loops; more make a long program, as
# sums over them are written out.
ROWS = 8
# Rows of fewer channels are put side by side.
NARROWEST = 256


def gradients_in_blocks(domain, z, *parameters_and_dy):
    """Gradients of `relu_network` in all its tensors, for `dy`, that of its result.

    Args:
        domain: pair of floats.
        z: tensor `(..., channels)`.
        *parameters_and_dy: `slopes`, the tensors of `ReluBlocks` for a depth of 2 or
            more, and `dy`.

    Returns:
        Tuple of tensors, shaped like `z` and the parameters.
    """
    *parameters, dy = parameters_and_dy
    *leading, channels = ops.shape(z)
    beside = -(-NARROWEST // channels)
    shape = (ROWS, beside * channels)
    rows = math.prod(leading)
    blocks = _at_least_one(-(-rows // (ROWS * beside)))
    # What fills up the last block has gradients of zero.
    fill = [[0, blocks * ROWS * beside - rows], [0, 0]]

    def in_rows(x):
        x = ops.pad(ops.reshape(x, (-1, channels)), fill)
        return ops.reshape(x, (-1, shape[1]))

    z_rows, dy_rows = in_rows(z), in_rows(dy)
    wide = [ops.concatenate([p] * beside, axis=-1) for p in parameters]
    slopes, input_kernel, input_bias, kernel, bias, output_kernel = wide
    # A tensor for every layer: XLA is slow where formulas differ within a tensor.
    layers = (ops.unstack(kernel), ops.unstack(bias))
    weights = [slopes, input_kernel, input_bias, *layers, output_kernel]
    zeros = tree.map_structure(ops.zeros_like, weights)
    # This is 1, which XLA does not know.
    one = ops.where(slopes[0, 0] > float("inf"), slopes[0, 0], 1)

    def kept(x):
        """`x`, which XLA keeps: it computes no division twice."""
        return x / one

    # In the place of `z` is its gradient, as far as the blocks are done.
    def add_block(i, z_and_sums):
        z_rows, sums = z_and_sums
        start = (i * ROWS, 0)
        block = [ops.slice(x, start, shape) for x in (z_rows, dy_rows)]
        z, dy = [ops.cast(x, slopes.dtype) for x in block]
        dz, *terms = _of_block(kept(z), dy, *weights, domain, kept)
        dz = ops.cast(dz, z_rows.dtype)
        return ops.slice_update(z_rows, start, dz), _add(sums, terms)

    def add_part(i, z_and_sums):
        z_rows, sums = z_and_sums
        first = i * LONGEST_SUM
        last = ops.minimum(first + LONGEST_SUM, blocks)
        z_rows, terms = ops.fori_loop(first, last, add_block, (z_rows, zeros))
        return z_rows, _add(sums, terms)

    parts = -(-blocks // LONGEST_SUM)
    dz, sums = ops.fori_loop(0, parts, add_part, (z_rows, zeros))

    def narrow(total, parameter):
        total = ops.stack(total) if isinstance(total, list) else total
        total = ops.reshape(total, (*parameter.shape[:-1], beside, channels))
        return ops.sum(total, axis=-2)

    dz = ops.reshape(ops.reshape(dz, (-1, channels))[:rows], ops.shape(z))
    return (dz, *map(narrow, sums, parameters))


def _of_block(
    z,
    dy,
    slopes,
    input_kernel,
    input_bias,
    kernels,
    biases,
    output_kernel,
    domain,
    kept,
):
    """Gradients of `z` and, summed over the rows, of the parameters.

    `z` and `dy` are `(ROWS, channels)`, the neurons of a layer `(4, ROWS, channels)`.
    """
    kernels = [_for_all_rows(kernel) for kernel in kernels]
    input_kernel = _for_all_rows(input_kernel)
    u = sawtooth.normalize(z, domain)
    hidden = [kept(ops.relu(input_kernel * u + _for_all_rows(input_bias)))]
    for kernel, bias in zip(kernels, biases, strict=True):
        terms = [kernel[:, k] * hidden[-1][k] for k in range(4)]
        hidden.append(kept(ops.relu(_sum(terms) + _for_all_rows(bias))))

    def through_relu(d, neurons):
        return kept(ops.where(neurons > 0, d, 0))

    d_output_kernel = _sum_of_rows(hidden[-1] * dy)
    d = through_relu(_for_all_rows(output_kernel) * dy, hidden.pop())
    d_kernels, d_biases = [], []
    for kernel in reversed(kernels):
        d_kernels.insert(0, _sum_of_rows(d[:, None] * hidden[-1]))
        d_biases.insert(0, _sum_of_rows(d))
        d = through_relu(_sum([kernel[j] * d[j] for j in range(4)]), hidden.pop())
    du = _sum([input_kernel[j] * d[j] for j in range(4)])

    # As in `sawtooth.normalize` and `sawtooth.bent_line`.
    low, high = domain
    at_end = ops.logical_or(z == low, z == high)
    dz = ops.where(at_end, 0, du * (1 / (high - low))) + slopes[0] * dy
    d_slopes = [_sum_of_rows(z * dy)]
    if slopes.shape[0] == 3:
        left, right = z <= low, z >= high
        dz = dz + ops.where(left, -slopes[1] * dy, 0)
        dz = dz + ops.where(right, slopes[2] * dy, 0)
        d_slopes.append(_sum_of_rows(ops.where(left, low - z, 0) * dy))
        d_slopes.append(_sum_of_rows(ops.where(right, z - high, 0) * dy))
    return (
        dz,
        ops.stack(d_slopes),
        _sum_of_rows(d * u),
        _sum_of_rows(d),
        d_kernels,
        d_biases,
        d_output_kernel,
    )


def _at_least_one(number):
    # On TensorFlow the size of a batch may be a tensor.
    return ops.maximum(number, 1) if ops.is_tensor(number) else max(number, 1)


def _for_all_rows(parameter):
    return ops.expand_dims(parameter, -2)


def _add(sums, terms):
    return tree.map_structure(operator.add, sums, terms)


def _sum(terms):
    return functools.reduce(operator.add, terms)


def _sum_of_rows(x):
    # Written out, it is part of the loop that computes its terms.
    return _sum(ops.unstack(x, axis=-2))
