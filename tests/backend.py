"""What Keras has no common way for: gradients, and the dtypes of a backend."""

import keras
import numpy as np


def to_numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def gradients(function, arrays):
    """Gradients of the scalar `function(*tensors)` in all its arguments."""
    tensors = [keras.ops.convert_to_tensor(a, "float32") for a in arrays]
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        result = jax.grad(function, argnums=range(len(tensors)))(*tensors)
    elif backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        result = tape.gradient(value, tensors)
    else:
        import torch

        tensors = [t.requires_grad_() for t in tensors]
        result = torch.autograd.grad(function(*tensors), tensors)
    return [to_numpy(gradient) for gradient in result]


def has_float64():
    """JAX computes in float64 only where it was switched on at its start."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.config.jax_enable_x64
