"""Saving and loading, in and across the phases."""

import os
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from backend import to_numpy
from keras import layers
from models import EAGERLY
from models import MODELS
from models import PHASES
from models import assert_same_state
from models import compiled
from models import continue_training
from models import data
from models import phases
from models import plain
from models import shared
from models import state
from models import trained

import keras_sawtooth as ks

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.workflow("saving")
each_phase = pytest.mark.parametrize("phase", PHASES)


def save_and_load_archive(model, directory):
    model.save(directory / "model.keras")
    return keras.saving.load_model(directory / "model.keras")


def save_and_load_directory(model, directory):
    model.save(directory / "model", zipped=False)
    return keras.saving.load_model(directory / "model")


def _twin(model):
    twin = keras.models.clone_model(model)
    if model.compiled:
        compiled(twin)
        twin.optimizer.build(twin.trainable_variables)
    return twin


def save_and_load_weights(model, directory):
    model.save_weights(directory / "model.weights.h5")
    twin = _twin(model)
    twin.load_weights(directory / "model.weights.h5")
    return twin


def save_and_load_shards(model, directory):
    path = directory / "model.weights.json"
    largest = max(value.size for _, value in state(model))
    model.save_weights(path, max_shard_size=4 * (largest + 1) / 1024**3)
    assert len(list(directory.glob("*.weights.h5"))) > 1
    twin = _twin(model)
    twin.load_weights(path)
    return twin


FORMATS = [
    save_and_load_archive,
    save_and_load_directory,
    save_and_load_weights,
    save_and_load_shards,
]


# All formats for one model, all models in one format; the rest in long runs.
SAVED = [
    pytest.param(
        build,
        form,
        keep,
        id=f"{build.__name__}-{form.__name__}-{'compiled' if keep else 'uncompiled'}",
        marks=[]
        if (build is plain or form is save_and_load_archive)
        and (keep or build is plain)
        else pytest.mark.long,
    )
    for build in MODELS
    for form in FORMATS
    for keep in (True, False)
]


@each_phase
@pytest.mark.parametrize(("build", "save_and_load", "keep"), SAVED)
def test_saved_and_loaded(build, save_and_load, keep, phase, tmp_path):
    model = trained(build, phase, keep)
    loaded = save_and_load(model, tmp_path)
    assert set(phases(loaded)) == {phase}
    x, _ = data()
    np.testing.assert_allclose(
        to_numpy(loaded(x)), to_numpy(model(x)), rtol=1e-6, atol=1e-6
    )
    assert_same_state(loaded, model)
    if not keep:
        for twin in (model, loaded):
            compiled(twin)
    # The optimizer's state is there: both take the same next steps.
    for twin in (model, loaded):
        continue_training(twin)
    assert_same_state(loaded, model)


@each_phase
def test_a_loaded_model_goes_on_through_its_release(phase, tmp_path):
    model = trained(plain, phase)
    loaded = save_and_load_archive(model, tmp_path)
    for twin in (model, loaded):
        continue_training(twin, 3, callbacks=[ks.ReleaseConstraints(epoch=1)])
    assert set(phases(loaded)) == {"released"}
    assert_same_state(loaded, model)


@each_phase
def test_a_shared_layer_is_saved_and_released_once(phase, tmp_path):
    model = save_and_load_archive(trained(shared, phase), tmp_path)
    if phase == "constrained":
        assert len(ks.release(model)) == 1
    assert len(model.trainable_variables) == 2 + 7 + 2
    continue_training(model)


def save_and_load_preset(model, tmp_path):
    ks.save_to_preset(model, tmp_path / "preset")
    return ks.from_preset(str(tmp_path / "preset"))


def clone(model, tmp_path):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def half_frozen(**arguments):
    model = plain(**arguments)
    model.layers[1].region_constraint.trainable = False
    return model


@each_phase
@pytest.mark.parametrize("copy", [save_and_load_archive, save_and_load_preset, clone])
def test_frozen_functions_stay_frozen(phase, copy, tmp_path):
    model = trained(half_frozen, phase)
    twin = copy(model, tmp_path)
    for network in (model, twin):
        first, second = network.layers[1:3]
        assert [v.name for v in first.trainable_variables] == ["kernel", "bias"]
        assert second.region_constraint.trainable


