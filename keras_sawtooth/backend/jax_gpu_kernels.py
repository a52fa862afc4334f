"""Layers on JAX as one GPU kernel for the values and one for the derivative, and when.

XLA makes at most two sums over the batch in one GPU kernel. The derivative of a
released layer of depth 3 has 55 of them, and every one of its two dozen kernels reads
what others wrote. For the values of deep ones it makes a slow program as well (see
docs/performance.md). The kernels of `pallas_kernels.py` read an input once and write a
result.

Forward-mode derivatives and derivatives of derivatives are those of the function
itself, made by XLA; `vmap` of gradients is the kernel with one more axis of programs.
"""

import functools
import math

import jax

from keras_sawtooth.backend import jax_gradients
from keras_sawtooth.backend import pallas_kernels
from keras_sawtooth.backend.common import MOST_PARAMETERS
from keras_sawtooth.backend.common import warn_of_no_kernels
from keras_sawtooth.backend.parameter_rows import number_of_rows

# Before, what is used here had other names.
OLDEST_JAX = (0, 7)


def fits(z, parameters):
    """Whether `fused` takes `z` and `parameters` now."""
    return (
        jax.__version_info__ >= OLDEST_JAX
        and (pallas_kernels.INTERPRETED or platform() in ("gpu", "cuda"))
        # XLA cannot divide a kernel between devices.
        and jax.sharding.get_abstract_mesh().empty
        and all(isinstance(size, int) for size in z.shape)
        and z.size > 0
        and z.shape[-1] % pallas_kernels.CHANNELS == 0
        and math.prod(z.shape[:-1]) % pallas_kernels.LEAST_ROWS == 0
        and z.dtype in ("float32", "bfloat16", "float16")
        and all(parameter.dtype == "float32" for parameter in parameters)
        and sum(map(number_of_rows, parameters)) <= MOST_PARAMETERS
        and can_compile()
    )


def platform():
    """Where JAX computes now: `"cpu"`, `"gpu"`, ..."""
    device = jax.config.jax_default_device
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


@functools.cache
def can_compile():
    """Whether a small kernel compiles here.

    Old GPUs have no compiler, and what Pallas has for GPUs keeps changing: its
    Triton backend, which this is written for, is deprecated in JAX 0.11. Wherever it
    fails, there is a warning, and XLA does the work.
    """

    def function(z, parameter):
        return (z.astype("float32") + parameter[0]).astype(z.dtype)

    kernel = functools.partial(pallas_kernels.value, function)
    z = jax.ShapeDtypeStruct(
        (pallas_kernels.LEAST_ROWS, pallas_kernels.CHANNELS), "bfloat16"
    )
    parameter = jax.ShapeDtypeStruct((1, pallas_kernels.CHANNELS), "float32")
    try:
        # Here the warning of the deprecation is an error, if warnings are errors.
        jax.jit(kernel).lower(z, parameter).compile()
    except Exception as error:
        warn_of_no_kernels(error)
        return False
    return True


@functools.cache
def fused(function, values):
    """`function`, with gradients from one kernel on GPUs.

    Args:
        function: function of `z` and parameters, tensors `(..., channels)`, that
            computes every element of its result from an element of `z` and the
            parameters of its channel. It may index the parameters, and ask them for
            their shape and dtype.
        values: bool. Whether a kernel computes the values, too.

    Returns:
        Function of the same arguments, with those of which `fits` is true.
    """
    value = functools.partial(pallas_kernels.value, function)
    of_rows = jax_gradients.with_gradients(
        _by_platform(value, function) if values else function,
        function,
        _by_platform(
            functools.partial(pallas_kernels.gradients, function),
            functools.partial(jax_gradients.plain_gradients, function),
        ),
    )

    def of_any_rank(z, *parameters):
        return of_rows(z.reshape(-1, z.shape[-1]), *parameters).reshape(z.shape)

    return of_any_rank


def _by_platform(kernel, plain):
    def chosen(*arguments):
        if pallas_kernels.INTERPRETED:
            return kernel(*arguments)
        # Where the program runs is known when it is compiled. For GPUs of other makers
        # the kernels are not tested.
        return jax.lax.platform_dependent(*arguments, cuda=kernel, default=plain)

    return chosen
