"""Copies of models and layers, in both phases."""

import copy
import pickle

import keras
import numpy as np
import pytest
from backend import to_numpy
from models import EAGERLY

import keras_sawtooth as ks

pytestmark = [
    pytest.mark.workflow("copying"),
    pytest.mark.parametrize("phase", ["constrained", "released"]),
]


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 3)).astype("float32")
    return x, np.sin(2 * x[:, :1])


def trained(phase):
    x, y = data()
    model = keras.Sequential(
        [
            keras.Input((3,)),
            ks.SawtoothDense(4, depth=2),
            keras.layers.Dense(4),
            ks.RegionConstraint(depth=2),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", run_eagerly=EAGERLY)
    model.train_on_batch(x, y)
    if phase == "released":
        ks.release(model)
        model.train_on_batch(x, y)
    return model


def cloned(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def from_config(model):
    copied = type(model).from_config(model.get_config())
    copied.set_weights(model.get_weights())
    return copied


COPIES = {
    "clone_model": cloned,
    "from_config": from_config,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


def assert_phase(model, phase):
    for layer in (model.layers[0], model.layers[2]):
        assert layer.constrained is (phase == "constrained")


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_is_equal_and_independent(way, phase):
    x, y = data()
    model = trained(phase)
    expected = model.predict(x, verbose=0)
    copied = COPIES[way](model)
    assert_phase(copied, phase)
    np.testing.assert_allclose(copied.predict(x, verbose=0), expected, atol=1e-6)

    def train(changed, other):
        if not changed.compiled:
            changed.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=EAGERLY)
        before = [to_numpy(v.value) for v in other.variables]
        start = changed.get_weights()
        changed.train_on_batch(x, y)
        assert np.any(start[0] != changed.get_weights()[0])
        for a, v in zip(before, other.variables, strict=True):
            np.testing.assert_array_equal(a, to_numpy(v.value))

    train(copied, model)
    train(model, copied)
    if phase == "constrained":
        ks.release(copied)
        assert_phase(copied, "released")
        assert_phase(model, "constrained")
        train(copied, model)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_of_a_compiled_model_goes_on_training_alike(way, phase):
    """With the optimizer and its state, as with any Keras model."""
    x, y = data()
    model = trained(phase)
    copied = COPIES[way](model)
    for each in (model, copied):
        each.train_on_batch(x, y)
        if phase == "constrained":
            ks.release(each)
            each.train_on_batch(x, y)
    for a, b in zip(model.get_weights(), copied.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_clone_model_draws_new_weights(phase):
    clone = keras.models.clone_model(trained(phase))
    assert_phase(clone, phase)
    assert len(clone.weights) == len(trained(phase).weights)


def layers_of(phase):
    x = data()[0]
    built = [ks.SawtoothDense(4, depth=2), ks.RegionConstraint(depth=2)]
    for layer in [*built, keras.layers.Dense(4)]:
        layer(x)
    if phase == "released":
        for layer in built:
            layer.release()
    return built


@pytest.mark.parametrize("way", ["copy", "deepcopy", "pickle"])
def test_a_layer_is_copied_where_dense_is(way, phase):
    ways = {"copy": copy.copy, **COPIES}
    x = data()[0]
    dense = keras.layers.Dense(4)
    dense(x)
    dense_error = None
    try:
        ways[way](dense)
    except Exception as error:
        dense_error = error
    for layer in layers_of(phase):
        if dense_error is not None:
            with pytest.raises(type(dense_error)):
                ways[way](layer)
            continue
        twin = ways[way](layer)
        assert twin.constrained is layer.constrained
        np.testing.assert_array_equal(to_numpy(twin(x)), to_numpy(layer(x)))


def test_from_config_of_a_layer(phase):
    x = data()[0]
    for layer in layers_of(phase):
        twin = type(layer).from_config(layer.get_config())
        twin.build(x.shape)
        twin.set_weights(layer.get_weights())
        assert twin.constrained is (phase == "constrained")
        before = to_numpy(layer(x))
        np.testing.assert_array_equal(to_numpy(twin(x)), before)
        for weight in twin.weights:
            weight.assign(weight + 1.0)
        np.testing.assert_array_equal(to_numpy(layer(x)), before)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
@pytest.mark.parametrize("cls", [ks.RegionConstraint, ks.SawtoothDense])
def test_a_layer_that_is_not_built_yet(cls, copied, phase):
    arguments = {"units": 4} if cls is ks.SawtoothDense else {}
    twin = copied(cls(depth=2, constrained=phase == "constrained", **arguments))
    assert not twin.built
    twin.build((None, 3))
    names = [v.name for v in twin.weights]
    assert ("peak_logits" in names) is (phase == "constrained")


def test_a_model_that_is_not_built_yet(tmp_path, phase):
    layer = ks.SawtoothDense(4, constrained=phase == "constrained")
    model = keras.Sequential([layer, keras.layers.Dense(1)])
    with pytest.warns(UserWarning, match="not yet been built"):
        model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded(np.zeros((2, 3))).shape == (2, 1)
