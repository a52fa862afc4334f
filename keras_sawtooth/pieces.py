"""Linear pieces of one channel, from the numbers that determine it, in float64 NumPy.

`tied_scales` is `sawtooth.tied_scales` once more: JAX has no float64 unless it was
switched on at its start.
"""

import numpy as np

# Pieces of a released function narrower than this share of the domain come from
# the rounding of its weights, in float64 of the traversal: where a tooth touches
# zero, a ReLU may cut off its tip. float32 inputs hardly tell the two ends apart.
NARROWEST = {"float32": 2e-6, "float64": 1e-12}
# Relative to the slopes they are between: smaller bends are float64 rounding.
SMALLEST_BEND = 1e-9


def tied_scales(amplitude, peaks):
    ratios = (1 - peaks[1:-1]) * peaks[2:]
    return amplitude * np.cumprod([np.ones_like(amplitude), *ratios], axis=0)


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
    slopes, intercepts = output_kernel @ slopes, output_kernel @ intercepts
    return _merge(u, slopes, intercepts, narrowest, rounding)


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


def _merge(u, slopes, intercepts, narrowest, rounding):
    """Drop pieces that are too narrow, and breakpoints without a bend."""
    widths = np.diff(u)
    # Far from the domain, positions are rounded more coarsely.
    distances = np.minimum(np.abs(u[:-1]), np.abs(u[1:]))
    wide = widths > narrowest * np.maximum(1, distances)
    wide |= widths == widths.max()
    left, right = u[:-1][wide], u[1:][wide]
    slopes, intercepts = slopes[wide], intercepts[wide]
    tolerance = max(rounding, SMALLEST_BEND * np.abs(slopes).max())
    bends = np.append(True, np.abs(np.diff(slopes)) > tolerance)
    # Neighbors meet where their lines cross: within the gap, up to rounding.
    ends = np.append(right[:-1][bends[1:]], u[-1])
    left, slopes, intercepts = left[bends], slopes[bends], intercepts[bends]
    crossings = np.diff(intercepts) / -np.diff(slopes)
    inner = np.clip(crossings, ends[:-1], left[1:])
    return np.concatenate([u[:1], inner, u[-1:]]), slopes, intercepts
