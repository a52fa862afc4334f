"""The ReLU network of a `RegionConstraint`, in Keras' own layers."""

import keras
import numpy as np
from keras import layers

from keras_sawtooth import relu_network


def standard_network(region, inputs, name):
    """Apply the ReLU network that equals a `RegionConstraint`, in Keras' own layers.

    The network has `depth` hidden layers of 4 neurons per channel. The normalization of
    the input is part of the first one.

    Args:
        region: a built `RegionConstraint`, in either phase.
        inputs: symbolic tensor `(..., channels)` of known rank.
        name: str. What the names of the new layers start with.

    Returns:
        Symbolic tensor shaped like `inputs`.

    Reference:
        - Milkert et al., 2025, section 3.2.
    """
    dtype = region.evaluated_dtype
    blocks = _blocks(region)
    # For more than one axis `...`, Keras reverses their sizes in the output's shape.
    between = tuple(inputs.shape[1:-1]) if len(inputs.shape) > 3 else ()
    axes = "abdefghklmnop"[: len(between) + 1] if between else "..."

    def dense(equation, inputs, kernel, bias=None, kind="output", trainable=True):
        shape = kernel.shape[:1] if bias is None else bias.shape
        layer = layers.EinsumDense(
            equation.replace("...", axes),
            output_shape=between + shape,
            activation=None if bias is None else "relu",
            bias_axes=None if bias is None else "cj",
            kernel_initializer="zeros",
            dtype=dtype,
            name=f"{name}_{kind}",
            trainable=trainable and region.trainable,
        )
        outputs = layer(inputs)
        layer.set_weights([kernel] if bias is None else [kernel, bias])
        return outputs

    z, (low, high) = inputs, region.domain
    if not low <= 0 <= high:
        # `kernel * z + bias` would cancel where z is large next to the domain's size.
        z = layers.Rescaling(1.0, -low, dtype=dtype, name=f"{name}_shift")(z)
        low, high = 0.0, high - low
    # The first layer reads `z`, which is not normalized.
    kernel = blocks.input_kernel / (high - low)
    bias = blocks.input_bias - kernel * low
    hidden = dense("...c,cj->...cj", z, kernel.T, bias.T, "hidden_0")
    for i, (kernel, bias) in enumerate(zip(blocks.kernel, blocks.bias, strict=True)):
        kernel = kernel.transpose(2, 1, 0)
        equation, kind = "...ci,cij->...cj", f"hidden_{i + 1}"
        hidden = dense(equation, hidden, kernel, bias.T, kind)
    pieces = dense("...cj,cj->...c", hidden, blocks.output_kernel.T)
    slope, *tails = _to_numpy(region.slopes)
    terms = [pieces, dense("...c,c->...c", inputs, slope, kind="slope")]
    if tails:
        # How far to the left of the domain the input is, and how far to the right.
        kernel, bias = (np.tile(w, (len(slope), 1)) for w in ([-1, 1], [low, -high]))
        equation = "...c,cj->...cj"
        distance = dense(equation, z, kernel, bias, "outside", trainable=False)
        tails = np.stack(tails, axis=1)
        terms.append(dense("...cj,cj->...c", distance, tails, kind="tails"))
    outputs = layers.Add(dtype=dtype, name=f"{name}_add")(terms)
    if region.compute_dtype != dtype:
        cast = layers.Identity(dtype=region.compute_dtype, name=f"{name}_cast")
        outputs = cast(outputs)
    return outputs


def _blocks(region):
    """Current weights, as float64 arrays."""
    if region.constrained:
        blocks = relu_network.relu_blocks(region.peaks, region.scales)
    else:
        blocks = region.relu_blocks
    return relu_network.ReluBlocks(*map(_to_numpy, blocks))


def _to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor).astype("float64")
