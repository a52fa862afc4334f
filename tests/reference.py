"""The sawtooth function by other means: exact fractions, and plain NumPy.

Nothing here is shared with the package. The exact version keeps a wave as the
list of its vertices, and composes it with a triangle segment by segment.
"""

import itertools
from fractions import Fraction

import numpy as np


def random_peaks(rng, depth, channels=1):
    return rng.uniform(0.1, 0.9, (depth + 1, channels))


def exact_peaks(peaks):
    return [Fraction(float(a)) for a in peaks]


def exact_scales(amplitude, peaks):
    """Theorem 3.1, for one channel."""
    scales = [Fraction(amplitude)]
    for i in range(len(peaks) - 2):
        scales.append(scales[-1] * (1 - peaks[i + 1]) * peaks[i + 2])
    return scales


def exact_waves(peaks):
    """Vertices `[(u, W_i(u)), ...]` of every wave on [0, 1]."""
    vertices = [(Fraction(0), Fraction(0)), (Fraction(1), Fraction(1))]
    waves = []
    for peak in peaks:
        composed = []
        for (u0, w0), (u1, w1) in itertools.pairwise(vertices):
            composed.append((u0, triangle(w0, peak)))
            if min(w0, w1) < peak < max(w0, w1):
                composed.append((u0 + (u1 - u0) * (peak - w0) / (w1 - w0), 1))
        composed.append((vertices[-1][0], triangle(vertices[-1][1], peak)))
        vertices = composed
        waves.append(vertices)
    return waves


def triangle(w, peak):
    return w / peak if w <= peak else (1 - w) / (1 - peak)


def exact_function(peaks, scales):
    """Vertices of `sum_i s_i W_i` on [0, 1], for one channel."""
    waves = exact_waves(peaks)
    grid = [u for u, _ in waves[-1]]
    total = [Fraction(0)] * len(grid)
    for wave, scale in zip(waves, scales, strict=True):
        segment = 0
        for k, u in enumerate(grid):
            while wave[segment + 1][0] < u:
                segment += 1
            (u0, w0), (u1, w1) = wave[segment], wave[segment + 1]
            total[k] += scale * (w0 + (w1 - w0) * (u - u0) / (u1 - u0))
    return list(zip(grid, total, strict=True))


def exact_slopes(vertices):
    return [
        (f1 - f0) / (u1 - u0) for (u0, f0), (u1, f1) in itertools.pairwise(vertices)
    ]


def tied_scales(amplitude, peaks):
    scales = [np.asarray(amplitude, "float64")]
    for i in range(len(peaks) - 2):
        scales.append(scales[-1] * (1 - peaks[i + 1]) * peaks[i + 2])
    return np.array(scales)


def bent_line(z, slopes, domain):
    slope, left, right = [*slopes, 0, 0][:3]
    return slope * z + np.where(
        z < domain[0],
        left * (domain[0] - z),
        np.where(z > domain[1], right * (z - domain[1]), 0),
    )


def edge_slopes(peaks, scales):
    """Slopes of `sum_i s_i W_i(u)` on its first piece and on its last."""
    rising = np.cumprod(1 / peaks[: len(scales)], axis=0)
    falling = -rising * peaks[0] / (1 - peaks[0])
    return np.stack([np.sum(scales * wave, axis=0) for wave in (rising, falling)])


def sawtooth(z, peaks, scales, slopes, domain):
    """float64 values; triangles as the minimum of their two sides."""
    w = (z - domain[0]) / (domain[1] - domain[0])
    total = bent_line(z, slopes, domain)
    for i, scale in enumerate(scales):
        w = np.minimum(w / peaks[i], (1 - w) / (1 - peaks[i]))
        if i == 0:
            w = np.maximum(w, 0)
        total = total + scale * w
    return total


def relu_network(z, blocks, slopes, domain):
    """float64 values of the blocks, channel by channel, with matrix products."""
    u = (z - domain[0]) / (domain[1] - domain[0])
    input_kernel, input_bias, kernel, bias, output_kernel = blocks
    result = np.empty_like(u)
    for c in range(u.shape[-1]):
        hidden = np.maximum(
            np.multiply.outer(u[..., c], input_kernel[:, c]) + input_bias[:, c], 0
        )
        for weights, offset in zip(kernel, bias, strict=True):
            hidden = np.maximum(hidden @ weights[..., c].T + offset[:, c], 0)
        result[..., c] = hidden @ output_kernel[:, c]
    return bent_line(z, slopes, domain) + result
