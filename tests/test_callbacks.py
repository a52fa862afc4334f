"""Keras' callbacks in front of `ReleaseConstraints` and behind it."""

import csv
import functools
import importlib.util
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from models import EAGERLY

import keras_sawtooth as ks

pytestmark = pytest.mark.workflow("callbacks")

RELEASE = 2
EPOCHS = 4


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 3)).astype("float32")
    return x, np.sin(2 * x[:, :1])


def build():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), ks.SawtoothDense(3, depth=2), keras.layers.Dense(1)]
    )
    # Compiling takes longer than these few steps.
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.5),
        "mse",
        run_eagerly=EAGERLY,
    )
    return model


def fit(model, *callbacks, epochs=EPOCHS, **arguments):
    x, y = data()
    return model.fit(
        x,
        y,
        batch_size=16,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        validation_data=(x, y),
        callbacks=list(callbacks),
        **arguments,
    ).history


def checkpoint(path, **arguments):
    return keras.callbacks.ModelCheckpoint(str(path), **arguments)


WATCHING = {
    "weights of every epoch": lambda path: checkpoint(
        path / "{epoch}.weights.h5", save_weights_only=True
    ),
    "model of every epoch": lambda path: checkpoint(path / "{epoch}.keras"),
    "best model": lambda path: checkpoint(path / "best.keras", save_best_only=True),
    "log": lambda path: keras.callbacks.CSVLogger(str(path / "log.csv")),
    "terminate on NaN": lambda path: keras.callbacks.TerminateOnNaN(),
    "lambda": lambda path: keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: None
    ),
}
# The callback writes with TensorFlow on every backend.
if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("tensorboard"):
    WATCHING["TensorBoard"] = lambda path: keras.callbacks.TensorBoard(
        str(path), histogram_freq=1
    )
# These change the training or its validation.
CHANGING = {
    "rate on a plateau": lambda path: keras.callbacks.ReduceLROnPlateau(
        patience=1, min_delta=1e6, factor=0.5
    ),
    "scheduler": lambda path: keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: rate * 0.5
    ),
    "moving averages in tests": lambda path: keras.callbacks.SwapEMAWeights(),
}
CALLBACKS = WATCHING | CHANGING


def train(names, path, first):
    """Weights, history and learning rate, with the callbacks first or last."""
    model = build()
    path.mkdir(exist_ok=True)
    callbacks = [CALLBACKS[name](path) for name in names]
    callbacks.append(ks.ReleaseConstraints(epoch=RELEASE))
    history = fit(model, *(callbacks if first else callbacks[::-1]))
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    return model, history, rate


@functools.cache
def plain():
    model = build()
    return model, fit(model, ks.ReleaseConstraints(epoch=RELEASE)), 0.05


@pytest.mark.parametrize(
    "names", [tuple(WATCHING), *((name,) for name in CHANGING)], ids=" ".join
)
def test_the_order_of_the_callbacks_does_not_matter(names, tmp_path):
    runs = [train(names, tmp_path / str(first), first) for first in (True, False)]
    changing = names[0] in CHANGING
    if not changing:
        runs.append(plain())
    weights, history, rate = runs[0][0].get_weights(), *runs[0][1:]
    assert history["constrained"] == [1.0, 1.0, 0.0, 0.0]
    for model, other_history, other_rate in runs[1:]:
        assert other_rate == pytest.approx(rate)
        for key in ("loss", "val_loss", "constrained"):
            assert other_history[key] == pytest.approx(history[key], rel=1e-5)
        for a, b in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    if changing:
        assert history["val_loss"][-1] != plain()[1]["val_loss"][-1]


@pytest.mark.parametrize(
    "name, rates",
    [
        ("scheduler", [0.025, 0.0125, 0.00625, 0.003125]),
        ("rate on a plateau", [0.05, 0.05, 0.025, 0.0125]),
    ],
)
def test_rates_that_callbacks_set_outlive_the_release(name, rates, tmp_path):
    for first in (True, False):
        _, history, rate = train([name], tmp_path, first)
        assert history["learning_rate"] == pytest.approx(rates)
        # The plateau's callback halves the rate after the last epoch, too.
        assert rate == pytest.approx(rates[-1] * (0.5 if "plateau" in name else 1))


