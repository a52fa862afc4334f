"""Quantization and LoRA, in both phases."""

import keras
import numpy as np
import pytest
from backend import to_numpy
from keras import layers
from models import PHASES
from models import assert_same_state
from models import compiled
from models import continue_training
from models import data
from models import phases
from models import plain
from models import trained

import keras_sawtooth as ks

pytestmark = [
    pytest.mark.workflow("compression"),
    # Keras warns of every layer that has nothing to be quantized.
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not"),
]
each_phase = pytest.mark.parametrize("phase", PHASES)


# Quantization


@pytest.mark.parametrize("policy", ["int8_from_float32", "float8_from_float32"])
def test_quantized_policies_are_refused(policy):
    with pytest.raises(ValueError, match=rf"cannot be quantized.*{policy}"):
        ks.SawtoothDense(2, dtype=policy)
    layer = ks.SawtoothDense(2)
    with pytest.raises(ValueError, match=rf"cannot be quantized.*{policy}"):
        layer.dtype_policy = policy
    assert layer.dtype_policy.name == "float32"


@each_phase
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_a_sawtooth_dense_refuses_quantization(mode, phase):
    model = trained(plain, phase, keep=False)
    x, _ = data()
    before = to_numpy(model(x))
    for quantize in (model.layers[1].quantize, model.quantize):
        with pytest.raises(ValueError, match=r"cannot be quantized.*filters="):
            quantize(mode)
        np.testing.assert_array_equal(to_numpy(model(x)), before)


def test_the_refusal_says_that_layers_before_it_may_be_quantized():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4), ks.SawtoothDense(4), layers.Dense(1)]
    )
    with pytest.raises(ValueError, match="load the model again"):
        model.quantize("int8")
    modes = [layer.quantization_mode for layer in model.layers]
    assert modes == ["int8", None, None]


@each_phase
def test_the_advice_of_the_error_works(phase):
    """The rest of a model is quantized where SawtoothDense is left out."""
    model = trained(plain, phase, keep=False)
    x, _ = data()
    before = to_numpy(model(x))
    model.quantize(
        "int8", filters=lambda layer: not isinstance(layer, ks.RegionConstraint)
    )
    assert model.layers[-1].dtype_policy.quantization_mode == "int8"
    lost = np.sqrt(np.mean((to_numpy(model(x)) - before) ** 2)) / np.std(before)
    print(f"int8 output layer, {phase}: RMS change {lost:.4f} of the deviation")
    assert lost < 0.05


@each_phase
def test_a_region_constraint_stays_wide_behind_a_quantized_dense(phase, tmp_path):
    def build(constrained=True):
        x = keras.Input((5,))
        hidden = ks.RegionConstraint(constrained=constrained)(layers.Dense(16)(x))
        return keras.Model(x, layers.Dense(1)(hidden))

    model = trained(build, phase, keep=False)
    x, _ = data()
    before = to_numpy(model(x))
    with pytest.warns(UserWarning, match="stays in float32"):
        model.quantize("int8")
    after = to_numpy(model(x))
    lost = np.sqrt(np.mean((after - before) ** 2)) / np.std(before)
    print(f"int8 products, {phase}: RMS change {lost:.4f} of the deviation")
    assert lost < 0.05
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), after, atol=1e-6)


# LoRA


@each_phase
def test_lora_trains_its_factors_only(phase, tmp_path):
    model = trained(plain, phase, keep=False)
    x, _ = data()
    before = to_numpy(model(x))
    dense = model.layers[1]
    dense.enable_lora(2)
    np.testing.assert_allclose(to_numpy(model(x)), before, atol=1e-6)
    kernel = to_numpy(dense._kernel.value)
    compiled(model)
    continue_training(model, 2)
    np.testing.assert_array_equal(to_numpy(dense._kernel.value), kernel)
    assert np.abs(to_numpy(dense.kernel) - kernel).max() > 0

    # The file holds the sum of kernel and factors, as with `Dense`.
    trained_output = model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), trained_output, atol=1e-6)
    model.save_weights(tmp_path / "m.weights.h5")
    fresh = plain(constrained=phase == "constrained")
    fresh.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(fresh.predict(x, verbose=0), trained_output, atol=1e-6)


def test_lora_through_the_release():
    def build():
        keras.utils.set_random_seed(0)
        model = trained(plain, "constrained", keep=False)
        model.layers[1].enable_lora(2)
        compiled(model)
        return model

    inside, between = build(), build()
    kernel = to_numpy(inside.layers[1]._kernel.value)
    continue_training(inside, 4, callbacks=[ks.ReleaseConstraints(epoch=2)])
    continue_training(between, 2)
    x, _ = data()
    before = to_numpy(between(x))
    ks.release(between)
    np.testing.assert_allclose(to_numpy(between(x)), before, atol=1e-5)
    continue_training(between, 2)
    assert set(phases(inside)) == {"released"}
    assert_same_state(inside, between)
    np.testing.assert_array_equal(to_numpy(inside.layers[1]._kernel.value), kernel)
