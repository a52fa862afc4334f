"""Initialisers that Keras does not have."""

import random

import keras
from keras import ops

from keras_sawtooth.arguments import check_integer


@keras.saving.register_keras_serializable(package="keras_sawtooth")
class RandomSign(keras.initializers.Initializer):
    """Draws `+value` or `-value`, each with probability 1/2.

    Args:
        value: float. The magnitude of every element.
        seed: int or `None`. Like the initialisers of Keras, one instance
            gives the same values at every call.

    Example:

    >>> values = RandomSign(0.5, seed=0)(shape=(100,))
    >>> sorted(set(float(v) for v in values))
    [-0.5, 0.5]
    """

    def __init__(self, value=1.0, seed=None):
        if seed is not None:
            seed = check_integer("seed", seed, 0)
        self.value = value
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
