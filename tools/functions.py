"""The elementary functions that have a built-in preset."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ROOT_2 = math.sqrt(2)


class Function(NamedTuple):
    """A function on an interval, as float64 NumPy callables.

    Between the `inflections` it is convex or concave.
    """

    formula: str
    function: Callable
    derivative: Callable
    interval: tuple
    inflections: tuple = ()


def _normal_density(x):
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@np.vectorize
def _normal_distribution(x):
    # Not (1 + erf) / 2, which loses the digits of small values.
    return math.erfc(-x / ROOT_2) / 2


FUNCTIONS = {
    "square": Function("x^2", np.square, lambda x: 2 * x, (-1.0, 1.0)),
    "cube": Function("x^3", lambda x: x**3, lambda x: 3 * x**2, (-1.0, 1.0), (0.0,)),
    "exp": Function("exp(x)", np.exp, np.exp, (-1.0, 1.0)),
    "sin": Function("sin(x)", np.sin, np.cos, (-math.pi, math.pi), (0.0,)),
    "tanh": Function(
        "tanh(x)", np.tanh, lambda x: 1 / np.cosh(x) ** 2, (-4.0, 4.0), (0.0,)
    ),
    "gelu": Function(
        "gelu(x)",
        lambda x: x * _normal_distribution(x),
        lambda x: _normal_distribution(x) + x * _normal_density(x),
        (-4.0, 4.0),
        # The second derivative is (2 - x^2) times the normal density.
        (-ROOT_2, ROOT_2),
    ),
    "sqrt": Function("sqrt(x)", np.sqrt, lambda x: 0.5 / np.sqrt(x), (0.0, 1.0)),
}
