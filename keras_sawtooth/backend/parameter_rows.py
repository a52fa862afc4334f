"""Parameters as rows of one number per channel, each with a gradient of its own.

Kernels cannot index tensors; and where a parameter has the shape of the input, so has
its gradient, whose sum over the batch can be taken with all others.
"""

import itertools
import math

from keras import ops


class Rows(list):
    """The rows of a tensor `(..., channels)`, nested, with its shape and dtype."""

    def __init__(self, rows, dtype):
        super().__init__(rows)
        self.dtype = dtype

    @property
    def shape(self):
        return (len(self), *(self[0].shape if self else ()))

    def __getitem__(self, index):
        rows = super().__getitem__(index)
        return Rows(rows, self.dtype) if isinstance(index, slice) else rows


def of_rows(function, parameters):
    """`function` of `z` and tensors like `parameters`, as one of `z` and all rows.

    It may index the parameters, and ask them for their shape and dtype.
    """

    def flat(z, *rows):
        left = iter(rows)
        return function(
            z, *[_nested(left, tuple(p.shape[:-1]), p.dtype) for p in parameters]
        )

    return flat


def _nested(rows, shape, dtype):
    if not shape:
        return next(rows)
    return Rows([_nested(rows, shape[1:], dtype) for _ in range(shape[0])], dtype)


def number_of_rows(parameter):
    """How many numbers per channel a parameter `(..., channels)` has."""
    return math.prod(parameter.shape[:-1])


def stack(parameters):
    """The rows of all parameters, `(rows, channels)`."""
    return ops.concatenate([ops.reshape(p, (-1, p.shape[-1])) for p in parameters])


def unstack(rows, parameters):
    """Inverse of `stack`: tensors like `parameters`."""
    ends = itertools.accumulate(map(number_of_rows, parameters))
    return [
        ops.reshape(rows[end - number_of_rows(p) : end], p.shape)
        for end, p in zip(ends, parameters, strict=True)
    ]
