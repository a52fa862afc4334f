"""The mathematics, against exact fractions and NumPy."""

import itertools

import keras
import numpy as np
import pytest
import reference
from backend import gradients
from backend import to_numpy
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_sawtooth import relu_network
from keras_sawtooth import sawtooth

DOMAIN = (-2.0, 2.0)


def tensors(*arrays):
    return [ops.convert_to_tensor(a, "float32") for a in arrays]


def sample(seed, depth, channels=5, points=400, signs=True):
    """Random inputs and parameters, in float32 values."""
    rng = np.random.default_rng(seed)
    peaks = reference.random_peaks(rng, depth, channels)
    amplitude = rng.uniform(0.5, 2, channels)
    if signs:
        amplitude *= rng.choice([-1, 1], channels)
    slopes = rng.normal(size=(3, channels))
    z = rng.uniform(-2.5, 2.5, (points, channels))
    return tuple(
        a.astype("float32").astype("float64") for a in (z, peaks, amplitude, slopes)
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("amplitude", [1.5, -0.75])
def test_exactly_two_to_the_depth_pieces_of_strict_curvature(depth, amplitude):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        peaks = reference.exact_peaks(reference.random_peaks(rng, depth)[:, 0])
        scales = reference.exact_scales(amplitude, peaks)
        vertices = reference.exact_function(peaks[:-1], scales)
        slopes = reference.exact_slopes(vertices)
        assert len(slopes) == 2**depth
        bends = [b - a for a, b in itertools.pairwise(slopes)]
        assert all(bend * amplitude < 0 for bend in bends)
        assert vertices[0] == (0, 0) and vertices[-1] == (1, 0)
        tails = sawtooth.continuing_tails(
            *tensors(np.array([amplitude]), np.array([peaks], "float64").T), (0.0, 2.0)
        )
        exact = -slopes[0] / 2, slopes[-1] / 2
        np.testing.assert_allclose(
            to_numpy(tails)[:, 0], [float(t) for t in exact], rtol=1e-5
        )

        # The tensors agree with the exact function at all of its vertices.
        u, values = np.array(vertices, "float64").T
        y = sawtooth.sawtooth(
            *tensors(
                u[:, None],
                np.array(peaks, "float64")[:, None],
                np.array(scales, "float64")[:, None],
                np.zeros((1, 1)),
            ),
            (0.0, 1.0),
        )
        np.testing.assert_allclose(to_numpy(y)[:, 0], values, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8])
def test_function_equals_numpy(depth):
    z, peaks, amplitude, slopes = sample(depth, depth)
    scales = sawtooth.tied_scales(*tensors(amplitude, peaks))
    expected_scales = reference.tied_scales(amplitude, peaks)
    np.testing.assert_allclose(to_numpy(scales), expected_scales, rtol=1e-6)
    y = sawtooth.sawtooth(*tensors(z, peaks), scales, *tensors(slopes), DOMAIN)
    expected = reference.sawtooth(z, peaks, expected_scales, slopes, DOMAIN)
    np.testing.assert_allclose(to_numpy(y), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 7, 3), (2, 3, 4, 5, 3), (0, 3)])
def test_any_leading_shape(shape):
    _, peaks, amplitude, slopes = sample(0, 3, channels=3)
    z = np.random.default_rng(1).normal(size=shape)
    scales = reference.tied_scales(amplitude, peaks)
    y = sawtooth.sawtooth(*tensors(z, peaks, scales, slopes), DOMAIN)
    blocks = relu_network.relu_blocks(*tensors(peaks, scales))
    free = relu_network.relu_network(*tensors(z), blocks, *tensors(slopes), DOMAIN)
    expected = reference.sawtooth(z, peaks, scales, slopes, DOMAIN)
    np.testing.assert_allclose(to_numpy(y), expected, atol=1e-6)
    np.testing.assert_allclose(to_numpy(free), expected, atol=4e-6)


def test_waves_are_zero_outside_the_domain():
    _, peaks, _, _ = sample(2, 6)
    u = np.array([[-1e6], [-3.0], [0.0], [1.0], [4.0], [1e6]]) * np.ones((1, 5))
    for wave in sawtooth.waves(*tensors(u, peaks)):
        np.testing.assert_allclose(to_numpy(wave), 0, atol=1e-4)


