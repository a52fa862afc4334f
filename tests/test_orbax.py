"""Checkpoints of `keras.callbacks.OrbaxCheckpoint`, of this and of the other phase."""

import keras
import numpy as np
import pytest
from models import PHASES
from models import assert_same_state
from models import compiled
from models import continue_training
from models import move
from models import phases
from models import state

import keras_sawtooth as ks

pytest.importorskip("orbax.checkpoint")

pytestmark = [
    pytest.mark.workflow("saving"),
    # Of Orbax, about what it does itself.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning"),
]
each_phase = pytest.mark.parametrize("phase", PHASES)


def build(phase="constrained", units=4, name="sawtooth", optimizer="adam", **arguments):
    # Orbax knows variables by the names of their layers.
    x = keras.Input((5,))
    y = ks.SawtoothDense(units, name=name, **arguments)(x)
    model = keras.Model(x, keras.layers.Dense(1, name="dense")(y))
    compiled(model, optimizer)
    if phase == "released":
        ks.release(model)
    return model


def saved(directory, phase, optimizer="adam", bias=None, **arguments):
    """A model with a history, and a checkpoint of its state."""
    model = build(phase, optimizer=optimizer)
    move(model)
    if bias is not None:
        model.get_layer("dense").bias.assign([bias])
    write_checkpoint(model, directory, **arguments)
    return model


def write_checkpoint(model, directory, **arguments):
    checkpoint = keras.callbacks.OrbaxCheckpoint(str(directory), **arguments)
    checkpoint.set_model(model)
    checkpoint.on_epoch_end(0)
    checkpoint.on_train_end()


@each_phase
@pytest.mark.parametrize("into", PHASES)
def test_a_model_takes_phase_and_state_of_the_checkpoint(phase, into, tmp_path):
    trained = saved(tmp_path, phase)
    model = build(into)
    changed = ks.load_weights(model, tmp_path)
    assert len(changed) == (phase != into)
    assert phases(model) == [phase]
    assert_same_state(model, trained)


@each_phase
def test_weights_alone(phase, tmp_path):
    trained = saved(tmp_path, phase, save_weights_only=True)
    for into in PHASES:
        model = build(into)
        ks.load_weights(model, tmp_path)
        for a, b in zip(model.weights, trained.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        assert int(model.optimizer.iterations) == 0


@each_phase
def test_keras_loads_the_whole_model(phase, tmp_path):
    trained = saved(tmp_path, phase)
    assert_same_state(keras.saving.load_model(str(tmp_path)), trained)


def test_training_goes_on_behind_the_release(tmp_path):
    trained = build()
    callbacks = [
        ks.ReleaseConstraints(epoch=1),
        keras.callbacks.OrbaxCheckpoint(str(tmp_path)),
    ]
    continue_training(trained, epochs=2, callbacks=callbacks)
    model = build()
    continue_training(model, callbacks=[ks.ReleaseConstraints(epoch=1)])
    # From the first `fit` with this callback on, it follows phases.
    model.load_weights(tmp_path)
    assert_same_state(model, trained)
    for each in (model, trained):
        continue_training(each)
    assert_same_state(model, trained)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("optimizer", ["adam", "nadam"])
def test_optimizers_that_keras_numbers(optimizer, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        trained = saved(tmp_path, "released", optimizer=optimizer)
        model = build(optimizer=optimizer)
        ks.load_weights(model, tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    assert_same_state(model, trained)


def test_another_optimizer_keeps_its_own_state(tmp_path):
    trained = saved(tmp_path, "released")
    model = build(optimizer=keras.optimizers.SGD(momentum=0.9))
    with pytest.warns(UserWarning, match="state of the optimizer .* is not loaded"):
        ks.load_weights(model, tmp_path)
    np.testing.assert_array_equal(model.weights[-1], trained.weights[-1])
    assert not np.any(model.optimizer.variables[-1])
    continue_training(model)


def test_layers_may_have_been_frozen_since(tmp_path):
    trained = saved(tmp_path, "released")
    model = build()
    model.get_layer("sawtooth").trainable = False
    with pytest.warns(UserWarning, match="is not loaded"):
        ks.load_weights(model, tmp_path)
    for a, b in zip(model.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@each_phase
@pytest.mark.parametrize(
    "other",
    [{"units": 3}, {"name": "other"}, {"tails": "line"}],
    ids=["shapes", "missing", "unknown"],
)
def test_of_another_model_it_changes_nothing(phase, other, tmp_path):
    saved(tmp_path, "released")
    model = build(phase, **other)
    before, optimizer = state(model), model.optimizer
    with pytest.raises(ValueError, match=r"was before(.|\n)* in their place"):
        ks.load_weights(model, tmp_path)
    assert phases(model) == [phase]
    assert model.optimizer is optimizer
    assert_same_state(model, before)


@each_phase
def test_after_nan_a_model_trains_as_if_nothing_had_been_loaded(phase, tmp_path):
    saved(tmp_path, "released", bias=np.nan)
    model = build(phase)
    untouched = build(phase)
    untouched.set_weights(model.get_weights())
    with pytest.raises(ValueError, match=r"is what it was before.* NaN"):
        ks.load_weights(model, tmp_path)
    for each in (model, untouched):
        continue_training(each)
    assert_same_state(model, untouched)


def test_normalization_follows_its_weights(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")

    def build_normalized(shift):
        first = keras.layers.Normalization(name="first")
        first.adapt(x + shift)
        last = keras.layers.Dense(1, name="dense")
        layers = [keras.Input((5,)), first, ks.SawtoothDense(4, name="a"), last]
        model = keras.Sequential(layers, name="model")
        model.compile("sgd", "mse")
        model.train_on_batch(x, x[:, :1])
        return model

    source, model = build_normalized(10.0), build_normalized(0.0)
    model.predict(x, verbose=0)
    write_checkpoint(source, tmp_path)
    ks.load_weights(model, tmp_path)
    expected = source.predict(x, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_two_layers_of_one_name(tmp_path):
    def part(name):
        x = keras.Input((5,))
        return keras.Model(x, keras.layers.Dense(5, name="dense")(x), name=name)

    x = keras.Input((5,))
    model = compiled(keras.Model(x, part("b")(part("a")(x))))
    # Keras has a branch for those that are trained, and one for the others.
    model.layers[-1].trainable = False
    write_checkpoint(model, tmp_path)
    with pytest.raises(ValueError, match="some have the same one"):
        ks.load_weights(model, tmp_path)


def test_a_model_must_be_built_and_compiled(tmp_path):
    saved(tmp_path, "released")
    model = keras.Model.from_config(build().get_config())
    with pytest.raises(ValueError, match="compile it"):
        ks.load_weights(model, tmp_path)
    model = compiled(keras.Sequential([ks.SawtoothDense(4, name="sawtooth")]))
    with pytest.raises(ValueError, match="not built"):
        ks.load_weights(model, tmp_path)


def test_checkpoints_are_loaded_whole(tmp_path):
    saved(tmp_path, "released")
    with pytest.raises(ValueError, match=r"whole.*skip_mismatch"):
        ks.load_weights(build(), tmp_path, skip_mismatch=True)


def test_a_relative_path(tmp_path, monkeypatch):
    trained = saved(tmp_path / "checkpoints", "released")
    monkeypatch.chdir(tmp_path)
    model = build()
    ks.load_weights(model, "checkpoints")
    assert_same_state(model, trained)


def test_a_directory_that_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="not supported"):
        ks.load_weights(build(), tmp_path)
