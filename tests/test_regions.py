"""Exact regions, against exact fractions and against the layer itself."""

import keras
import numpy as np
import pytest
import reference
from backend import to_numpy
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import keras_sawtooth as ks


def layer_with(depth, channels=4, scales="tied", domain=(-2.0, 2.0), seed=0):
    layer = ks.RegionConstraint(depth=depth, scales=scales, domain=domain)
    layer.build((None, channels))
    rng = np.random.default_rng(seed)
    layer.peak_logits.assign(rng.normal(size=(depth + 1, channels)))
    sizes = rng.uniform(0.5, 2, layer.amplitude.shape)
    if scales == "free":
        sizes = sizes * 4.0 ** -np.arange(depth)[:, None]
    layer.amplitude.assign(sizes * rng.choice([-1, 1], sizes.shape))
    return layer


def disturb(layer, scale):
    rng = np.random.default_rng(1)
    for variable in layer.weights:
        noise = rng.normal(scale=scale, size=variable.shape)
        variable.assign(to_numpy(variable.value) + noise)


def exact_regions(layer, channel):
    """Breakpoints and slopes on the domain, in fractions."""
    peaks = reference.exact_peaks(to_numpy(layer.peaks)[:, channel])
    amplitude = to_numpy(layer.amplitude.value)[..., channel]
    if layer.scale_mode == "tied":
        scales = reference.exact_scales(float(amplitude), peaks)
    else:
        scales = reference.exact_peaks(amplitude)
    vertices = reference.exact_function(peaks[:-1], scales)
    slopes = reference.exact_slopes(vertices)
    low, high = layer.domain
    u = np.array([float(u) for u, _ in vertices])
    slope = to_numpy(layer.slope.value)[channel]
    return low + (high - low) * u, slope + np.array(slopes, "float64") / (high - low)


@pytest.mark.parametrize("scales", ["tied", "free"])
@pytest.mark.parametrize("depth", range(1, 9))
def test_constrained_regions_equal_exact_fractions(depth, scales):
    layer = layer_with(depth, scales=scales, domain=(-1.0, 3.0))
    counts = ks.count_linear_regions(layer)
    assert counts.dtype.kind == "i" and counts.shape == (4,)
    for channel in range(4):
        regions = ks.linear_regions(layer, channel)
        breakpoints, slopes = exact_regions(layer, channel)
        assert len(regions.slopes) == 2**depth == counts[channel]
        np.testing.assert_allclose(regions.breakpoints, breakpoints, atol=1e-12)
        np.testing.assert_allclose(regions.slopes, slopes, rtol=1e-9)
        assert regions.breakpoints.dtype == np.float64


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("scales", ["tied", "free"])
def test_regions_reproduce_the_layer(scales, released):
    layer = layer_with(5, scales=scales)
    if released:
        layer.release()
    z = np.linspace(-2, 2, 801)
    y = to_numpy(layer(np.repeat(z[:, None], 4, axis=1)))
    for channel in range(4):
        regions = ks.linear_regions(layer, channel)
        np.testing.assert_allclose(regions(z), y[:, channel], atol=1e-5)
        inner = regions.breakpoints[1:-1]
        left = regions.slopes[:-1] * inner + regions.intercepts[:-1]
        right = regions.slopes[1:] * inner + regions.intercepts[1:]
        np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("tails", ["free", "line"])
