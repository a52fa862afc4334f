"""Release by hand, and `ReleaseConstraints` inside `fit`."""

from contextlib import nullcontext
from functools import partial

import keras
import numpy as np
import pytest
from backend import to_numpy
from keras import layers
from models import EAGERLY

import keras_sawtooth as ks
from keras_sawtooth import layer_phase

BACKEND = keras.backend.backend()


def data(rows=64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)).astype("float32")
    return x, np.sin(2 * x[:, :1]) * x[:, 1:2]


def build(units=8, depth=2, **arguments):
    return keras.Sequential(
        [
            keras.Input((3,)),
            ks.SawtoothDense(units, depth, **arguments),
            ks.SawtoothDense(units, depth, **arguments),
            layers.Dense(1),
        ]
    )


def fit(model, epochs=4, callbacks=(), **arguments):
    x, y = data()
    arguments = {"batch_size": 16, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **arguments)


# One layer


@pytest.mark.parametrize("scales", ["tied", "free"])
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10])
def test_release_keeps_the_function_inside_and_far_outside(depth, scales):
    layer = ks.RegionConstraint(depth=depth, scales=scales)
    layer.build((None, 32))
    if scales == "free":
        # Scales of mixed signs, as training may leave them.
        rng = np.random.default_rng(depth)
        sizes = 4.0 ** -np.arange(depth)[:, None]
        layer.amplitude.assign(rng.normal(size=(depth, 32)) * sizes)
    grids = [np.linspace(-2, 2, 1000), np.linspace(-1e4, 1e4, 1000)]
    for grid in grids:
        z = np.repeat(grid[:, None], 32, axis=1).astype("float32")
        twin = ks.RegionConstraint(depth=depth, scales=scales)
        twin.build((None, 32))
        twin.set_weights(layer.get_weights())
        before = to_numpy(twin(z))
        twin.release()
        after = to_numpy(twin(z))
        ranges = np.ptp(before, axis=0)
        assert np.all(np.abs(after - before).max(axis=0) <= 1e-5 * ranges)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_far_outside_of_the_domain_a_release_is_exact(depth):
    layer = ks.RegionConstraint(depth, tails="line", slope_initializer="zeros")
    layer.build((None, 16))
    layer.release()
    z = np.repeat([[-1e30], [-100.0], [-1.0], [1.0], [100.0], [1e30]], 16, axis=1)
    outputs = to_numpy(layer(z))
    np.testing.assert_array_equal(outputs[np.abs(z) > 1], 0)
    np.testing.assert_allclose(outputs, 0, atol=1e-7)


@pytest.mark.parametrize(
    "arguments",
    [{"peak_initializer": ks.RandomPeaks([1e-3] * 25)}, {"domain": (0, 1e-30)}],
)
def test_release_of_scales_below_what_float32_can_hold(arguments):
    layer = ks.RegionConstraint(depth=24, tails="line", **arguments)
    low, high = layer.domain
    z = np.linspace(low, high, 200).reshape(50, 4).astype("float32")
    before = to_numpy(layer(z))
    layer.release()
    np.testing.assert_allclose(to_numpy(layer(z)), before, rtol=0, atol=1e-6 * high)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="for TensorFlow only"
)
def test_release_where_tensorflow_looks_for_nan():
    import tensorflow as tf

    layer = ks.RegionConstraint()
    layer.build((None, 2))
    tf.debugging.enable_check_numerics()
    try:
        layer.release()
    finally:
        tf.debugging.disable_check_numerics()


@pytest.mark.parametrize("logit", [2, 20])
def test_release_of_saturated_peaks_keeps_the_function(logit):
    layer = ks.RegionConstraint(depth=3)
    layer.build((None, 64))
    rng = np.random.default_rng(0)
    layer.peak_logits.assign(rng.choice([-logit, logit], (4, 64)))
    z = np.repeat(np.linspace(-3, 3, 1000)[:, None], 64, axis=1)
    before = to_numpy(layer(z))
    layer.release()
    assert np.abs(to_numpy(layer(z)) - before).max() < 1e-5 * np.ptp(before)


