"""The functions of the layers and their derivatives, in Triton.

The formulas are those of `sawtooth.py` and `relu_network.py` in `keras_sawtooth`, for a
row of the batch. `z` and `dy`, what goes back into the result, are tensors
`(channels,)`, and `p` is a tuple of all rows of the parameters. Derivatives return what
goes back into `z`, and a tuple of what goes back into every row of the parameters.

Triton compiles the source of these functions: loops of `static_range` are unrolled, and
tuples hold registers.
"""

import triton
from triton import language as tl


@triton.jit
def _relu(x):
    # Unlike `maximum`, this keeps NaN.
    return tl.where(x < 0, 0.0, x)


@triton.jit
def _relu_derivative(dy, y):
    """What goes back into `_relu`, from what goes back into its result `y`."""
    return tl.where(y <= 0, 0.0, dy)


@triton.jit
def _normalize(z, low, high):
    return (z - low) * (1 / (high - low))


@triton.jit
def _normalize_derivative(z, du, low, high):
    return tl.where((z == low) | (z == high), 0.0, du * (1 / (high - low)))


@triton.jit
def _distances(z, low, high):
    """From the domain to the points left and right of it."""
    return tl.where(z <= low, low - z, 0.0), tl.where(z >= high, z - high, 0.0)


@triton.jit
def _bent_line(z, low, high, p, FIRST: tl.constexpr, SLOPES: tl.constexpr):
    line = p[FIRST] * z
    if SLOPES == 3:
        left, right = _distances(z, low, high)
        line += p[FIRST + 1] * left + p[FIRST + 2] * right
    return line


@triton.jit
def _bent_line_derivative(
    z, dy, low, high, p, FIRST: tl.constexpr, SLOPES: tl.constexpr
):
    dz, d_slopes = p[FIRST] * dy, (z * dy,)
    if SLOPES == 3:
        left, right = _distances(z, low, high)
        d_slopes = d_slopes + (left * dy, right * dy)
        dz += tl.where(z >= high, p[FIRST + 2] * dy, 0.0)
        dz -= tl.where(z <= low, p[FIRST + 1] * dy, 0.0)
    return dz, d_slopes


@triton.jit
def _triangle(w, peak):
    return tl.where(w <= peak, w * (1 / peak), (1 - w) * (1 / (1 - peak)))


@triton.jit
def sawtooth(z, low, high, p, DEPTH: tl.constexpr, SLOPES: tl.constexpr):
    """`p`: `DEPTH + 1` peaks, `DEPTH` scales, `SLOPES` slopes."""
    SCALES: tl.constexpr = DEPTH + 1
    wave = _relu(_triangle(_normalize(z, low, high), p[0]))
    y = _bent_line(z, low, high, p, SCALES + DEPTH, SLOPES) + p[SCALES] * wave
    for i in tl.static_range(1, DEPTH):
        wave = _triangle(wave, p[i])
        y += p[SCALES + i] * wave
    return y


@triton.jit
def sawtooth_derivative(z, dy, low, high, p, DEPTH: tl.constexpr, SLOPES: tl.constexpr):
    SCALES: tl.constexpr = DEPTH + 1
    # What goes into every triangle, and last what comes out.
    waves = (_normalize(z, low, high),)
    waves = waves + (_relu(_triangle(waves[0], p[0])),)
    for i in tl.static_range(1, DEPTH):
        waves = waves + (_triangle(waves[i], p[i]),)
    d_wave = tl.full(z.shape, 0.0, tl.float32)
    # The last peak is not used here.
    d_peaks, d_scales = (d_wave,), ()
    for i in tl.static_range(DEPTH - 1, -1, -1):
        d_wave += p[SCALES + i] * dy
        d_scales = (waves[i + 1] * dy,) + d_scales
        if i == 0:
            d_wave = _relu_derivative(d_wave, waves[1])
        # On both sides T = (w - side) / (peak - side), so that
        # dT = (dw - T dpeak) / (peak - side).
        slope = tl.where(waves[i] <= p[i], 1 / p[i], -1 / (1 - p[i]))
        d_wave = slope * d_wave
        d_peaks = (-waves[i + 1] * d_wave,) + d_peaks
    dz, d_slopes = _bent_line_derivative(z, dy, low, high, p, SCALES + DEPTH, SLOPES)
    dz += _normalize_derivative(z, d_wave, low, high)
    return dz, d_peaks + d_scales + d_slopes


