"""The optimizer's state across a release, value by value."""

import gc
import re
import weakref

import keras
import numpy as np
import pytest
from backend import to_numpy
from keras import layers
from keras import ops
from models import EAGERLY
from models import compiled

import keras_sawtooth as ks
from keras_sawtooth import layer_phase
from keras_sawtooth.training.optimizer_state import carry_over
from keras_sawtooth.training.optimizer_state import copy_optimizer
from keras_sawtooth.training.optimizer_state import slot_value
from keras_sawtooth.training.second_moments import PROTECTED_STEPS
from keras_sawtooth.training.second_moments import SENSITIVITY
from keras_sawtooth.training.second_moments import second_moment_decay

pytestmark = pytest.mark.workflow("optimizers")

SCHEDULE = keras.optimizers.schedules.CosineDecay(1e-2, 100)
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(1e-2, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(1e-2, amsgrad=True),
    "adamw": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(1e-2, centered=True),
    "lion": lambda: keras.optimizers.Lion(1e-3),
    "nadam": lambda: keras.optimizers.Nadam(1e-2),
    # Its default 1e-30 underflows to 0 / 0 where a weight gets no gradient.
    "adafactor": lambda: keras.optimizers.Adafactor(1e-2, epsilon_1=1e-16),
    "schedule": lambda: keras.optimizers.Adam(SCHEDULE),
    "clipped": lambda: keras.optimizers.Adam(1e-2, global_clipnorm=1.0),
    "accumulation": lambda: keras.optimizers.Adam(1e-2, gradient_accumulation_steps=3),
    "ema": lambda: keras.optimizers.Adam(1e-2, use_ema=True),
    "ema, overwriting": lambda: keras.optimizers.Adam(
        1e-2, use_ema=True, ema_overwrite_frequency=5
    ),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(1e-2)
    ),
    "loss scale, growing": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1e-2, momentum=0.9),
        initial_scale=0.5,
        dynamic_growth_steps=3,
    ),
    "muon": lambda: keras.optimizers.Muon(1e-2, rms_rate=0.5),
    "ftrl": lambda: keras.optimizers.Ftrl(1e-2),
    "several": lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(1e-2, momentum=0.9),
            {".*kernel": keras.optimizers.Adam(1e-2)},
        )
    ),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype("float32")
    return x, np.sin(x[:, :1])


def build(optimizer, hidden=2, depth=2):
    hidden = [ks.SawtoothDense(6, depth) for _ in range(hidden)]
    model = keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])
    return compiled(model, optimizer)


def state(optimizer):
    # Keras numbers what it is given no name for.
    names = [re.sub(r"^variable_\d+$", "variable", v.name) for v in optimizer.variables]
    values = [to_numpy(v.value) for v in optimizer.variables]
    return list(zip(names, values, strict=True))


# Variables of the constrained phase alone.
GONE = ("peak_logits", "amplitude", "tail_slopes")


@each_optimizer
def test_state_of_the_variables_that_stay_is_carried_over(name):
    model = build(OPTIMIZERS[name](), hidden=1)
    old, variables = model.optimizer, model.trainable_variables
    train_on_known_gradients(old, variables, variables, range(8))
    before = [
        (slot, value)
        for slot, value in state(old)
        if not any(name in slot for name in GONE)
    ]
    ks.release(model)
    assert type(model.optimizer) is type(old) and model.optimizer is not old
    after = [item for item in state(model.optimizer) if "relu_" not in item[0]]
    assert [name for name, _ in after] == [name for name, _ in before]
    for (slot, a), (_, b) in zip(after, before, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=slot)
    assert int(model.optimizer.iterations) == int(old.iterations) > 0

    # And training goes on with it.
    variables = model.trainable_variables
    train_on_known_gradients(model.optimizer, variables, variables, range(8, 12))
    if name != "ema":
        assert all(np.isfinite(w).all() for w in model.get_weights())


