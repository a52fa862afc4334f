"""The fast derivatives against the plain formulas, and against NumPy."""

import keras
import numpy as np
import pytest
import reference
from backend import compiled
from backend import float32_tensors
from backend import gradients
from backend import hessian
from backend import to_numpy
from backend import vectorized
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import ops

from keras_sawtooth import hot_path
from keras_sawtooth import relu_network
from keras_sawtooth import sawtooth
from keras_sawtooth.backend import common
from keras_sawtooth.backend import relu_network_gradients

DOMAIN = (-2.0, 2.0)
# With two levels there is one of each kind; every further one takes time to compile.
KINDS = [("constrained", 2), ("released", 2)]
# Only XLA takes blocks.
CASES = [(*kind, False) for kind in KINDS]
if keras.backend.backend() != "torch":
    CASES += [(*kind, True) for kind in KINDS]


def example(phase, depth, shape, seed=0, peaks=None):
    """Arrays `(z, *parameters)`, and the two functions of them."""
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    z = rng.uniform(-2.5, 2.5, shape)
    if peaks is None:
        peaks = reference.random_peaks(rng, depth, channels)
    scales = reference.tied_scales(rng.uniform(0.5, 2, channels), peaks)
    slopes = rng.normal(size=(3, channels))
    if phase == "constrained":
        return (z, peaks, scales, slopes), constrained_fast, constrained_plain
    blocks = relu_network.relu_blocks(
        ops.convert_to_tensor(peaks), ops.convert_to_tensor(scales)
    )
    # Perturbed, so that no neuron of a tied function is at zero up to rounding.
    blocks = [to_numpy(b) + rng.normal(scale=0.05, size=b.shape) for b in blocks]
    return (z, slopes, *blocks), released_fast, released_plain


def constrained_fast(z, *parameters):
    return hot_path.sawtooth(z, *parameters, DOMAIN)


def constrained_plain(z, *parameters):
    return sawtooth.sawtooth(z, *parameters, DOMAIN)


def released_fast(z, slopes, *blocks):
    return hot_path.relu_network(z, relu_network.ReluBlocks(*blocks), slopes, DOMAIN)


def released_plain(z, slopes, *blocks):
    return relu_network.relu_network(
        z, relu_network.ReluBlocks(*blocks), slopes, DOMAIN
    )


def weighted_sum(function, weights):
    """A scalar of the function, whose derivative differs from input to input."""

    def loss(*tensors):
        y = function(*tensors)
        return ops.sum(y * ops.cast(weights, y.dtype))

    return loss


def assert_same(arrays, fast, plain, rtol=2e-5, compile_plain=False):
    """Equal values and gradients, to rounding of the largest in its array."""
    found = values_and_gradients(fast, arrays)
    expected = values_and_gradients(plain, arrays, compile_plain)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol)


def values_and_gradients(function, arrays, compile=True):
    weights = np.random.default_rng(1).normal(size=arrays[0].shape)
    loss = weighted_sum(function, weights)
    value = compiled(function) if compile else function
    values = value(*float32_tensors(arrays))
    return [to_numpy(values), *gradients(loss, arrays, compiled=compile)]


def assert_close(found, expected, rtol):
    assert found.shape == expected.shape
    largest = np.max(np.abs(expected), initial=1e-30, where=np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * largest)


def cut_small_inputs(monkeypatch):
    monkeypatch.setattr(hot_path, "SMALLEST_BLOCK", 1)
    monkeypatch.setattr(hot_path.backend, "SMALLEST_ROWS", 1, raising=False)
    monkeypatch.setattr(common, "FEW_CORES", float("inf"))


each_kind = pytest.mark.parametrize("phase, depth", KINDS)


@pytest.fixture
def blocks(request, monkeypatch):
    """Whether small inputs are cut into blocks, or taken whole."""
    if request.param:
        cut_small_inputs(monkeypatch)
    else:
        monkeypatch.setattr(common, "FEW_CORES", 0)


each_case = pytest.mark.parametrize("phase, depth, blocks", CASES, indirect=["blocks"])


@pytest.mark.parametrize(
    "phase, depth, blocks",
    [
        *CASES,
        ("constrained", 1, True),
        ("constrained", 6, True),
        ("constrained", 3, False),
        ("released", 1, False),
        ("released", 6, False),
        ("released", 6, True),
    ],
    indirect=["blocks"],
)
def test_values_and_gradients(phase, depth, blocks):
    arrays, fast, plain = example(phase, depth, (24, 8), seed=depth)
    assert_same(arrays, fast, plain)