@triton.jit
def _neurons(u, p, DEPTH: tl.constexpr, SLOPES: tl.constexpr):
    """The four neurons of every layer, one layer after the other."""
    INPUT: tl.constexpr = SLOPES
    KERNEL: tl.constexpr = SLOPES + 8
    BIAS: tl.constexpr = KERNEL + 16 * (DEPTH - 1)
    neurons = ()
    for j in tl.static_range(4):
        neurons = neurons + (_relu(p[INPUT + j] * u + p[INPUT + 4 + j]),)
    for i in tl.static_range(DEPTH - 1):
        for j in tl.static_range(4):
            neuron = p[BIAS + 4 * i + j]
            for k in tl.static_range(4):
                neuron += p[KERNEL + 16 * i + 4 * j + k] * neurons[4 * i + k]
            neurons = neurons + (_relu(neuron),)
    return neurons


@triton.jit
def relu_network(z, low, high, p, DEPTH: tl.constexpr, SLOPES: tl.constexpr):
    """`p`: `SLOPES` slopes and the rows of `ReluBlocks`, field after field."""
    OUTPUT: tl.constexpr = SLOPES + 8 + 20 * (DEPTH - 1)
    neurons = _neurons(_normalize(z, low, high), p, DEPTH, SLOPES)
    y = _bent_line(z, low, high, p, 0, SLOPES)
    for j in tl.static_range(4):
        y += p[OUTPUT + j] * neurons[4 * (DEPTH - 1) + j]
    return y


@triton.jit
def relu_network_derivative(
    z, dy, low, high, p, DEPTH: tl.constexpr, SLOPES: tl.constexpr
):
    KERNEL: tl.constexpr = SLOPES + 8
    OUTPUT: tl.constexpr = KERNEL + 20 * (DEPTH - 1)
    u = _normalize(z, low, high)
    neurons = _neurons(u, p, DEPTH, SLOPES)
    # What goes back into the neurons of the last layer that has not been gone through.
    d_hidden, d_output = (), ()
    for j in tl.static_range(4):
        d_hidden = d_hidden + (p[OUTPUT + j] * dy,)
        d_output = d_output + (neurons[4 * (DEPTH - 1) + j] * dy,)
    d_kernel, d_bias = (), ()
    for i in tl.static_range(DEPTH - 2, -1, -1):
        d_before, d_sum, terms = (), (), ()
        for j in tl.static_range(4):
            d_sum = d_sum + (_relu_derivative(d_hidden[j], neurons[4 * i + 4 + j]),)
        for j in tl.static_range(4):
            for k in tl.static_range(4):
                terms = terms + (d_sum[j] * neurons[4 * i + k],)
        for k in tl.static_range(4):
            total = p[KERNEL + 16 * i + k] * d_sum[0]
            for j in tl.static_range(1, 4):
                total += p[KERNEL + 16 * i + 4 * j + k] * d_sum[j]
            d_before = d_before + (total,)
        d_hidden, d_bias, d_kernel = d_before, d_sum + d_bias, terms + d_kernel
    du = tl.full(z.shape, 0.0, tl.float32)
    d_input, d_input_bias = (), ()
    for j in tl.static_range(4):
        d_sum_0 = _relu_derivative(d_hidden[j], neurons[j])
        du += p[SLOPES + j] * d_sum_0
        d_input, d_input_bias = d_input + (u * d_sum_0,), d_input_bias + (d_sum_0,)
    dz, d_slopes = _bent_line_derivative(z, dy, low, high, p, 0, SLOPES)
    dz += _normalize_derivative(z, du, low, high)
    return dz, d_slopes + d_input + d_input_bias + d_kernel + d_bias + d_output
