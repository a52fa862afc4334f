"""Blocks of a tensor, and what all backends know of triangles and of kernels."""

import math
import warnings

from keras import ops

# Most parameters per unit that a GPU kernel takes: they and their sums are kept in
# registers, and a thread has 255.
MOST_PARAMETERS = 96


def cut_rows(z, number):
    return ops.reshape(z, (number, -1, z.shape[-1]))


def cut_channels(number, z, *parameters):
    """Blocks `(number, channels / number, rows)` of `z`, and their parameters.

    Parameters become `(number, ..., channels / number, 1)`, for broadcasting.
    """
    z = ops.transpose(ops.reshape(z, (-1, z.shape[-1])))
    blocks = [ops.reshape(z, (number, -1, z.shape[-1]))]
    for parameter in parameters:
        shape = (*parameter.shape[:-1], number, -1, 1)
        blocks.append(ops.moveaxis(ops.reshape(parameter, shape), -3, 0))
    return blocks


def join_channels(blocks, shape):
    """Inverse of `cut_channels` for `z` of `shape`."""
    return ops.reshape(ops.transpose(ops.reshape(blocks, (shape[-1], -1))), shape)


def join_parameter(blocks):
    """Inverse of `cut_channels` for one parameter."""
    blocks = ops.moveaxis(blocks, 0, -3)
    return ops.reshape(blocks, (*blocks.shape[:-3], -1))


def triangle_slope(w, peak):
    """Slope `t` of a triangle `T`, whose derivative is `t * (dw - T * dpeak)`.

    Both sides are `T = (w - side) / (peak - side)`, with `side` 0 or 1.
    """
    return ops.where(w <= peak, 1 / peak, 1 / (peak - 1))


def number_of_rows(parameter):
    """How many numbers per channel a parameter `(..., channels)` has."""
    return math.prod(parameter.shape[:-1])


def warn_of_no_kernels(error):
    warnings.warn(
        "Sawtooth layers go without kernels of their own on this GPU, and are "
        f"slower: {error}",
        stacklevel=3,
    )
