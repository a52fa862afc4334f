"""Checks of arguments. Those of plain values return the Python value."""

import math
from numbers import Integral
from numbers import Real

import keras
import numpy as np


def check_model(function, model):
    """Refuse what is no `keras.Model`, or not built, for the function of this name."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{function}` takes a `keras.Model`. Received: model={model!r}"
        )
    if not model.built:
        raise ValueError(
            f"{model.name!r} is not built, so it has no weights yet. Put a "
            "`keras.Input` first, or call the model on data once."
        )


def check_integer(name, value, low, high=math.inf):
    """An integer from `low` to `high`, both included."""
    if (
        isinstance(value, bool)
        or not isinstance(value, Integral)
        or not low <= value <= high
    ):
        at_most = "" if high == math.inf else f" and at most {high}"
        raise ValueError(
            f"`{name}` must be an integer of at least {low}{at_most}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def check_verbose(value):
    # Keras takes `True` and `False` as well.
    return check_integer("verbose", int(value) if isinstance(value, bool) else value, 0)


def check_number(name, value, low, high=math.inf):
    """A finite number of at least `low` and below `high`."""
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not math.isfinite(value)
        or not low <= value < high
    ):
        at_least = "" if low == -math.inf else f" of at least {low}"
        below = "" if high == math.inf else f" and below {high}"
        raise ValueError(
            f"`{name}` must be a finite number{at_least}{below}. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def check_boolean(name, value):
    """A boolean, also one of NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be a boolean. Received: {name}={value!r}")
    return bool(value)


def check_choice(name, value, choices):
    """One of some strings."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(f'"{choice}"' for choice in choices)
        raise ValueError(
            f"`{name}` must be one of {listed}. Received: {name}={value!r}"
        )
    return value


def check_names(arguments, known):
    """Names of arguments that are known: Keras ignores others."""
    unknown = sorted({*arguments} - {*known})
    if unknown:
        raise TypeError(f"There are no arguments {unknown}. Received: {arguments!r}")


def check_interval(name, interval):
    """Two finite numbers in increasing order."""
    try:
        low, high = interval
        numbers = all(
            isinstance(bound, Real) and not isinstance(bound, bool)
            for bound in (low, high)
        )
        low, high = float(low), float(high)
    except (TypeError, ValueError, OverflowError):
        numbers = False
    if not numbers or not 0 < high - low < math.inf:
        raise ValueError(
            f"`{name}` must be two finite numbers (low, high) with low < high, and "
            f"with a finite difference. Received: {name}={interval!r}"
        )
    return low, high


def check_domain(domain, dtype):
    """An interval that holds many numbers of a dtype, and as wide as one can be."""
    interval = check_interval("domain", domain)
    smallest = np.finfo(dtype).tiny
    with np.errstate(all="ignore"):
        low, high = np.array(interval, dtype)
        # XLA flushes smaller numbers to zero. An eighth is the starting amplitude.
        narrow = (high - low) / 8 < smallest
        wide = not np.isfinite(high - low) or 1 / (high - low) < smallest
        # Its ends are rounded, and the pieces are parts of it.
        distant = high - low < 1024 * np.spacing(max(abs(low), abs(high)))
    if narrow or wide:
        raise ValueError(
            f"`domain` is too {'narrow' if narrow else 'wide'} for {dtype}: take other "
            f"units for the input. Received: domain={domain!r}"
        )
    if distant:
        raise ValueError(
            f"`domain` holds too few numbers of {dtype}, so far away from zero: "
            f"subtract a constant from the input. Received: domain={domain!r}"
        )
    return interval