@pytest.mark.parametrize("constrained", [True, False])
def test_the_phase_is_visible(constrained):
    for layer in (ks.RegionConstraint(), ks.SawtoothDense(2)):
        layer.build((None, 2))
        if not constrained:
            layer.release()
        assert layer.constrained is constrained
        assert layer.get_config()["constrained"] is constrained
        if constrained:
            assert layer.scales.shape == (3, 2)
            with pytest.raises(RuntimeError, match="no `relu_blocks`"):
                _ = layer.relu_blocks
        else:
            assert layer.relu_blocks.kernel.shape == (2, 4, 4, 2)
            for attribute in ("peaks", "scales"):
                message = f"was released and has no `{attribute}`"
                with pytest.raises(RuntimeError, match=message):
                    getattr(layer, attribute)


def test_releasing_twice_or_too_early():
    layer = ks.SawtoothDense(2)
    with pytest.raises(ValueError, match="not built yet"):
        layer.release()
    with pytest.raises(RuntimeError, match="not built yet"):
        _ = layer.peaks
    layer.build((None, 2))
    layer.release()
    with pytest.raises(ValueError, match="was released before"):
        layer.release()


def test_a_frozen_layer_stays_frozen():
    layer = ks.SawtoothDense(2, trainable=False)
    layer.build((None, 2))
    layer.release()
    assert layer.trainable_variables == []


def test_variables_that_were_frozen_one_by_one_have_frozen_successors():
    layer = ks.SawtoothDense(2)
    layer.build((None, 2))
    region = layer.region_constraint
    for variable in (region.peak_logits, region.amplitude, region.tail_slopes):
        variable.trainable = False
    layer.release()
    assert [v.name for v in layer.trainable_variables] == ["kernel", "bias", "slope"]
    layer_phase.change_phase(region)
    assert [v.name for v in layer.trainable_variables] == ["kernel", "bias", "slope"]


@pytest.mark.skipif(BACKEND != "torch", reason="torch's own way")
def test_tensors_that_were_frozen_have_frozen_successors():
    model = build()
    for parameter in model.layers[0].parameters():
        parameter.requires_grad_(False)
    ks.release(model)
    frozen = [not any(p.requires_grad for p in x.parameters()) for x in model.layers]
    assert frozen == [True, False, False]


def test_a_released_layer_can_be_rebuilt_from_its_config():
    layer = ks.SawtoothDense(4, depth=2)
    x = data()[0]
    layer(x)
    layer.release()
    twin = ks.SawtoothDense.from_config(layer.get_config())
    twin.build((None, 3))
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(to_numpy(twin(x)), to_numpy(layer(x)))


def test_biases_are_stored_in_the_size_of_their_neurons():
    # Equal peaks of 1/2 make neurons of exactly 4^-i, and a step of the stored bias
    # must move all of them by the same share.
    layer = ks.RegionConstraint(
        depth=5,
        peak_initializer="zeros",
        amplitude_initializer="ones",
        relu_rate=0.5,
        constrained=False,
    )
    layer.build((None, 2))
    layer.relu_bias.assign(np.full((4, 4, 2), 0.25))
    blocks = layer.relu_blocks
    size, sizes = to_numpy(blocks.input_kernel)[0, 0], []
    for kernel in to_numpy(blocks.kernel):
        size = size * kernel[3, 3, 0]  # The constant neurons.
        sizes.append(size)
    shares = to_numpy(blocks.bias)[:, 0, 0] / sizes
    np.testing.assert_allclose(shares, 0.125, rtol=1e-6)


# A model


