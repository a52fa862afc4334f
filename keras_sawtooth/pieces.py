"""Linear pieces of one channel, from the numbers that determine it, in float64 NumPy.

`tied_scales` and `continuing_tails` are those of `sawtooth.py` once more: JAX has no
float64 unless it was switched on at its start.
"""

from typing import NamedTuple

import numpy as np

# Pieces of a released function narrower than this share of the domain come from
# the rounding of its weights, in float64 of the traversal: where a tooth touches
# zero, a ReLU may cut off its tip. float32 inputs hardly tell the two ends apart.
NARROWEST = {"float32": 2e-6, "float64": 1e-12}
# Relative to what the slopes next to them are sums of: smaller bends are rounding.
SMALLEST_BEND = 1e-9


class LinearRegions(NamedTuple):
    """Linear pieces of a function of one variable, from left to right.

    On `[breakpoints[k], breakpoints[k + 1]]` the function is
    `slopes[k] * z + intercepts[k]`. Called with an array of any shape, it returns the
    values there. Beyond the outermost breakpoints the outermost pieces continue, which
    need not be what a layer does: ask `linear_regions` for a larger `interval`.

    Args:
        breakpoints: float array `(pieces + 1,)`, increasing.
        slopes: float array `(pieces,)`.
        intercepts: float array `(pieces,)`.

    Example:

        >>> tent = LinearRegions(np.arange(3), np.array([1, -1]), np.array([0, 2]))
        >>> tent(np.array([0.5, 1.5]))
        array([0.5, 0.5])
    """

    breakpoints: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray

    def __call__(self, z):
        """Values at `z`, which should lie between the outermost breakpoints."""
        piece = np.searchsorted(self.breakpoints[1:-1], z)
        return self.slopes[piece] * z + self.intercepts[piece]


def tied_scales(amplitude, peaks):
    ratios = (1 - peaks[1:-1]) * peaks[2:]
    return amplitude * np.cumprod([np.ones_like(amplitude), *ratios], axis=0)


def continuing_tails(amplitude, peaks, domain):
    rises = tied_scales(amplitude, peaks) / np.cumprod(peaks[:-1], axis=0)
    steepness = rises.sum(axis=0) / (domain[1] - domain[0])
    return np.stack([-steepness, -steepness * peaks[0] / (1 - peaks[0])])


def free_jumps(peaks, scales):
    """Jump of the slope at the peaks of every wave, up to a positive factor.

    At a peak of wave j the slope jumps by `-s_j J`, and every later wave has a
    zero there with a jump of the other sign.
    """
    jumps = scales.copy()
    tail = np.zeros_like(scales[0])
    for j in range(len(scales) - 2, -1, -1):
        tail = scales[j + 1] + tail
        jumps[j] -= tail / (1 - peaks[j + 1])
        tail = tail / peaks[j + 1]
    return jumps


def constrained_pieces(peaks, scales, jumps):
    """Breakpoints, slopes and intercepts on `[0, 1]`, wave by wave."""
    lengths, rising = np.ones(1), np.ones(1, bool)
    slopes = np.zeros(1)
    bends = np.zeros(0, bool)
    for peak, scale, jump in zip(peaks, scales, jumps, strict=True):
        # A wave runs from 0 to 1 or back on every piece; the next triangle cuts
        # the piece where the wave passes the peak, and first rises, then falls.
        cut = np.where(rising, peak, 1 - peak)
        lengths = np.stack([lengths * cut, lengths * (1 - cut)], axis=1).ravel()
        rising = np.arange(len(lengths)) % 2 == 0
        slopes = np.repeat(slopes, 2) + scale * np.where(rising, 1, -1) / lengths
        bends, old = np.full(len(lengths) - 1, jump != 0), bends
        bends[1::2] = old
    u = np.concatenate([[0.0], np.cumsum(lengths)[:-1], [1.0]])
    values = np.concatenate([[0.0], np.cumsum(slopes * lengths)[:-1]])
    intercepts = values - slopes * u[:-1]
    first = np.concatenate([[True], bends])
    return np.append(u[:-1][first], 1.0), slopes[first], intercepts[first]


