"""The mathematics of the sawtooth function, as free functions on tensors.

Shapes: `z` is `(..., channels)`, `peaks` is `(depth + 1, channels)`, `scales`
is `(depth, channels)`, `slopes` is `(1, channels)` or `(3, channels)`; a result is
shaped like `z` unless said otherwise. Every channel has a function of its own. All
functions use `keras.ops` alone and work in the dtype of their arguments, which the
layers and `hot_path.py` cast to float32 or wider first.

Reference:
    Milkert, Hyde and Laine, 2025, https://arxiv.org/abs/2311.18022
"""

from keras import ops


def peaks_from_logits(logits, margin):
    """Peaks in `[margin, 1 - margin]`, one for every logit.

    Args:
        logits: tensor of any shape.
        margin: float in (0, 0.5). Distance that peaks keep from 0 and 1.

    Returns:
        Tensor of the shape of `logits`.

    Example:

        >>> peaks_from_logits(ops.zeros((4, 2)), margin=0.01).shape == (4, 2)
        True
    """
    # Both ends are hit exactly when the sigmoid saturates; the shorter
    # `margin + (1 - 2 * margin) * sigmoid(logits)` can round past `1 - margin`.
    return margin * ops.sigmoid(-logits) + (1 - margin) * ops.sigmoid(logits)


def tied_scales(amplitude, peaks):
    """Scales that make the infinitely deep function differentiable.

    `s_0 = amplitude`, `s_{i+1} = s_i (1 - a_{i+1}) a_{i+2}`. At a peak of wave i
    the slope jumps by `-s_i J`, and the later waves give it back,
    `s_{i+1} / (1 - a_{i+1}) + s_{i+2} / ((1 - a_{i+1}) a_{i+2}) + ... = s_i`;
    subtracting the same identity for `i + 1` leaves the recursion.

    Args:
        amplitude: tensor `(channels,)`, the scale of the first wave.
        peaks: tensor `(depth + 1, channels)`. The last peak belongs to the
            first wave that is left out and only scales the last one present.

    Returns:
        Tensor `(depth, channels)`.

    Example:

        >>> scales = tied_scales(ops.ones(1), ops.full((4, 1), 0.5))
        >>> [float(s) for s in scales[:, 0]]
        [1.0, 0.25, 0.0625]

    Reference:
        - Milkert et al., 2025, Theorem 3.1.
    """
    scales = [amplitude]
    for i in range(1, peaks.shape[0] - 1):
        scales.append(scales[-1] * (1 - peaks[i]) * peaks[i + 1])
    return ops.stack(scales)


def normalize(z, domain):
    """Map `z` affinely so that `domain` becomes `[0, 1]`.

    At both ends of the domain the derivative is zero: there the line of `bent_line`
    has the derivative of the outside, and the pieces must not add theirs.

    Args:
        z: tensor of any shape.
        domain: pair of floats.

    Returns:
        Tensor shaped like `z`.

    Example:

        >>> float(normalize(ops.convert_to_tensor(0.5), (-1.0, 1.0)))
        0.75
    """
    low, high = domain
    at_end = ops.logical_or(z == low, z == high)
    z = ops.where(at_end, ops.stop_gradient(z), z)
    return (z - low) * (1 / (high - low))


def triangle(w, peak):
    """Triangle on `[0, 1]`: 0 at both ends, 1 at `peak`, linear in between.

    Outside `[0, 1]` the two sides continue as lines. At the peak the derivative
    is that of the left side, on every backend.

    Args:
        w: tensor `(..., channels)`.
        peak: tensor `(channels,)`.

    Returns:
        Tensor shaped like `w`.

    Example:

        >>> w = ops.convert_to_tensor([[0.25], [0.5], [0.75]])
        >>> [float(t) for t in triangle(w, ops.full((1,), 0.5))[:, 0]]
        [0.5, 1.0, 0.5]
    """
    return ops.where(w <= peak, w * (1 / peak), (1 - w) * (1 / (1 - peak)))


def waves(u, peaks, triangle=triangle):
    """The first waves `W_0, W_1, ...` at `u`, one for every row of `peaks`.

    `W_0 = max(0, T_{a_0}(u))` and `W_i = T_{a_i}(W_{i-1})`. Wave i has `2 ** i`
    teeth on `[0, 1]`, and all waves are zero outside it.

    Args:
        u: tensor `(..., channels)`, the normalized input.
        peaks: tensor `(depth, channels)`.
        triangle: function `(w, peak)` with the values of `triangle`, for other ways to
            its derivative.

    Returns:
        List of `depth` tensors shaped like `u`.

    Example:

        >>> values = waves(ops.convert_to_tensor([[0.25]]), ops.full((2, 1), 0.5))
        >>> [float(w[0, 0]) for w in values]
        [0.5, 1.0]
    """
    wave = ops.relu(triangle(u, peaks[0]))
    result = [wave]
    for i in range(1, peaks.shape[0]):
        wave = triangle(wave, peaks[i])
        result.append(wave)
    return result


