"""One GPU kernel for the derivative of a function with parameters per channel (JAX).

XLA makes at most two sums over the batch in one GPU kernel. The derivative of a
released layer of depth 3 has 55 of them, and every one of its two dozen kernels reads
what others wrote. For the values of deep ones it makes a slow program as well (see
docs/performance.md). Here a thread has the parameters of a channel in registers, goes
through rows of the batch, and keeps all sums in registers, too. It is written in
Pallas, and what it computes is the function that it is given.

Forward-mode derivatives and derivatives of derivatives are those of the function
itself, made by XLA; `vmap` of gradients is the kernel with one more axis of programs.
"""

import functools
import itertools
import math

import jax
from jax import numpy as jnp

from keras_sawtooth.backend import jax_gradients
from keras_sawtooth.backend.common import warn_of_no_kernels

# Before, what is used here had other names.
OLDEST_JAX = (0, 7)
# A thread has a channel.
CHANNELS = 128
MOST_ROWS, LEAST_ROWS = 128, 32
# A thread asks for rows before it needs them, and waits less for memory.
ROWS_AHEAD = 2
# So many programs keep a large GPU busy. Tiles of smaller inputs get fewer rows, so
# that there are more of them.
ENOUGH_PROGRAMS = 512
# Parameters and their sums are in registers, of which a thread has 255.
MOST_PARAMETERS = 96
# Set by tests: the kernels run without a GPU, slowly.
INTERPRETED = False


def fits(z, parameters):
    """Whether `in_one_kernel` takes `z` and `parameters`, here and now."""
    return (
        jax.__version_info__ >= OLDEST_JAX
        and (INTERPRETED or platform() in ("gpu", "cuda"))
        # XLA cannot divide a kernel between devices.
        and jax.sharding.get_abstract_mesh().empty
        and all(isinstance(size, int) for size in z.shape)
        and z.size > 0
        and z.shape[-1] % CHANNELS == 0
        and math.prod(z.shape[:-1]) % LEAST_ROWS == 0
        and z.dtype in ("float32", "bfloat16", "float16")
        and all(parameter.dtype == "float32" for parameter in parameters)
        and sum(map(_number_of_rows, parameters)) <= MOST_PARAMETERS
        and can_compile()
    )


def platform():
    """Where JAX computes here and now: `"cpu"`, `"gpu"`, ..."""
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

    kernel = functools.partial(_value, function)
    z = jax.ShapeDtypeStruct((LEAST_ROWS, CHANNELS), "bfloat16")
    parameter = jax.ShapeDtypeStruct((1, CHANNELS), "float32")
    try:
        # Here the warning of the deprecation is an error, if warnings are errors.
        jax.jit(kernel).lower(z, parameter).compile()
    except Exception as error:
        warn_of_no_kernels(error)
        return False
    return True


@functools.cache
def in_one_kernel(function, values):
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
    value = functools.partial(_value, function)
    of_rows = jax_gradients.with_gradients(
        function,
        _by_platform(value, function) if values else function,
        _by_platform(
            functools.partial(_gradients, function),
            functools.partial(jax_gradients.gradients, function),
        ),
    )

    def of_any_rank(z, *parameters):
        return of_rows(z.reshape(-1, z.shape[-1]), *parameters).reshape(z.shape)

    return of_any_rank


def _by_platform(kernel, plain):
    def chosen(*arguments):
        if INTERPRETED:
            return kernel(*arguments)
        # Where the program runs is known when it is compiled. For GPUs of other makers
        # the kernels are not tested.
        return jax.lax.platform_dependent(*arguments, cuda=kernel, default=plain)

    return chosen


class _Rows(list):
    """The rows of a tensor `(..., channels)`, nested; kernels cannot index tensors."""

    # `fits` takes no others.
    dtype = "float32"

    @property
    def shape(self):
        return (len(self), *(self[0].shape if self else ()))

    def __getitem__(self, index):
        rows = super().__getitem__(index)
        return _Rows(rows) if isinstance(index, slice) else rows


def _number_of_rows(parameter):
    return math.prod(parameter.shape[:-1])