def test_equal_peaks_give_the_chords_of_a_parabola():
    depth = 6
    peaks = np.full((depth + 1, 1), 0.5)
    u = np.arange(2**depth + 1)[:, None] / 2**depth
    scales = reference.tied_scales(np.ones(1), peaks)
    y = sawtooth.sawtooth(*tensors(u, peaks, scales, np.zeros((1, 1))), (0.0, 1.0))
    np.testing.assert_array_equal(to_numpy(y), 4 * u * (1 - u))


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("signs", ["tied", "free", "zero"])
def test_relu_blocks_equal_the_waves(depth, signs):
    z, peaks, amplitude, slopes = sample(depth, depth)
    scales = reference.tied_scales(amplitude, peaks)
    rng = np.random.default_rng(depth)
    if signs != "tied":
        scales = rng.normal(size=scales.shape) * 4.0 ** -np.arange(depth)[:, None]
    if signs == "zero":
        scales[rng.uniform(size=scales.shape) < 0.4] = 0
    blocks = relu_network.relu_blocks(*tensors(peaks, scales))
    assert blocks.kernel.shape == (depth - 1, 4, 4, 5)
    y = relu_network.relu_network(*tensors(z), blocks, *tensors(slopes), DOMAIN)
    expected = reference.sawtooth(z, peaks, scales, slopes, DOMAIN)
    np.testing.assert_allclose(to_numpy(y), expected, atol=1e-5)
    # As a network of matrix products, with the neurons in the same order.
    network = reference.relu_network(
        z, [to_numpy(block) for block in blocks], slopes, DOMAIN
    )
    np.testing.assert_allclose(network, expected, atol=4e-6)


@pytest.mark.parametrize("first", [1e-3, 0.01, 0.3, 0.49, 0.5, 0.7, 0.99, 0.999])
def test_relu_blocks_keep_their_digits_where_the_first_peak_is_at_an_end(first):
    z, peaks, amplitude, slopes = sample(1, 5, points=2000)
    peaks[0] = first
    scales = reference.tied_scales(amplitude, peaks)
    expected = reference.sawtooth(z, peaks, scales, slopes, DOMAIN)
    blocks = relu_network.relu_blocks(*tensors(peaks, scales))
    y = relu_network.relu_network(*tensors(z), blocks, *tensors(slopes), DOMAIN)
    inside = (z >= DOMAIN[0]) & (z <= DOMAIN[1])
    errors = np.abs(to_numpy(y) - expected)
    waves = sawtooth.sawtooth(*tensors(z, peaks, scales, slopes), DOMAIN)
    rounding = np.abs(to_numpy(waves) - expected)
    assert np.max(errors[inside]) < 30 * np.max(rounding[inside])


def test_the_first_neuron_learns_although_nothing_reads_it_yet():
    z, peaks, amplitude, _ = sample(6, 3)
    scales = reference.tied_scales(amplitude, peaks)
    blocks = [to_numpy(b) for b in relu_network.relu_blocks(*tensors(peaks, scales))]
    weights = np.random.default_rng(0).normal(size=z.shape)

    def loss(*blocks):
        y = relu_network.relu_network(
            *tensors(z), relu_network.ReluBlocks(*blocks), ops.zeros((1, 5)), DOMAIN
        )
        return ops.sum(y * ops.convert_to_tensor(weights, "float32"))

    kernel, gradient = blocks[2], gradients(loss, blocks)[2]
    np.testing.assert_array_equal(kernel[0, :, 0], 0)
    assert np.all(np.abs(gradient[0, :3, 0]) > 0)


