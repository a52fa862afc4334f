"""`to_standard_layers`: equal numbers from Keras' own layers."""

import json
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from backend import to_numpy
from keras import layers
from models import EAGERLY

import keras_sawtooth as ks

RNG = np.random.default_rng(0)
PHASES = ["constrained", "released", "trained"]
POLICIES = ("mixed_bfloat16", "mixed_float16")


def region(depth=3, scales="tied", phase="constrained", channels=6, **arguments):
    """A built layer; trained, its variables are not where they started."""
    layer = ks.RegionConstraint(depth, scales=scales, **arguments)
    layer.build((None, channels))
    if scales == "free":
        sign = RNG.choice([-1, 1], size=(depth, channels))
        layer.amplitude.assign(sign * to_numpy(layer.amplitude))
    change_phase(layer, phase)
    return layer


def change_phase(layer, phase):
    if phase != "constrained":
        layer.release()
    if phase == "trained":
        for variable in layer.weights:
            # Added as well, as biases start at zero.
            factor, summand = RNG.normal(scale=0.1, size=(2, *variable.shape))
            variable.assign(to_numpy(variable.value) * (1 + factor) + 0.1 * summand)


def around(domain, *shape):
    """Inputs in the domain and as far on both sides of it."""
    low, high = domain
    middle, width = (low + high) / 2, high - low
    return (middle + RNG.uniform(-1.5, 1.5, size=shape) * width).astype("float32")


def assert_equal(model, x, atol=1e-5, standard=None):
    """Outputs agree, relative to their range; the model of stock layers."""
    standard = standard or ks.to_standard_layers(model)
    assert_stock_layers(standard)
    for a, b in zip(outputs(model, x), outputs(standard, x), strict=True):
        assert a.dtype == b.dtype
        a, b = to_numpy(a), to_numpy(b)
        assert np.std(a) > 0
        np.testing.assert_allclose(b, a, rtol=0, atol=atol * max(1, np.abs(a).max()))
    return standard


def outputs(model, x):
    return keras.tree.flatten(model(x, training=False))


def assert_stock_layers(model):
    def visit(config):
        if isinstance(config, dict):
            if "class_name" in config and "module" in config:
                found.append(config["class_name"])
                assert str(config["module"]).split(".")[0] in ("keras", "builtins")
                assert config["registered_name"] in (None, config["class_name"]) or (
                    config["registered_name"] == "Functional"
                ), config
            list(map(visit, config.values()))
        elif isinstance(config, list):
            list(map(visit, config))

    found = []
    visit(json.loads(model.to_json()))
    assert len(found) > 2


@pytest.mark.parametrize("tails", ["free", "line"])
@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((8, 6, 2), lambda tails: ks.SawtoothDense(3, tails=tails)),
        (
            (8, 6, 2),
            lambda tails: layers.Conv2D(
                3, 3, activation=ks.RegionConstraint(tails=tails)
            ),
        ),
        ((2, 5, 3, 4), lambda tails: ks.RegionConstraint(2, tails=tails)),
        (
            (4, 6, 2),
            lambda tails: layers.TimeDistributed(ks.SawtoothDense(3, tails=tails)),
        ),
    ],
    ids=["dense", "convolution", "five axes", "distributed"],
)
def test_axes_of_different_sizes(shape, layer, tails):
    model = keras.Sequential([keras.Input(shape), layer(tails), layers.Flatten()])
    model.add(layers.Dense(2))
    x = RNG.normal(size=(3, *shape)).astype("float32")
    # Keras builds the activation of a layer when that is called on data.
    model(x)
    standard = assert_equal(model, x)
    before = [layer.output.shape for layer in model.layers]
    assert [layer.output.shape for layer in standard.layers[-len(before) :]] == before


@pytest.mark.parametrize(
    ("scales", "phase"),
    [
        ("tied", "constrained"),
        ("tied", "trained"),
        ("free", "constrained"),
        ("free", "released"),
    ],
)
@pytest.mark.parametrize("depth", [1, 2, 10])
def test_every_depth(depth, scales, phase):
    layer = region(depth, scales, phase)
    model = keras.Sequential([keras.Input((6,)), layer])
    assert_equal(model, around(layer.domain, 1000, 6))


