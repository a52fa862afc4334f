"""What Keras has no common way for: gradients, and the dtypes of a backend."""

import keras
import numpy as np


def to_numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def gradients(function, arrays, compiled=None):
    """Gradients of the scalar `function(*tensors)` in all its arguments.

    Args:
        compiled: bool. Whether XLA compiles the gradient, where there is XLA. By
            default it does on JAX, where that takes less time, but for deep functions.
    """
    tensors = float32_tensors(arrays)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        gradient = jax.grad(function, argnums=range(len(tensors)))
        result = (gradient if compiled is False else jax.jit(gradient))(*tensors)
    elif backend == "tensorflow":
        import tensorflow as tf

        def gradient(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = function(*tensors)
            return tape.gradient(value, tensors, unconnected_gradients="zero")

        if compiled:
            gradient = tf.function(gradient, jit_compile=True)
        result = gradient(*tensors)
    else:
        import torch

        tensors = [t.requires_grad_() for t in tensors]
        # Depth 1 has a kernel without elements, which nothing uses.
        result = torch.autograd.grad(
            function(*tensors), tensors, materialize_grads=True
        )
    return [to_numpy(gradient) for gradient in result]


def compiled(function):
    """`function` of arrays, through the compiler of the backend, torch without."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        compiled_function = jax.jit(function)
    elif backend == "tensorflow":
        import tensorflow as tf

        compiled_function = tf.function(function, jit_compile=True)
    else:
        compiled_function = function
    return lambda *arrays: compiled_function(*float32_tensors(arrays))


def float32_tensors(arrays):
    return [keras.ops.convert_to_tensor(a, "float32") for a in arrays]


def hessian(function, arrays):
    """Second derivatives of `function(*tensors)`: a list of rows of arrays.

    On JAX by forward over reverse mode.
    """
    tensors = float32_tensors(arrays)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        rows = jax.jit(jax.hessian(function, tuple(range(len(tensors)))))(*tensors)
    elif backend == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def row(direction):
            with tf.GradientTape() as outer:
                outer.watch(tensors)
                with tf.GradientTape() as inner:
                    inner.watch(tensors)
                    value = function(*tensors)
                first = inner.gradient(value, tensors)
                flat = tf.concat([tf.reshape(f, [-1]) for f in first], 0)
                along = tf.reduce_sum(flat * direction)
            return outer.gradient(along, tensors, unconnected_gradients="zero")

        sizes = [int(tf.size(t)) for t in tensors]
        all_rows = [row(direction) for direction in tf.eye(sum(sizes))]
        columns = [np.stack(column) for column in zip(*all_rows, strict=True)]
        rows = zip(*(np.split(c, np.cumsum(sizes)[:-1]) for c in columns), strict=True)
    else:
        import torch

        rows = torch.autograd.functional.hessian(function, tuple(tensors))
    return [[to_numpy(a) for a in row] for row in rows]


def vectorized(function, array):
    """`function` of a tensor, mapped over the first axis of `array`."""
    tensor = keras.ops.convert_to_tensor(array, "float32")
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.vmap(function)(tensor)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.vectorized_map(function, tensor)
    import torch

    return torch.func.vmap(function)(tensor)