# Those that `fit` or a compiled step treats in a way of its own.
INSIDE_FIT = {"adam", "accumulation", "ema, overwriting", "loss scale", "several"}


@pytest.mark.parametrize(
    "name",
    [
        name if name in INSIDE_FIT else pytest.param(name, marks=pytest.mark.long)
        for name in OPTIMIZERS
    ],
)
def test_release_inside_fit(name):
    x, y = data()
    model = build(OPTIMIZERS[name](), hidden=1)
    losses = model.fit(
        x,
        y,
        batch_size=16,
        epochs=6,
        verbose=0,
        callbacks=[ks.ReleaseConstraints(epoch=3)],
    ).history["loss"]
    assert np.isfinite(losses).all()
    # FTRL forgets what variables start at in its first steps.
    assert losses[-1] < losses[1]
    assert not model.layers[0].constrained


def slot_array(optimizer, variable, slot):
    value = slot_value(optimizer, variable, slot)
    return None if value is None else to_numpy(value)


def staying(model):
    """Variables that the release leaves alone, in the same order in both phases."""
    return [
        v
        for v in model.trainable_variables
        if v.name not in GONE and "relu_" not in v.name
    ]


def train_on_known_gradients(optimizer, variables, stay, steps):
    """The same gradients for the variables in `stay` in every run, 0 for others."""
    for step in steps:
        rng = np.random.default_rng(step)
        known = {id(v): rng.normal(size=v.shape).astype("float32") for v in stay}
        gradients = [
            keras.ops.convert_to_tensor(
                known.get(id(v), np.zeros(v.shape, "float32")), "float32"
            )
            for v in variables
        ]
        apply(optimizer, gradients, variables)


def apply(optimizer, gradients, variables):
    if keras.backend.backend() != "jax":
        optimizer.apply(gradients, variables)
        return
    # `LossScaleOptimizer.apply` of Keras 3.15 has no way but this on JAX.
    if not optimizer.built:
        optimizer.build(variables)
    groups = variables, optimizer.variables
    values, slots = ([v.value for v in group] for group in groups)
    results = optimizer.stateless_apply(slots, gradients, values)
    for group, new in zip(groups, results, strict=True):
        for variable, value in zip(group, new, strict=True):
            variable.assign(value)