def relu_pieces(blocks, narrowest, ends=(0.0, 1.0), rounding=0.0):
    """Breakpoints, slopes and intercepts between two points by exact traversal.

    `blocks` are the five arrays of `relu_network.ReluBlocks` for one channel.
    """
    input_kernel, input_bias, kernel, bias, output_kernel = blocks
    u = np.array(ends)
    # The neurons on every piece, as lines: `(4, pieces)`.
    slopes, intercepts = input_kernel[:, None], input_bias[:, None]
    u, slopes, intercepts = _relu(u, slopes, intercepts)
    for weights, offset in zip(kernel, bias, strict=True):
        slopes = weights @ slopes
        intercepts = weights @ intercepts + offset[:, None]
        u, slopes, intercepts = _relu(u, slopes, intercepts)
    sizes = np.abs(output_kernel) @ np.abs(slopes)
    slopes, intercepts = output_kernel @ slopes, output_kernel @ intercepts
    return _merge(u, slopes, intercepts, sizes, narrowest, rounding)


def _relu(u, slopes, intercepts):
    """Cut the pieces where a neuron changes sign, and apply the ReLU."""
    with np.errstate(divide="ignore", invalid="ignore"):
        zeros = -intercepts / slopes
    inside = (zeros > u[:-1]) & (zeros < u[1:])
    cuts = np.unique(zeros[inside])
    piece = np.searchsorted(u, cuts) - 1
    u = np.insert(u, piece + 1, cuts)
    slopes = np.insert(slopes, piece, slopes[:, piece], axis=1)
    intercepts = np.insert(intercepts, piece, intercepts[:, piece], axis=1)
    middle = (u[:-1] + u[1:]) / 2
    active = slopes * middle + intercepts > 0
    return u, slopes * active, intercepts * active


def _merge(u, slopes, intercepts, sizes, narrowest, rounding):
    """Drop pieces that are too narrow, and breakpoints without a bend."""
    widths = np.diff(u)
    # Far from the domain, positions are rounded more coarsely.
    distances = np.minimum(np.abs(u[:-1]), np.abs(u[1:]))
    wide = widths > narrowest * np.maximum(1, distances)
    wide |= widths == widths.max()
    left, right = u[:-1][wide], u[1:][wide]
    slopes, intercepts, sizes = slopes[wide], intercepts[wide], sizes[wide]
    # Not of all slopes: a narrow piece may be steeper than others by many digits.
    tolerance = np.maximum(rounding, SMALLEST_BEND * np.maximum(sizes[:-1], sizes[1:]))
    bends = np.append(True, np.abs(np.diff(slopes)) > tolerance)
    # Neighbors meet where their lines cross: within the gap, up to rounding.
    ends = np.append(right[:-1][bends[1:]], u[-1])
    left, slopes, intercepts = left[bends], slopes[bends], intercepts[bends]
    crossings = np.diff(intercepts) / -np.diff(slopes)
    inner = np.clip(crossings, ends[:-1], left[1:])
    return np.concatenate([u[:1], inner, u[-1:]]), slopes, intercepts


def joined(parts, rounding):
    """The pieces of neighboring intervals; one continues if it hardly bends there.

    `parts` has the slopes of the lines as well, for the size of what is rounded:
    released, the outermost pieces continue up to the rounding of the weights.
    """
    line, whole = parts[0]
    for next_line, part in parts[1:]:
        before, after = whole.slopes[-1], part.slopes[0]
        size = np.abs([line, next_line, before, after]).max()
        # A piece that continues is no new one.
        skipped = int(abs(after - before) <= rounding * size)
        whole = LinearRegions(
            np.concatenate([whole.breakpoints[:-1], part.breakpoints[skipped:]]),
            np.concatenate([whole.slopes, part.slopes[skipped:]]),
            np.concatenate([whole.intercepts, part.intercepts[skipped:]]),
        )
        line = next_line
    return whole


def between(left, right, regions):
    """The pieces between two points, which both lie within the breakpoints."""
    breakpoints, slopes, intercepts = regions
    inner = (breakpoints > left) & (breakpoints < right)
    first = np.searchsorted(breakpoints, left, side="right") - 1
    pieces = slice(first, first + inner.sum() + 1)
    breakpoints = np.concatenate([[left], breakpoints[inner], [right]])
    return LinearRegions(breakpoints, slopes[pieces], intercepts[pieces])