def test_release_finds_shared_and_nested_layers_once():
    shared = ks.SawtoothDense(4)
    inner = keras.Sequential([keras.Input((4,)), ks.RegionConstraint(), shared])
    x = keras.Input((4,))
    model = keras.Model(x, inner(shared(x)) + shared(x))
    assert len(ks.release(model)) == 2
    with pytest.raises(ValueError, match="no constrained layer to release"):
        ks.release(model)


def test_release_of_a_plain_or_unbuilt_model():
    plain = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="no constrained layer"):
        ks.release(plain)
    for wrong in (None, [plain], ks.SawtoothDense(2)):
        with pytest.raises(TypeError, match=r"takes a `keras\.Model`"):
            ks.release(wrong)
    # The second layer is not built, so the first one must not be touched.
    first = ks.SawtoothDense(2)
    first.build((None, 3))
    with pytest.raises(ValueError, match="not built yet"):
        ks.release(keras.Sequential([first, ks.SawtoothDense(2)]))
    assert first.constrained


def test_a_layer_that_is_never_called_is_no_obstacle():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = ks.SawtoothDense(4)
            self.auxiliary = ks.SawtoothDense(4)
            self.head = layers.Dense(1)

        def build(self, input_shape):
            self.hidden.build(input_shape)
            self.head.build((None, 4))

        def call(self, x):
            return self.head(self.hidden(x))

    model = Model()
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    model.build((None, 3))
    history = fit(model, callbacks=[ks.ReleaseConstraints(epoch=2)]).history
    assert history["constrained"] == [1.0, 1.0, 0.0, 0.0]
    x, _ = data()
    assert not model.auxiliary.constrained
    assert model.auxiliary(x).shape == (64, 4)
    model.auxiliary.region_constraint.relu_blocks  # noqa: B018


def test_training_goes_on_after_a_release_between_two_fits():
    x, y = data()
    model = build()
    model.compile(keras.optimizers.SGD(1e-2), "mse")
    fit(model, epochs=2)
    before = model.evaluate(x, y, verbose=0)
    prediction = model.predict(x, verbose=0)
    ks.release(model)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(before, rel=1e-4)
    np.testing.assert_allclose(model.predict(x, verbose=0), prediction, atol=1e-5)
    fit(model, epochs=2)
    assert model.evaluate(x, y, verbose=0) < before
    assert np.any(model.predict(x, verbose=0) != prediction)