@each_phase
@pytest.mark.filterwarnings("ignore:The `native_serialization`:DeprecationWarning")
def test_export(phase, tmp_path):
    if BACKEND == "torch":
        pytest.skip("Keras 3.15 exports no SavedModel on torch")
    tf = pytest.importorskip("tensorflow")
    model = trained(plain, phase)
    x, _ = data()
    model.export(tmp_path / "model", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "model"))
    served = exported.serve(x).numpy()
    np.testing.assert_allclose(served, model.predict(x, verbose=0), atol=1e-5)


# Across the phases


# All files for one model, all models by one file; the rest in long runs.
FOLLOWED = [
    pytest.param(
        build,
        name,
        phase,
        id=f"{build.__name__}-{name}-{phase}",
        marks=[] if build is plain or name == "m.keras" else pytest.mark.long,
    )
    for build in MODELS
    for name, phase in [
        ("m.weights.h5", "released"),
        ("m.weights.json", "released"),
        ("m.keras", "released"),
        ("m.weights.h5", "constrained"),
    ]
]


@pytest.mark.parametrize(("build", "name", "phase"), FOLLOWED)
def test_layers_follow_a_file_of_the_other_phase(build, name, phase, tmp_path):
    source = trained(build, phase)
    if name == "m.keras":
        source.save(tmp_path / name)
    else:
        shards = {"max_shard_size": 1} if name.endswith("json") else {}
        source.save_weights(tmp_path / name, **shards)
    model = trained(build, *set(PHASES) - {phase})
    followers = ks.load_weights(model, tmp_path / name)
    assert len(followers) == len(phases(model))
    assert set(phases(model)) == {phase}
    assert_same_state(model, source)
    for twin in (model, source):
        continue_training(twin)
    assert_same_state(model, source)


def test_plain_load_weights_follows_and_says_so(tmp_path):
    source = trained(plain, "released", keep=False)
    path = tmp_path / "m.weights.h5"
    source.save_weights(path)
    model = plain()
    with pytest.warns(UserWarning, match="is released now, as its weights") as told:
        model.load_weights(path)
    assert len(told) == 2
    assert set(phases(model)) == {"released"}
    assert_same_state(model, source)


def test_the_optimizer_of_a_model_that_never_trained_follows_too(tmp_path):
    source = trained(plain, "released")
    source.save_weights(tmp_path / "m.weights.h5")
    model = plain()
    compiled(model)
    ks.load_weights(model, tmp_path / "m.weights.h5")
    assert_same_state(model, source)


