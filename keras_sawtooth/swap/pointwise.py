"""Which activations can be replaced: functions, and layers that are nothing else."""

import functools

import keras
import numpy as np

# Nonlinear activations that act on every channel by itself. Those whose range is a
# promise to what follows (sigmoid, softplus, exponential, ...) are left alone: they
# end in probabilities, gates and rates.
POINTWISE = (
    keras.activations.celu,
    keras.activations.elu,
    keras.activations.gelu,
    keras.activations.hard_shrink,
    keras.activations.hard_silu,
    keras.activations.hard_tanh,
    keras.activations.leaky_relu,
    keras.activations.mish,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.selu,
    keras.activations.silu,
    keras.activations.soft_shrink,
    keras.activations.softsign,
    keras.activations.tanh,
    keras.activations.tanh_shrink,
)

# They have no name of their own among the activations.
POINTWISE_LAYERS = (
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
)
ACTIVATION_LAYERS = (keras.layers.Activation, *POINTWISE_LAYERS)

# Two rows, so that a function that looks along an axis does not pass by chance.
_POINTS = np.linspace(-4, 4, 34, dtype="float32").reshape(2, 17)


def is_pointwise(activation):
    """Whether an activation is nonlinear, pointwise, and not bound to its range.

    Libraries bring functions of their own, such as `keras.ops.silu` or an
    approximate GELU: a function counts if it has the values of a known one.

    Args:
        activation: callable or `None`.

    Returns:
        bool.

    Example:

        >>> [is_pointwise(f) for f in (keras.ops.silu, keras.activations.sigmoid)]
        [True, False]
    """
    if activation in POINTWISE or type(activation) in POINTWISE_LAYERS:
        return True
    if (
        activation is None
        or isinstance(activation, keras.layers.Layer)
        or activation is keras.activations.linear
    ):
        return False
    try:
        values = _values(activation)
    except Exception:
        # It takes something else than one array of any shape.
        return False
    return values.shape == _POINTS.shape and any(
        np.allclose(values, known, atol=1e-5) for known in _known_values()
    )


def is_activation_layer(layer):
    """Whether a layer does nothing but apply such an activation."""
    if type(layer) is keras.layers.Activation:
        return is_pointwise(layer.activation)
    return type(layer) in POINTWISE_LAYERS


def _values(activation):
    return keras.ops.convert_to_numpy(activation(keras.ops.convert_to_tensor(_POINTS)))


@functools.cache
def _known_values():
    functions = [
        *POINTWISE,
        lambda x: keras.activations.gelu(x, approximate=True),
        # The "quick GELU" of CLIP.
        lambda x: x * keras.ops.sigmoid(1.702 * x),
    ]
    return [_values(function) for function in functions]
