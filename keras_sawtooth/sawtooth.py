"""The mathematics of the sawtooth function, as free functions on tensors.

Shapes: `z` is `(..., channels)`, `peaks` is `(depth + 1, channels)`, `scales`
is `(depth, channels)`; a result is shaped like `z` unless said otherwise. Every
channel has a function of its own. All functions use `keras.ops` alone and work
in the dtype of their arguments: the layers cast to float32 or wider first.

Reference:
    Milkert, Hyde and Laine, 2025, https://arxiv.org/abs/2311.18022
"""

from collections import namedtuple

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


def normalise(z, domain):
    """Map `z` affinely so that `domain` becomes `[0, 1]`."""
    low, high = domain
    return (z - low) * (1 / (high - low))


def triangle(w, peak):
    """Triangle on `[0, 1]`: 0 at both ends, 1 at `peak`, linear in between.

    Outside `[0, 1]` the two sides continue as lines. At the peak the derivative
    is that of the left side, on every backend.
    """
    return ops.where(w <= peak, w * (1 / peak), (1 - w) * (1 / (1 - peak)))


def waves(u, peaks):
    """The first waves `W_0, W_1, ...` at `u`, one for every row of `peaks`.

    `W_0 = max(0, T_{a_0}(u))` and `W_i = T_{a_i}(W_{i-1})`. Wave i has `2 ** i`
    teeth on `[0, 1]`, and all waves are zero outside it.

    Args:
        u: tensor `(..., channels)`, the normalised input.
        peaks: tensor `(depth, channels)`.

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


def sawtooth(z, peaks, scales, slope, domain):
    """Sawtooth function `slope * z + sum_i s_i W_i(u)` with `2 ** depth` pieces.

    Args:
        z: tensor `(..., channels)`.
        peaks: tensor `(depth + 1, channels)` or `(depth, channels)`: the last
            row is not used here, only by `tied_scales`.
        scales: tensor `(depth, channels)`.
        slope: tensor `(channels,)`.
        domain: pair of floats, the interval of `z` that the pieces cover.

    Returns:
        Tensor shaped like `z`. Outside the domain it is `slope * z`.

    Example: with every peak at 1/2 the tied function interpolates `4 u (1 - u)`.

    >>> peaks = ops.full((4, 1), 0.5)
    >>> scales = tied_scales(ops.ones(1), peaks)
    >>> z = ops.convert_to_tensor([[0.125], [0.5], [2.0]])
    >>> y = sawtooth(z, peaks, scales, ops.zeros(1), (0.0, 1.0))
    >>> [float(v) for v in y[:, 0]]
    [0.4375, 1.0, 0.0]

    Reference:
        - Milkert et al., 2025, section 3; Yarotsky, 2017, for equal peaks.
    """
    depth = scales.shape[0]
    result = slope * z
    for i, wave in enumerate(waves(normalise(z, domain), peaks[:depth])):
        result = result + scales[i] * wave
    return result


ReluBlocks = namedtuple(
    "ReluBlocks",
    ["input_kernel", "input_bias", "kernel", "bias", "output_kernel"],
)
ReluBlocks.__doc__ = """Weights of a width-4, depth-`depth` ReLU network a channel.