@each_phase
def test_a_model_that_was_saved_before_its_training_loads_silently(phase, tmp_path):
    source, model = plain(), plain()
    for candidate in (source, model):
        compiled(candidate)
        if phase == "released":
            ks.release(candidate)
    source.save_weights(tmp_path / "m.weights.h5")
    # Warnings are errors in these tests.
    assert ks.load_weights(model, tmp_path / "m.weights.h5") == []
    for value, expected in zip(model.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_frozen_model_inside_another_can_be_unfrozen_and_trained(tmp_path):
    """As the discriminator of a GAN, whose optimizer is built by its own training."""
    discriminator = keras.Sequential([keras.Input((3,)), ks.SawtoothDense(2)])
    discriminator.compile("adam", "mse")
    discriminator.trainable = False
    gan = keras.Sequential([keras.Input((2,)), layers.Dense(3), discriminator])
    gan.compile("adam", "mse")
    gan.save_weights(tmp_path / "m.weights.h5")
    ks.load_weights(gan, tmp_path / "m.weights.h5")
    discriminator.trainable = True
    before = discriminator.get_weights()
    discriminator.train_on_batch(np.ones((4, 3)), np.zeros((4, 2)))
    assert not np.array_equal(before[0], discriminator.get_weights()[0])


def test_plain_load_weights_takes_no_layer_back(tmp_path):
    source = trained(plain, "constrained")
    source.save_weights(tmp_path / "m.weights.h5")
    model = trained(plain, "released", keep=False)
    message = r"/region_constraint' is released .*`keras_sawtooth.load_weights\(model"
    with pytest.raises(ValueError, match=message):
        model.load_weights(tmp_path / "m.weights.h5")
    assert set(phases(model)) == {"released"}


@each_phase
@pytest.mark.parametrize("optimizer", ["with a state", "without", "none"])
def test_a_load_that_fails_late_is_undone_in_both_directions(
    phase, optimizer, tmp_path
):
    path = tmp_path / "m.weights.h5"
    source = trained(plain, *set(PHASES) - {phase}, keep=optimizer != "none")
    source.save_weights(path)
    with h5py.File(path, "r+") as file:
        file["layers/dense/vars/0"][...] = np.nan
    model = trained(plain, phase, keep=optimizer == "with a state")
    if optimizer == "without":
        compiled(model)
    before, variables = state(model), model.weights
    with pytest.raises(ValueError, match="NaN"):
        ks.load_weights(model, path)
    assert set(phases(model)) == {phase}
    assert all(a is b for a, b in zip(model.weights, variables, strict=True))
    assert_same_state(model, before, atol=0)
    if BACKEND == "torch":
        in_force = {id(v.value) for v in model.variables}
        assert {id(p) for p in model.parameters()} <= in_force
    if optimizer != "none":
        continue_training(model)
        assert all(np.isfinite(w).all() for w in model.get_weights())


def test_a_model_that_does_not_know_of_a_release_computes_nothing_wrong():
    """Functions traced before refer to the old variables."""
    model = plain()
    model.compile("adam", "mse")
    x, y = data()
    model.fit(x, y, verbose=0)
    model.predict(x, verbose=0)
    for layer in model.layers:
        if isinstance(layer, ks.SawtoothDense):
            layer.release()
    expected = to_numpy(model(x))
    found = model.predict(x, verbose=0)
    assert np.isnan(found).all() or np.abs(found - expected).max() < 1e-5
    if BACKEND == "tensorflow":
        assert np.isnan(model.fit(x, y, verbose=0).history["loss"]).all()
    else:
        with pytest.raises((ValueError, TypeError)):
            model.fit(x, y, verbose=0)


def test_a_file_of_mixed_phases(tmp_path):
    def build():
        x = keras.Input((5,))
        hidden = ks.SawtoothDense(6)(ks.SawtoothDense(6)(x))
        return keras.Model(x, layers.Dense(1)(hidden))

    source, model = build(), build()
    source.layers[2].release()
    source.save_weights(tmp_path / "m.weights.h5")
    assert ks.load_weights(model, tmp_path / "m.weights.h5") == [
        model.layers[2].region_constraint
    ]
    assert_same_state(model, source)


def test_a_custom_layer_that_forgets_the_phase_follows_its_file(tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class Forgetful(layers.Layer):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.hidden = ks.SawtoothDense(3)

        def build(self, shape):
            self.hidden.build(shape)

        def call(self, x):
            return self.hidden(x)

    model = keras.Sequential([keras.Input((5,)), Forgetful(), layers.Dense(1)])
    model = trained(lambda: model, "released")
    file = tmp_path / "m.keras"
    model.save(file)
    # Another warning says that the state of the optimizer was skipped.
    with pytest.warns(UserWarning) as caught:
        loaded = keras.saving.load_model(file)
    assert any("is released now" in str(warning.message) for warning in caught)
    if not loaded.compiled:
        compiled(loaded)
    np.testing.assert_allclose(loaded.get_weights()[0], model.get_weights()[0])
    # Keras has built its optimizer for the old variables.
    ks.load_weights(loaded, file)
    assert_same_state(loaded, model)
    continue_training(loaded)
    continue_training(model)
    assert_same_state(loaded, model)


@pytest.mark.parametrize("keep", [True, False], ids=["compiled", "uncompiled"])
def test_predictions_that_were_traced_before_follow(keep, tmp_path):
    """By loading, by a load that fails late, by release and by set_weights."""
    x, _ = data()

    def build_traced():
        model = plain()
        if keep:
            model.compile("adam", "mse")
            continue_training(model)
        model.predict(x, verbose=0)
        return model

    def assert_follows(model):
        np.testing.assert_allclose(
            model.predict(x, verbose=0), to_numpy(model(x)), atol=1e-5
        )

    path = tmp_path / "m.weights.h5"
    source = trained(plain, "released", keep)
    source.save_weights(path)
    model = build_traced()
    constrained = model.get_weights()
    ks.load_weights(model, path)
    assert_follows(model)
    ks.ReleaseConstraints().set_model(model)
    with pytest.warns(UserWarning, match="other phase"):
        model.set_weights(constrained)
    assert_follows(model)
    ks.release(model)
    model.set_weights([1.3 * w for w in model.get_weights()])
    assert_follows(model)

    last = "optimizer/vars/3" if keep else "layers/dense/vars/0"
    with h5py.File(path, "r+") as file:
        file[last][...] = np.nan
    model = build_traced()
    with pytest.raises(ValueError, match="NaN"):
        ks.load_weights(model, path)
    model.set_weights([1.3 * w for w in model.get_weights()])
    assert_follows(model)
    if keep:
        before = model.get_weights()
        continue_training(model)
        moved = [
            np.abs(a - b).max()
            for a, b in zip(before, model.get_weights(), strict=True)
        ]
        assert min(moved) > 0


@pytest.mark.parametrize("fails", [False, True])
def test_normalization_follows_its_weights(fails, tmp_path):
    """It computes with constants, which functions that were traced hold as well."""
    x, _ = data()

    def build(shift, units):
        first = keras.layers.Normalization()
        first.adapt(x + shift)
        last = keras.layers.Dense(units)
        return keras.Sequential([first, ks.SawtoothDense(4), last])

    source, model = build(10.0, 1), build(0.0, 2 if fails else 1)
    expected = [m.predict(x, verbose=0) for m in (source, model)][fails]
    source.save_weights(tmp_path / "m.weights.h5")
    if fails:
        with pytest.raises(ValueError, match="is what it was before"):
            ks.load_weights(model, tmp_path / "m.weights.h5")
    else:
        ks.load_weights(model, tmp_path / "m.weights.h5")
    for found in (to_numpy(model(x)), model.predict(x, verbose=0)):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5"])
def test_legacy_files_are_refused(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"legacy HDF5 file.*{name}'"):
        ks.load_weights(plain(), tmp_path / name)


def test_normalization_that_was_built_without_data(tmp_path):
    """Its constants are symbolic until weights are loaded."""
    x, _ = data()

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Normalization()
            self.second = ks.SawtoothDense(4)

        def call(self, inputs):
            return self.second(self.first(inputs))

    source, model = Model(), Model()
    source.first.adapt(x + 10)
    expected = to_numpy(source(x))
    source.save_weights(tmp_path / "m.weights.h5")
    model(keras.Input(x.shape[1:]))
    with pytest.raises(FileNotFoundError):
        ks.load_weights(model, tmp_path / "none.weights.h5")
    ks.load_weights(model, tmp_path / "m.weights.h5")
    np.testing.assert_allclose(to_numpy(model(x)), expected, atol=1e-5)


def test_skip_mismatch_is_passed_on(tmp_path):
    source = trained(plain, "released", keep=False)
    source.save_weights(tmp_path / "m.weights.h5")
    model = plain(depth=3)
    ks.ReleaseConstraints().set_model(model)
    with pytest.warns(UserWarning, match="could not be loaded"):
        model.load_weights(tmp_path / "m.weights.h5", True)
    assert phases(model) == ["constrained", "released"]


def test_a_model_with_a_load_weights_of_its_own(tmp_path):
    class Own(keras.Model):
        def load_weights(self, path):
            return super().load_weights(path)

    inputs = keras.Input((5,))
    model = Own(inputs, ks.SawtoothDense(2)(inputs))
    model.save_weights(tmp_path / "m.weights.h5")
    ks.ReleaseConstraints().set_model(model)
    model.load_weights(tmp_path / "m.weights.h5")
    ks.load_weights(model, tmp_path / "m.weights.h5")


def test_infinite_weights_of_other_layers_are_no_damage(tmp_path):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2), ks.SawtoothDense(2)])
    model.layers[0].bias.assign([np.inf, 0])
    model.save_weights(tmp_path / "m.weights.h5")
    ks.load_weights(model, tmp_path / "m.weights.h5")


