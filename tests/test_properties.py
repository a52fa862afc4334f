"""Properties of every layer that the constructor can make."""

import keras
import numpy as np
import pytest
from backend import gradients
from backend import to_numpy
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import keras_sawtooth as ks
from keras_sawtooth.nested_layers import flatten_layers

pytestmark = pytest.mark.workflow("properties")

regularizers = st.sampled_from([None, "l1", "l2"])
constraints = st.sampled_from([None, "non_neg", "unit_norm", "max_norm"])
domains = st.sampled_from([(-2.0, 2.0), (0.0, 1.0), (-1.0, 7.5), (-1e-2, 1e-2)])
stddevs = st.sampled_from([0.0, 0.5, 5.0, 50.0])


@st.composite
def region_arguments(draw):
    stddev = draw(stddevs)
    return {
        "depth": draw(st.integers(1, 6)),
        "domain": draw(domains),
        "scales": draw(st.sampled_from(["tied", "free"])),
        "tails": draw(st.sampled_from(["free", "line"])),
        "tail_initializer": draw(st.sampled_from(["zeros", "glorot_uniform"])),
        "margin": draw(st.sampled_from([1e-6, 0.01, 0.2, 0.4999])),
        "relu_rate": draw(st.sampled_from([1.0, 1 / 8, 1e-3, 3.0])),
        "peak_initializer": keras.initializers.RandomNormal(stddev=stddev, seed=1),
        "amplitude_initializer": draw(
            st.sampled_from([None, "ones", "zeros", "glorot_uniform"])
        )
        if draw(st.booleans())
        else None,
        "peak_regularizer": draw(regularizers),
        "amplitude_regularizer": draw(regularizers),
        "slope_regularizer": draw(regularizers),
        "tail_regularizer": draw(regularizers),
        "relu_regularizer": draw(regularizers),
        "slope_constraint": draw(constraints),
        "trainable": draw(st.booleans()),
    }


@st.composite
def layers_and_inputs(draw):
    arguments = draw(region_arguments())
    arguments["constrained"] = draw(st.booleans())
    arguments["dtype"] = draw(
        st.sampled_from(["float32", "float32", "mixed_bfloat16", "mixed_float16"])
    )
    if arguments["dtype"] == "mixed_float16":
        # The outermost pieces may be so steep that they leave the range of float16.
        arguments["tails"] = "line"
    channels = draw(st.sampled_from([1, 3, 4]))
    if draw(st.booleans()):
        cls = ks.RegionConstraint
    else:
        cls = ks.SawtoothDense
        arguments["units"] = draw(st.sampled_from([1, 4]))
        arguments["use_bias"] = draw(st.booleans())
        arguments["activation"] = draw(st.sampled_from([None, "tanh"]))
    shape = (*draw(st.sampled_from([(1,), (5,), (2, 3)])), channels)
    spread = draw(st.sampled_from([0.0, 1.0, 100.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return cls, arguments, (spread * rng.normal(size=shape)).astype("float32")


@pytest.fixture(scope="session")
def examples(pytestconfig):
    if pytestconfig.getoption("--thorough"):
        return 10_000
    return 500 if pytestconfig.getoption("--long") else 15


def test_every_layer(examples, record_property):
    """Config, saving, release, gradients and counts; one layer an example."""
    record_property("cases", examples)
    settings(max_examples=examples)(given(layers_and_inputs())(check_layer))()


def check_layer(case):
    cls, arguments, x = case
    layer = cls(**arguments)
    layer.build(x.shape)
    before = to_numpy(layer(x))
    assert before.shape == layer.compute_output_shape(x.shape)
    assert np.isfinite(before).all()

    # Config round trip, and the weights in a store.
    twin = cls.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    twin.build(x.shape)
    copy_through_stores(layer, twin)
    assert phase(twin) == phase(layer) == arguments["constrained"]
    assert [v.path for v in twin.weights] == [v.path for v in layer.weights]
    assert len(twin.trainable_variables) == len(layer.trainable_variables)
    np.testing.assert_array_equal(to_numpy(twin(x)), before)

    check_gradients(layer, x)
    if layer.compute_dtype == "float32":
        check_counts(layer, arguments)

    # Release, and the released layer once more through config and store.
    if phase(layer):
        tolerance = rounding(layer, x, before)
        layer.release()
        after = to_numpy(layer(x))
        np.testing.assert_allclose(after, before, atol=tolerance)
        check_gradients(layer, x)
        twin = cls.from_config(layer.get_config())
        twin.build(x.shape)
        copy_through_stores(layer, twin)
        assert not phase(twin)
        np.testing.assert_array_equal(to_numpy(twin(x)), after)


def rounding(layer, x, outputs):
    """What rounding may change.

    Outside the domain the ReLUs of a block are large and cancel out; every block
    multiplies what is left by the steepness of its triangle.
    """
    region = region_of(layer)
    peaks, scales = to_numpy(region.peaks)[:-1], to_numpy(region.scales)
    low, high = region.domain
    z = x if region is layer else to_numpy(keras.layers.Dense.call(layer, x))
    distance = 1 + np.abs(z).max() / (high - low)
    steepness = np.cumprod(np.maximum(1 / peaks, 1 / (1 - peaks)).max(axis=1))
    waves = distance * np.sum(np.abs(scales).max(axis=1) * steepness)
    unit = {"float32": 2e-7, "bfloat16": 8e-3, "float16": 1e-3}[layer.compute_dtype]
    return 2 * unit * np.abs(outputs).max() + 1e-5 + 4e-7 * waves


def region_of(layer):
    return getattr(layer, "region_constraint", layer)


def phase(layer):
    return region_of(layer).constrained


def copy_through_stores(layer, twin):
    for a, b in zip(flatten_layers(layer), flatten_layers(twin), strict=True):
        store = {}
        a.save_own_variables(store)
        b.load_own_variables({k: to_numpy_exactly(v) for k, v in store.items()})


def to_numpy_exactly(value):
    return np.asarray(keras.ops.convert_to_numpy(value))


def check_gradients(layer, x):
    """Finite in the input and in every variable."""
    values = [to_numpy(v.value) for v in layer.trainable_variables]

    def total(inputs, *values):
        outputs, _ = layer.stateless_call(
            values, [v.value for v in layer.non_trainable_variables], inputs
        )
        return keras.ops.sum(keras.ops.cast(outputs, "float32"))

    results = gradients(total, [x, *values])
    assert [g.shape for g in results] == [v.shape for v in (x, *values)]
    assert all(np.isfinite(g).all() for g in results)


def check_counts(layer, arguments):
    counts = ks.count_linear_regions(layer)
    assert counts.shape == (region_of(layer).channels,)
    assert np.all(counts >= 1)
    amplitude = arguments["amplitude_initializer"]
    if phase(layer) and amplitude is None:
        assert np.all(counts == 2 ** arguments["depth"])