`input_kernel`, `input_bias` and `output_kernel` are `(4, channels)`; `kernel` is
`(depth - 1, 4, 4, channels)`, rows (new neurons) before columns (old neurons),
and `bias` is `(depth - 1, 4, channels)`.
"""

# A neuron is scaled to the size of its wave. Where a free scale is (almost) zero
# the size stays positive, and the weight that reads the neuron is zero instead.
_SMALLEST_NEURON = 1e-12


def relu_blocks(peaks, scales):
    """Weights of the ReLU network that equals the sum of the scaled waves.

    The neurons of every hidden layer are, in order: the sum of the waves so far,
    the two neurons `t1`, `t2` that make the next wave, and a constant. The
    constant exists so that no bias has to shrink like `4 ** -i`. With scales of
    mixed signs the partial sum could turn negative, where a ReLU would cut it;
    it is then lifted by the largest amount the negative waves can take, and the
    output layer takes that constant off again.

    Args:
        peaks: tensor `(depth, channels)` or `(depth + 1, channels)`.
        scales: tensor `(depth, channels)`.

    Returns:
        `ReluBlocks`.

    Example:

    >>> peaks = ops.full((4, 2), 0.5)
    >>> blocks = relu_blocks(peaks, tied_scales(ops.ones(2), peaks))
    >>> blocks.kernel.shape == (2, 4, 4, 2)
    True

    Reference:
        - Milkert et al., 2025, section 3.2 (the network of composed triangles).
    """
    depth = scales.shape[0]
    # Not `ops.maximum`, which takes float64 down to float32 on torch.
    size = ops.abs(scales)
    smallest = ops.full_like(size, _SMALLEST_NEURON)
    size = ops.where(size > smallest, size, smallest)
    one, zero = ops.ones_like(scales[0]), ops.zeros_like(scales[0])
    sign = ops.where(scales[0] < 0, -one, one)
    # Waves as multiples of their neurons: 1 for tied scales, by their signs.
    share = sign * scales / size

    first = 1 / (1 - peaks[0])
    rising = [1 / peaks[i] for i in range(depth)]
    turning = [-1 / (peaks[i] * (1 - peaks[i])) for i in range(depth)]

    kernel, offset = [], zero
    for i in range(1, depth):
        lift = ops.relu(-share[i - 1])
        offset = offset + lift * size[i - 1]
        # `sum` reads the old sum, or in front of layer 1 the third piece of W_0.
        wave = [first if i == 1 else zero, rising[i - 1], turning[i - 1]]
        sum_row = [share[i - 1] * w for w in wave] + [lift]
        if i > 1:
            sum_row[0] = one
        ratio = size[i] / size[i - 1]
        t1 = [ratio * w for w in wave]
        kernel.append(
            [
                sum_row,
                [*t1, zero],
                [*t1, -ratio * peaks[i]],
                [zero, zero, zero, ratio],
            ]
        )
    last = share[-1]
    output = [
        last * first if depth == 1 else one,
        last * rising[-1],
        last * turning[-1],
        -offset / size[-1],
    ]
    kernel = (
        ops.stack([ops.stack([ops.stack(r) for r in k]) for k in kernel])
        if kernel
        else ops.zeros((0, 4, 4, *peaks.shape[1:]), dtype=peaks.dtype)
    )
    r = size[0]
    return ReluBlocks(
        input_kernel=ops.stack([r, r, r, zero]),
        input_bias=ops.stack([-r, zero, -r * peaks[0], r]),
        kernel=kernel,
        bias=ops.zeros_like(kernel[:, :, 0]),
        output_kernel=ops.stack([sign * w for w in output]),
    )


def relu_network(z, blocks, slope, domain):
    """The function of free ReLU blocks, `slope * z + output_kernel . h_depth`.

    Args:
        z: tensor `(..., channels)`.
        blocks: `ReluBlocks`.
        slope: tensor `(channels,)`.
        domain: pair of floats; `z` is normalised to it as in `sawtooth`.

    Returns:
        Tensor shaped like `z`.

    Example:

    >>> peaks = ops.full((4, 1), 0.5)
    >>> blocks = relu_blocks(peaks, tied_scales(ops.ones(1), peaks))
    >>> z = ops.convert_to_tensor([[0.125]])
    >>> float(relu_network(z, blocks, ops.zeros(1), (0.0, 1.0))[0, 0])
    0.4375
    """
    u = normalise(z, domain)
    # Unrolled on purpose: 16 fused multiply-adds a level vectorise over the
    # channels, small matrix products do not.
    hidden = [
        ops.relu(blocks.input_kernel[j] * u + blocks.input_bias[j]) for j in range(4)
    ]
    for i in range(blocks.kernel.shape[0]):
        hidden = [
            ops.relu(_dot(blocks.kernel[i, j], hidden) + blocks.bias[i, j])
            for j in range(4)
        ]
    return slope * z + _dot(blocks.output_kernel, hidden)


def _dot(weights, hidden):
    result = weights[0] * hidden[0]
    for j in range(1, 4):
        result = result + weights[j] * hidden[j]
    return result