@pytest.mark.parametrize("domain", [(0, 1), (-3, 0.5), (10, 11), (-1001, -1000)])
@pytest.mark.parametrize("phase", PHASES[::2])
def test_domains(domain, phase):
    # Far from zero the slope makes outputs large, and hides what the pieces lose.
    layer = region(phase=phase, domain=domain, slope_initializer="zeros")
    model = keras.Sequential([keras.Input((6,)), layer])
    standard = assert_equal(model, around(domain, 1000, 6))
    shift = [x for x in standard.layers[0].layers if isinstance(x, layers.Rescaling)]
    assert len(shift) == (abs(domain[0]) >= 10)


@pytest.mark.parametrize("scales", ["tied", "free"])
def test_constrained_layers_are_exact_lines_far_outside(scales):
    layer = region(5, scales, channels=64)
    # Waves magnify what is left of the one before, by up to 100.
    layer.peak_logits.assign(RNG.normal(0, 3, layer.peak_logits.shape))
    model = keras.Sequential([keras.Input((64,)), layer])
    x = RNG.choice([-1, 1], size=(100, 64)) * RNG.uniform(3, 1000, size=(100, 64))
    values = [to_numpy(m(x)) for m in (model, ks.to_standard_layers(model))]
    # Steep lines are rounded by as much more.
    sizes = np.abs(x) + np.abs(values[0])
    assert np.max(np.abs(values[0] - values[1]) / sizes) < 2e-6


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("phase", PHASES[:2])
@pytest.mark.parametrize("scales", ["tied", "free"])
def test_extreme_peaks_in_float64(scales, phase):
    """In float32 the waves magnify rounding errors to 1e-3, in released layers, too."""
    layer = region(10, scales, dtype="float64")
    layer.peak_logits.assign(RNG.choice([-20, 20], size=layer.peak_logits.shape))
    change_phase(layer, phase)
    model = keras.Sequential([keras.Input((6,), dtype="float64"), layer])
    assert_equal(model, around(layer.domain, 1000, 6).astype("float64"), atol=1e-7)


@pytest.mark.parametrize("shape", [(8, 3), (8, 2, 3), (8, 2, 2, 3)])
def test_sawtooth_dense_of_any_rank(shape):
    layer = ks.SawtoothDense(4, activation="tanh", name="first")
    # Unknown sizes stay unknown.
    inputs = keras.Input((*[None] * (len(shape) - 2), shape[-1]))
    model = keras.Model(inputs, layer(inputs))
    x = RNG.normal(size=shape).astype("float32")
    assert_equal(model, x)
    change_phase(layer.region_constraint, "trained")
    standard = assert_equal(model, x)
    inner = standard.get_layer("first")
    assert type(inner.get_layer("first")) is layers.Dense
    np.testing.assert_array_equal(
        to_numpy(inner.get_layer("first").kernel), to_numpy(layer.kernel)
    )


def test_functional_with_shared_nested_and_wrapped_layers():
    shared = ks.SawtoothDense(4, name="shared")
    a, b = keras.Input((2, 3), name="a"), keras.Input((2, 3), name="b")
    inner = keras.Sequential([keras.Input((2, 4)), ks.SawtoothDense(4)], name="inner")
    per_step = layers.TimeDistributed(ks.SawtoothDense(6), name="per_step")
    recursive = layers.TimeDistributed(
        keras.Sequential([keras.Input((6,)), ks.SawtoothDense(5)])
    )
    # Keras does not load this wrapper around a layer that is built twice.
    spectral = layers.SpectralNormalization(ks.SawtoothDense(4))
    joined = keras.ops.sin(shared(a) + shared(b)) * 2
    head = layers.Dense(2, "softmax")(recursive(per_step(inner(joined))))
    model = keras.Model([a, b], {"head": head, "joined": spectral(joined)})
    model.get_layer("inner").layers[0].release()
    x = [RNG.normal(size=(4, 2, 3)).astype("float32") for _ in range(2)]
    standard = assert_equal(model, x)
    names = [layer.name for layer in standard.layers]
    assert names == [layer.name for layer in model.layers]
    assert len(standard.get_layer("shared")._inbound_nodes) >= 2
    assert type(standard.get_layer("per_step")).__name__ == "Functional"


def conv_in_every_step(**arguments):
    return layers.TimeDistributed(layers.Conv1D(4, 2, padding="same", **arguments))


