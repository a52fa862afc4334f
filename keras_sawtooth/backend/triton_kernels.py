"""Kernels that compute a function of `triton_functions.py`, or its derivative.

A thread has the parameters of a channel in registers, goes through rows of the batch,
and keeps the sums of the gradients in registers, too.
"""

import triton
from triton import language as tl


@triton.jit
def _tile(rows, channels, height, CHANNELS: tl.constexpr):
    """Index of a program along the rows, its channels, first row and number of rows."""
    across = (channels + CHANNELS - 1) // CHANNELS
    down = tl.program_id(0) // across
    channel = tl.program_id(0) % across * CHANNELS + tl.arange(0, CHANNELS)
    # An input may have more than 2 ** 31 elements, its tiles have fewer.
    first = down.to(tl.int64) * height
    return down, channel, first, tl.minimum(height, rows - first).to(tl.int32)


@triton.jit
def _load_parameters(pointer, channel, channels, NUMBER: tl.constexpr):
    parameters = ()
    for k in tl.static_range(NUMBER):
        # Where there is no channel, any number but 0 and 1, by which peaks divide.
        row = tl.load(pointer + k * channels + channel, channel < channels, 0.5)
        parameters = parameters + (row,)
    return parameters


# Not compiled again for every number of rows that 16 divides, or does not.
@triton.jit(do_not_specialize=["rows"])
def value_kernel(
    z_pointer,
    y_pointer,
    parameters_pointer,
    rows,
    channels,
    height,
    low,
    high,
    FUNCTION: tl.constexpr,
    DEPTH: tl.constexpr,
    SLOPES: tl.constexpr,
    NUMBER: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """`y = FUNCTION(z)` on tiles of `height` rows and `CHANNELS` channels."""
    _, channel, first, number = _tile(rows, channels, height, CHANNELS)
    there = channel < channels
    p = _load_parameters(parameters_pointer, channel, channels, NUMBER)
    z_pointer += first * channels + channel
    y_pointer += first * channels + channel
    z = tl.load(z_pointer, there, 0.0)
    for i in range(number):
        # A thread asks for a row before it needs it, and waits less for memory. The
        # last one is read once more, and not used.
        coming = tl.minimum(i + 1, number - 1) * channels
        next_z = tl.load(z_pointer + coming, there, 0.0)
        y = FUNCTION(z.to(tl.float32), low, high, p, DEPTH, SLOPES)
        tl.store(y_pointer + i * channels, y, there)
        z = next_z


@triton.jit(do_not_specialize=["rows"])
def derivative_kernel(
    z_pointer,
    dy_pointer,
    dz_pointer,
    sums_pointer,
    parameters_pointer,
    rows,
    channels,
    height,
    low,
    high,
    FUNCTION: tl.constexpr,
    DEPTH: tl.constexpr,
    SLOPES: tl.constexpr,
    NUMBER: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """`dz`, and sums for the parameters, `(tiles of rows, NUMBER, channels)`."""
    down, channel, first, number = _tile(rows, channels, height, CHANNELS)
    there = channel < channels
    p = _load_parameters(parameters_pointer, channel, channels, NUMBER)
    sums = ()
    for _ in tl.static_range(NUMBER):
        sums = sums + (tl.full([CHANNELS], 0.0, tl.float32),)
    z_pointer += first * channels + channel
    dy_pointer += first * channels + channel
    dz_pointer += first * channels + channel
    z = tl.load(z_pointer, there, 0.0)
    dy = tl.load(dy_pointer, there, 0.0)
    for i in range(number):
        coming = tl.minimum(i + 1, number - 1) * channels
        next_z = tl.load(z_pointer + coming, there, 0.0)
        next_dy = tl.load(dy_pointer + coming, there, 0.0)
        dz, terms = FUNCTION(
            z.to(tl.float32), dy.to(tl.float32), low, high, p, DEPTH, SLOPES
        )
        tl.store(dz_pointer + i * channels, dz, there)
        added = ()
        for k in tl.static_range(NUMBER):
            added = added + (sums[k] + terms[k],)
        sums = added
        z, dy = next_z, next_dy
    sums_pointer += down.to(tl.int64) * NUMBER * channels + channel
    for k in tl.static_range(NUMBER):
        tl.store(sums_pointer + k * channels, sums[k], there)