def _nested(rows, shape):
    """`_Rows` of `shape` from an iterator of their rows."""
    if not shape:
        return next(rows)
    return _Rows([_nested(rows, shape[1:]) for _ in range(shape[0])])


def _of_rows(function, parameters):
    """`function` of an element and a flat list of rows."""

    def of_rows(z, *rows):
        left = iter(rows)
        return function(z, *[_nested(left, p.shape[:-1]) for p in parameters])

    return of_rows


def _value(function, z, *parameters):
    function = _of_rows(function, parameters)

    def compute(z_ref, parameters_ref, y_ref):
        parameters = _load(parameters_ref)

        def one_row(i, nothing, z):
            y_ref[i, :] = function(z, *parameters)
            return nothing

        _for_rows(one_row, None, z_ref)

    return _call(compute, [z], parameters, sums=False)[0]


def _gradients(function, z, *parameters_and_dy):
    *parameters, dy = parameters_and_dy
    function = _of_rows(function, parameters)

    def compute(z_ref, dy_ref, parameters_ref, dz_ref, sums_ref):
        parameters = _load(parameters_ref)

        def one_row(i, sums, z, dy):
            _, pull_back = jax.vjp(function, z, *parameters)
            dz_ref[i, :], *terms = pull_back(dy)
            return [a + b for a, b in zip(sums, terms, strict=True)]

        sums = [jnp.zeros_like(row) for row in parameters]
        sums = _for_rows(one_row, sums, z_ref, dy_ref)
        for k, total in enumerate(sums):
            sums_ref[0, k, :] = total

    dz, sums = _call(compute, [z, dy], parameters, sums=True)
    sums = sums.sum(axis=0)
    starts = itertools.accumulate(map(_number_of_rows, parameters), initial=0)
    return dz, *[
        sums[start : start + _number_of_rows(p)].reshape(p.shape)
        for start, p in zip(starts, parameters, strict=False)
    ]


def _for_rows(one_row, state, *refs):
    """Fold `state = one_row(i, state, *rows)` over the rows of references."""
    number = refs[0].shape[0]

    def load(i):
        return [ref[i, :] for ref in refs]

    def step(i, carry):
        state, (first, *others) = carry
        # The last ones are read once more, and not used.
        coming = load(jnp.minimum(i + ROWS_AHEAD, number - 1))
        return one_row(i, state, *first), [*others, coming]

    rows = [load(i) for i in range(ROWS_AHEAD)]
    return jax.lax.fori_loop(0, number, step, (state, rows))[0]


def _load(parameters_ref):
    return [parameters_ref[k, :] for k in range(parameters_ref.shape[0])]


def _call(compute, inputs, parameters, sums):
    """Run `compute` on tiles of the inputs and the parameters of their channels.

    Returns:
        List of an array like the inputs, and if `sums` is true an array
        `(programs a channel, rows of all parameters, channels)`.
    """
    # Slow to import, and of no use without a GPU.
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    rows, channels = inputs[0].shape
    parameters = jnp.concatenate([p.reshape(-1, channels) for p in parameters])
    number, height = parameters.shape[0], MOST_ROWS
    while height > LEAST_ROWS and (
        rows % height or rows * channels < height * CHANNELS * ENOUGH_PROGRAMS
    ):
        height //= 2
    tile = pallas.BlockSpec((height, CHANNELS), lambda i, j: (i, j))
    results = [(jax.ShapeDtypeStruct(inputs[0].shape, inputs[0].dtype), tile)]
    if sums:
        shape = (rows // height, number, channels)
        block = pallas.BlockSpec((1, number, CHANNELS), lambda i, j: (i, 0, j))
        results.append((jax.ShapeDtypeStruct(shape, "float32"), block))
    out_shape, out_specs = zip(*results, strict=True)
    return pallas.pallas_call(
        compute,
        grid=(rows // height, channels // CHANNELS),
        in_specs=[
            *[tile] * len(inputs),
            pallas.BlockSpec((number, CHANNELS), lambda i, j: (0, j)),
        ],
        out_specs=out_specs,
        out_shape=out_shape,
        compiler_params=triton.CompilerParams(num_warps=CHANNELS // 32),
        interpret=INTERPRETED,
    )(*inputs, parameters)
