"""Exact linear regions of a channel's function, in float64 NumPy."""

import keras
import numpy as np
from keras import ops

from keras_sawtooth.arguments import check_integer
from keras_sawtooth.arguments import check_interval
from keras_sawtooth.pieces import NARROWEST
from keras_sawtooth.pieces import SMALLEST_BEND
from keras_sawtooth.pieces import LinearRegions
from keras_sawtooth.pieces import between
from keras_sawtooth.pieces import constrained_pieces
from keras_sawtooth.pieces import continuing_tails
from keras_sawtooth.pieces import free_jumps
from keras_sawtooth.pieces import joined
from keras_sawtooth.pieces import relu_pieces
from keras_sawtooth.pieces import tied_scales
from keras_sawtooth.region_constraint import RegionConstraint
from keras_sawtooth.sawtooth_dense import SawtoothDense


def linear_regions(layer, channel=0, interval=None):
    """Linear pieces of one channel's function on an interval.

    Constrained, the breakpoints follow from the peaks by recursive subdivision; there
    are `2 ** depth` pieces on the domain. Released, the pieces follow from an exact
    traversal of the ReLU network, neuron by neuron. Nothing is sampled. Of released
    layers, pieces narrower than 2e-6 of the domain (in float64, 1e-12) are dropped,
    because they stem from rounded weights. So are true pieces that are as narrow, as
    they are from depth 14 on, and with peaks at the margin of 0.01 from depth 3 on.

    Args:
        layer: a built `RegionConstraint` or `SawtoothDense`. Of the latter, the
            function of the pre-activation is meant, without `activation`.
        channel: int. Index on the last axis.
        interval: pair of floats `(low, high)`. Where to look, also outside of the
            domain. Defaults to the domain.

    Returns:
        `LinearRegions` with float64 arrays `breakpoints` `(pieces + 1,)`, whose
        ends are those of the interval, `slopes` `(pieces,)` and `intercepts`
        `(pieces,)`.

    Raises:
        TypeError: if `layer` is neither of these layers.
        ValueError: if the layer is not built, the channel does not exist, a weight is
            not finite, or `interval` is not two finite increasing numbers.

    Example:

        >>> layer = RegionConstraint(depth=3)
        >>> layer.build((None, 4))
        >>> linear_regions(layer, channel=2).slopes.shape
        (8,)

        The outermost pieces continue as long as `tail_slopes` are zero.

        >>> linear_regions(layer, channel=2, interval=(-3, 3)).slopes.shape
        (8,)

    Reference:
        - [Milkert et al., 2025](https://arxiv.org/abs/2311.18022), section 3.
    """
    layer = region_constraint_of(layer)
    channel = check_integer("channel", channel, -layer.channels, layer.channels - 1)
    low, high = layer.domain
    left, right = (
        layer.domain if interval is None else check_interval("interval", interval)
    )
    parameters, line_slopes = _parameters(layer)
    parameters = [p[..., channel] for p in parameters]
    narrowest = _narrowest_piece(layer)
    tail_narrowest = 0 if layer.constrained else narrowest * (high - low)
    slope, *outside = line_slopes[:, channel]
    # Left of the domain, on it, right of it: the slope of the line, and where it bends.
    sections = [
        (left, low, outside[0], low, False),
        (low, high, slope, low, True),
        (high, right, outside[1], high, False),
    ]
    parts = []
    for start, stop, line, bend, inside in sections:
        if not inside and stop - start <= tail_narrowest:
            continue
        ends = [(bound - low) / (high - low) for bound in (start, stop)]
        if not layer.constrained:
            # Just released, the network is zero outside, up to the rounding of weights.
            size = 0 if inside else abs(slope) + abs(line)
            rounding = narrowest * (high - low) * size
            pieces = relu_pieces(parameters, narrowest, ends, rounding)
        elif inside:
            pieces = constrained_pieces(*parameters)
        else:
            # The waves are zero here.
            pieces = np.array(ends), np.zeros(1), np.zeros(1)
        u, slopes, intercepts = pieces
        slopes = slopes / (high - low)
        intercepts = intercepts - slopes * low + (slope - line) * bend
        breakpoints = np.concatenate([[start], low + (high - low) * u[1:-1], [stop]])
        parts.append((line, LinearRegions(breakpoints, slopes + line, intercepts)))
    regions = joined(parts, SMALLEST_BEND if layer.constrained else narrowest)
    # What is left out beside the domain goes to its outermost pieces.
    regions.breakpoints[0] = min(regions.breakpoints[0], left)
    regions.breakpoints[-1] = max(regions.breakpoints[-1], right)
    if left > low or right < high:
        regions = between(left, right, regions)
    return regions


