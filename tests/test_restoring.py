"""Callbacks that restore weights from before the release."""

import keras
import numpy as np
import pytest
from backend import to_numpy
from models import MODELS
from models import PHASES
from models import assert_same_state
from models import behind_dense
from models import compiled
from models import continue_training
from models import data
from models import phases
from models import plain
from models import state
from models import trained

import keras_sawtooth as ks
from keras_sawtooth import layer_phase
from keras_sawtooth.training.optimizer_state import slot_value

pytestmark = pytest.mark.workflow("callbacks")


class Worsen(keras.callbacks.Callback):
    """Reports a loss that is best in a given epoch, and keeps its weights."""

    def __init__(self, best):
        super().__init__()
        self.best = best

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = abs(epoch - self.best)
        if epoch == self.best:
            self.weights = self.model.get_weights()
            self.prediction = self.model.predict(data()[0], verbose=0)


def train(best, order=(0, 1), build=plain):
    worsen = Worsen(best)
    pair = [
        ks.ReleaseConstraints(epoch=2),
        keras.callbacks.EarlyStopping(
            "score", mode="min", patience=10, restore_best_weights=True
        ),
    ]
    model = build()
    compiled(model)
    continue_training(model, 5, callbacks=[worsen, *(pair[i] for i in order)])
    return model, worsen


@pytest.mark.parametrize(
    ("build", "order"), [*((build, (0, 1)) for build in MODELS), (plain, (1, 0))]
)
def test_early_stopping_restores_the_phase_of_the_best_weights(build, order):
    with pytest.warns(UserWarning, match=r"of the other phase.*is constrained"):
        model, worsen = train(1, order, build)
    assert set(phases(model)) == {"constrained"}
    for weight, best in zip(model.get_weights(), worsen.weights, strict=True):
        np.testing.assert_array_equal(weight, best)
    x, _ = data()
    np.testing.assert_allclose(
        model.predict(x, verbose=0), worsen.prediction, atol=1e-6
    )
    # And the restored model trains, releases, and saves like any other.
    continue_training(model, 3, callbacks=[ks.ReleaseConstraints(epoch=1)])
    assert set(phases(model)) == {"released"}


def test_early_stopping_restores_the_phase_from_before_a_release_by_hand():
    model, worsen = plain(), Worsen(1)
    compiled(model)
    by_hand = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: epoch == 2 and ks.release(model)
    )
    stopping = keras.callbacks.EarlyStopping(
        "score", mode="min", patience=10, restore_best_weights=True
    )
    with pytest.warns(UserWarning, match=r"of the other phase.*is constrained"):
        continue_training(model, 4, callbacks=[worsen, by_hand, stopping])
    for weight, best in zip(model.get_weights(), worsen.weights, strict=True):
        np.testing.assert_array_equal(weight, best)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_early_stopping_after_the_release_is_nothing_special(order):
    model, worsen = train(3, order)
    assert set(phases(model)) == {"released"}
    for weight, best in zip(model.get_weights(), worsen.weights, strict=True):
        np.testing.assert_array_equal(weight, best)


@pytest.mark.parametrize("phase", PHASES)
def test_set_weights_follows_both_ways(phase):
    target, source = (trained(plain, p) for p in (phase, *set(PHASES) - {phase}))
    ks.ReleaseConstraints(epoch=0).set_model(target)
    with pytest.warns(UserWarning, match="of the other phase"):
        target.set_weights(source.get_weights())
    x, _ = data()
    np.testing.assert_allclose(to_numpy(target(x)), to_numpy(source(x)), atol=1e-6)
    continue_training(target)
    assert np.isfinite(target.get_weights()[0]).all()


@pytest.mark.parametrize("phase", PHASES)
def test_set_weights_is_done_when_it_warns(phase):
    target, source = (trained(plain, p) for p in (phase, *set(PHASES) - {phase}))
    ks.ReleaseConstraints(epoch=0).set_model(target)
    with pytest.raises(UserWarning, match="of the other phase"):
        # Warnings are errors in tests.
        target.set_weights(source.get_weights())
    x, _ = data()
    np.testing.assert_allclose(to_numpy(target(x)), to_numpy(source(x)), atol=1e-6)


