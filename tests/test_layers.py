"""What every layer of the package promises. A new layer joins the table."""

import json
import re

import keras
import numpy as np
import pytest
import reference
from backend import gradients
from backend import to_numpy

import keras_sawtooth as ks

LAYERS = [
    (ks.RegionConstraint, {}, (8, 3)),
    (ks.RegionConstraint, {"depth": 1, "domain": (0, 1)}, (8, 3)),
    (ks.RegionConstraint, {"depth": 5, "scales": "free"}, (2, 5, 4, 3)),
    (ks.RegionConstraint, {"depth": 2, "constrained": False}, (8, 3)),
    (ks.SawtoothDense, {"units": 4}, (8, 3)),
    (ks.SawtoothDense, {"units": 4, "depth": 5}, (2, 6, 3)),
    (ks.SawtoothDense, {"units": 4, "scales": "free", "use_bias": False}, (8, 3)),
    (ks.SawtoothDense, {"units": 4, "constrained": False}, (8, 3)),
    (ks.SawtoothDense, {"units": 4, "activation": "tanh"}, (2, 3, 5, 3)),
]
each_layer = pytest.mark.parametrize("cls, arguments, shape", LAYERS)

REGION_ARGUMENTS = {
    "depth": 4,
    "domain": (-1.0, 3.0),
    "scales": "free",
    "tails": "free",
    "constrained": True,
    "margin": 0.05,
    "relu_rate": 0.25,
    "peak_initializer": keras.initializers.RandomUniform(-1, 1, seed=3),
    "amplitude_initializer": ks.RandomSign(0.5, seed=4),
    "slope_initializer": "ones",
    "tail_initializer": "ones",
    "peak_regularizer": keras.regularizers.L2(1e-3),
    "amplitude_regularizer": keras.regularizers.L1(1e-3),
    "slope_regularizer": "l2",
    "tail_regularizer": "l1",
    "relu_regularizer": keras.regularizers.L2(1e-4),
    "peak_constraint": keras.constraints.MaxNorm(3.0),
    "amplitude_constraint": "non_neg",
    "slope_constraint": keras.constraints.NonNeg(),
    "tail_constraint": keras.constraints.MaxNorm(2.0),
    "relu_constraint": keras.constraints.MaxNorm(50.0),
}
DENSE_ARGUMENTS = {
    "units": 7,
    "activation": "tanh",
    "use_bias": True,
    "kernel_initializer": keras.initializers.HeNormal(seed=1),
    "bias_initializer": "ones",
    "kernel_regularizer": keras.regularizers.L2(1e-3),
    "bias_regularizer": keras.regularizers.L1(1e-3),
    "activity_regularizer": keras.regularizers.L2(1e-5),
    "bias_constraint": keras.constraints.NonNeg(),
    "lora_rank": 2,
    "lora_alpha": 4,
}