@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("scales", ["tied", "free"])
def test_regions_outside_of_the_domain_are_those_of_the_layer(scales, released, tails):
    layer = ks.RegionConstraint(4, domain=(-1.0, 2.0), scales=scales, tails=tails)
    layer.build((None, 3))
    if released:
        layer.release()
    disturb(layer, 0.2)
    for interval in [
        (-5, 7),
        (-1, 7),
        (-5, 2),
        (-0.3, 0.9),
        (-0.3, 7),
        (2.5, 3),
        (-9, -4),
    ]:
        z = np.linspace(*interval, 1201)
        y = to_numpy(layer(np.repeat(z[:, None], 3, axis=1)))
        for channel in range(3):
            regions = ks.linear_regions(layer, channel, interval)
            assert tuple(regions.breakpoints[[0, -1]]) == interval
            assert np.all(np.diff(regions.breakpoints) > 0)
            assert len(regions.breakpoints) == len(regions.slopes) + 1
            np.testing.assert_allclose(regions(z), y[:, channel], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_outermost_pieces_go_on_without_a_breakpoint(depth):
    layer = ks.RegionConstraint(depth)
    layer.build((None, 8))
    layer.tail_slopes.assign([[0.5] + [0.0] * 7, [0.0] * 8])
    for _ in range(2):
        for channel in range(1, 8):
            pieces = ks.linear_regions(layer, channel, (-3, 3))
            assert len(pieces.slopes) == 2**depth
        bent = ks.linear_regions(layer, 0, (-3, 3))
        assert len(bent.slopes) == 2**depth + 1 and bent.breakpoints[1] == -1
        np.testing.assert_allclose(bent.slopes[1] - bent.slopes[0], 0.5, rtol=1e-5)
        if layer.constrained:
            layer.release()


def test_steep_teeth_do_not_hide_the_bends_at_the_ends():
    layer = ks.RegionConstraint(12, scales="free")
    layer.build((None, 1))
    layer.peak_logits.assign(np.full((13, 1), 5.0))
    layer.tail_slopes.assign([[0.5], [0.5]])
    regions = ks.linear_regions(layer, 0, (-5, 5))
    assert {-1.0, 1.0} <= set(regions.breakpoints)
    z = np.array([[-5.0], [-0.9], [5.0]])
    y = to_numpy(layer(z))[:, 0]
    np.testing.assert_allclose(regions(z[:, 0]), y, rtol=1e-5)


@pytest.mark.parametrize("end", [1e2, 1e4, 1e8])
def test_wide_intervals_keep_the_pieces_beside_the_domain(end):
    layer = ks.RegionConstraint(4)
    layer.build((None, 3))
    layer.release()
    disturb(layer, 0.2)
    z = np.linspace(-6, 6, 1201)
    y = to_numpy(layer(np.repeat(z[:, None], 3, axis=1)))
    for channel in range(3):
        regions = ks.linear_regions(layer, channel, (-end, end))
        np.testing.assert_allclose(regions(z), y[:, channel], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth", [3, 10])
def test_saturated_peaks_keep_their_pieces(depth):
    layer = ks.RegionConstraint(depth)
    layer.build((None, 1))
    layer.peak_logits.assign(np.full((depth + 1, 1), -8.0))
    assert len(ks.linear_regions(layer).slopes) == 2**depth
    assert len(ks.linear_regions(layer, interval=(-3, 3)).slopes) == 2**depth


@pytest.mark.parametrize(
    "interval",
    [
        (1, 1),
        (2, 1),
        (0, np.inf),
        "ab",
        3,
        (0, np.nan),
        (0, 10**400),
        (2**53, 2**53 + 1),
    ],
)
def test_bad_intervals(interval):
    layer = ks.RegionConstraint()
    layer.build((None, 3))
    for function in (ks.linear_regions, ks.plot_regions):
        with pytest.raises(ValueError, match="`interval` must be two finite numbers"):
            function(layer, interval=interval)


@pytest.mark.parametrize("depth", [1, 2, 3, 8])
def test_release_keeps_the_pieces(depth):
    layer = layer_with(depth)
    before = [ks.linear_regions(layer, c) for c in range(4)]
    layer.release()
    np.testing.assert_array_equal(ks.count_linear_regions(layer), 2**depth)
    for channel in range(4):
        after = ks.linear_regions(layer, channel)
        np.testing.assert_allclose(
            after.breakpoints, before[channel].breakpoints, atol=1e-5
        )


@pytest.mark.parametrize("width", [1e-15, 1e-9, 1e-7])
def test_intervals_that_hardly_reach_out_of_the_domain(width):
    layer = ks.RegionConstraint()
    layer.build((None, 16))
    layer.release()
    for interval in [(-1 - width, 1 + width), (-1 - width, 0), (0, 1 + width)]:
        for channel in range(16):
            whole = ks.linear_regions(layer, channel)
            regions = ks.linear_regions(layer, channel, interval)
            assert tuple(regions.breakpoints[[0, -1]]) == interval
            inner = np.diff(np.clip(whole.breakpoints, *interval)) > 0
            np.testing.assert_array_equal(regions.slopes, whole.slopes[inner])
    outside = ks.linear_regions(layer, 0, (-1 - width, -1 - width / 2))
    first = ks.linear_regions(layer, 0).slopes[:1]
    np.testing.assert_array_equal(outside.slopes, first)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype.*float64")
def test_pieces_that_rounding_leaves_are_not_counted_where_there_is_no_float64():
    layer = ks.RegionConstraint(dtype="float64")
    layer.build((None, 64))
    layer.release()
    np.testing.assert_array_equal(ks.count_linear_regions(layer), 8)
    assert len(ks.linear_regions(layer, interval=(-2, 2)).slopes) == 8


@pytest.mark.usefixtures("float64")
def test_release_keeps_pieces_at_the_margin_in_float64():
    layer = ks.RegionConstraint(depth=4, dtype="float64")
    layer.build((None, 4))
    layer.peak_logits.assign(np.full((5, 4), -30.0))
    layer.release()
    np.testing.assert_array_equal(ks.count_linear_regions(layer), 16)


@pytest.mark.usefixtures("float64")
def test_narrow_steep_pieces_do_not_hide_the_bends_of_others():
    layer = ks.RegionConstraint(depth=9, scales="free", dtype="float64")
    layer.build((None, 8))
    rng = np.random.default_rng(0)
    # Peaks near 0.06 and 0.94: the steepest piece has a slope of 1e10.
    layer.peak_logits.assign(rng.choice([-3.0, 3.0], (10, 8)))
    scales = rng.normal(size=(9, 8)) * 0.25 ** np.arange(9)[:, None]
    layer.amplitude.assign(scales)
    layer.release()
    np.testing.assert_array_equal(ks.count_linear_regions(layer), 512)


def test_narrow_pieces_go_without_a_gap():
    """Beyond what float32 can tell apart, the function stays continuous."""
    layer = ks.RegionConstraint(depth=16)
    layer.build((None, 1))
    z = np.linspace(-2, 2, 20001)
    before = ks.linear_regions(layer)(z)
    layer.release()
    regions = ks.linear_regions(layer)
    assert 2**15 < len(regions.slopes) <= 2**16
    np.testing.assert_allclose(regions(z), before, atol=1e-5)
    inner = regions.breakpoints[1:-1]
    left = regions.slopes[:-1] * inner + regions.intercepts[:-1]
    right = regions.slopes[1:] * inner + regions.intercepts[1:]
    np.testing.assert_allclose(left, right, atol=1e-5)


def test_regions_of_free_weights_equal_a_dense_sample():
    """Every bend that a fine grid shows is found."""
    layer = layer_with(3, channels=8)
    layer.release()
    disturb(layer, 0.5)
    grid = np.linspace(-2, 2, 400_001)
    blocks = [to_numpy(block) for block in layer.relu_blocks]
    slope = to_numpy(layer.slopes)
    y = reference.relu_network(
        np.repeat(grid[:, None], 8, axis=1), blocks, slope, layer.domain
    )
    for channel in range(8):
        regions = ks.linear_regions(layer, channel)
        np.testing.assert_allclose(regions(grid), y[:, channel], atol=1e-7)
        # Where the sample bends, there is a breakpoint, and the other way round.
        second = np.abs(np.diff(y[:, channel], 2)) / (grid[1] - grid[0])
        bends = grid[1:-1][second > 1e-3]
        inner = regions.breakpoints[1:-1]
        jumps = np.abs(np.diff(regions.slopes))
        distance = np.abs(bends[:, None] - inner).min(axis=1)
        assert np.all(distance < 2e-5)
        for z in inner[jumps > 1e-2]:
            assert np.abs(bends - z).min() < 2e-5


def test_zero_scales_have_no_bends():
    layer = ks.RegionConstraint(depth=4, amplitude_initializer="zeros")
    layer.build((None, 2))
    np.testing.assert_array_equal(ks.count_linear_regions(layer), 1)
    assert ks.linear_regions(layer).slopes.shape == (1,)
    layer.release()
    np.testing.assert_array_equal(ks.count_linear_regions(layer), 1)

    # Without its last wave, depth 3 has the pieces of depth 2.
    layer = layer_with(3, scales="free")
    scales = to_numpy(layer.amplitude.value)
    scales[2, 1] = 0
    layer.amplitude.assign(scales)
    np.testing.assert_array_equal(ks.count_linear_regions(layer), [8, 4, 8, 8])
    breakpoints = ks.linear_regions(layer, 1).breakpoints
    twin = ks.linear_regions(layer, 0).breakpoints
    assert (len(breakpoints), len(twin)) == (5, 9)


@given(
    depth=st.integers(1, 24),
    logits=st.floats(-1e6, 1e6),
    amplitude=st.floats(1e-3, 1e3),
)
@settings(max_examples=50)
def test_the_count_does_not_depend_on_the_peaks(depth, logits, amplitude):
    layer = ks.RegionConstraint(depth=depth)
    layer.build((None, 1))
    signs = (-1.0) ** np.arange(depth + 1)[:, None]
    layer.peak_logits.assign(logits * signs)
    layer.amplitude.assign([amplitude])
    assert ks.count_linear_regions(layer) == [2**depth]


def test_dense_counts_its_units():
    layer = ks.SawtoothDense(5, depth=4, activation="tanh")
    layer.build((None, 2))
    np.testing.assert_array_equal(ks.count_linear_regions(layer), [16] * 5)
    assert len(ks.linear_regions(layer, -1).slopes) == 16


@pytest.mark.parametrize("function", [ks.linear_regions, ks.count_linear_regions])
def test_bad_layers(function):
    with pytest.raises(ValueError, match="not built yet"):
        function(ks.SawtoothDense(3))
    with pytest.raises(TypeError, match=r"layer=<Dense name=plain"):
        function(keras.layers.Dense(3, name="plain"))
    with pytest.raises(TypeError, match="such as its `activation`"):
        function(keras.layers.Conv2D(3, 2, activation=ks.RegionConstraint()))
    for release in (False, True):
        layer = ks.RegionConstraint()
        layer.build((None, 2))
        if release:
            layer.release()
        for variable in layer.weights:
            before = to_numpy(variable.value)
            variable.assign(np.full(variable.shape, np.nan))
            with pytest.raises(ValueError, match="not finite"):
                function(layer)
            variable.assign(before)


@pytest.mark.parametrize("channel", [3, -4, True, 1.5, "0"])
def test_bad_channels(channel):
    layer = ks.RegionConstraint()
    layer.build((None, 3))
    with pytest.raises(ValueError, match=f"channel={channel!r}"):
        ks.linear_regions(layer, channel)


def test_plots_have_a_panel_and_the_breakpoints_of_every_channel():
    layer = layer_with(3)
    axes = ks.plot_regions(layer, channels=[1, 3])
    assert [axis.get_title() for axis in axes] == ["channel 1", "channel 3"]
    for axis, channel in zip(axes, [1, 3], strict=True):
        z, y = axis.lines[0].get_data()
        regions = ks.linear_regions(layer, channel)
        np.testing.assert_array_equal(z, regions.breakpoints)
        np.testing.assert_allclose(y, regions(z))
    axis = ks.plot_regions(layer, channels=1, interval=(-4, 5))[0]
    assert tuple(axis.lines[0].get_xdata()[[0, -1]]) == (-4, 5)
    assert len(ks.plot_regions(layer)) == 4
    assert len(ks.plot_regions(layer, axes=axes, channels=[0, 1])) == 2
    assert len(ks.plot_regions(layer, channels=2)) == 1
    assert len(ks.plot_regions(layer, channels=1, axes=axes[0])) == 1
    with pytest.raises(ValueError, match=r"2 axes, channels=\[0\]"):
        ks.plot_regions(layer, channels=[0], axes=axes)
    with pytest.raises(ValueError, match=r"channels=\[\]"):
        ks.plot_regions(layer, channels=[])
    with pytest.raises(TypeError, match=r"axes=\['x'\]"):
        ks.plot_regions(layer, channels=[0], axes="x")