@each_optimizer
def test_variables_that_stay_train_as_if_there_were_no_release(name):
    """Against the same optimizer on these variables alone, without a release.

    The release falls after the first of three steps of an accumulation.
    """
    model = build(OPTIMIZERS[name](), hidden=1)

    def twins():
        return [
            keras.Variable(to_numpy(v.value), dtype="float32", name=v.name)
            for v in staying(model)
        ]

    uninterrupted, reference = OPTIMIZERS[name](), twins()
    train_on_known_gradients(uninterrupted, reference, reference, range(10))

    variables = model.trainable_variables
    train_on_known_gradients(model.optimizer, variables, staying(model), range(4))
    restarted, again = OPTIMIZERS[name](), twins()
    ks.release(model)
    variables = model.trainable_variables
    train_on_known_gradients(model.optimizer, variables, staying(model), range(4, 10))
    for a, b in zip(staying(model), reference, strict=True):
        np.testing.assert_allclose(to_numpy(a.value), to_numpy(b.value), atol=1e-6)
    slots = [value for slot, value in state(model.optimizer) if "relu_" not in slot]
    for a, (slot, b) in zip(slots, state(uninterrupted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=slot)

    # The tolerance tells this from an optimizer that starts from zero.
    train_on_known_gradients(restarted, again, again, range(4, 10))
    differences = [
        np.abs(to_numpy(a.value) - to_numpy(b.value)).max()
        for a, b in zip(again, reference, strict=True)
    ]
    assert max(differences) > 1e-4


def adam(value, gradients, first_step, momentum, velocity, rate=1e-2):
    """Kingma and Ba, 2015, from step `first_step`, counted from 1."""
    for step, gradient in enumerate(gradients, first_step):
        momentum = 0.9 * momentum + 0.1 * gradient
        velocity = 0.999 * velocity + 0.001 * gradient**2
        corrected = momentum / (1 - 0.9**step)
        value = value - rate * corrected / (
            np.sqrt(velocity / (1 - 0.999**step)) + 1e-7
        )
    return value


def test_new_variables_follow_adam_from_the_step_count_in_force():
    x, y = data()
    model = build(keras.optimizers.Adam(1e-2))
    model.fit(x, y, batch_size=16, epochs=1, verbose=0)
    ks.release(model)
    new = [v for v in model.trainable_variables if v.name.startswith("relu_")]
    starts = [
        (to_numpy(v.value), slot_array(model.optimizer, v, "velocity")) for v in new
    ]
    rng = np.random.default_rng(0)
    # Of the size that is expected of them: the start matters.
    gradients = [
        [rng.normal(size=v.shape) * np.sqrt(v).mean() for _, v in starts]
        for _ in range(3)
    ]
    for step in gradients:
        known = {id(v): gradient for v, gradient in zip(new, step, strict=True)}
        model.optimizer.apply(
            [
                keras.ops.convert_to_tensor(
                    known.get(id(v), np.zeros(v.shape)), "float32"
                )
                for v in model.trainable_variables
            ],
            model.trainable_variables,
        )
    for i, (variable, (value, velocity)) in enumerate(zip(new, starts, strict=True)):
        expected = adam(value, [step[i] for step in gradients], 5, 0.0, velocity)
        np.testing.assert_allclose(to_numpy(variable.value), expected, atol=1e-5)
        from_zero = adam(value, [step[i] for step in gradients], 5, 0.0, 0.0)
        assert np.abs(from_zero - expected).max() > 1e-4


@pytest.mark.parametrize("name", ["adam", "accumulation", "ema, overwriting"])
def test_a_branch_without_sawtooth_does_not_notice_the_release(name):
    """Inside `fit`, whose compiled step must see the slots that were carried."""
    x, y = data()

    def train(*with_sawtooth, epochs=3, callbacks=()):
        inputs = keras.Input((3,))
        apart = layers.Dense(1, kernel_initializer="ones", name="apart")
        outputs = [apart(inputs)]
        for layer in with_sawtooth:
            outputs.append(layers.Dense(1)(layer(inputs)))
        model = keras.Model(inputs, outputs)
        model.compile(OPTIMIZERS[name](), ["mse"] * len(outputs))
        model.fit(
            x,
            [y] * len(outputs),
            batch_size=16,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
        return apart.get_weights()

    layer = ks.SawtoothDense(2, depth=2)
    released = train(layer, callbacks=[ks.ReleaseConstraints(epoch=1)])
    assert not layer.constrained
    for a, b in zip(released, train(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_muon_orthogonalises_matrices_only():
    """What Keras' `Muon` does with our variables: rank 2 only, else AdamW."""
    model = build(keras.optimizers.Muon(1e-2))
    model.optimizer.build(model.trainable_variables)
    ks.release(model)
    region = model.layers[0].region_constraint
    with_adam = {
        v.name
        for v in region.trainable_variables
        if slot_array(model.optimizer, v, "velocity") is not None
    }
    assert with_adam == {"slope", "relu_kernel", "relu_bias"}


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(beta_2=0.9),
        keras.optimizers.Muon(adam_beta_2=0.9),
        keras.optimizers.RMSprop(rho=0.9),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(beta_2=0.9)),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_decay_is_that_of_the_optimizer(optimizer):
    assert second_moment_decay(optimizer) == 0.9


@pytest.mark.parametrize("beta_2", [0.999, 0.99, 0.5])
def test_new_slots_start_where_they_must(beta_2):
    x, y = data()
    optimizer = keras.optimizers.Adam(1e-2, beta_2=beta_2, use_ema=True)
    model = build(optimizer, depth=3)
    model.fit(x, y, batch_size=16, epochs=3, verbose=0)
    region = model.layers[1].region_constraint
    known = np.concatenate(
        [
            np.atleast_2d(
                slot_array(model.optimizer, getattr(region, name), "velocity")
            )
            for name in GONE
        ]
    )
    ks.release(model)
    for variable in region.weights:
        if variable.name == "slope":
            continue
        optimizer = model.optimizer
        momentum = slot_array(optimizer, variable, "momentum")
        np.testing.assert_array_equal(momentum, 0)
        # Second moments start at the largest of the channel, and a factor, which is
        # smaller where neurons are, as far as beta_2 does not make up for that in time.
        velocity = slot_array(optimizer, variable, "velocity")
        size = {
            "relu_kernel": np.array([1, 1 / 4]).reshape(2, 1, 1, 1),
            "relu_bias": np.array([1 / 4, 1 / 16]).reshape(2, 1, 1),
            "relu_output_kernel": 1 / 16,
        }.get(variable.name, 1)
        share = np.minimum(1, size**2 * np.exp((1 - beta_2) * PROTECTED_STEPS))
        factor = (SENSITIVITY * region.relu_rate) ** 2 * share
        expected = np.broadcast_to(known.max(axis=0) * factor, velocity.shape)
        assert np.all(velocity > 0)
        np.testing.assert_allclose(velocity, expected, rtol=1e-5)
        # The moving average starts at the weights, not at zero.
        np.testing.assert_array_equal(
            slot_array(optimizer, variable, "average"), to_numpy(variable.value)
        )


def test_a_changed_learning_rate_is_kept():
    x, y = data()
    model = build(keras.optimizers.Adam(1e-2))
    model.fit(
        x,
        y,
        epochs=4,
        verbose=0,
        callbacks=[
            keras.callbacks.LearningRateScheduler(lambda e, lr: 0.5 * lr),
            ks.ReleaseConstraints(epoch=2),
        ],
    )
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate.value))
    assert rate == pytest.approx(1e-2 / 2**4)


def test_a_schedule_goes_on_from_its_step():
    x, y = data()
    model = build(keras.optimizers.Adam(SCHEDULE))
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    before = float(model.optimizer.learning_rate)
    ks.release(model)
    assert float(model.optimizer.learning_rate) == before < 1e-2


def test_mixed_float16_keeps_its_loss_scale():
    x, y = data()
    with_policy = keras.dtype_policies.get("mixed_float16")
    keras.config.set_dtype_policy(with_policy)
    try:
        model = build(keras.optimizers.Adam(1e-3))
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        model.optimizer.build(model.trainable_variables)
        model.optimizer.dynamic_scale.assign(64.0)
        history = model.fit(
            x,
            y,
            batch_size=16,
            epochs=4,
            verbose=0,
            callbacks=[ks.ReleaseConstraints(epoch=2)],
        )
    finally:
        keras.config.set_dtype_policy("float32")
    assert to_numpy(model.optimizer.dynamic_scale.value) == 64
    assert to_numpy(model.optimizer.step_counter.value) == 16
    assert np.isfinite(history.history["loss"]).all()


def test_variables_excluded_from_weight_decay_stay_so():
    x, y = data()
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = build(optimizer)
    model.fit(x, y, epochs=1, verbose=0)
    ks.release(model)
    region = model.layers[0].region_constraint
    optimizer = model.optimizer
    assert not optimizer._use_weight_decay(model.layers[0].bias)
    assert not optimizer._use_weight_decay(region.relu_bias)
    assert optimizer._use_weight_decay(region.relu_kernel)


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("by", ["var_names", "var_list"])
def test_what_takes_the_place_of_excluded_variables_does_not_decay(by, built):
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=0.1)
    model = build(optimizer)
    region, other = (layer.region_constraint for layer in model.layers[:2])
    variables = [v for v in region.weights if v is not region.slope]
    if by == "var_names":
        names = ["peak_logits", "amplitude", "tail_slopes"]
        optimizer.exclude_from_weight_decay(var_names=names)
    else:
        optimizer.exclude_from_weight_decay(var_list=variables)
    if built:
        optimizer.build(model.trainable_variables)
    ks.release(model)
    decays = model.optimizer._use_weight_decay
    assert [v.name for v in region.weights if decays(v)] == ["slope"]
    assert all(decays(v) == (by == "var_list") for v in other.weights[1:])
    assert decays(model.layers[0].kernel)


