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


def build(phase="constrained", units=4, name="sawtooth", optimizer="adam"):
    # Orbax knows variables by the names of their layers.
    x = keras.Input((5,))
    y = keras.layers.Dense(1, name="dense")(ks.SawtoothDense(units, name=name)(x))
    model = compiled(keras.Model(x, y), optimizer)
    if phase == "released":
        ks.release(model)
    return model


def saved(directory, phase, **arguments):
    """A model with a history, and a checkpoint of its state."""
    model = build(phase)
    move(model)
    checkpoint = keras.callbacks.OrbaxCheckpoint(str(directory), **arguments)
    checkpoint.set_model(model)
    checkpoint.on_epoch_end(0)
    checkpoint.on_train_end()
    return model


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


def test_another_optimizer_keeps_its_own_state(tmp_path):
    trained = saved(tmp_path, "released")
    model = build(optimizer=keras.optimizers.SGD(momentum=0.9))
    with pytest.warns(UserWarning, match="state of the optimizer .* is not loaded"):
        ks.load_weights(model, tmp_path)
    np.testing.assert_array_equal(model.weights[-1], trained.weights[-1])
    assert not np.any(model.optimizer.variables[-1])
    continue_training(model)


@each_phase
@pytest.mark.parametrize(
    "other, message",
    [({"units": 3}, "shape"), ({"name": "other"}, "no values for .* names")],
)
def test_of_another_model_it_changes_nothing(phase, other, message, tmp_path):
    saved(tmp_path, "released")
    model = build(phase, **other)
    before, optimizer = state(model), model.optimizer
    with pytest.raises(ValueError, match=f"is what it was before(.|\n)*{message}"):
        ks.load_weights(model, tmp_path)
    assert phases(model) == [phase]
    assert model.optimizer is optimizer
    assert_same_state(model, before)


def test_a_model_must_be_compiled(tmp_path):
    saved(tmp_path, "released")
    model = keras.Model.from_config(build().get_config())
    with pytest.raises(ValueError, match="Call `compile`"):
        ks.load_weights(model, tmp_path)


def test_a_directory_that_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="not supported"):
        ks.load_weights(build(), tmp_path)