class Nested(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = build(units=2)

    def call(self, x):
        return self.inner(x)


def functional():
    x = keras.Input((3,))
    return keras.Model(x, build(units=2)(ks.SawtoothDense(3)(x)))


@pytest.mark.parametrize("make", [build, functional, Nested])
def test_steps_after_a_release_are_those_of_a_model_that_starts_released(make):
    """Nothing of the constrained phase is left: no gradients, no old function."""
    x, y = data()
    model, twin = make(), make()
    for each in (model, twin):
        each.compile(keras.optimizers.SGD(0.1), "mse")
        each.train_on_batch(x, y)
    ks.release(twin)
    twin.compile(keras.optimizers.SGD(0.1), "mse")

    class Copy(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                twin.set_weights(self.model.get_weights())

    # In one `fit`, as a new one would clear up after the release.
    callbacks = [ks.ReleaseConstraints(epoch=1), Copy()]
    fit(model, epochs=3, callbacks=callbacks, batch_size=32)
    fit(twin, epochs=2, batch_size=32)
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="torch keeps lists of parameters")
@pytest.mark.parametrize("make", [build, functional, Nested])
def test_torch_lists_the_variables_in_force(make):
    model = make()
    model(data()[0])
    ks.release(model)
    listed = {id(parameter) for parameter in model.parameters()}
    assert listed == {id(v.value) for v in model.trainable_variables}
    model.load_state_dict(model.state_dict())


# The callback


class Phases(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.constrained = []

    def on_epoch_end(self, epoch, logs=None):
        self.constrained.append(self.model.layers[0].constrained)


COMPILE = [
    {"jit_compile": False},
    {"run_eagerly": True},
]
if BACKEND != "torch":  # torch.compile is slow; tested once below
    COMPILE.append({"jit_compile": True, "steps_per_execution": 2})


@pytest.mark.parametrize("arguments", COMPILE, ids=str)
def test_release_at_an_epoch(arguments):
    x, y = data()
    model = build()
    model.compile(keras.optimizers.Adam(1e-3), "mse", **arguments)
    phases = Phases()
    callbacks = [ks.ReleaseConstraints(epoch=2), phases]
    history = fit(model, callbacks=callbacks, validation_data=(x[:32], y[:32])).history
    assert phases.constrained == [True, True, False, False]
    assert history["constrained"] == [1.0, 1.0, 0.0, 0.0]
    assert int(model.optimizer.iterations) == 16
    # Validation sees the released weights, not a stale compiled function.
    assert history["val_loss"][-1] == pytest.approx(
        model.evaluate(x[:32], y[:32], verbose=0), rel=1e-4
    )
    assert history["val_loss"][-1] != history["val_loss"][-2]


@pytest.mark.skipif(BACKEND != "torch", reason="torch.compile")
def test_release_under_torch_compile(monkeypatch):
    import torch

    # The programs that torch would compile for minutes are not what is tested.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model = build(units=2, depth=1)
    model.compile("adam", "mse", jit_compile=True)
    history = fit(model, epochs=2, callbacks=[ks.ReleaseConstraints(epoch=1)])
    assert history.history["constrained"] == [1.0, 0.0]
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.skipif(BACKEND != "torch", reason="torch.compile")
@pytest.mark.parametrize("depth", [1, 3])
def test_a_layer_is_one_graph_for_torch_compile(depth):
    import torch

    layer = ks.SawtoothDense(4, depth=depth)
    x = torch.linspace(-2, 2, 24).reshape(8, 3)
    layer(x)
    for _ in range(2):
        whole = torch.compile(lambda x: layer(x), fullgraph=True, backend="eager")
        torch.testing.assert_close(whole(x), layer(x))
        if layer.constrained:
            layer.release()


@pytest.mark.skipif(BACKEND != "torch", reason="for torch only")
def test_torch_lists_the_released_parameters():
    """`zero_grad` sees listed parameters only: others would add gradients up."""

    class Listed(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            listed = {id(p) for p in self.model.parameters()}
            assert listed >= {id(v.value) for v in self.model.weights}

    model = build()
    model.compile("adam", "mse")
    fit(model, epochs=3, callbacks=[ks.ReleaseConstraints(epoch=1), Listed()])
    names = model.state_dict()
    assert not any("peak_logits" in name for name in names)
    assert any("relu_input_kernel" in name for name in names)


def test_release_at_the_first_epoch():
    model = build()
    model.compile("adam", "mse")
    history = fit(model, epochs=1, callbacks=[ks.ReleaseConstraints(epoch=0)])
    assert history.history["constrained"] == [0.0]


@pytest.mark.parametrize(
    "values, mode, expected",
    [
        ([3, 2, 2, 2, 2], "min", 4),
        ([3, 2, 1.99, 1.98, 1.97], "min", 4),
        ([1, 2, 2, 2, 2], "max", 4),
        ([5, 4, 3, 2, 1], "min", None),
        ([np.nan, 4, 3, 2, 1], "min", None),
        ([np.nan, 3, 3, 3, 3], "min", 4),
        ([3, np.nan, np.nan, 1, 1], "min", 3),
        ([np.inf, 4, 3, 2, 1], "min", None),
        ([np.inf, 3, 3, 3, 3], "min", 4),
        ([3, 2, 2, 1, 1], "auto", None),
    ],
)
def test_release_on_a_plateau(values, mode, expected):
    monitor = "loss" if mode == "auto" else "measured_loss"

    class Metric(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs[monitor] = float(values[epoch])

    model = build()
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=EAGERLY)
    # By default a share of the best value, of which infinity has none.
    least = {} if np.isinf(values[0]) else {"min_delta": 0.1}
    release = ks.ReleaseConstraints(monitor=monitor, patience=2, mode=mode, **least)
    callbacks = [Metric(), release]
    history = fit(model, epochs=5, batch_size=64, callbacks=callbacks).history
    constrained = history["constrained"]
    assert (constrained.index(0.0) if 0.0 in constrained else None) == expected
    assert len(constrained) == 5, "a plateau must not stop the training"


def test_release_on_a_plateau_of_a_validation_metric():
    x, y = data()
    model = build()
    model.compile(
        keras.optimizers.SGD(0.0), "mse", metrics=["mae"], run_eagerly=EAGERLY
    )
    release = ks.ReleaseConstraints(monitor="val_mae", patience=1)
    history = fit(model, callbacks=[release], validation_data=(x, y)).history
    assert history["constrained"] == [1.0, 1.0, 0.0, 0.0]


def test_a_callback_looks_for_a_plateau_in_every_training():
    # Losses of the second one are larger than any of the first, and fall.
    model = build()
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    logged = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(quantity=losses[epoch])
    )
    release = ks.ReleaseConstraints(monitor="quantity", patience=1, mode="min")
    for start in (8.0, 800.0):
        losses = [start, start / 2, start / 4]
        fit(model, epochs=3, batch_size=64, callbacks=[logged, release])
        assert model.layers[0].constrained


def test_a_plateau_leaves_early_stopping_to_early_stopping():
    model = build()
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=EAGERLY)
    for order in (1, -1):
        callbacks = [
            ks.ReleaseConstraints(patience=1),
            keras.callbacks.EarlyStopping(monitor="loss", patience=2, min_delta=1e-3),
        ]
        assert len(fit(model, epochs=6, callbacks=callbacks[::order]).epoch) == 3


def test_several_fits_in_a_row():
    model = build()
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    release = ks.ReleaseConstraints(epoch=3)
    phases = []
    for start in (0, 2, 4):
        arguments = {"epochs": start + 2, "initial_epoch": start}
        with ends_constrained() if start == 0 else nullcontext():
            history = fit(model, **arguments, callbacks=[release])
        phases += history.history["constrained"]
    assert phases == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert int(model.optimizer.iterations) == 6 * 4
    # And the callback may be there again from the start.
    assert fit(model, epochs=1, callbacks=[release]).history["constrained"] == [0]


@pytest.mark.parametrize("frozen, of_them", [(False, ""), (True, ", 1 of them frozen")])
def test_the_log_line(frozen, of_them, capsys):
    model = build()
    model.layers[0].trainable = not frozen
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    fit(model, epochs=2, callbacks=[ks.ReleaseConstraints(epoch=1, verbose=1)])
    line = f"Epoch 2: released 2 layer(s){of_them}; their ReLU weights"
    assert line in capsys.readouterr().out


def ends_constrained():
    return pytest.warns(UserWarning, match="will stay constrained: the last epoch of")


class StopAtOnce(keras.callbacks.Callback):
    """After the second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 1


def test_a_training_without_a_release_says_so(capsys):
    model = build()
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    stop = StopAtOnce()
    for epochs, callbacks in [(2, []), (9, [stop])]:
        # At the start, and once.
        with ends_constrained() as caught:
            release = ks.ReleaseConstraints(epoch=epochs)
            fit(model, batch_size=64, epochs=epochs, callbacks=[release, *callbacks])
        assert sum(x.category is UserWarning for x in caught) == 1
    with pytest.warns(UserWarning, match="constrained: its last epoch was 1, counted"):
        fit(model, epochs=9, callbacks=[ks.ReleaseConstraints(epoch=8), stop])
    # Nobody knows how long a loop by hand will go on.
    fit(model, batch_size=64, epochs=1, callbacks=[ks.ReleaseConstraints(epoch=2)])
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=100)
    wait = ks.ReleaseConstraints(monitor="loss", patience=5, verbose=1)
    with pytest.warns(UserWarning, match="after patience=5 without .* `loss`"):
        fit(model, batch_size=64, epochs=9, callbacks=[stop, wait])
    both = {"monitor": "loss", "patience": 2, "min_delta": 100}
    callbacks = [keras.callbacks.EarlyStopping(**both), ks.ReleaseConstraints(**both)]
    with pytest.warns(UserWarning, match="after patience=2 without .* `loss`"):
        fit(model, batch_size=64, epochs=9, callbacks=callbacks)
    wait = ks.ReleaseConstraints(patience=1, min_delta=0, verbose=1)
    fit(model, batch_size=64, epochs=3, callbacks=[wait])
    assert "No release: no plateau of `loss` before the end" in capsys.readouterr().out
    ks.release(model)
    fit(model, batch_size=64, epochs=2, callbacks=[wait])
    assert "were released before" in capsys.readouterr().out


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_the_soonest_release_by_a_plateau(patience):
    model = build()
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    release = ks.ReleaseConstraints(patience=patience, min_delta=100)
    too_few = max(patience, 1) + 1
    with pytest.warns(UserWarning, match=f"constrained: .* patience={patience} leads"):
        fit(model, batch_size=64, epochs=too_few, callbacks=[release])
    last = too_few + 3
    fit(model, batch_size=64, initial_epoch=3, epochs=last + 1, callbacks=[release])
    assert model.history.history["constrained"] == [1.0] * too_few + [0.0]


def test_a_plateau_in_a_loop_by_hand():
    """`CallbackList` gives the model no history unless it is asked to."""
    model = build()
    release = ks.ReleaseConstraints(patience=1, min_delta=100)
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    callbacks = keras.callbacks.CallbackList([release], model=model, epochs=3)
    callbacks.on_train_begin()
    for epoch in range(3):
        callbacks.on_epoch_begin(epoch)
        assert model.layers[0].constrained == (epoch < 2)
        callbacks.on_epoch_end(epoch, {"loss": 1.0})
    callbacks.on_train_end()


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("share, expected", [(0.98, None), (0.995, 3)])
def test_a_plateau_has_no_unit(unit, share, expected):
    """By default a hundredth of the best value counts as an improvement."""

    class Loss(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = unit * share**epoch

    model = build()
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    callbacks = [Loss(), ks.ReleaseConstraints(monitor="loss", patience=2)]
    history = fit(model, epochs=5, batch_size=64, callbacks=callbacks).history
    phases = history["constrained"]
    assert (phases.index(0.0) if 0.0 in phases else None) == expected


def test_a_model_without_layers_to_release_is_refused_at_the_start():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    before = model.get_weights()
    with pytest.raises(ValueError, match="found no layer to release"):
        fit(model, callbacks=[ks.ReleaseConstraints(epoch=1)])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_monitor_that_is_not_logged_is_refused_after_one_epoch():
    model = build()
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    with pytest.raises(ValueError, match=r"monitor='accuracy'.*'loss'"):
        fit(model, callbacks=[ks.ReleaseConstraints(monitor="accuracy", patience=1)])
    assert int(model.optimizer.iterations) == 4


def test_a_validation_metric_without_validation():
    """A warning at once, as validation may come later, and another one in the end."""
    release = ks.ReleaseConstraints(monitor="val_loss", patience=1)
    message = r"monitor='val_loss'.*'loss'"
    model = build()
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    with (
        pytest.warns(UserWarning, match=message + r".*`validation_split`\.$"),
        pytest.warns(UserWarning, match=message + ".* Nothing was released"),
    ):
        history = fit(model, epochs=3, callbacks=[release]).history
    assert history["constrained"] == [1.0, 1.0, 1.0]


def test_training_for_no_epochs():
    model = build()
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    fit(model, epochs=0, callbacks=[ks.ReleaseConstraints(monitor="val_loss")])
    assert model.layers[0].constrained


@pytest.mark.filterwarnings("ignore:`ReleaseConstraints` waits")
def test_a_validation_metric_of_every_second_epoch():
    x, y = data()
    model = build()
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=EAGERLY)
    release = ks.ReleaseConstraints(monitor="val_loss", patience=1)
    history = fit(
        model,
        epochs=5,
        callbacks=[release],
        validation_data=(x, y),
        validation_freq=2,
    ).history
    assert history["constrained"] == [1.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("plain", [True, False])
def test_an_unbuilt_model(plain):
    """TensorFlow builds a model in its first step, the others before."""
    hidden = layers.Dense(4) if plain else ks.SawtoothDense(4)
    model = keras.Sequential([hidden, layers.Dense(1)])
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    if plain:
        with pytest.raises(ValueError, match="found no layer to release"):
            fit(model, callbacks=[ks.ReleaseConstraints(epoch=1)])
    elif BACKEND == "tensorflow":
        with pytest.raises(ValueError, match="Build it before `fit`"):
            fit(model, callbacks=[ks.ReleaseConstraints(epoch=0)])
    else:
        history = fit(model, epochs=1, callbacks=[ks.ReleaseConstraints(epoch=0)])
        assert history.history["constrained"] == [0.0]


def test_a_plateau_is_forgotten_with_the_end_of_training():
    release = ks.ReleaseConstraints(patience=1)
    for _ in range(2):
        model = build()
        model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=EAGERLY)
        with ends_constrained():
            history = fit(model, epochs=2, callbacks=[release]).history
        assert history["constrained"] == [1.0, 1.0]


@pytest.mark.parametrize("last", [1e-4, 0.0])
def test_vanishing_free_scales_do_not_explode_after_the_release(last):
    for scales in ([1.0, -0.25, last], [last, 0.25, 0.06]):
        model = keras.Sequential(
            [keras.Input((4,)), ks.RegionConstraint(depth=3, scales="free")]
        )
        layer = model.layers[0]
        layer.amplitude.assign(np.repeat(np.array(scales)[:, None], 4, axis=1))
        model.compile(keras.optimizers.Adam(1e-3), "mse", run_eagerly=EAGERLY)
        x = np.repeat(np.linspace(-2, 2, 64)[:, None], 4, axis=1)
        before = model.predict(x, verbose=0)
        ks.release(model)
        np.testing.assert_allclose(model.predict(x, verbose=0), before, atol=1e-6)
        model.fit(x, np.sin(x), batch_size=64, verbose=0)
        assert np.abs(model.predict(x, verbose=0) - before).max() < 0.05


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"epoch": -1}, "epoch=-1"),
        ({"epoch": 1.5}, "epoch=1.5"),
        ({"epoch": True}, "epoch=True"),
        ({"epoch": "val_loss"}, "give `monitor='val_loss'`"),
        ({"epoch": 3, "monitor": "loss"}, "either `epoch` or `monitor`"),
        ({"epoch": 3, "patience": 5}, "either `epoch` or `patience`"),
        ({"epoch": 3, "mode": "max"}, "either `epoch` or `mode`"),
        ({"monitor": 3}, "monitor=3"),
        ({"patience": -1}, "patience=-1"),
        ({"verbose": "auto"}, "verbose='auto'"),
        ({"patience": "2"}, "patience='2'"),
        ({"min_delta": -0.1}, "min_delta=-0.1"),
        ({"min_delta": float("nan")}, "min_delta=nan"),
        ({"monitor": ""}, "monitor=''"),
        ({"mode": "least"}, "mode='least'"),
    ],
)
def test_bad_arguments_of_the_callback(arguments, message):
    with pytest.raises(ValueError, match=message):
        ks.ReleaseConstraints(**arguments)
