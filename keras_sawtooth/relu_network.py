"""The ReLU network of width 4 that equals a sawtooth function.

Shapes as in `keras_sawtooth.sawtooth`: the channels are last, and every channel
has a network of its own.
"""

from collections import namedtuple

from keras import ops

from keras_sawtooth import sawtooth

# Neurons of a channel whose scales all vanish have this size, so that they learn.
SMALLEST_NEURON = 1e-3
# A layer's neurons are at least this large next to those of the layer before.
# Tied scales have ratios near 1/4.
SMALLEST_RATIO = 1 / 64
# And no smaller than this: far below, float32 has fewer digits, and then none.
SMALLEST_SIZE = 2.0**-96

ReluBlocks = namedtuple(
    "ReluBlocks",
    ["input_kernel", "input_bias", "kernel", "bias", "output_kernel"],
)
ReluBlocks.__doc__ = """Weights of a width-4, depth-`depth` ReLU network per channel.

`input_kernel`, `input_bias` and `output_kernel` are `(4, channels)`; `kernel` is
`(depth - 1, 4, 4, channels)`, rows (new neurons) before columns (old neurons),
and `bias` is `(depth - 1, 4, channels)`.
"""


def neuron_size(field, depth):
    """Typical size of the neurons that a weight acts on: `4 ** -i` in hidden layer i.

    A bias acts on those of its own layer, a weight of a product on those it multiplies.

    Args:
        field: str. Field of `ReluBlocks`.
        depth: int. Number of hidden layers.

    Returns:
        float, or for `kernel` and `bias` a tensor that broadcasts to them.

    Example:

        >>> [float(size) for size in ops.ravel(neuron_size("bias", depth=3))]
        [0.25, 0.0625]
    """
    if field == "output_kernel":
        return 0.25 ** (depth - 1)
    if field in ("input_kernel", "input_bias"):
        return 1.0
    first, axes = (1, 3) if field == "bias" else (0, 4)
    sizes = [0.25 ** (first + i) for i in range(depth - 1)]
    # No NumPy array, at which `torch.compile` would cut a model in two.
    sizes = ops.convert_to_tensor(sizes, "float32")
    return ops.reshape(sizes, (-1, *[1] * (axes - 1)))


def relu_blocks(peaks, scales):
    """Weights of the ReLU network that equals the sum of the scaled waves.

    The neurons of every hidden layer are, in order: the sum of the waves so far,
    the two neurons `t1`, `t2` that make the next wave, and a constant. The
    constant exists so that no bias has to shrink like `4 ** -i`. With scales of
    mixed signs the partial sum could turn negative, where a ReLU would cut it;
    it is then lifted by the largest amount the negative waves can take, and the
    output layer takes that constant off again.

    A first peak left of the middle is that of the mirrored triangle,
    `T_a(u) = T_{1-a}(1 - u)`, and the first layer reads `1 - u`. There is no sum in it
    yet. At depth 1 its first neuron takes the wave back to zero beyond the domain; at
    others it bends halfway to the peak, and nothing reads it before it is trained.

    Args:
        peaks: tensor `(depth, channels)` or `(depth + 1, channels)`.
        scales: tensor `(depth, channels)`.

    Returns:
        `ReluBlocks`.

    Example:

        >>> peaks = ops.full((4, 2), 0.5)
        >>> blocks = relu_blocks(peaks, sawtooth.tied_scales(ops.ones(2), peaks))
        >>> blocks.kernel.shape == (2, 4, 4, 2)
        True

    Reference:
        - Milkert et al., 2025, section 3.2 (the network of composed triangles).
    """
    depth = scales.shape[0]
    size = _neuron_sizes(scales)
    one, zero = ops.ones_like(scales[0]), ops.zeros_like(scales[0])
    sign = ops.where(scales[0] < 0, -one, one)
    # Waves as multiples of their neurons: 1 for tied scales, by their signs.
    share = [sign * scales[i] / size[i] for i in range(depth)]

    # The way up to the peak is the longer one: a short one is steep, and the neuron at
    # the peak would have to take off nearly all of its slope. That costs digits, and
    # the steps of an optimizer spoil it soonest.
    mirrored = peaks[0] < 0.5
    longer = ops.where(mirrored, 1 - peaks[0], peaks[0])
    shorter = ops.where(mirrored, peaks[0], 1 - peaks[0])

    rising = [1 / (peaks[i] if i else longer) for i in range(depth)]
    turning = [-1 / (peaks[i] * (1 - peaks[i])) for i in range(depth)]

    kernel, offset = [], zero
    for i in range(1, depth):
        # The ReLUs that read W_0 cut it off where it turns negative: share[0] >= 0.
        lift = ops.relu(-share[i - 1])
        offset = offset + lift * size[i - 1]
        wave = [rising[i - 1], turning[i - 1]]
        ratio = size[i] / size[i - 1]
        t1 = [zero, *[ratio * w for w in wave]]
        kernel.append(
            [
                [one if i > 1 else zero, *[share[i - 1] * w for w in wave], lift],
                [*t1, zero],
                [*t1, -ratio * peaks[i]],
                [zero, zero, zero, ratio],
            ]
        )
    last = share[-1]
    output = [
        # No ReLU reads the only wave, so the first neuron takes it back to zero.
        last / shorter if depth == 1 else one,
        last * rising[-1],
        last * turning[-1],
        -offset / size[-1],
    ]
    kernel = (
        ops.stack([ops.stack([ops.stack(row) for row in k]) for k in kernel])
        if kernel
        else ops.zeros((0, 4, 4, *peaks.shape[1:]), dtype=peaks.dtype)
    )
    first = size[0]
    direction = ops.where(mirrored, -first, first)
    start = ops.where(mirrored, first, zero)
    bend = longer / 2 if depth > 1 else one
    input_bias = [start - first * bend, start, -direction * peaks[0], first]
    return ReluBlocks(
        input_kernel=ops.stack([direction, direction, direction, zero]),
        input_bias=ops.stack(input_bias),
        kernel=kernel,
        bias=ops.zeros_like(kernel[:, :, 0]),
        output_kernel=ops.stack([sign * w for w in output]),
    )