@pytest.mark.parametrize(
    "arguments, phase",
    [
        ({"domain": (-3, 3)}, "constrained"),
        ({"domain": (-3, 3)}, "released"),
        ({"margin": 0.1}, "constrained"),
        ({"relu_rate": 0.5}, "released"),
    ],
)
@pytest.mark.parametrize("start", PHASES)
def test_numbers_of_other_units_are_refused(arguments, phase, start, tmp_path):
    trained(plain, phase).save_weights(tmp_path / "m.weights.h5")
    model = compiled(plain(constrained=start == "constrained", **arguments))
    before = state(model)
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name}=.*another function"):
        ks.load_weights(model, tmp_path / "m.weights.h5")
    assert phases(model) == [start] * 2
    assert_same_state(model, before)


def test_load_weights_takes_a_model():
    with pytest.raises(TypeError, match=r"takes a `keras.Model`"):
        ks.load_weights(ks.SawtoothDense(3), "m.weights.h5")


def test_a_missing_file_is_named(tmp_path):
    model = trained(plain, "constrained")
    before = state(model)
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.* what it was"):
        ks.load_weights(model, tmp_path / "nowhere.weights.h5")
    assert_same_state(model, before, atol=0)


# Across the backends

WRITE = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
from models import *
for phase in PHASES:
    model = trained(nested, phase)
    model.save({directory!r} + f"/{{phase}}.keras")
    continue_training(model)
    np.savez({directory!r} + f"/{{phase}}.npz", *(value for _, value in state(model)))
