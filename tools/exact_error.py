"""The exact function of a model of one variable, and its largest error.

The models of `make_presets.py` are piecewise linear: on an interval they are given by
their values at finitely many knots. Knots and values are carried through the layers
here, in float64 NumPy and from the float32 weights as they are stored. Nothing is
sampled, no piece is dropped, and nothing of the package's own evaluation is used.
"""

import keras
import numpy as np

import keras_sawtooth as ks


def vertices(model, low, high):
    """Knots and values of a model of one variable on an interval.

    Args:
        model: a built `keras.Sequential` of one input and one output: constrained
            `SawtoothDense` and `RegionConstraint` layers with tied scales and
            `tails="line"`, and linear `Dense` layers.
        low: float. Left end of the interval.
        high: float. Right end.

    Returns:
        Pair of arrays: the knots, ascending from `low` to `high`, and the values
        there. In between the model is linear.

    Raises:
        ValueError: if the model has layers of another kind.
    """
    x = np.array([low, high], "float64")
    y = x[None]
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            _check(layer, layer.activation is keras.activations.linear)
            _check(layer, layer.use_bias)
            y = _numpy(layer.kernel).T @ y + _numpy(layer.bias)[:, None]
        region_constraint = getattr(layer, "region_constraint", layer)
        if isinstance(region_constraint, ks.RegionConstraint):
            x, y = _region_constraint(region_constraint, x, y)
        else:
            _check(layer, isinstance(layer, keras.layers.Dense))
    return x, y[0]


def extreme_errors(knots, values, function):
    """Smallest and largest difference of a piecewise-linear function from a smooth one.

    On a piece of slope m the difference is extreme at an end, or where the derivative
    of the smooth function is m. Between inflection points the derivative is
    monotone, and bisection finds that place to the last bit.

    Args:
        knots: array `(n,)`, ascending.
        values: array `(n,)`.
        function: `functions.Function`.

    Returns:
        Pair of floats.
    """
    inner = [x for x in function.inflections if knots[0] < x < knots[-1]]
    ends = np.union1d(knots, inner)
    left, right = ends[:-1], ends[1:]
    slopes = np.diff(np.interp(ends, knots, values)) / np.diff(ends)
    f = function.function
    convex = f(left) + f(right) > 2 * f((left + right) / 2)
    for _ in range(100):
        middle = (left + right) / 2
        before = (function.derivative(middle) < slopes) == convex
        left, right = np.where(before, middle, left), np.where(before, right, middle)
    x = np.concatenate([ends, left])
    errors = np.interp(x, knots, values) - f(x)
    return float(errors.min()), float(errors.max())


def largest_error(model, function):
    """Largest absolute error of a model on the whole interval of a function."""
    knots, values = vertices(model, *function.interval)
    return max(map(abs, extreme_errors(knots, values, function)))


def count_pieces(model, low, high):
    """Number of linear pieces on an interval.

    The knots of neighboring units may be the same but for their rounding.
    """
    knots, _ = vertices(model, low, high)
    return int(np.sum(np.diff(knots) > 1e-13 * (high - low)))


def _check(layer, supported):
    if not supported:
        raise ValueError(f"No such layers here. Received: {layer.get_config()}")


def _region_constraint(layer, x, z):
    _check(layer, layer.constrained and layer.scale_mode == "tied")
    _check(layer, layer.tail_mode == "line")
    weights = {v.name: _numpy(v) for v in layer.weights}
    low, high = layer.domain
    u = (z - low) / (high - low)
    peaks = layer.margin + (1 - 2 * layer.margin) * _sigmoid(weights["peak_logits"])
    knots, outputs = _waves(x, u, peaks, weights["amplitude"])
    return knots, weights["slope"][:, None] * _at(knots, x, z) + outputs


def _waves(x, w, peaks, scale):
    """Sum of the waves, with the scales of Theorem 3.1 (Milkert et al., 2025)."""
    total = np.zeros_like(w)
    for i, peak in enumerate(peaks[:-1, :, None]):
        kinks = [w - peak] if i else [w - peak, w, w - 1]
        x, w, total = _cut(x, np.concatenate(kinks), w, total)
        w = np.minimum(w / peak, (1 - w) / (1 - peak))
        w = w if i else np.maximum(w, 0)
        if i:
            scale = scale * (1 - peaks[i]) * peaks[i + 1]
        total = total + scale[:, None] * w
    return x, total


def _cut(x, signals, *carried):
    """More knots: where one of the `signals` changes its sign."""
    row, piece = np.nonzero(np.sign(signals[:, :-1]) * np.sign(signals[:, 1:]) < 0)
    left, right = signals[row, piece], signals[row, piece + 1]
    zeros = x[piece] + left / (left - right) * (x[piece + 1] - x[piece])
    knots = np.union1d(x, zeros)
    return knots, *(_at(knots, x, lines) for lines in carried)


def _at(knots, x, lines):
    return np.stack([np.interp(knots, x, line) for line in lines])


def _sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def _numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")
