"""Initializers that Keras does not have."""

import math

import keras
import numpy as np
from keras import ops

from keras_sawtooth.arguments import check_number


# A subclass of `RandomUniform` for its handling of seeds: `RandomInitializer`, which
# has it, is not exported.
@keras.saving.register_keras_serializable(package="keras_sawtooth")
class RandomSign(keras.initializers.RandomUniform):
    """Draws `+value` or `-value`, each with probability 1/2.

    Args:
        value: finite float. The magnitude of every element.
        seed: int, `keras.random.SeedGenerator` or `None`. As with Keras' initializers,
            one instance gives the same values at every call, unless it has a generator.

    Raises:
        ValueError: if `value` is not a finite number.

    Example:

        >>> values = RandomSign(0.5, seed=0)(shape=(100,))
        >>> sorted(set(float(v) for v in values))
        [-0.5, 0.5]
    """

    def __init__(self, value=1.0, seed=None):
        super().__init__(0.0, 1.0, seed)
        self.value = check_number("value", value, -math.inf)

    def __call__(self, shape, dtype=None):
        # A tensor: a Python number would give JAX a weakly typed variable, and
        # compile every training step twice.
        value = ops.full(shape, self.value, dtype or keras.config.floatx())
        return ops.where(super().__call__(shape) < 0.5, -value, value)

    def get_config(self):
        return {"value": self.value, "seed": super().get_config()["seed"]}


@keras.saving.register_keras_serializable(package="keras_sawtooth")
class RandomPeaks(keras.initializers.RandomNormal):
    """Draws logits of peaks: normal around the logits of given peaks.

    Args:
        peaks: sequence of floats between 0 and 1. Medians of the peaks of the first
            triangles. Peaks of later triangles have median 1/2.
        stddev: float. Standard deviation of the logits.
        seed: int, `keras.random.SeedGenerator` or `None`. As with Keras' initializers,
            one instance gives the same values at every call, unless it has a generator.

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
        super().__init__(0.0, check_number("stddev", stddev, 0), seed)
        peaks = np.ravel(peaks).tolist()
        self.peaks = [
            check_number(f"peaks[{i}]", a, 1e-6, 1) for i, a in enumerate(peaks)
        ]

    def __call__(self, shape, dtype=None):
        middle = np.full((shape[0], *[1] * (len(shape) - 1)), 0.5)
        first = self.peaks[: shape[0]]
        middle[: len(first)] = np.reshape(first, (-1, *middle.shape[1:]))
        logits = np.log(middle / (1 - middle))
        noise = super().__call__(shape, dtype)
        return noise + ops.cast(logits, noise.dtype)

    def get_config(self):
        seed = super().get_config()["seed"]
        return {"peaks": self.peaks, "stddev": self.stddev, "seed": seed}