def inputs(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def formula(layer, x):
    """What a constrained `RegionConstraint` must compute, in float64."""
    peaks, scales = to_numpy(layer.peaks), to_numpy(layer.scales)
    slopes = to_numpy(layer.slope.value)[None]
    if layer.tail_slopes is not None:
        # With free scales the tails are those of the tied function.
        first, last = reference.edge_slopes(
            peaks, reference.tied_scales(scales[0], peaks)
        )
        low, high = layer.domain
        goes_on = np.stack([-first, last]) / (high - low)
        tails = to_numpy(layer.tail_slopes.value) + goes_on
        slopes = np.concatenate([slopes, tails])
    return reference.sawtooth(x.astype("float64"), peaks, scales, slopes, layer.domain)


@each_layer
def test_eager_symbolic_and_declared_shapes_agree(cls, arguments, shape):
    layer = cls(**arguments)
    x = inputs(shape)
    y = layer(x)
    expected = (*shape[:-1], arguments.get("units", shape[-1]))
    assert tuple(y.shape) == expected
    assert layer.compute_output_shape(shape) == expected
    symbolic = layer(keras.Input(shape[1:]))
    assert symbolic.shape == (None, *expected[1:])
    assert np.isfinite(to_numpy(y)).all()


@each_layer
def test_config_round_trip(cls, arguments, shape):
    layer = cls(**arguments, name="some_name", trainable=False)
    layer(inputs(shape))
    config = json.loads(json.dumps(layer.get_config()))
    copy = cls.from_config(config)
    assert json.loads(json.dumps(copy.get_config())) == config
    copy.build(shape)
    copy.set_weights(layer.get_weights())
    x = inputs(shape, 1)
    np.testing.assert_array_equal(to_numpy(layer(x)), to_numpy(copy(x)))


@pytest.mark.parametrize(
    "cls, arguments",
    [
        (ks.RegionConstraint, REGION_ARGUMENTS),
        (ks.SawtoothDense, {**REGION_ARGUMENTS, **DENSE_ARGUMENTS}),
    ],
)
def test_every_argument_survives_the_config(cls, arguments):
    layer = cls(**arguments)
    layer.build((None, 3))
    config = layer.get_config()
    assert set(arguments) <= set(config)
    copy = cls.from_config(config)
    copy.build((None, 3))
    assert copy.get_config() == config
    serialized = keras.saving.serialize_keras_object(layer)
    assert keras.saving.deserialize_keras_object(serialized).get_config() == config
    for name in arguments:
        default = cls(**({"units": 7} if cls is ks.SawtoothDense else {}))
        if name not in ("units", "use_bias", "constrained", "tails"):
            assert config[name] != default.get_config().get(name), name


@each_layer
def test_build_changes_no_argument(cls, arguments, shape):
    layer = cls(**arguments)
    before = layer.get_config()
    layer.build(shape)
    assert layer.get_config() == before


def test_variables_have_stable_names_and_shapes():
    layer = ks.RegionConstraint(depth=3)
    layer.build((None, 5))
    names = {v.name: tuple(v.shape) for v in layer.trainable_variables}
    assert names == {
        "peak_logits": (4, 5),
        "amplitude": (5,),
        "tail_slopes": (2, 5),
        "slope": (5,),
    }
    assert layer.count_params() == 5 * (4 + 1 + 2 + 1)
    assert layer.peaks.shape == (4, 5)
    assert layer.scales.shape == (3, 5)
    layer.release()
    names = {v.name: tuple(v.shape) for v in layer.trainable_variables}
    assert names == {
        "slope": (5,),
        "relu_input_kernel": (4, 5),
        "relu_input_bias": (4, 5),
        "relu_kernel": (2, 4, 4, 5),
        "relu_bias": (2, 4, 5),
        "relu_output_kernel": (4, 5),
        "relu_tail_slopes": (2, 5),
    }
    assert layer.count_params() == 5 * (8 + 20 * 2 + 4 + 3)


def test_a_line_outside_takes_no_variables():
    layer = ks.RegionConstraint(depth=3, tails="line")
    layer.build((None, 5))
    assert layer.count_params() == 5 * (4 + 1 + 1)
    layer.release()
    assert layer.count_params() == 5 * (8 + 20 * 2 + 4 + 1)


def test_paths_of_variables_name_the_layers_above():
    model = keras.Sequential(
        [keras.Input((3,)), ks.SawtoothDense(2, name="first")], name="model"
    )
    prefix = "first/region_constraint/"
    constrained = {v.path.rsplit("model/", 1)[-1] for v in model.variables}
    assert prefix + "peak_logits" in constrained
    model.layers[0].release()
    released = {v.path.rsplit("model/", 1)[-1] for v in model.variables}
    assert prefix + "relu_kernel" in released


def test_starting_values():
    layer = ks.SawtoothDense(2000, depth=3)
    layer.build((None, 400))
    region = layer.region_constraint
    assert np.std(to_numpy(layer.kernel)) == pytest.approx(400**-0.5, rel=0.05)
    assert np.all(to_numpy(layer.bias) == 0)
    logits = to_numpy(region.peak_logits.value)
    second = np.log(0.85 / 0.15)
    np.testing.assert_allclose(logits.mean(axis=1), [0, second, 0, 0], atol=0.05)
    np.testing.assert_allclose(logits.std(axis=1), 0.3, rtol=0.1)
    assert np.all(to_numpy(region.slope.value) == 0.5)
    amplitude = to_numpy(region.amplitude.value)
    assert set(amplitude) == {-0.25, 0.25}
    assert np.all(to_numpy(region.tail_slopes.value) == 0)
    assert abs(amplitude.mean()) < 0.05


def test_free_scales_start_at_the_tied_ones():
    initializers = {
        "peak_initializer": keras.initializers.RandomNormal(stddev=0.5, seed=0),
        "amplitude_initializer": ks.RandomSign(seed=1),
    }
    x = inputs((50, 6))
    values = []
    for scales in ("tied", "free"):
        layer = ks.RegionConstraint(depth=4, scales=scales, **initializers)
        values.append(to_numpy(layer(x)))
    np.testing.assert_allclose(*values, atol=1e-6)
    assert layer.amplitude.shape == (4, 6)


@pytest.mark.parametrize("scales", ["tied", "free"])
def test_layer_computes_the_formula(scales):
    layer = ks.RegionConstraint(depth=4, scales=scales, domain=(-1, 3))
    x = np.linspace(-4, 6, 300).astype("float32").reshape(100, 3)
    y = to_numpy(layer(x))
    expected = formula(layer, x)
    np.testing.assert_allclose(y, expected, atol=2e-6)


def test_dense_is_dense_behind_the_region_constraint():
    layer = ks.SawtoothDense(4, activation="tanh")
    x = inputs((8, 3))
    y = to_numpy(layer(x))
    assert isinstance(layer, keras.layers.Dense)
    dense = keras.layers.Dense(4)
    dense.build((None, 3))
    dense.set_weights([layer.kernel, layer.bias])
    expected = keras.ops.tanh(layer.region_constraint(dense(x)))
    np.testing.assert_allclose(y, to_numpy(expected), atol=1e-6)


@pytest.mark.parametrize("constrained", [True, False])
def test_regularizers_and_constraints_reach_their_variables(constrained):
    layer = ks.SawtoothDense(
        4,
        constrained=constrained,
        peak_regularizer="l2",
        amplitude_regularizer="l2",
        slope_regularizer="l2",
        tail_regularizer="l2",
        relu_regularizer="l2",
        kernel_regularizer="l2",
        amplitude_constraint="non_neg",
        relu_constraint="non_neg",
    )
    layer(inputs((8, 3)))
    assert len(layer.losses) == (5 if constrained else 8)
    for variable in layer.region_constraint.weights:
        constrained_names = ("amplitude", "relu_")
        expected = variable.name.startswith(constrained_names)
        assert (variable.constraint is not None) == expected


DTYPES = ["float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16"]


@pytest.mark.parametrize("dtype", [*DTYPES, "float64"])
@pytest.mark.parametrize("cls", [ks.RegionConstraint, ks.SawtoothDense])
@pytest.mark.parametrize("constrained", [True, False])
def test_dtype_policies(dtype, cls, constrained, request):
    if dtype == "float64":
        request.getfixturevalue("float64")
    arguments = {"units": 4} if cls is ks.SawtoothDense else {}
    layer = cls(depth=4, dtype=dtype, **arguments)
    layer.build((None, 4))
    twin = cls(depth=4, dtype="float32", **arguments)
    twin.build((None, 4))
    twin.set_weights([to_numpy(w.value) for w in layer.weights])
    if not constrained:
        layer.release()
        twin.release()
    x = inputs((64, 4))
    y = layer(x)
    policy = keras.dtype_policies.get(dtype)
    assert keras.backend.standardize_dtype(y.dtype) == policy.compute_dtype
    for variable in layer.weights:
        assert variable.dtype == policy.variable_dtype
    # What is lost is a rounding of input, weights and output, no more.
    digits = {"float16": 2e-3, "bfloat16": 2e-2}.get(policy.compute_dtype, 2e-6)
    lost = 4 if cls is ks.SawtoothDense or not constrained else 2
    np.testing.assert_allclose(to_numpy(y), to_numpy(twin(x)), atol=lost * digits)


@pytest.mark.parametrize("built", [False, True])
def test_a_policy_that_is_set_later(built):
    layer = ks.SawtoothDense(4)
    if built:
        layer.build((None, 3))
    layer.dtype_policy = "mixed_bfloat16"
    outputs = layer(inputs((8, 3)))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"


def test_a_map_of_policies_names_the_dense_layer():
    policies = keras.dtype_policies.DTypePolicyMap()
    policies["model/hidden"] = keras.dtype_policies.get("mixed_bfloat16")
    layer = ks.SawtoothDense(4, dtype=policies, name="hidden")
    model = keras.Sequential([keras.Input((3,)), layer], name="model")
    outputs = model(inputs((8, 3)))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert [path for path, _ in policies.items()] == ["model/hidden"]


def test_waves_are_evaluated_in_float32_under_a_narrow_policy():
    x = np.linspace(-2, 2, 1000).astype("float16")[:, None]
    layer = ks.RegionConstraint(depth=8, dtype="mixed_float16")
    y = to_numpy(layer(x))
    expected = formula(layer, x)
    # Half a unit in the last place of the float16 result.
    np.testing.assert_allclose(y, expected, atol=6e-4)


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("dtype, autocast", [("int32", True), ("float32", False)])
def test_inputs_that_a_narrow_policy_could_not_hold(dtype, autocast, constrained):
    """Integers, and what is not cast, keep the digits that they have."""
    layers = [
        ks.RegionConstraint(
            domain=(1000, 1010),
            amplitude_initializer=keras.initializers.Constant(5.0),
            slope_initializer="zeros",
            tails="line",
            constrained=constrained,
            dtype=policy,
            autocast=autocast,
        )
        for policy in ("mixed_bfloat16", "float32")
    ]
    x = keras.ops.convert_to_tensor(np.arange(1000, 1011)[:, None], dtype)
    for layer in layers:
        layer.build(x.shape)
    layers[1].set_weights([to_numpy(w.value) for w in layers[0].weights])
    narrow, wide = (to_numpy(layer(x)) for layer in layers)
    np.testing.assert_allclose(narrow, wide, rtol=2**-8, atol=1e-3)
    assert np.ptp(wide) > 4


@each_layer
@pytest.mark.usefixtures("float64")
def test_float64_is_computed_in_float64(cls, arguments, shape):
    layer = cls(**arguments, dtype="float64")
    x = np.random.default_rng(0).normal(size=shape)
    y = to_numpy(layer(x))
    if layer.constrained:
        layer.release()
        np.testing.assert_allclose(to_numpy(layer(x)), y, atol=1e-12)


@each_layer
def test_integer_inputs_are_cast_as_in_dense(cls, arguments, shape):
    layer = cls(**arguments)
    x = np.random.default_rng(0).integers(-2, 3, shape)
    y = layer(x)
    np.testing.assert_allclose(
        to_numpy(y), to_numpy(layer(x.astype("float32"))), atol=1e-6
    )


@pytest.mark.parametrize("constrained", [True, False])
def test_nan_and_infinity_stay_with_their_element(constrained):
    layer = ks.RegionConstraint(depth=3, constrained=constrained)
    clean = inputs((6, 4))
    dirty = clean.copy()
    dirty[1, 2], dirty[3, 0], dirty[5, 3] = np.nan, np.inf, -np.inf
    y, expected = to_numpy(layer(dirty)), to_numpy(layer(clean))
    touched = ~np.isfinite(dirty)
    np.testing.assert_array_equal(~np.isfinite(y), touched)
    assert np.isnan(y[1, 2])
    np.testing.assert_array_equal(y[~touched], expected[~touched])


@each_layer
def test_gradients_reach_every_variable(cls, arguments, shape):
    layer = cls(**arguments)
    layer.build(shape)
    x = inputs(shape)

    def loss(*values):
        y, _ = layer.stateless_call(list(values), [], x)
        return keras.ops.sum(keras.ops.square(y))

    values = [to_numpy(v.value) for v in layer.trainable_variables]
    for variable, gradient in zip(
        layer.trainable_variables, gradients(loss, values), strict=True
    ):
        assert np.isfinite(gradient).all(), variable.name
        assert np.any(gradient != 0), variable.name


def test_masks_pass_through():
    x = np.array([[1, 2, 0], [3, 0, 0]])
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(x)
    for layer in (ks.RegionConstraint(), ks.SawtoothDense(6)):
        y = layer(embedded)
        np.testing.assert_array_equal(to_numpy(y._keras_mask), x != 0)


@pytest.mark.parametrize(
    "optimizer, depth",
    [
        (keras.optimizers.Adam(10.0), 5),
        (keras.optimizers.SGD(10.0, clipnorm=1.0), 3),
    ],
    ids=["adam", "sgd"],
)
def test_peaks_survive_an_absurd_learning_rate(optimizer, depth):
    """1,000 steps at learning rate 10."""
    optimizer = optimizer.from_config(optimizer.get_config())
    model = keras.Sequential(
        [keras.Input((2,)), ks.SawtoothDense(8, depth=depth), keras.layers.Dense(1)]
    )
    model.compile(optimizer, "mse")
    x = inputs((128, 2))
    y = np.sin(3 * x[:, :1]) * x[:, 1:]
    model.fit(
        np.tile(x, (125, 1)),
        np.tile(y, (125, 1)),
        batch_size=16,
        epochs=1,
        verbose=0,
    )
    assert int(model.optimizer.iterations) == 1000
    layer = model.layers[0]
    peaks = keras.ops.convert_to_numpy(layer.peaks)
    assert np.isfinite(peaks).all()
    assert np.all(peaks >= np.float32(0.01))
    assert np.all(peaks <= np.float32(0.99))
    np.testing.assert_array_equal(ks.count_linear_regions(layer), 2**depth)


def test_channels_start_as_lines_that_bend_once():
    # What docs promise: a slope of about 0.75 left of the middle of the domain and
    # 0.25 right of it, or the other way round, and so on outside.
    keras.utils.set_random_seed(0)
    layer = ks.RegionConstraint(domain=(-2.0, 4.0))
    z = np.repeat([[-5.0], [-4.0], [-1.0], [0.0], [2.0], [3.0], [6.0], [7.0]], 400, 1)
    values = to_numpy(layer(z))
    steps = (values[1::2] - values[::2]).reshape(2, 2, 400)
    left, right = steps.mean(axis=1)
    concave = to_numpy(layer.amplitude) > 0
    assert 0.35 < concave.mean() < 0.65
    for channels, steep, flat in ((concave, left, right), (~concave, right, left)):
        assert abs(steep[channels].mean() - 0.75) < 0.05
        assert abs(flat[channels].mean() - 0.25) < 0.05


@pytest.mark.parametrize("scales", ["tied", "free"])
@pytest.mark.parametrize("depth", [1, 8])
def test_the_outermost_pieces_go_on(depth, scales):
    layer = ks.RegionConstraint(depth=depth, scales=scales, domain=(-1.0, 2.0))
    z = np.array([[-100.0], [-3.0], [-1.0], [0.3], [2.0], [5.0], [100.0]])
    values = to_numpy(layer(np.repeat(z, 4, axis=1)))
    for channel in range(4):
        expected = ks.linear_regions(layer, channel)(z[:, 0])
        np.testing.assert_allclose(values[:, channel], expected, rtol=1e-5, atol=1e-6)

    # And are bent by the slopes of their own.
    layer.tail_slopes.assign(np.array([[2.0] * 4, [3.0] * 4]))
    bent = to_numpy(layer(np.repeat(z, 4, axis=1)))
    expected = np.array([99, 2, 0, 0, 0, 3, 98]) * np.array([2, 2, 0, 0, 0, 3, 3])
    np.testing.assert_allclose(
        bent - values, expected[:, None] + np.zeros(4), rtol=1e-4
    )
    layer.release()
    np.testing.assert_allclose(
        to_numpy(layer(np.repeat(z, 4, axis=1))), bent, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("scales", ["tied", "free"])
def test_peaks_at_the_margin_give_no_infinite_tails(scales):
    layer = ks.RegionConstraint(depth=24, margin=1e-6, scales=scales)
    layer.build((None, 3))
    layer.amplitude.assign(np.full(layer.amplitude.shape, 0.1))
    for logits in ([-40.0], [40.0]):
        layer.peak_logits.assign(np.full((25, 3), logits))
        assert np.isfinite(to_numpy(layer.slopes)).all()


def test_peaks_at_the_margin_give_finite_gradients():
    layer = ks.RegionConstraint(
        depth=24, margin=1e-6, peak_initializer=keras.initializers.Constant(-40)
    )
    z = np.linspace(-3, 3, 64).reshape(16, 4).astype("float32")
    layer.build(z.shape)

    def loss(*values):
        y, _ = layer.stateless_call(list(values), [], z)
        return keras.ops.sum(keras.ops.square(y))

    values = [to_numpy(v.value) for v in layer.trainable_variables]
    for gradient in gradients(loss, values, compiled=False):
        assert np.isfinite(gradient).all()


def test_complex_numbers_are_refused():
    for layer in (ks.RegionConstraint(), ks.SawtoothDense(2)):
        with pytest.raises(ValueError, match=r"real numbers.*complex64"):
            layer(np.ones((2, 2), "complex64"))


def test_steps_of_free_scales_do_not_make_deep_tails_steep():
    layer = ks.RegionConstraint(depth=24, scales="free")
    layer.build((None, 3))
    before = to_numpy(layer.slopes)
    layer.amplitude.assign(to_numpy(layer.amplitude.value) + 1e-3)
    np.testing.assert_allclose(to_numpy(layer.slopes), before, atol=0.05)


@pytest.mark.parametrize(
    "depth, domain, tails",
    [
        (1, (-1, 1), "free"),
        (1, (0, 255), "free"),
        (4, (0.1, 0.7), "free"),
        (4, (0, 255), "line"),
        (4, (-1, 1), "line"),
    ],
)
def test_derivative_at_the_ends_of_the_domain_is_that_of_the_outside(
    depth, domain, tails
):
    layer = ks.RegionConstraint(depth=depth, domain=domain, tails=tails)
    layer.build((None, 16))
    low, high = np.float32(layer.domain)
    ends = np.repeat([[low], [high]], 16, axis=1)
    distance = np.array([[low - high], [high - low]]) / 8
    for _ in range(2):
        at, outside = (
            gradients(lambda z: keras.ops.sum(layer(z)), [z])[0]
            for z in (ends, ends + distance)
        )
        np.testing.assert_allclose(at, outside, atol=2e-5)
        if layer.constrained:
            layer.release()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_random_peaks(depth):
    initializer = ks.RandomPeaks((0.5, 0.8), stddev=0.1, seed=7)
    logits = to_numpy(initializer((depth + 1, 2000)))
    expected = np.log([1, 4, 1, 1, 1, 1])[: depth + 1]
    np.testing.assert_allclose(logits.mean(axis=1), expected, atol=0.02)
    np.testing.assert_allclose(logits.std(axis=1), 0.1, rtol=0.1)
    config = keras.saving.serialize_keras_object(initializer)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    np.testing.assert_array_equal(to_numpy(copy((depth + 1, 2000))), logits)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"peaks": (0.5, 1.0)}, r"peaks\[1\]=1\.0"),
        ({"peaks": "half"}, "peaks.*half"),
        ({"stddev": -1}, "stddev=-1"),
        ({"seed": "a"}, "seed=a"),
    ],
)
def test_random_peaks_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ks.RandomPeaks(**arguments)


