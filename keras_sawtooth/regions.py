"""Exact linear regions of a channel's function, in float64 NumPy."""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_sawtooth.region_constraint import RegionConstraint
from keras_sawtooth.sawtooth_dense import SawtoothDense

# Pieces of a released function narrower than this share of the interval come
# from the rounding of its float32 weights: where a tooth touches zero, a ReLU
# may cut off its tip. float32 inputs hardly tell the two ends apart.
NARROWEST = 16 * np.finfo(np.float32).eps


class LinearRegions(NamedTuple):
    """Linear pieces of a function of one variable, from left to right.

    On `[breakpoints[k], breakpoints[k + 1]]` the function is
    `slopes[k] * z + intercepts[k]`.
    """

    breakpoints: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray

    def __call__(self, z):
        """Value at `z`; the outermost pieces continue as lines.

        Outside of the domain this is not what a layer computes, see its `slopes`.
        """
        piece = np.searchsorted(self.breakpoints[1:-1], z)
        return self.slopes[piece] * z + self.intercepts[piece]


def linear_regions(layer, channel=0):
    """Linear pieces of one channel's function on the domain of the layer.

    Constrained, the breakpoints follow from the peaks by bisection; there are
    `2 ** depth` pieces. Released, the pieces follow from an exact traversal of
    the ReLU network, neuron by neuron. Nothing is sampled. There, pieces narrower
    than 2e-6 of the domain are dropped, because they stem from rounded weights;
    from depth 14 on these are also pieces of the function itself.

    Args:
        layer: a built `RegionConstraint` or `SawtoothDense`. Of the latter, the
            function of the pre-activation is meant, without `activation`.
        channel: int. Index on the last axis.

    Returns:
        `LinearRegions` with float64 arrays `breakpoints` `(pieces + 1,)`, whose
        ends are those of the domain, `slopes` `(pieces,)` and `intercepts`
        `(pieces,)`.

    Raises:
        ValueError: if the layer is not built, the channel does not exist, or
            a weight is not finite.

    Example:

    >>> layer = RegionConstraint(depth=3)
    >>> layer.build((None, 4))
    >>> linear_regions(layer, channel=2).slopes.shape
    (8,)

    Reference:
        - [Milkert et al., 2025](https://arxiv.org/abs/2311.18022), section 3.
    """
    layer = _region_constraint(layer)
    channels = layer.slope.shape[0]
    if (
        isinstance(channel, bool)
        or not isinstance(channel, (int, np.integer))
        or not -channels <= channel < channels
    ):
        raise ValueError(
            f"`channel` must be an index into {channels} channels. "
            f"Received: channel={channel!r}"
        )
    parameters = [p[..., channel] for p in _parameters(layer)]
    pieces = _constrained_pieces if layer.constrained else _relu_pieces
    u, slopes, intercepts = pieces(*parameters)

    low, high = layer.domain
    slopes = slopes / (high - low)
    intercepts = intercepts - slopes * low
    slope = _to_numpy(layer.slope.value)[channel]
    return LinearRegions(low + (high - low) * u, slopes + slope, intercepts)


def count_linear_regions(layer):
    """Number of linear pieces on the domain, for every channel.

    Args:
        layer: a built `RegionConstraint` or `SawtoothDense`.

    Returns:
        NumPy integer array `(channels,)`. `2 ** depth` everywhere as long as the
        layer is constrained and its scales are not zero.

    Raises:
        ValueError: if the layer is not built or a weight is not finite.

    Example:

    >>> layer = SawtoothDense(4, depth=5)
    >>> layer.build((None, 2))
    >>> count_linear_regions(layer)
    array([32, 32, 32, 32])
    """
    layer = _region_constraint(layer)
    parameters = _parameters(layer)
    if layer.constrained:
        # Wave j adds `2 ** j` peaks. Counted like this, pieces too narrow for
        # float64 positions are not lost.
        jumps = parameters[-1] != 0
        return 1 + (1 << np.arange(layer.depth)) @ jumps
    return np.array(
        [
            len(_relu_pieces(*(p[..., channel] for p in parameters))[1])
            for channel in range(layer.slope.shape[0])
        ]
    )


def _region_constraint(layer):
    if isinstance(layer, SawtoothDense):
        layer = layer.region_constraint
    if not isinstance(layer, RegionConstraint):
        raise TypeError(
            "`layer` must be a `RegionConstraint` or a `SawtoothDense`. "
            f"Received: layer={layer!r}"
        )
    if not layer.built:
        raise ValueError(
            f"Layer {layer.name!r} is not built yet and has no regions. Build "
            "it, or call it on data, first."
        )
    return layer


def _to_numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


def _parameters(layer):
    """What determines the function, as float64 arrays with the channels last.

    Constrained: peaks `(depth, channels)`, scales and jumps `(depth, channels)`.
    Released: the five arrays of `relu_network.ReluBlocks`.
    """
    if layer.constrained:
        peaks = _to_numpy(layer.peaks)
        scales = _to_numpy(layer.amplitude.value)
        if layer.scale_mode == "tied":
            ratios = (1 - peaks[1:-1]) * peaks[2:]
            scales = scales * np.cumprod([np.ones_like(scales), *ratios], axis=0)
            # What the later waves leave of a jump, without the cancellation.
            rest = np.cumprod([np.ones_like(scales[0]), *(1 - peaks[:1:-1])], axis=0)
            jumps = scales * rest[::-1]
        else:
            jumps = _free_jumps(peaks, scales)
        parameters = [peaks[:-1], scales, jumps]
    else:
        parameters = [_to_numpy(block) for block in layer.relu_blocks]
    if not all(np.isfinite(p).all() for p in parameters):
        raise ValueError(f"Layer {layer.name!r} has weights that are not finite.")
    return parameters


def _free_jumps(peaks, scales):
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


def _constrained_pieces(peaks, scales, jumps):
    """Breakpoints, slopes and intercepts on `[0, 1]` by bisection."""
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


def _relu_pieces(input_kernel, input_bias, kernel, bias, output_kernel):
    """Breakpoints, slopes and intercepts on `[0, 1]` by exact traversal."""
    u = np.array([0.0, 1.0])
    # The neurons on every piece, as lines: `(4, pieces)`.
    slopes, intercepts = input_kernel[:, None], input_bias[:, None]
    u, slopes, intercepts = _relu(u, slopes, intercepts)
    for weights, offset in zip(kernel, bias, strict=True):
        slopes = weights @ slopes
        intercepts = weights @ intercepts + offset[:, None]
        u, slopes, intercepts = _relu(u, slopes, intercepts)
    return _merge(u, output_kernel @ slopes, output_kernel @ intercepts)


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


def _merge(u, slopes, intercepts):
    """Drop pieces that are too narrow, and breakpoints without a bend."""
    widths = np.diff(u)
    wide = (widths > NARROWEST) | (widths == widths.max())
    left, right = u[:-1][wide], u[1:][wide]
    slopes, intercepts = slopes[wide], intercepts[wide]
    tolerance = 1e-9 * np.abs(slopes).max()
    bends = np.append(True, np.abs(np.diff(slopes)) > tolerance)
    # Neighbours meet where their lines cross: within the gap, up to rounding.
    ends = np.append(right[:-1][bends[1:]], 1.0)
    left, slopes, intercepts = left[bends], slopes[bends], intercepts[bends]
    crossings = np.diff(intercepts) / -np.diff(slopes)
    inner = np.clip(crossings, ends[:-1], left[1:])
    return np.concatenate([[0.0], inner, [1.0]]), slopes, intercepts