"""


@keras.saving.register_keras_serializable("tests")
class WithGain(ks.RegionConstraint):
    """A subclass with a weight and a layer of its own."""

    def build(self, input_shape):
        super().build(input_shape)
        self.gain = self.add_weight(name="gain", shape=(), initializer="ones")
        self.scaling = layers.BatchNormalization()
        self.scaling.build(input_shape)

    def call(self, inputs):
        return super().call(self.scaling(inputs)) * self.gain


@each_phase
def test_weights_of_a_subclass_are_kept(phase, tmp_path):
    model = keras.Sequential([keras.Input((5,)), WithGain(), layers.Dense(1)])
    model.compile("adam", "mse", run_eagerly=EAGERLY)
    model.layers[0].gain.assign(2.0)
    release = ks.ReleaseConstraints(epoch=1)
    epochs = 1 + PHASES.index(phase)
    model.fit(*data(), epochs=epochs, verbose=0, callbacks=[release])
    assert phases(model) == [phase]
    assert to_numpy(model.layers[0].gain.value) > 1
    loaded = save_and_load_archive(model, tmp_path)
    assert_same_state(model, loaded)
    fresh = keras.models.clone_model(model)
    model.save_weights(tmp_path / "m.weights.h5")
    fresh.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(fresh.predict(data()[0]), model.predict(data()[0]))


@each_phase
def test_a_subclass_is_restored_if_a_file_of_the_other_phase_fails(phase, tmp_path):
    def make(constrained):
        region = WithGain(constrained=constrained)
        return keras.Sequential([keras.Input((5,)), region, layers.Dense(1)])

    constrained = phase == "constrained"
    model, other = make(constrained), make(not constrained)
    other.layers[1].bias.assign([np.nan])
    other.save_weights(tmp_path / "m.weights.h5")
    before = state(model)
    with pytest.raises(ValueError, match="NaN"):
        ks.load_weights(model, tmp_path / "m.weights.h5")
    assert_same_state(before, model, atol=0)
    assert [name for name, _ in before] == [name for name, _ in state(model)]


@each_phase
def test_a_refused_file_leaves_no_state_in_a_new_optimizer(phase, tmp_path):
    other = trained(plain, phase)
    other.layers[-1].bias.assign([np.nan])
    other.save_weights(tmp_path / "m.weights.h5")
    model, untouched = (compiled(plain(constrained=phase == PHASES[0])) for _ in "ab")
    untouched.set_weights(model.get_weights())
    with pytest.raises(ValueError, match="NaN"):
        ks.load_weights(model, tmp_path / "m.weights.h5")
    for each in (model, untouched):
        continue_training(each)
    assert_same_state(model, untouched)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_files_of_every_backend_load_here(backend, tmp_path):
    pytest.importorskip(backend)
    package = os.path.dirname(os.path.dirname(ks.__file__))
    paths = [os.path.dirname(__file__), package]
    code = WRITE.format(paths=paths, directory=str(tmp_path))
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=300,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    for phase in PHASES:
        path = tmp_path / f"{phase}.keras"
        if backend == "torch":
            # A model from torch names torch's own optimizer, as the docs say.
            model = compiled(keras.saving.load_model(path, compile=False))
            ks.load_weights(model, path)
        else:
            model = keras.saving.load_model(path)
        assert phases(model) == [phase]
        # One epoch further it is where the other backend is one epoch further.
        continue_training(model)
        with np.load(tmp_path / f"{phase}.npz") as arrays:
            expected = [arrays[name] for name in arrays.files]
        for (name, value), other in zip(state(model), expected, strict=True):
            np.testing.assert_allclose(value, other, atol=1e-5, err_msg=name)


@each_phase
def test_a_refused_file_of_the_other_phase_leaves_an_unbuilt_optimizer(phase, tmp_path):
    class Unknown(keras.optimizers.Adam):
        """Keras cannot copy it."""

        def get_config(self):
            raise NotImplementedError("No.")

    other = trained(plain, *set(PHASES) - {phase})
    other.layers[-1].bias.assign([np.nan])
    other.save_weights(tmp_path / "m.weights.h5")
    for optimizer in (keras.optimizers.Adam(), Unknown()):
        model = plain(constrained=phase == PHASES[0])
        model.compile(optimizer, "mse")
        with pytest.raises(ValueError, match="is what it was before"):
            ks.load_weights(model, tmp_path / "m.weights.h5")
        assert model.optimizer is optimizer and not optimizer.built
        continue_training(model)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@each_phase
def test_a_model_that_diverged_takes_good_weights_once_it_has_a_new_optimizer(
    phase, tmp_path
):
    good = trained(plain, "constrained", keep=False)
    good.save_weights(tmp_path / "m.weights.h5")
    model = trained(plain, phase)
    for variable in (model.layers[-1].kernel, model.optimizer.variables[-1]):
        variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ValueError, match=r"has NaN values now.*call `compile` first"):
        ks.load_weights(model, tmp_path / "m.weights.h5")
    compiled(model)
    ks.load_weights(model, tmp_path / "m.weights.h5")
    x = data()[0]
    np.testing.assert_allclose(
        model.predict(x, verbose=0), good.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
    assert np.isfinite(continue_training(model).history["loss"]).all()


def test_a_file_of_a_model_with_dense_layers_is_explained(tmp_path):
    dense = keras.Sequential([keras.Input((5,)), layers.Dense(4), layers.Dense(1)])
    dense.save_weights(tmp_path / "m.weights.h5")
    first = ks.SawtoothDense(4)
    model = keras.Sequential([keras.Input((5,)), first, layers.Dense(1)])
    before = state(model)
    with pytest.raises(ValueError, match=r"none for it.*keras_sawtooth.replace_dense"):
        ks.load_weights(model, tmp_path / "m.weights.h5")
    assert_same_state(before, model, atol=0)
    with pytest.raises(TypeError, match="filepath=None"):
        ks.load_weights(model, None)


def test_a_layer_that_is_not_built_is_named():
    with pytest.raises(ValueError, match="'mine' is not built yet"):
        ks.SawtoothDense(4, name="mine").release()
