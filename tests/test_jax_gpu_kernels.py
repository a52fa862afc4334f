"""The kernels for GPUs against the plain formulas; interpreted without a GPU."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("kernels for JAX", allow_module_level=True)

import jax
from jax import numpy as jnp
from jax.extend.core import jaxprs_in_params
from models import losses_of_a_layer
from test_hot_path import example

from keras_sawtooth.backend import jax_gpu_kernels
from keras_sawtooth.backend import pallas_kernels

pytestmark = pytest.mark.skipif(
    jax.__version_info__ < jax_gpu_kernels.OLDEST_JAX, reason="kernels for later JAX"
)
KINDS = [("constrained", 2), ("released", 2)]
SHAPE = (32, 128)


@pytest.fixture(autouse=True)
def _without_a_gpu(monkeypatch):
    monkeypatch.setattr(pallas_kernels, "INTERPRETED", jax.default_backend() != "gpu")


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}{kind[1]}")
def functions(request):
    return functions_of(*request.param)


def functions_of(phase, depth):
    """`(fast, plain)`, and arguments for both."""
    arrays, fast, plain = example(phase, depth, SHAPE)
    arguments = tuple(jnp.asarray(a, "float32") for a in arrays)
    assert jax_gpu_kernels.fits(arguments[0], arguments[1:])
    return (fast, plain), arguments


def scalar(function, shape=SHAPE):
    weights = np.random.default_rng(1).normal(size=shape).astype("float32")
    return lambda *arguments: (function(*arguments) * weights).sum()


def gradient(function):
    def of_all(*arguments):
        return jax.grad(function, argnums=range(len(arguments)))(*arguments)

    return of_all


def along_cosine(function):
    def tangent(*arguments):
        directions = tuple(jnp.cos(10 * a) for a in arguments)
        return jax.jvp(function, arguments, directions)[1]

    return tangent


def assert_same(results):
    for fast, plain in zip(*map(jax.tree.leaves, results), strict=True):
        assert_close(fast, plain, 3e-6)


def assert_close(found, expected, tolerance):
    scale = np.abs(expected).max(initial=1e-9).astype("float32")
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


DERIVATIVES = {
    "value": lambda f: f,
    "gradient": lambda f: gradient(scalar(f)),
    "of the input alone": lambda f: jax.grad(scalar(f)),
    "forward": along_cosine,
    "forward over reverse": lambda f: along_cosine(gradient(scalar(f))),
    "reverse over forward": lambda f: gradient(scalar(along_cosine(f))),
    "reverse over reverse": lambda f: gradient(
        lambda *a: sum((g**2).sum() for g in gradient(scalar(f))(*a))
    ),
    "checkpoint": lambda f: gradient(jax.checkpoint(scalar(f))),
}


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_derivatives(functions, derivative):
    both, arguments = functions
    assert_same(jax.jit(DERIVATIVES[derivative](f))(*arguments) for f in both)


@pytest.mark.parametrize("derivative", ["value", "gradient", "forward"])
def test_a_kernel_without_elements(derivative):
    """A network of one hidden layer has one."""
    both, arguments = functions_of("released", 1)
    assert_same(jax.jit(DERIVATIVES[derivative](f))(*arguments) for f in both)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape, programs",
    [((2, 64, 256), pallas_kernels.ENOUGH_PROGRAMS), ((256, 128), 1)],
)
def test_several_tiles(kind, shape, programs, monkeypatch):
    """Of channels, and of 128 rows."""
    monkeypatch.setattr(pallas_kernels, "ENOUGH_PROGRAMS", programs)
    arrays, *both = example(*kind, shape)
    arguments = [jnp.asarray(a, "float32") for a in arrays]
    assert jax_gpu_kernels.fits(arguments[0], arguments[1:])
    # Other functions, as JAX remembers what it has traced.
    both = [lambda *a, f=f: f(*a) for f in both]
    assert_same(jax.jit(f)(*arguments) for f in both)
    assert_same(jax.jit(gradient(scalar(f, shape)))(*arguments) for f in both)


@pytest.mark.parametrize("derivative", ["gradient", "forward"])
def test_vmap(functions, derivative):
    both, (z, *parameters) = functions
    stacked = jnp.stack([z, z / 2, -z])
    assert_same(
        jax.jit(jax.vmap(lambda z, f=f: DERIVATIVES[derivative](f)(z, *parameters)))(
            stacked
        )
        for f in both
    )


def kernels_of(function, *arguments):
    """The equations that call a kernel, at any depth."""
    found, left = [], [jax.make_jaxpr(function)(*arguments).jaxpr]
    while left:
        for equation in left.pop().eqns:
            if equation.primitive.name == "pallas_call":
                found.append(equation)
            else:
                left += jaxprs_in_params(equation.params)
    return found


def test_number_of_kernels(functions):
    (fast, _), arguments = functions
    # XLA is as fast for the values of constrained layers.
    released = len(arguments) == 7
    assert len(kernels_of(gradient(scalar(fast)), *arguments)) == 1 + released


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_programs_for_other_platforms(functions, dtype, monkeypatch):
    """Compiled as far as a machine without a GPU can."""
    monkeypatch.setattr(pallas_kernels, "INTERPRETED", False)
    monkeypatch.setattr(jax_gpu_kernels, "platform", lambda: "gpu")
    monkeypatch.setattr(jax_gpu_kernels, "can_compile", lambda: True)
    (fast, _), (z, *parameters) = functions
    # Another function, as JAX remembers what it has traced.
    loss = scalar(lambda *a: fast(*a))
    traced = jax.jit(gradient(loss)).trace(z.astype(dtype), *parameters)
    for platform in ("cuda", "cpu"):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("triton" in program) == (platform == "cuda")


@pytest.fixture
def _forget_compiling():
    jax_gpu_kernels.can_compile.cache_clear()
    yield
    jax_gpu_kernels.can_compile.cache_clear()


@pytest.mark.usefixtures("_forget_compiling")
def test_kernels_are_tried_while_jax_traces(functions):
    (fast, plain), arguments = functions
    # The fixture has tried them already.
    jax_gpu_kernels.can_compile.cache_clear()
    assert_same(jax.jit(gradient(scalar(f)))(*arguments) for f in (fast, plain))
    assert jax_gpu_kernels.can_compile.cache_info().currsize == 1
    assert jax_gpu_kernels.can_compile()


@pytest.mark.usefixtures("_forget_compiling")
def test_where_kernels_do_not_compile_xla_does_the_work(functions, monkeypatch):
    def fail(*arguments, **keywords):
        raise NotImplementedError("no Triton")

    (fast, plain), arguments = functions
    jax_gpu_kernels.can_compile.cache_clear()
    monkeypatch.setattr(pallas_kernels, "value", fail)
    with pytest.warns(UserWarning, match="no Triton"):
        assert not jax_gpu_kernels.fits(arguments[0], arguments[1:])
    assert_same(jax.jit(gradient(scalar(f)))(*arguments) for f in (fast, plain))


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_without_a_gpu_there_are_no_kernels(functions, monkeypatch):
    monkeypatch.setattr(pallas_kernels, "INTERPRETED", False)
    (fast, _), arguments = functions
    # Another function, as JAX remembers what it has traced.
    jaxpr = jax.make_jaxpr(lambda *a: fast(*a))(*arguments)
    assert "pallas_call" not in str(jaxpr)


@pytest.mark.parametrize("where", ["mesh", "keras.device"])
def test_on_several_devices_and_on_cpus_there_are_no_kernels(
    functions, where, monkeypatch
):
    (fast, plain), arguments = functions
    if where == "mesh":
        auto = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((1,), ("batch",), axis_types=auto)
        part = jax.sharding.PartitionSpec("batch")
        everywhere = (part, *[jax.sharding.PartitionSpec()] * (len(arguments) - 1))
        results = [
            jax.shard_map(
                lambda *a, f=f: f(*a), mesh=mesh, in_specs=everywhere, out_specs=part
            )
            for f in (fast, plain)
        ]
        assert_same(jax.jit(gradient(scalar(f)))(*arguments) for f in results)
    else:
        monkeypatch.setattr(pallas_kernels, "INTERPRETED", False)
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert jax_gpu_kernels.platform() == "gpu"
        with keras.device("cpu:0"):
            assert not jax_gpu_kernels.fits(arguments[0], arguments[1:])


@pytest.mark.parametrize("shape", [(33, 128), (64, 100), (0, 128)])
def test_other_shapes_go_without_kernels(shape):
    arrays, fast, plain = example("constrained", 3, shape)
    arguments = [jnp.asarray(a, "float32") for a in arrays]
    assert not jax_gpu_kernels.fits(arguments[0], arguments[1:])
    assert_same(f(*arguments) for f in (fast, plain))


def test_too_many_parameters_and_other_dtypes_go_without_kernels():
    arrays, *_ = example("released", 6, SHAPE)
    many = [jnp.asarray(a, "float32") for a in arrays]
    assert not jax_gpu_kernels.fits(many[0], many[1:])
    narrow = [jnp.asarray(a, "bfloat16") for a in example("constrained", 3, SHAPE)[0]]
    assert not jax_gpu_kernels.fits(narrow[0], narrow[1:])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_read_and_written_by_the_kernels(functions, dtype):
    """And the sums are in float32: narrowed alone are the input and what it gives."""
    (fast, plain), (z, *parameters) = functions
    z = z.astype(dtype)
    assert jax_gpu_kernels.fits(z, parameters)
    kernels = kernels_of(gradient(scalar(fast)), z, *parameters)
    assert kernels and all(
        kernel.invars[0].aval.dtype == kernel.outvars[0].aval.dtype == dtype
        for kernel in kernels
    )

    def rounded(z, *parameters):
        return plain(z.astype("float32"), *parameters).astype(dtype)

    for derivative in ("value", "gradient", "forward"):
        results = [
            jax.jit(DERIVATIVES[derivative](f))(z, *parameters) for f in (fast, rounded)
        ]
        for found, expected in zip(*map(jax.tree.leaves, results), strict=True):
            assert found.dtype == expected.dtype
            assert_close(found, expected, 3e-6 if expected.dtype == "float32" else 0.01)


@pytest.mark.parametrize("released", [False, True])
def test_fit_as_without_kernels(released, monkeypatch):
    found = losses_of_a_layer(96, 128, 32, released)
    monkeypatch.setattr(jax_gpu_kernels, "fits", lambda z, parameters: False)
    expected = losses_of_a_layer(96, 128, 32, released)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