def count_linear_regions(layer):
    """Number of linear pieces on the domain, for every channel.

    Args:
        layer: a built `RegionConstraint` or `SawtoothDense`.

    Returns:
        NumPy integer array `(channels,)`. `2 ** depth` everywhere as long as the
        layer is constrained and its amplitudes are not zero; free scales can be such
        that bends cancel. Released, very narrow pieces are not counted, see
        `linear_regions`.

    Raises:
        TypeError: if `layer` is neither of these layers.
        ValueError: if the layer is not built or a weight is not finite.

    Example:

        >>> layer = SawtoothDense(4, depth=5)
        >>> layer.build((None, 2))
        >>> count_linear_regions(layer)
        array([32, 32, 32, 32])
    """
    layer = region_constraint_of(layer)
    parameters, _ = _parameters(layer)
    if layer.constrained:
        # Wave j adds `2 ** j` peaks. Counted like this, pieces too narrow for
        # float64 positions are not lost.
        jumps = parameters[-1] != 0
        return 1 + (1 << np.arange(layer.depth)) @ jumps
    narrowest = _narrowest_piece(layer)
    pieces = [
        relu_pieces([p[..., channel] for p in parameters], narrowest)
        for channel in range(layer.channels)
    ]
    return np.array([len(slopes) for _, slopes, _ in pieces])


def region_constraint_of(layer):
    """The built `RegionConstraint` itself, or that of a `SawtoothDense`.

    Raises:
        TypeError: if `layer` is neither of these layers.
        ValueError: if it is not built.
    """
    if not isinstance(layer, RegionConstraint | SawtoothDense):
        inside = isinstance(getattr(layer, "activation", None), RegionConstraint)
        hint = "its `activation`" if inside else "one of `model.layers`"
        raise TypeError(
            "`layer` must be a `RegionConstraint` or a `SawtoothDense`, such as "
            f"{hint}. Received: layer={layer!r}"
        )
    if not layer.built:
        raise ValueError(
            f"Layer {layer.name!r} is not built yet and has no regions. Build "
            "it, or call it on data, first."
        )
    return layer if isinstance(layer, RegionConstraint) else layer.region_constraint


def _narrowest_piece(layer):
    # Not what the policy asks for: JAX has float64 only where it was switched on.
    return NARROWEST[keras.backend.standardize_dtype(layer.slopes.dtype)]


def _to_numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


def _parameters(layer):
    """What determines the function, as float64 arrays with the channels last.

    Returns:
        Pair of a list and an array. The list has, constrained, the peaks, scales and
        jumps, each `(depth, channels)`; released, the five arrays of
        `relu_network.ReluBlocks`. The array `(3, channels)` has the slopes of the bent
        line on the domain, left and right of it.
    """
    slope = _to_numpy(layer.slope.value)
    # How much the line bends at the ends of the domain.
    left = right = np.zeros_like(slope)
    if layer.constrained:
        peaks = _to_numpy(layer.peaks)
        scales = _to_numpy(layer.amplitude.value)
        if layer.scale_mode == "tied":
            scales = tied_scales(scales, peaks)
            # What the later waves leave of a jump, without the cancellation.
            rest = np.cumprod([np.ones_like(scales[0]), *(1 - peaks[:1:-1])], axis=0)
            jumps = scales * rest[::-1]
        else:
            jumps = free_jumps(peaks, scales)
        parameters = [peaks[:-1], scales, jumps]
        if layer.tail_mode == "free":
            tails = continuing_tails(scales[0], peaks, layer.domain)
            left, right = tails + _to_numpy(layer.tail_slopes.value)
    else:
        parameters = [_to_numpy(block) for block in layer.relu_blocks]
        if layer.tail_mode == "free":
            left, right = _to_numpy(layer.relu_tail_slopes.value) * layer.relu_rate
    line_slopes = np.stack([slope, slope - left, slope + right])
    if not all(np.isfinite(p).all() for p in (*parameters, line_slopes)):
        raise ValueError(f"Layer {layer.path!r} has weights that are not finite.")
    return parameters, line_slopes