@each_case
@pytest.mark.parametrize("shape", [(0, 4), (7, 5), (2, 3, 2, 4)])
def test_any_shape_of_input(phase, depth, shape, blocks):
    arrays, fast, plain = example(phase, depth, shape)
    assert_same(arrays, fast, plain)


@each_case
def test_half_precision_inputs(phase, depth, blocks):
    """Narrowed alone are the result and the gradient of the input."""
    arrays, fast, plain = example(phase, depth, (24, 8))

    def fast_of_half(z, *parameters):
        y = fast(ops.cast(z, "bfloat16"), *parameters)
        assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
        return ops.cast(y, "float32")

    def plain_of_half(z, *parameters):
        z = ops.cast(ops.cast(z, "bfloat16"), "float32")
        y = ops.cast(plain(z, *parameters), "bfloat16")
        return ops.cast(y, "float32")

    found = values_and_gradients(fast_of_half, arrays)
    expected = values_and_gradients(plain_of_half, arrays, compile=False)
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert_close(a, b, 2**-7)
    for a, b in zip(found[2:], expected[2:], strict=True):
        assert_close(a, b, 2e-5)


@each_case
def test_long_sums_keep_their_digits(phase, depth, blocks):
    """Of 65,541 rows; one loop over all of them would be off by 5e-4."""
    (z, *parameters), fast, plain = example(phase, depth, (2**16 + 5, 2))
    _, *found = gradients(weighted_sum(fast, 1.0), [z, *parameters], compiled=True)
    # Short sums over 21 parts, which are channels beside each other.
    z = np.concatenate(np.split(z, 21), axis=-1)
    tiled = [np.concatenate([p] * 21, axis=-1) for p in parameters]
    _, *sums = gradients(weighted_sum(plain, 1.0), [z, *tiled], compiled=True)
    for a, terms in zip(found, sums, strict=True):
        expected = np.sum(np.split(terms, 21, axis=-1), axis=0)
        assert_close(a, expected, 1e-4)


@each_case
def test_large_inputs(phase, depth, blocks):
    arrays, fast, plain = example(phase, depth, (1024, 256))
    # Of so many neurons some are zero up to rounding, which differs by compiler.
    assert_same(arrays, fast, plain, rtol=1e-4, compile_plain=True)


@pytest.mark.parametrize("blocks", [True], indirect=True)
def test_at_breakpoints_the_derivative_is_one_sided(blocks):
    depth = 3
    peaks = np.tile(np.array([[0.5], [0.25], [0.5], [0.5]]), (1, 4))
    # Exact in binary: every breakpoint of the three waves.
    u = np.array([float(point) for point, _ in breakpoints(peaks[:depth, 0])])
    z = np.repeat((4 * u - 2)[:, None], 4, axis=1)
    arrays, fast, plain = example("constrained", depth, z.shape, peaks=peaks)
    assert_same((z, *arrays[1:]), fast, plain)

    def derivative(z):
        parameters = float32_tensors(arrays[1:])
        return gradients(lambda z: ops.sum(fast(z, *parameters)), [z])[0]

    at, left, right = (derivative(z + step) for step in (0, -(2.0**-12), 2.0**-12))
    nearest = np.minimum(np.abs(at - left), np.abs(at - right))
    np.testing.assert_allclose(nearest, 0, atol=1e-5)
    assert np.abs(left - right).min() > 1e-2


def breakpoints(peaks):
    return reference.exact_waves(reference.exact_peaks(peaks))[-1]


@each_case
def test_inputs_that_are_no_numbers_spoil_nothing_else(phase, depth, blocks):
    arrays, fast, plain = example(phase, depth, (8, 4))
    arrays[0][1, 2] = np.nan
    assert_same(arrays, fast, plain)
    arrays[0][2, 1] = np.inf
    arrays[0][5, 3] = -np.inf
    y = to_numpy(compiled(fast)(*arrays))
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(arrays[0]))


@each_case
def test_second_derivatives(phase, depth, blocks):
    (z, *parameters), fast, plain = example(phase, depth, (4, 4))

    def bend(function):
        def loss(z, last):
            y = function(z, *float32_tensors(parameters[:-1]), last)
            return ops.sum(y**2)

        return loss

    found = hessian(bend(fast), [z, parameters[-1]])
    expected = hessian(bend(plain), [z, parameters[-1]])
    assert np.max(np.abs(expected[0][1])) > 0.1
    for found_row, expected_row in zip(found, expected, strict=True):
        for a, b in zip(found_row, expected_row, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@each_case
def test_vectorized_over_another_axis(phase, depth, blocks):
    (z, *parameters), fast, plain = example(phase, depth, (5, 8, 4))

    found = to_numpy(vectorized(lambda z: fast(z, *float32_tensors(parameters)), z))
    expected = to_numpy(plain(*float32_tensors([z, *parameters])))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="for XLA")