def _neuron_sizes(scales):
    """Sizes of the neurons per layer: those of the waves, but never far apart.

    Neurons of a layer are read with weights that have the ratio of the sizes. A
    free scale close to zero would make it huge, and training would explode. So a
    neuron is at least as large as those after it, and not much smaller than the
    one before; its wave is then a smaller share of it.
    """
    # Not `ops.maximum`, which takes float64 down to float32 on torch.
    size = [ops.abs(scales[i]) for i in range(scales.shape[0])]
    for i in reversed(range(len(size) - 1)):
        size[i] = ops.where(size[i] > size[i + 1], size[i], size[i + 1])
    smallest = ops.full_like(size[0], SMALLEST_NEURON)
    for i in range(len(size)):
        size[i] = ops.where(size[i] > smallest, size[i], smallest)
        smallest = size[i] * SMALLEST_RATIO
        smallest = ops.where(smallest > SMALLEST_SIZE, smallest, SMALLEST_SIZE)
    return size


def hidden_layer(hidden, kernel, bias):
    """The four neurons of a layer, from those of the layer before.

    `hidden` and the result are tuples of tensors `(..., channels)`; `kernel` is
    `(4, 4, channels)` and `bias` is `(4, channels)`.
    """
    return tuple(ops.relu(_dot(kernel[j], hidden) + bias[j]) for j in range(4))


def hidden_layers(hidden, kernel, bias):
    """The four neurons after all layers, of which compilers see every one.

    `kernel` is `(depth - 1, 4, 4, channels)` and `bias` is `(depth - 1, 4, channels)`.
    """
    for i in range(kernel.shape[0]):
        hidden = hidden_layer(hidden, kernel[i], bias[i])
    return hidden


def relu_network(z, blocks, slopes, domain, hidden_layers=hidden_layers):
    """The function of free ReLU blocks, `output_kernel . h_depth` and a bent line.

    Args:
        z: tensor `(..., channels)`.
        blocks: `ReluBlocks`.
        slopes: tensor `(1, channels)` or `(3, channels)`, as in `sawtooth`.
        domain: pair of floats; `z` is normalized to it as in `sawtooth`.
        hidden_layers: function like `hidden_layers`.

    Returns:
        Tensor shaped like `z`.

    Example:

        >>> peaks = ops.full((4, 1), 0.5)
        >>> blocks = relu_blocks(peaks, sawtooth.tied_scales(ops.ones(1), peaks))
        >>> z = ops.convert_to_tensor([[0.125]])
        >>> float(relu_network(z, blocks, ops.zeros((1, 1)), (0.0, 1.0))[0, 0])
        0.4375
    """
    u = sawtooth.normalize(z, domain)
    # No matrix products: 16 fused multiply-adds per layer vectorize over the
    # channels, small matrix products do not.
    hidden = tuple(
        ops.relu(blocks.input_kernel[j] * u + blocks.input_bias[j]) for j in range(4)
    )
    hidden = hidden_layers(hidden, blocks.kernel, blocks.bias)
    line = sawtooth.bent_line(z, slopes, domain)
    return line + _dot(blocks.output_kernel, hidden)


def _dot(weights, hidden):
    result = weights[0] * hidden[0]
    for j in range(1, 4):
        result = result + weights[j] * hidden[j]
    return result