def test_exclusions_follow_a_released_file_into_a_new_model(tmp_path):
    def new():
        optimizer = keras.optimizers.AdamW(0.0, weight_decay=0.1)
        optimizer.exclude_from_weight_decay(var_names=GONE)
        return build(optimizer)

    model = new()
    ks.release(model)
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "w.weights.h5")
    model = new()
    ks.load_weights(model, tmp_path / "w.weights.h5")
    decays = model.optimizer._use_weight_decay
    region = model.layers[0].region_constraint
    assert [v.name for v in region.weights if decays(v)] == ["slope"]


@pytest.mark.parametrize("kind", ["one", "two", "with adam"])
@pytest.mark.parametrize("units", [4, 6])
def test_adafactor_beside_a_layer_that_was_released_before(units, kind):
    """Its factors are called as their variables, without a path."""
    adafactor = OPTIMIZERS["adafactor"]
    optimizer = adafactor()
    if kind != "one":
        other = adafactor() if kind == "two" else keras.optimizers.Adam(1e-2)
        by_layer = keras.optimizers.OptimizerMap(other, {".*released.*": optimizer})
        optimizer = keras.optimizers.MultiOptimizer(by_layer)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            ks.SawtoothDense(6),
            ks.SawtoothDense(units, constrained=False, name="released"),
            layers.Dense(1),
        ]
    )
    compiled(model, optimizer)
    old, variables = model.optimizer, model.trainable_variables
    train_on_known_gradients(old, variables, variables, range(3))

    def knows_second(optimizer):
        known = {id(v) for v in optimizer._trainable_variables}
        return id(model.layers[1].kernel) in known

    def factors(optimizer):
        """Of the variables of the second layer, in the order of the layer."""
        if kind != "one":
            (optimizer,) = [x for x in optimizer.optimizers if knows_second(x)]
        stay = [id(v) for v in model.layers[1].trainable_variables]
        numbers = [id(v) for v in optimizer._trainable_variables]
        return [
            to_numpy(slots[numbers.index(v)].value)
            for v in stay
            for slots in (optimizer._r, optimizer._c, optimizer._v)
        ]

    before = factors(old)
    assert sum(np.any(a) for a in before) > 6
    ks.release(model)
    for a, b in zip(factors(model.optimizer), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("where", ["optimizer", "variables"])
def test_a_release_that_fails_halfway_changes_nothing(where, monkeypatch):
    model = build(OPTIMIZERS["adam"]())
    variables = model.trainable_variables
    train_on_known_gradients(model.optimizer, variables, variables, range(3))
    x = data()[0]
    outputs, optimizer = model.predict(x, verbose=0), model.optimizer
    before = [to_numpy(v.value) for v in model.weights + optimizer.variables]

    add = layer_phase.add_variable

    def fail(*arguments):
        # In the second layer.
        region = model.layers[1].region_constraint
        if where == "variables" and arguments[:2] != (region, "relu_bias"):
            return add(*arguments)
        raise MemoryError("no place")

    if where == "optimizer":
        monkeypatch.setattr("keras_sawtooth.training.model_phase.carry_over", fail)
    else:
        monkeypatch.setattr(layer_phase, "add_variable", fail)
    with pytest.raises(MemoryError, match="no place"):
        ks.release(model)
    monkeypatch.undo()
    assert model.layers[0].constrained and model.optimizer is optimizer
    for a, v in zip(before, model.weights + optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, to_numpy(v.value))
    np.testing.assert_array_equal(model.predict(x, verbose=0), outputs)
    train_on_known_gradients(optimizer, model.trainable_variables, variables, [3])
    ks.release(model)


def test_the_optimizer_of_a_part_of_the_model_keeps_its_state(tmp_path):
    model = build(OPTIMIZERS["adam"]())
    head = model.layers[-1].trainable_variables
    train_on_known_gradients(model.optimizer, head, head, range(3))
    model.save_weights(tmp_path / "w.weights.h5")
    optimizer = model.optimizer
    ks.load_weights(model, tmp_path / "w.weights.h5")
    assert model.optimizer is optimizer and int(optimizer.iterations) == 3


def test_a_file_that_is_refused_leaves_the_exclusions_alone(tmp_path):
    model = build(keras.optimizers.AdamW(weight_decay=0.1))
    ks.release(model)
    bias = model.layers[-1].bias
    bias.assign(np.full(bias.shape, np.nan))
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "w.weights.h5")
    optimizer = keras.optimizers.AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=GONE)
    model = build(optimizer)
    with pytest.raises(ValueError, match="NaN"):
        ks.load_weights(model, tmp_path / "w.weights.h5")
    assert model.optimizer is optimizer
    assert not optimizer._exclude_from_weight_decay