@pytest.mark.parametrize(
    "domain, word",
    [
        ((0, 1e-38), "narrow"),
        ((0, 3e38), "wide"),
        ((-3e38, 3e38), "wide"),
        ((1e39, 2e39), "wide"),
        # Ends and breakpoints would be rounded to few numbers.
        ((1e6, 1e6 + 1), "few numbers"),
    ],
)
def test_domains_that_float32_cannot_divide_by_are_refused(domain, word):
    with pytest.raises(ValueError, match=f"too {word} .*float32.*domain="):
        ks.RegionConstraint(domain=domain)
    ks.RegionConstraint(domain=domain, dtype="float64")


@pytest.mark.parametrize("shape", [(3,), (None, None), (None, 0)])
def test_shapes_without_channels_are_refused(shape):
    message = f"layer 'waves' .*{re.escape(f'input_shape={shape}')}"
    with pytest.raises(ValueError, match=message):
        ks.RegionConstraint(name="waves").build(shape)


def test_quantized_policies_are_refused():
    with pytest.raises(ValueError, match="dtype='int8_from_float32'"):
        ks.RegionConstraint(dtype="int8_from_float32")


# Of TensorFlow's functions. On torch, `jit_compile` needs a built model.
COMPILED = [False, True] if keras.backend.backend() == "tensorflow" else [False]


@pytest.mark.parametrize("jit_compile", COMPILED)
@pytest.mark.parametrize("arguments", [{"scales": "free"}, {"constrained": False}])
def test_a_layer_may_be_built_by_the_first_step(arguments, jit_compile):
    """Values that variables start at may be made from others, also in a function."""
    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("float32")
    for layer in (
        ks.SawtoothDense(2, depth=2, **arguments),
        keras.layers.SimpleRNN(2, activation=ks.RegionConstraint(2, **arguments)),
    ):
        model = keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=jit_compile)
        loss = model.fit(x, x[:, 0, :1], epochs=2, verbose=0).history["loss"]
        assert np.isfinite(loss).all()