def bent_line(z, slopes, domain):
    """The line `slopes[0] * z`, bent at both ends of the domain.

    Args:
        z: tensor `(..., channels)`.
        slopes: tensor `(1, channels)`, a line without bends, or `(3, channels)`. The
            second row is multiplied by the distance of `z` to the left of the domain,
            the third by that to the right.
        domain: pair of floats.

    Returns:
        Tensor shaped like `z`.

    Example:

        >>> slopes = ops.convert_to_tensor([[1.0], [2.0], [-1.0]])
        >>> z = ops.convert_to_tensor([[-3.0], [0.5], [2.0]])
        >>> [float(y) for y in bent_line(z, slopes, (-1.0, 1.0))[:, 0]]
        [1.0, 0.5, 1.0]
    """
    line = slopes[0] * z
    if slopes.shape[0] == 1:
        return line
    low, high = domain
    # At the ends the derivative is that of the outside, see `normalize`.
    left = ops.where(z <= low, low - z, 0)
    right = ops.where(z >= high, z - high, 0)
    return line + slopes[1] * left + slopes[2] * right


def continuing_tails(amplitude, peaks, domain):
    """Bends of a line with which the outermost pieces continue outside of the domain.

    Of the function with tied scales. On its first piece every wave rises,
    `W_i = u / (a_0 ... a_i)`, and on the last one it falls as
    `(1 - u) / ((1 - a_0) a_1 ... a_i)`.

    Args:
        amplitude: tensor `(channels,)`, the scale of the first wave.
        peaks: tensor `(depth + 1, channels)`, as in `tied_scales`.
        domain: pair of floats.

    Returns:
        Tensor `(2, channels)`, the last two rows of the `slopes` of `sawtooth`.

    Example: the tent `0.5 - abs(z)` continues below zero.

        >>> amplitude, peaks = ops.full((1,), 0.5), ops.full((2, 1), 0.5)
        >>> tails = continuing_tails(amplitude, peaks, (-0.5, 0.5))
        >>> [float(t) for t in tails[:, 0]]
        [-1.0, -1.0]
    """
    # By ratios of scales, from the last wave to the first. Of the scales themselves the
    # last ones may vanish, where the product of all `1 / a_i`, their derivative, is
    # infinite.
    share = ops.ones_like(amplitude)
    for i in reversed(range(1, peaks.shape[0] - 1)):
        share = 1 + (1 - peaks[i]) * (peaks[i + 1] / peaks[i]) * share
    steepness = amplitude * share * (1 / (domain[1] - domain[0]))
    return ops.stack([-steepness / peaks[0], -steepness / (1 - peaks[0])])


def sawtooth(z, peaks, scales, slopes, domain, triangle=triangle):
    """Sawtooth function with `2 ** depth` pieces, `sum_i s_i W_i(u)` and a line.

    Args:
        z: tensor `(..., channels)`.
        peaks: tensor `(depth + 1, channels)` or `(depth, channels)`: the last
            row is not used here, only by `tied_scales`.
        scales: tensor `(depth, channels)`.
        slopes: tensor `(1, channels)` or `(3, channels)`, see `bent_line`.
        domain: pair of floats, the interval of `z` that the pieces cover.
        triangle: see `waves`.

    Returns:
        Tensor shaped like `z`. Outside the domain it is the bent line alone.

    Example: with every peak at 1/2 the tied function interpolates `4 u (1 - u)`.

        >>> peaks = ops.full((4, 1), 0.5)
        >>> scales = tied_scales(ops.ones(1), peaks)
        >>> z = ops.convert_to_tensor([[0.125], [0.5], [2.0]])
        >>> y = sawtooth(z, peaks, scales, ops.zeros((1, 1)), (0.0, 1.0))
        >>> [float(v) for v in y[:, 0]]
        [0.4375, 1.0, 0.0]

    Reference:
        - Milkert et al., 2025, section 3; Yarotsky, 2017, for equal peaks.
    """
    depth = scales.shape[0]
    result = bent_line(z, slopes, domain)
    for i, wave in enumerate(waves(normalize(z, domain), peaks[:depth], triangle)):
        result = result + scales[i] * wave
    return result