def test_phases_may_change_in_both_directions():
    first, second = trained(plain, "released"), trained(plain, "released")
    weights = first.get_weights()
    ks.ReleaseConstraints(epoch=0).set_model(second)
    constrained = trained(plain, "constrained").get_weights()
    with pytest.warns(UserWarning, match="is constrained"):
        second.set_weights([*constrained[:6], *weights[9:]])
    assert phases(second) == ["constrained", "released"]
    with pytest.warns(UserWarning, match=r"is released, .* is constrained"):
        second.set_weights([*weights[:9], *constrained[6:]])
    assert phases(second) == ["released", "constrained"]


def test_moving_averages_start_at_the_restored_weights():
    model = plain()
    compiled(model, keras.optimizers.Adam(use_ema=True))
    continue_training(model)
    weights = model.get_weights()
    ks.release(model)
    ks.ReleaseConstraints(epoch=0).set_model(model)
    with pytest.warns(UserWarning, match="of the other phase"):
        model.set_weights(weights)
    region = model.layers[1].region_constraint
    for variable in (region.peak_logits, region.amplitude, region.tail_slopes):
        average = slot_value(model.optimizer, variable, "average")
        np.testing.assert_array_equal(to_numpy(average), to_numpy(variable.value))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_layer_that_comes_back_can_be_unfrozen(frozen):
    layer = ks.RegionConstraint()
    layer.build((None, 2))
    layer.release()
    layer.trainable = not frozen
    layer_phase.change_phase(layer)
    names = ["peak_logits", "amplitude", "tail_slopes", "slope"]
    assert [v.name for v in layer.weights] == names
    assert [v.trainable for v in layer.weights] == [not frozen] * 4
    layer.trainable = True
    assert [v.trainable for v in layer.weights] == [True] * 4


@pytest.mark.parametrize("wrong", ["length", "shape"])
def test_weights_that_fit_in_no_phase_change_nothing(wrong):
    model = trained(behind_dense, "released")
    ks.ReleaseConstraints(epoch=0).set_model(model)
    weights = trained(behind_dense, "constrained").get_weights()
    weights = weights[:-1] if wrong == "length" else [*weights[:-1], np.ones(7)]
    before = state(model)
    with pytest.raises(ValueError, match="set_weights"):
        model.set_weights(weights)
    assert phases(model) == ["released"]
    assert_same_state(model, before, atol=0)


def test_second_moments_come_back_to_their_size():
    """What the release multiplied, the way back divides by."""
    model = trained(plain, "constrained")
    region = model.layers[1].region_constraint

    def velocity(variable):
        return to_numpy(slot_value(model.optimizer, variable, "velocity"))

    before = velocity(region.amplitude)
    largest = np.concatenate(
        [velocity(region.peak_logits), velocity(region.tail_slopes), before[None]]
    ).max(axis=0)
    weights = model.get_weights()
    ks.release(model)
    ks.ReleaseConstraints(epoch=0).set_model(model)
    with pytest.warns(UserWarning, match="of the other phase"):
        model.set_weights(weights)
    after = velocity(region.amplitude)
    np.testing.assert_allclose(after, largest, rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(model.weights[0].value), weights[0])


def test_a_checkpoint_of_the_best_weights_knows_its_phase(tmp_path):
    path = tmp_path / "best.weights.h5"
    for best in (1, 3):
        checkpoint = keras.callbacks.ModelCheckpoint(
            path,
            monitor="score",
            mode="min",
            save_best_only=True,
            save_weights_only=True,
        )
        model, worsen = plain(), Worsen(best)
        compiled(model)
        release = ks.ReleaseConstraints(epoch=2)
        continue_training(model, 5, callbacks=[worsen, checkpoint, release])
        fresh = plain()
        followers = ks.load_weights(fresh, path)
        assert len(followers) == (0 if best == 1 else 2)
        model.load_weights(path)
        for restored in (fresh, model):
            for a, b in zip(restored.get_weights(), worsen.weights, strict=True):
                np.testing.assert_array_equal(a, b)