def test_models_are_saved_with_the_optimizer_in_force():
    x, y = data()
    model = build(keras.optimizers.Adam(0.1))
    model.fit(x, y, epochs=1, verbose=0)
    old = weakref.ref(model.optimizer)
    model.optimizer.learning_rate = 0.01
    ks.release(model)
    clone = keras.models.clone_model(model)
    assert float(clone.optimizer.learning_rate) == pytest.approx(0.01)
    gc.collect()
    assert old() is None


def test_an_optimizer_that_never_stepped():
    model = build(keras.optimizers.Adam())
    ks.release(model)
    history = model.fit(*data(), epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_slots_of_one_name_follow_their_variables():
    """Two variables of one path before, three after."""

    def variables(count):
        return [keras.Variable(np.zeros(2), name="twin") for _ in range(count)]

    two = variables(2)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(two)
    optimizer.apply([keras.ops.ones(2), 2 * keras.ops.ones(2)], two)
    three = [*variables(1), *two]
    new = copy_optimizer(optimizer)
    carry_over(optimizer, new, three, [])
    momenta = [slot_array(new, v, "momentum") for v in three]
    np.testing.assert_allclose(momenta, [[0, 0], [-0.1, -0.1], [-0.2, -0.2]])


class SameNames(keras.Model):
    """Keras gives the variables of both layers the same paths."""

    def __init__(self, constrained=(True, True)):
        super().__init__()
        self.first, self.second = (
            ks.SawtoothDense(units, 2, name="hidden", constrained=phase)
            for units, phase in zip((4, 5), constrained, strict=True)
        )

    def call(self, x):
        return self.second(self.first(x))


def test_layers_of_one_name_keep_their_own_state():
    model = SameNames()
    model(data()[0])
    model.compile(keras.optimizers.Adam(1e-2, use_ema=True), "mse")
    variables = model.trainable_variables
    for step in range(3):
        rng = np.random.default_rng(step)
        model.optimizer.apply(
            [
                keras.ops.convert_to_tensor(rng.normal(size=v.shape), "float32")
                for v in variables
            ],
            variables,
        )
    largest = []
    for layer in (model.first, model.second):
        replaced = [getattr(layer.region_constraint, name) for name in GONE]
        known = [
            np.atleast_2d(slot_array(model.optimizer, v, "velocity")) for v in replaced
        ]
        largest.append(np.concatenate(known).max(axis=0))
    ks.release(model)
    variables = model.trainable_variables
    for layer, expected in zip((model.first, model.second), largest, strict=True):
        region = layer.region_constraint
        bias = region.relu_bias
        velocity = slot_array(model.optimizer, bias, "velocity")
        share = np.exp(0.001 * PROTECTED_STEPS) / 16
        factor = (SENSITIVITY * region.relu_rate) ** 2 * share
        np.testing.assert_allclose(
            velocity, np.broadcast_to(factor * expected, bias.shape), rtol=1e-5
        )
        average = slot_array(model.optimizer, bias, "average")
        np.testing.assert_array_equal(average, to_numpy(bias.value))


@pytest.mark.parametrize("constrained", [(True, False), (False, True)])
def test_a_release_leaves_a_released_layer_of_the_same_name_alone(constrained):
    x, y = data()
    model = SameNames(constrained)
    model.compile(keras.optimizers.Adam(1e-2, use_ema=True), "mse", run_eagerly=EAGERLY)
    model.fit(x, y, epochs=2, verbose=0)
    released = model.first if constrained[1] else model.second

    def slots():
        return [
            slot_array(model.optimizer, v, slot)
            for v in released.trainable_variables
            for slot in ("momentum", "velocity", "average")
        ]

    before = slots()
    assert all(np.any(a) for a in before[:3])
    ks.release(model)
    for a, b in zip(slots(), before, strict=True):
        np.testing.assert_array_equal(a, b)


class Unregistered(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 1e-3


def test_an_optimizer_that_cannot_be_copied_is_refused_before_any_change():
    x, y = data()
    model = build(keras.optimizers.Adam(Unregistered()))
    with pytest.raises(ValueError, match=r"Keras cannot: .*get_config"):
        model.fit(x, y, verbose=0, callbacks=[ks.ReleaseConstraints(epoch=1)])
    model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="must be copied"):
        ks.release(model)
    assert model.layers[0].constrained
    model.fit(x, y, verbose=0)


def test_exclusions_inside_several_optimizers_are_kept():
    inner = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    inner.exclude_from_weight_decay(var_names=["bias"])
    several = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(inner))
    model = build(several)
    several.build(model.trainable_variables)
    ks.release(model)
    (inner,) = model.optimizer.optimizers
    assert not inner._use_weight_decay(model.layers[0].bias)
    assert inner._use_weight_decay(model.layers[0].kernel)