def test_gradients_equal_finite_differences_away_from_breakpoints():
    z, peaks, amplitude, slopes = sample(3, 3, channels=4, points=200)
    weights = np.random.default_rng(0).normal(size=z.shape)
    step = 1e-6

    def function(z, peaks, amplitude, slopes):
        scales = reference.tied_scales(amplitude, peaks)
        return reference.sawtooth(z, peaks, scales, slopes, DOMAIN)

    # A point is kept if no breakpoint lies between its neighbors.
    second = (
        function(z - 1e-3, peaks, amplitude, slopes)
        + function(z + 1e-3, peaks, amplitude, slopes)
        - 2 * function(z, peaks, amplitude, slopes)
    )
    weights[np.abs(second) > 1e-9] = 0
    assert np.mean(weights != 0) > 0.9

    def loss(z, peaks, amplitude, slopes):
        scales = sawtooth.tied_scales(amplitude, peaks)
        y = sawtooth.sawtooth(z, peaks, scales, slopes, DOMAIN)
        return ops.sum(y * ops.convert_to_tensor(weights, "float32"))

    arrays = [z, peaks, amplitude, slopes]
    for index, gradient in enumerate(gradients(loss, arrays)):
        expected = np.empty_like(arrays[index])
        for position in np.ndindex(expected.shape):
            moved = [a.copy() for a in arrays]
            moved[index][position] += step
            above = np.sum(weights * function(*moved))
            moved[index][position] -= 2 * step
            below = np.sum(weights * function(*moved))
            expected[position] = (above - below) / (2 * step)
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=2e-3)


def test_gradients_of_the_relu_network_equal_finite_differences():
    z, peaks, amplitude, slopes = sample(4, 3, channels=2, points=100)
    scales = reference.tied_scales(amplitude, peaks)
    rng = np.random.default_rng(5)
    # Perturbed blocks: all weights matter, and no ReLU is exactly at zero.
    blocks = [
        to_numpy(block) + rng.normal(scale=0.05, size=block.shape)
        for block in relu_network.relu_blocks(*tensors(peaks, scales))
    ]
    weights = rng.normal(size=z.shape)
    step = 1e-5

    def value(z, slopes, *blocks):
        return np.sum(weights * reference.relu_network(z, blocks, slopes, DOMAIN))

    def loss(z, slopes, *blocks):
        y = relu_network.relu_network(
            z, relu_network.ReluBlocks(*blocks), slopes, DOMAIN
        )
        return ops.sum(y * ops.convert_to_tensor(weights, "float32"))

    arrays = [z, slopes, *blocks]
    for index, gradient in enumerate(gradients(loss, arrays)):
        if index == 0:
            continue
        expected = np.empty_like(arrays[index])
        for position in np.ndindex(expected.shape):
            moved = [a.copy() for a in arrays]
            moved[index][position] += step
            above = value(*moved)
            moved[index][position] -= 2 * step
            expected[position] = (above - value(*moved)) / (2 * step)
        np.testing.assert_allclose(gradient, expected, rtol=2e-2, atol=2e-2)


def test_derivative_at_a_breakpoint_is_the_left_one_on_every_backend():
    peaks = np.full((2, 1), 0.5)

    def function(u):
        return ops.sum(sawtooth.triangle(u, *tensors(peaks[0])))

    (gradient,) = gradients(function, [np.array([[0.25], [0.5], [0.75]])])
    np.testing.assert_array_equal(gradient[:, 0], [2, 2, -2])


@given(
    logits=st.lists(
        st.floats(allow_nan=False, allow_infinity=False, width=32),
        min_size=1,
        max_size=20,
    ),
    margin=st.floats(1e-6, 0.499),
)
def test_peaks_stay_inside_their_margin(logits, margin):
    logits = ops.convert_to_tensor(np.array(logits, "float32"))
    peaks = ops.convert_to_numpy(sawtooth.peaks_from_logits(logits, margin))
    assert np.all(peaks >= np.float32(margin))
    assert np.all(peaks <= np.float32(1 - margin))


def test_depth_costs_linearly_many_operations():
    """Doubling the depth doubles the work, while the pieces are squared."""
    if keras.backend.backend() != "jax":
        pytest.skip("counts the operations of a JAX program")
    import jax

    def operations(depth):
        shapes = [(8, 4), (depth + 1, 4), (depth, 4), (3, 4)]
        arguments = [jax.ShapeDtypeStruct(s, "float32") for s in shapes]
        program = jax.make_jaxpr(lambda *a: sawtooth.sawtooth(*a, DOMAIN))(*arguments)
        return len(program.eqns)

    assert operations(12) - operations(8) == operations(8) - operations(4)
