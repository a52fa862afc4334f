"""A function of JAX with gradients that another function computes.

`jax.custom_vjp` would do it, but its result has no forward mode. Here forward-mode
derivatives and derivatives of derivatives are those of the function itself.
"""

import functools

import jax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad
from jax.interpreters import batching
from jax.interpreters import mlir

from keras_sawtooth.backend import parameter_rows
from keras_sawtooth.backend.common import LONGEST_SUM


def with_gradients(function, twin, gradients):
    """`function`, with gradients from elsewhere, and other derivatives of `twin`.

    Args:
        function: function of arrays that returns an array like its first argument.
        twin: function with the same values, of which forward-mode and second
            derivatives are made.
        gradients: function of the same arguments and the gradient of the result. It
            returns what `plain_gradients(twin, ...)` does.

    Returns:
        Function of the same arguments.
    """
    whole = jax.custom_jvp(function)
    pull_back = jax.custom_jvp(gradients)

    @whole.defjvp
    def _(primals, tangents):
        tangent = tangent_p.bind(
            *primals, *tangents, function=twin, pull_back=pull_back
        )
        return whole(*primals), tangent

    @pull_back.defjvp
    def _(primals, tangents):
        plain = functools.partial(plain_gradients, twin)
        return pull_back(*primals), jax.jvp(plain, primals, tangents)[1]

    return whole


def plain_gradients(function, *arguments_and_dy):
    """Gradients of `function` in all its arguments, for `dy`, that of its result."""
    *arguments, dy = arguments_and_dy
    return jax.vjp(function, *arguments)[1](dy)


def gradients_in_one_loop(function, z, *parameters_and_dy):
    """The same for parameters `(..., channels)`, with all their sums in one loop.

    XLA on CPUs makes a loop for every sum, and computes the function again in each; but
    a reduction of many operands is one loop.
    """
    # Or XLA keeps what the values and the gradients have in common.
    z, *parameters, dy = jax.lax.optimization_barrier((z, *parameters_and_dy))
    rows = parameter_rows.stack(parameters)
    # In groups, see `LONGEST_SUM`; what fills up the last one has gradients of zero.
    number = z.size // z.shape[-1]
    groups = -(-number // LONGEST_SUM)
    size = -(-number // max(groups, 1))
    fill = groups * size - number

    def in_groups(x):
        x = jnp.pad(x.reshape(number, z.shape[-1]), ((0, fill), (0, 0)))
        return x.reshape(groups, size, z.shape[-1])

    wide = [jnp.broadcast_to(row, (groups, size, z.shape[-1])) for row in rows]
    dz, *terms = plain_gradients(
        parameter_rows.of_rows(function, parameters),
        *(in_groups(z), *wide, in_groups(dy)),
    )
    sums = jax.lax.reduce(
        tuple(terms),
        (jnp.zeros((), rows.dtype),) * len(terms),
        lambda sums, terms: tuple(map(jnp.add, sums, terms)),
        dimensions=(1,),
    )
    dz = dz.reshape(-1, z.shape[-1])[:number].reshape(z.shape)
    return dz, *parameter_rows.unstack(jnp.stack(sums).sum(axis=1), parameters)


# The derivative of a function along tangents. A primitive is the only way to say how
# a linear function is transposed that leaves it its forward mode and its `vmap`.
tangent_p = Primitive("sawtooth_tangent")


def _tangent(*operands, function, pull_back):
    half = len(operands) // 2
    return jax.jvp(function, operands[:half], operands[half:])[1]


def _tangent_jvp(primals, tangents, **parameters):
    tangents = tuple(map(ad.instantiate_zeros, tangents))
    return jax.jvp(functools.partial(_tangent, **parameters), primals, tangents)


def _tangent_transpose(dy, *operands, function, pull_back):
    half = len(operands) // 2
    results = pull_back(*operands[:half], ad.instantiate_zeros(dy))
    return [None] * half + [
        result if ad.is_undefined_primal(operand) else None
        for operand, result in zip(operands[half:], results, strict=True)
    ]


def _tangent_batch(operands, axes, **parameters):
    tangent = functools.partial(_tangent, **parameters)
    return jax.vmap(tangent, axes)(*operands), 0


tangent_p.def_impl(_tangent)
tangent_p.def_abstract_eval(lambda *operands, **_: operands[0])
mlir.register_lowering(tangent_p, mlir.lower_fun(_tangent, multiple_results=False))
ad.primitive_jvps[tangent_p] = _tangent_jvp
ad.primitive_transposes[tangent_p] = _tangent_transpose
batching.primitive_batchers[tangent_p] = _tangent_batch