@keras.saving.register_keras_serializable(package="tests")
def optimizer_of(variable):
    return ONLY


ONLY = keras.optimizers.SGD(0.1)


def test_a_function_that_picks_optimizers_is_refused():
    """It would return the optimizers of the old variables again."""
    several = keras.optimizers.MultiOptimizer(optimizer_of)
    model = build(several)
    several.build(model.trainable_variables)
    with pytest.raises(ValueError, match="`OptimizerMap` instead of a function"):
        ks.release(model)
    assert model.layers[0].constrained


@pytest.mark.parametrize("swap_on_epoch", [True, False])
def test_swapped_moving_averages(swap_on_epoch):
    x, y = data()
    model = build(keras.optimizers.Adam(1e-2, use_ema=True))
    history = model.fit(
        x,
        y,
        epochs=4,
        validation_data=(x, y),
        verbose=0,
        callbacks=[
            ks.ReleaseConstraints(epoch=2),
            keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch),
        ],
    ).history
    assert np.isfinite(history["val_loss"]).all()
    assert history["constrained"] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"l1_regularization_strength": 1e-3, "beta": 0.1}],
    ids=["plain", "regularized"],
)
def test_ftrl_goes_on_from_the_values_of_fresh_variables(arguments):
    ftrl = keras.optimizers.Ftrl(0.1, l2_regularization_strength=1e-3, **arguments)
    kept, fresh = keras.Variable([1.0, 2.0]), keras.Variable([-3.0, 0.0, 0.5])
    ftrl.build([kept])
    new = copy_optimizer(ftrl)
    carry_over(ftrl, new, [kept, fresh], [])
    # A step by gradients of zero. Keras lets other variables start at zero in this way.
    new.apply([ops.zeros_like(kept.value), ops.zeros_like(fresh.value)], [kept, fresh])
    np.testing.assert_allclose(to_numpy(fresh.value), [-3, 0, 0.5], rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(kept.value), 0)