@pytest.mark.parametrize("first", [True, False])
def test_averages_between_epochs_must_be_swapped_out_before_the_release(first):
    """In front of `ReleaseConstraints`; behind it, the averages are released."""
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    callbacks = [swap, ks.ReleaseConstraints(epoch=RELEASE)]
    losses = fit(build(), *(callbacks if first else callbacks[::-1]))["loss"]
    expected = plain()[1]["loss"]
    assert losses[:RELEASE] == pytest.approx(expected[:RELEASE], rel=1e-5)
    assert (losses == pytest.approx(expected, rel=1e-5)) is first


def recording_weights(recorded):
    class Recorder(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            recorded[epoch + 1] = self.model.get_weights()

    return Recorder()


@pytest.mark.parametrize("phase, epoch", [("constrained", 2), ("released", 3)])
def test_training_goes_on_from_a_checkpoint(phase, epoch, tmp_path):
    """To the weights of the run that was not interrupted."""
    model, recorded = build(), {}
    callbacks = [
        checkpoint(tmp_path / "{epoch}.keras"),
        checkpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
    ]
    release = [ks.ReleaseConstraints(epoch=RELEASE)]
    fit(model, *release, *callbacks, recording_weights(recorded))

    whole = keras.models.load_model(tmp_path / f"{epoch}.keras")
    assert whole.layers[0].constrained is (phase == "constrained")
    whole.run_eagerly = EAGERLY
    # A file of weights holds the optimizer's, too; Keras wants both built before.
    fresh = build()
    if phase == "released":
        ks.release(fresh)
    fresh.optimizer.build(fresh.trainable_variables)
    fresh.load_weights(tmp_path / f"{epoch}.weights.h5")
    for loaded in (whole, fresh):
        again = {}
        fit(loaded, *release, recording_weights(again), initial_epoch=epoch)
        assert list(again) == list(range(epoch + 1, EPOCHS + 1))
        for number, weights in again.items():
            for a, b in zip(weights, recorded[number], strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("phase, losses", [("constrained", 1), ("released", 3)])
def test_the_best_model_is_saved_in_its_phase(phase, losses, tmp_path):
    class Best(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = float(abs(epoch - losses))

    recorded = {}
    fit(
        build(),
        Best(),
        ks.ReleaseConstraints(epoch=RELEASE),
        CALLBACKS["best model"](tmp_path),
        recording_weights(recorded),
    )
    best = keras.models.load_model(tmp_path / "best.keras")
    assert best.layers[0].constrained is (phase == "constrained")
    for a, b in zip(best.get_weights(), recorded[losses + 1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("first", [True, False])
def test_the_log_names_the_phase_to_callbacks_behind_only(first, tmp_path):
    """Keras hands one dictionary of logs from callback to callback."""
    train(["log"], tmp_path, first)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == EPOCHS
    phases = [row.get("constrained") for row in rows]
    assert phases == ([None] * 4 if first else ["1.0", "1.0", "0.0", "0.0"])


@pytest.mark.parametrize(
    "phase, epoch, first", [("constrained", 1, True), ("released", 3, False)]
)
def test_nan_stops_the_training(phase, epoch, first):
    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch_now, logs=None):
            if epoch_now == epoch:
                bias = self.model.layers[-1].bias
                bias.assign(np.full(bias.shape, np.nan))

    callbacks = [keras.callbacks.TerminateOnNaN(), ks.ReleaseConstraints(epoch=RELEASE)]
    callbacks = callbacks if first else callbacks[::-1]
    too_early = pytest.warns(UserWarning, match="are still constrained")
    with too_early if phase == "constrained" else nullcontext():
        history = fit(build(), Poison(), *callbacks)
    assert len(history["loss"]) == epoch + 1
    assert history["constrained"][-1] == (phase == "constrained")


@pytest.mark.parametrize("first", [True, False])
def test_what_a_callback_sees_at_the_epoch_of_the_release(first):
    """In front of `ReleaseConstraints` the old phase, behind it the new one."""
    model, seen = build(), []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(model.layers[0].constrained)
    )
    callbacks = [watch, ks.ReleaseConstraints(epoch=RELEASE)]
    fit(model, *(callbacks if first else callbacks[::-1]))
    assert seen == ([True, True, True, False] if first else [True, True, False, False])
