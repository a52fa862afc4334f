"""Kernels that compute a function with parameters per channel, or its gradients (JAX).

A thread has the parameters of a channel in registers, goes through rows of the batch,
and keeps the sums of the gradients in registers, too. They are written in Pallas, and
what they compute is the function that they are given.
"""

import jax
from jax import numpy as jnp

from keras_sawtooth.backend import parameter_rows

# A thread has a channel.
CHANNELS = 128
MOST_ROWS, LEAST_ROWS = 128, 32
# A thread asks for rows before it needs them, and waits less for memory.
ROWS_AHEAD = 2
# So many programs keep a large GPU busy. Tiles of smaller inputs get fewer rows, so
# that there are more of them.
ENOUGH_PROGRAMS = 512
# Set by tests: the kernels run without a GPU, slowly.
INTERPRETED = False


def value(function, z, *parameters):
    """`function(z, *parameters)`, of `z` `(rows, channels)` and `(..., channels)`."""
    function = parameter_rows.of_rows(function, parameters)

    def compute(z_ref, parameters_ref, y_ref):
        parameters = _load(parameters_ref)

        def one_row(i, nothing, z):
            y_ref[i, :] = function(z, *parameters)
            return nothing

        _for_rows(one_row, None, z_ref)

    return _call(compute, [z], parameters, sums=False)[0]


def gradients(function, z, *parameters_and_dy):
    """Gradients of `function` in `z` and all parameters, for `dy`, that of its result.

    Shapes are those of `value`; `dy` is the last argument.
    """
    *parameters, dy = parameters_and_dy
    function = parameter_rows.of_rows(function, parameters)

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
    return dz, *parameter_rows.unstack(sums.sum(axis=0), parameters)


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
        `(programs per channel, rows of all parameters, channels)`.
    """
    # Slow to import, and of no use without a GPU.
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    rows, channels = inputs[0].shape
    parameters = parameter_rows.stack(parameters)
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
