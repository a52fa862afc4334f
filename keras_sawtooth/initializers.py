"""Initialisers that Keras does not have."""

import math
import random

import keras
import numpy as np
from keras import ops

from keras_sawtooth.arguments import check_integer
from keras_sawtooth.arguments import check_number


@keras.saving.register_keras_serializable(package="keras_sawtooth")
class RandomSign(keras.initializers.Initializer):
    """Draws `+value` or `-value`, each with probability 1/2.

    Args:
        value: finite float. The magnitude of every element.
        seed: int or `None`. Like the initialisers of Keras, one instance
            gives the same values at every call.

    Raises:
        ValueError: if `value` is no finite number.

    Example:

    >>> values = RandomSign(0.5, seed=0)(shape=(100,))
    >>> sorted(set(float(v) for v in values))
    [-0.5, 0.5]
    """

    def __init__(self, value=1.0, seed=None):
        if seed is not None:
            seed = check_integer("seed", seed, 0)
        self.value = check_number("value", value, -math.inf)
        self.seed = seed
        # Python's generator, as in Keras: `keras.utils.set_random_seed` sets it.
        self._draw_seed = random.randint(1, 10**9) if seed is None else seed

    def __call__(self, shape, dtype=None):
        uniform = keras.random.uniform(shape, seed=self._draw_seed)
        # A tensor: a Python number would give JAX a weakly typed variable, and
        # compile every training step twice.
        value = ops.full(shape, self.value, dtype or keras.config.floatx())
        return ops.where(uniform < 0.5, -value, value)

    def get_config(self):
        return {"value": self.value, "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_sawtooth")
class RandomPeaks(keras.initializers.Initializer):
    """Draws logits of peaks: normal around the logits of given peaks.

    Args:
        peaks: sequence of floats between 0 and 1. The middle of the peaks of the first
            triangles; those of all later ones are around 1/2.
        stddev: float. Standard deviation of the logits.
        seed: int or `None`. Like the initialisers of Keras, one instance gives the
            same values at every call.

    Output shape:
        `(depth + 1, channels)`, or whatever shape is asked for: the peaks count along
        its first axis.

    Raises:
        ValueError: if a peak is not between 0 and 1, or `stddev` is negative.

    Example:

    >>> logits = RandomPeaks((0.5, 0.8), stddev=0.0)(shape=(4, 1))
    >>> [round(float(a), 2) for a in keras.ops.sigmoid(logits[:, 0])]
    [0.5, 0.8, 0.5, 0.5]
    """

    def __init__(self, peaks=(0.5, 0.85), stddev=0.3, seed=None):
        if seed is not None:
            seed = check_integer("seed", seed, 0)
        peaks = np.ravel(peaks).tolist()
        self.peaks = [check_number("peaks", a, 1e-6, 1) for a in peaks]
        self.stddev = check_number("stddev", stddev, 0)
        self.seed = seed
        self._draw_seed = random.randint(1, 10**9) if seed is None else seed

    def __call__(self, shape, dtype=None):
        middle = np.full((shape[0], *[1] * (len(shape) - 1)), 0.5)
        first = self.peaks[: shape[0]]
        middle[: len(first)] = np.reshape(first, (-1, *middle.shape[1:]))
        logits = np.log(middle / (1 - middle))
        noise = keras.random.normal(
            shape, stddev=self.stddev, dtype=dtype, seed=self._draw_seed
        )
        return noise + ops.cast(logits, noise.dtype)

    def get_config(self):
        return {"peaks": self.peaks, "stddev": self.stddev, "seed": self.seed}