def einsum(**arguments):
    return layers.EinsumDense("abcd,de->abce", (6, 6, 4), **arguments)


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (layers.Activation, {}),
        (layers.Conv2D, {"filters": 4, "kernel_size": 3}),
        (layers.Dense, {"units": 4}),
        (layers.DepthwiseConv2D, {"kernel_size": 2}),
        (conv_in_every_step, {}),
        (einsum, {}),
        (ks.SawtoothDense, {"units": 4, "constrained": False}),
    ],
)
def test_activation_of_a_layer(layer, arguments):
    activation = ks.RegionConstraint(2, name="region")
    inputs = keras.Input((6, 6, 3))
    outputs = layers.Flatten()(layer(activation=activation, **arguments)(inputs))
    model = keras.Model(inputs, outputs)
    x = RNG.normal(size=(4, 6, 6, 3)).astype("float32")
    if not activation.built:
        with pytest.raises(ValueError, match=r"'region' of .* is not built"):
            ks.to_standard_layers(model)
    model(x)
    assert_equal(model, x)
    change_phase(activation, "trained")
    standard = assert_equal(model, x)
    assert standard.output_shape == model.output_shape


@pytest.mark.parametrize("policy", POLICIES)
def test_mixed_precision(policy):
    layer = ks.SawtoothDense(4, dtype=policy)
    behind = ks.RegionConstraint(2, dtype=policy)
    model = keras.Sequential([keras.Input((3,)), layer, behind])
    change_phase(layer.region_constraint, "trained")
    x = RNG.normal(size=(100, 3)).astype("float32")
    # A value next to the middle of two narrow numbers may be rounded either way.
    spacing = {"mixed_bfloat16": 2**-7, "mixed_float16": 2**-10}[policy]
    standard = assert_equal(model, x, atol=2 * spacing)
    assert standard.layers[0].layers[2].compute_dtype == "float32"
    assert standard.layers[0].layers[2].variable_dtype == "float32"


def test_lora_and_quantized_layers():
    lora = ks.SawtoothDense(4, kernel_regularizer="l2")
    model = keras.Sequential(
        [
            keras.Input((3,)),
            lora,
            layers.Dense(4, activation=ks.RegionConstraint(2)),
            layers.Dense(4, "relu"),
        ]
    )
    x = RNG.normal(size=(10, 3)).astype("float32")
    model(x)
    for layer in (lora, model.layers[2]):
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(RNG.normal(size=layer.lora_kernel_b.shape))
    model.layers[1].quantize("int8")
    standard = assert_equal(model, x)
    dense = standard.layers[0].layers[1]
    assert type(dense) is layers.Dense and not dense.lora_enabled
    assert dense.kernel_regularizer is not None


def test_all_other_layers_are_copied_with_their_state():
    normalization = layers.Normalization()
    normalization.adapt(RNG.normal(3, 2, size=(50, 3)))
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            normalization,
            ks.SawtoothDense(4),
            layers.BatchNormalization(),
            layers.Bidirectional(layers.GRU(2, return_sequences=True)),
            layers.Dropout(0.5),
            layers.Dense(3, activation=layers.PReLU()),
        ]
    )
    model.layers[2].moving_mean.assign(np.arange(4.0))
    x = RNG.normal(size=(4, 5, 3)).astype("float32")
    model(x)
    model.layers[-1].activation.alpha.assign(np.full((5, 3), 0.3))
    assert_equal(model, x)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="runs on tf.data")
def test_vocabularies_are_copied():
    words = layers.StringLookup(output_mode="multi_hot")
    words.adapt(["a", "b", "b"])
    model = keras.Sequential(
        [keras.Input((2,), dtype="string"), words, ks.SawtoothDense(4)]
    )
    assert_equal(model, keras.ops.convert_to_tensor([["a", "b"], ["c", "b"]]))


def test_copy_is_separate_and_not_compiled():
    def own_loss(y, y_pred):
        return keras.ops.mean((y - y_pred) ** 2)

    frozen = ks.SawtoothDense(4, trainable=False)
    model = keras.Sequential([keras.Input((3,)), frozen, layers.Dense(1)])
    model.compile("adam", own_loss, run_eagerly=EAGERLY)
    standard = ks.to_standard_layers(model)
    assert model.compiled and not standard.compiled
    assert len(standard.trainable_variables) == 2
    before = standard.get_weights()
    model.fit(RNG.normal(size=(8, 3)), RNG.normal(size=(8, 1)), verbose=0)
    for a, b in zip(before, standard.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    frozen.trainable, frozen.region_constraint.trainable = True, False
    names = [v.name for v in ks.to_standard_layers(model).trainable_variables]
    assert names == ["kernel", "bias"] * 2
    model.trainable = False
    assert not ks.to_standard_layers(model).trainable_variables


def test_without_sawtooth_layers_it_is_a_copy():
    model = keras.Sequential([keras.Input((3,)), ks.SawtoothDense(4)])
    standard = ks.to_standard_layers(model)
    x = RNG.normal(size=(8, 3)).astype("float32")
    again = assert_equal(standard, x, atol=0)
    assert again is not standard
    assert again.count_params() == standard.count_params()


class Own(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = ks.SawtoothDense(4, name="inside")

    def build(self, input_shape):
        self.hidden.build(input_shape)

    def call(self, x):
        return self.hidden(x)


class OwnRegion(ks.RegionConstraint):
    def call(self, x):
        return 2 * super().call(x)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Own(name="own"), r"'own' \(Own\) holds .* 'region_constraint'"),
        (lambda: OwnRegion(name="own"), r"'own' \(OwnRegion\)"),
        (
            lambda: layers.SimpleRNN(3, activation=ks.RegionConstraint(), name="rnn"),
            r"'rnn' \(SimpleRNN\)",
        ),
    ],
)
def test_code_of_ones_own(layer, message):
    model = keras.Sequential([keras.Input((5, 3)), layer()])
    model(RNG.normal(size=(2, 5, 3)))
    with pytest.raises(ValueError, match=message):
        ks.to_standard_layers(model)