@pytest.mark.parametrize(
    "depth, shape, bends",
    [
        (2, (0, 3), 1),
        (2, (1, 3), 3),
        # Several rows in one, and a last block that is not full.
        (2, (700, 3), 1),
        (4, (700, 3), 3),
        # Several parts of the sum. Few neurons, or some are zero up to rounding.
        (2, (2, 49, 30), 3),
        (4, (2, 49, 30), 1),
    ],
)
def test_gradients_by_hand(depth, shape, bends, monkeypatch):
    monkeypatch.setattr(relu_network_gradients, "LONGEST_SUM", 5)
    monkeypatch.setattr(relu_network_gradients, "NARROWEST", 24)
    (z, slopes, *blocks), _, plain = example("released", depth, shape)
    arrays = [z, slopes[:bends], *blocks]
    # At both ends of the domain derivatives are those of the outside.
    arrays[0].flat[:2] = DOMAIN
    dy = np.random.default_rng(1).normal(size=shape)
    by_hand = compiled(
        lambda *tensors: relu_network_gradients.gradients_in_blocks(DOMAIN, *tensors)
    )
    found = by_hand(*float32_tensors([*arrays, dy]))
    expected = gradients(weighted_sum(plain, dy), arrays)
    for a, b in zip(found, expected, strict=True):
        assert_close(to_numpy(a), b, 2e-5)


@pytest.mark.long
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(0, 40),
    channels=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=20)
def test_random_shapes_in_blocks(kind, rows, channels, seed):
    with pytest.MonkeyPatch.context() as monkeypatch:
        cut_small_inputs(monkeypatch)
        arrays, fast, plain = example(*kind, (rows, channels), seed)
        assert_same(arrays, fast, plain, rtol=1e-4)


@pytest.mark.parametrize("blocks", [True], indirect=True)
def test_peaks_at_the_margin_lose_no_digits(blocks):
    peaks = np.tile(np.array([[0.01], [0.99], [0.01], [0.99]]), (1, 4))
    (z, *parameters), fast, _ = example("constrained", 3, (24, 4), peaks=peaks)
    # Where the steep side of a triangle does not multiply the rounding of z.
    z = 4 * np.round(rng_between(0.02, 1, z.shape) * 2**8) / 2**8 - 2
    expected = reference.sawtooth(z, *parameters, DOMAIN)
    found = to_numpy(compiled(fast)(z, *parameters))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def rng_between(low, high, shape):
    return np.random.default_rng(0).uniform(low, high, shape)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's")
@each_case
def test_compiled_jacobians(phase, depth, blocks):
    import tensorflow as tf

    arrays, fast, plain = example(phase, depth, (5, 4))
    tensors = float32_tensors(arrays)

    def jacobians(function, compiled):
        @tf.function(jit_compile=compiled)
        def of_all(tensors):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(tensors)
                y = function(*tensors)
                total = tf.reduce_sum(y, axis=0)
            return tape.batch_jacobian(y, tensors[0]), tape.jacobian(total, tensors[1:])

        return [to_numpy(j) for j in tf.nest.flatten(of_all(tensors))]

    for a, b in zip(jacobians(fast, True), jacobians(plain, False), strict=True):
        assert_close(a, b, 2e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's")
@pytest.mark.parametrize("recorded", ["persistent", "forward_over_back"])
@each_case
def test_gradients_that_are_recorded(phase, depth, blocks, recorded):
    """As for differential equations: TensorFlow may differentiate what it records."""
    import tensorflow as tf

    (z, *parameters), fast, plain = example(phase, depth, (5, 4))
    (z, *parameters) = float32_tensors([z, *parameters])

    def persistent(y):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(z)
            first = tape.gradient(y(), z)
        return tape.gradient(first, z)

    def forward_over_back(y):
        with tf.autodiff.ForwardAccumulator(z, tf.ones_like(z)) as accumulator:
            with tf.GradientTape() as tape:
                tape.watch(z)
                value = y()
            first = tape.gradient(value, z)
        return accumulator.jvp(first)

    def derivative(function, compiled):
        def y():
            return function(z, *parameters) ** 3

        derive = ways[recorded]
        return to_numpy(tf.function(lambda: derive(y), jit_compile=compiled)())

    ways = {f.__name__: f for f in (persistent, forward_over_back)}
    expected = derivative(plain, False)
    assert np.abs(expected).max() > 0.1
    assert_close(derivative(fast, True), expected, 1e-4)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="for JAX only")
@each_case
def test_vmap_of_gradients(phase, depth, blocks):
    import jax

    (z, *parameters), fast, plain = example(phase, depth, (3, 8, 4))
    z, *parameters = float32_tensors([z, *parameters])

    def mapped(function):
        loss = weighted_sum(function, 1.0)
        of_all = jax.grad(loss, argnums=range(1 + len(parameters)))
        mapped = jax.vmap(of_all, (0, *[None] * len(parameters)))
        return jax.jit(mapped)(z, *parameters)

    for a, b in zip(mapped(fast), mapped(plain), strict=True):
        assert_close(a, b, 2e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="for JAX only")
@each_case
def test_unknown_sizes_of_jax_export(phase, depth, blocks):
    import jax

    (z, *parameters), fast, _ = example(phase, depth, (6, 4))
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = [(batch, 4), *(p.shape for p in parameters)]
    arguments = [jax.ShapeDtypeStruct(s, "float32") for s in shapes]
    tensors = float32_tensors([z, *parameters])
    of_all = jax.grad(weighted_sum(fast, 1.0), argnums=range(len(tensors)))
    for function in (fast, of_all):
        found = jax.export.export(jax.jit(function))(*arguments).call(*tensors)
        expected = function(*tensors)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert_close(to_numpy(a), to_numpy(b), 1e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="for JAX only")
@pytest.mark.parametrize("phase", ["constrained", "released"])
def test_derivatives_are_compiled_once_without_jit(phase, monkeypatch):
    import jax

    cut_small_inputs(monkeypatch)
    arrays, fast, plain = example(phase, 2, (8, 4))
    tensors = float32_tensors(arrays)
    derive = jax.grad(weighted_sum(fast, 1.0), argnums=range(len(tensors)))
    derive(*tensors)
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: (
            compilations.append(event) if "backend_compile" in event else None
        )
    )
    found = derive(*tensors)
    assert compilations == []
    expected = gradients(weighted_sum(plain, 1.0), arrays)
    for a, b in zip(found, expected, strict=True):
        assert_close(to_numpy(a), b, 2e-5)


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((64, 8), 4),
        ((6, 8), 3),
        ((7, 8), 1),
        ((2, 8), 2),
        ((4, 16, 8), 4),
        ((1, 4), 1),
        ((0, 4), 1),
        ((None, 8), 1),
    ],
)
def test_number_of_blocks(shape, expected, monkeypatch):
    cut_small_inputs(monkeypatch)
    monkeypatch.setattr(hot_path, "SMALLEST_BLOCK", 8)
    monkeypatch.setattr(hot_path.backend, "xla_on_cpu", lambda: True)
    assert hot_path.number_of_blocks(shape) == expected
    monkeypatch.setattr(hot_path.backend, "xla_on_cpu", lambda: False)
    assert hot_path.number_of_blocks(shape) == 1


def test_blocks_are_for_compiled_programs_on_cpus():
    seen = []

    def function(x):
        seen.append(hot_path.backend.xla_on_cpu())
        return x

    compiled(function)(np.zeros(1))
    function(np.zeros(1))
    backend = keras.backend.backend()
    on_cpu = backend != "torch" and "cpu" in keras.distribution.list_devices()[0]
    # JAX compiles without being told, too.
    assert seen == [on_cpu, on_cpu and backend == "jax"]


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_outside_of_the_domain_a_release_leaves_no_neuron_near_its_kink(depth):
    # Or the gradients would depend on rounding, and on the backend.
    rng, rows = np.random.default_rng(depth), 300
    peaks = reference.random_peaks(rng, depth, 8)
    scales = reference.tied_scales(np.ones(8), peaks)
    z = rng.uniform(1.01, 9, (rows, 8)) * rng.choice([-1, 1], (rows, 8))
    blocks = relu_network.relu_blocks(*float32_tensors([peaks, scales]))

    def loss(*blocks):
        blocks = relu_network.ReluBlocks(*blocks)
        slopes = ops.zeros((1, 8))
        y = hot_path.relu_network(*float32_tensors([z]), blocks, slopes, (-1.0, 1.0))
        return ops.sum(y)

    *hidden, output = gradients(loss, [to_numpy(block) for block in blocks])
    for gradient in hidden:
        np.testing.assert_array_equal(gradient, 0)
    # But the constant one, which nothing multiplies yet.
    np.testing.assert_array_equal(output[:3], 0)
    np.testing.assert_allclose(output[3], rows * scales[-1], rtol=1e-5)