def test_mask():
    inputs = keras.Input((5, 3))
    hidden = ks.SawtoothDense(4, name="first")(layers.Masking()(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(hidden))
    with pytest.raises(ValueError, match=r"mask reaches .*'first'"):
        ks.to_standard_layers(model)


def test_mask_of_a_nested_model():
    inner = keras.Sequential(
        [keras.Input((5, 3)), ks.SawtoothDense(4, name="inside")], name="inner"
    )
    inputs = keras.Input((5, 3))
    # It says so, and hands the mask on.
    with pytest.warns(UserWarning, match="'inner'.* does not support masking"):
        hidden = inner(layers.Masking()(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(hidden))
    with pytest.raises(ValueError, match=r"mask reaches .*'in"):
        ks.to_standard_layers(model)


class Warns(layers.Layer):
    def call(self, x):
        warnings.warn("of another layer", stacklevel=2)
        return x


def test_warnings_of_other_layers_are_passed_on():
    with pytest.warns(UserWarning, match="of another layer"):
        model = keras.Sequential([keras.Input((3,)), Warns(), ks.SawtoothDense(4)])
    with pytest.warns(UserWarning, match="of another layer"):
        ks.to_standard_layers(model)


class Doubled(keras.Sequential):
    def call(self, *arguments, **options):
        return 2 * super().call(*arguments, **options)


@pytest.mark.parametrize("nested", [False, True])
def test_models_with_a_call_of_their_own(nested):
    model = Doubled([keras.Input((3,)), ks.SawtoothDense(4)], name="own")
    if nested:
        model = keras.Sequential([keras.Input((3,)), model])
    with pytest.raises(TypeError, match="'own' cannot be copied"):
        ks.to_standard_layers(model)


def test_shared_by_inputs_of_different_rank():
    layer = ks.RegionConstraint(name="shared")
    a, b = keras.Input((3,)), keras.Input((2, 3))
    model = keras.Model([a, b], [layer(a), layer(b)])
    with pytest.raises(ValueError, match="shared"):
        ks.to_standard_layers(model)


def test_no_functional_model():
    class OwnModel(keras.Model):
        pass

    for model in (OwnModel(), ks.SawtoothDense(2)):
        with pytest.raises(TypeError, match="Sequential or functional"):
            ks.to_standard_layers(model)


def test_unbuilt_model():
    with pytest.raises(ValueError, match="not built"):
        ks.to_standard_layers(keras.Sequential([ks.SawtoothDense(2)]))


def test_built_by_a_call():
    model = keras.Sequential([ks.SawtoothDense(2)])
    x = RNG.normal(size=(8, 3)).astype("float32")
    model(x)
    assert_equal(model, x)


WITHOUT_THE_PACKAGE = """
import sys

sys.modules["keras_sawtooth"] = None
import keras
import numpy as np

model = keras.saving.load_model("model.keras")
np.save("found.npy", model.predict(np.load("x.npy"), verbose=0))
"""


def test_loads_without_the_package(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, activation=ks.RegionConstraint(2)),
            layers.TimeDistributed(ks.SawtoothDense(5, scales="free")),
            ks.RegionConstraint(5, domain=(3, 4)),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    x = RNG.normal(size=(100, 6, 6, 3)).astype("float32")
    model(x)
    model.layers[1].layer.release()
    ks.to_standard_layers(model).save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    wanted = to_numpy(model(x))
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
