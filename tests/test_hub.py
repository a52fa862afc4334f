"""Backbone and tasks for KerasHub, as its users load, train, save and share them."""

import contextlib
import importlib
import json
import os
import re
import shutil
import sys
import types

import h5py
import keras
import numpy as np
import pytest
from backend import to_numpy

import keras_sawtooth as ks

# Before anything is imported from `keras_sawtooth.hub`, which needs it.
keras_hub = pytest.importorskip("keras_hub")

from keras_sawtooth.hub import SawtoothBackbone  # noqa: E402
from keras_sawtooth.hub import SawtoothClassifier  # noqa: E402
from keras_sawtooth.hub import SawtoothRegressor  # noqa: E402

FULL = {
    "num_layers": 2,
    "hidden_dim": 5,
    "depth": 2,
    "scales": "free",
    "tails": "line",
    "normalize_inputs": True,
    "normalization": "batch",
    "dropout": 0.25,
    "residual": True,
}
BACKBONE_FILES = ["config.json", "metadata.json", "model.weights.h5"]
TASK_FILES = sorted([*BACKBONE_FILES, "task.json", "task.weights.h5"])


def backbone(**arguments):
    return SawtoothBackbone(4, **{"num_layers": 2, "hidden_dim": 3, **arguments})


def randomized(model):
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def assert_same(model, loaded):
    assert type(loaded) is type(model)
    for a, b in zip(model.weights, loaded.weights, strict=True):
        assert (a.name, a.dtype) == (b.name, b.dtype)
        np.testing.assert_array_equal(to_numpy(a.value), to_numpy(b.value))
    first, second = ({**m.get_config(), "backbone": 0} for m in (model, loaded))
    assert first == second


PHASES = [True, False, [True, False]]


@pytest.mark.parametrize("constrained", PHASES)
def test_backbone(constrained, tmp_path):
    model = randomized(backbone(**FULL, constrained=constrained))
    assert model.constrained == constrained
    model.save_to_preset(tmp_path / "preset")
    assert sorted(os.listdir(tmp_path / "preset")) == BACKBONE_FILES
    assert os.listdir(tmp_path) == ["preset"]
    for load in (
        SawtoothBackbone.from_preset,
        keras_hub.models.Backbone.from_preset,
        ks.from_preset,
        keras.saving.load_model,
    ):
        assert_same(model, load(str(tmp_path / "preset")))
    fresh = SawtoothBackbone.from_preset(tmp_path / "preset", load_weights=False)
    assert fresh.constrained == constrained


def test_frozen_backbone(tmp_path):
    model = backbone(normalization="layer")
    model.trainable = False
    model.save_to_preset(tmp_path / "preset")
    task = SawtoothRegressor(SawtoothBackbone.from_preset(tmp_path / "preset"))
    assert len(task.trainable_variables) == 2


def test_what_a_backbone_computes():
    model = randomized(backbone(residual=True, normalize_inputs=True))
    data = np.random.default_rng(1).normal(3, 2, size=(64, 4)).astype("float32")
    model.input_normalization.adapt(data)
    first, second = model.sawtooth_layers
    x = (data - data.mean(axis=0)) / data.std(axis=0)
    hidden = first(x)
    np.testing.assert_allclose(
        to_numpy(model(data)), to_numpy(hidden + second(hidden)), rtol=1e-3, atol=1e-4
    )


BAD = [
    {"num_features": 0},
    {"num_layers": 0},
    {"num_layers": 10**9},
    {"hidden_dim": 2.5},
    {"depth": 0},
    {"normalization": "group"},
    {"dropout": 1},
    {"constrained": [True]},
    {"constrained": 1},
    {"normalize_inputs": "no"},
    {"residual": 1},
]


@pytest.mark.parametrize("bad", BAD)
def test_bad_arguments_are_quoted(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ValueError) as error:
        SawtoothBackbone(**{"num_features": 4, **bad})
    assert f"{name}={value!r}" in str(error.value)
    with pytest.raises(ValueError, match="num_outputs=0"):
        SawtoothRegressor(backbone(), num_outputs=0)


def test_misspelled_arguments_and_other_backbones_are_refused():
    with pytest.raises(TypeError, match=r"no arguments \['droput', 'hidden_dims'\]"):
        SawtoothBackbone(num_features=3, hidden_dims=128, droput=0.5)
    with pytest.raises(TypeError, match=r"no arguments \['foo'\]"):
        SawtoothRegressor(backbone(), foo=1)
    for wrong in (3, None, "sawtooth_energy"):
        message = re.escape(f"backbone={wrong!r}")
        with pytest.raises(TypeError, match=message):
            SawtoothRegressor(wrong)
        with pytest.raises(TypeError, match=message):
            SawtoothClassifier(wrong, 3)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float16"])
def test_the_saved_dtype_is_kept(dtype, tmp_path):
    """KerasHub itself loads with the dtype policy of the moment."""
    task = SawtoothRegressor(backbone(num_layers=1, dtype=dtype), num_outputs=2)
    task.save_to_preset(tmp_path)
    for loaded in (
        SawtoothBackbone.from_preset(tmp_path),
        SawtoothRegressor.from_preset(tmp_path).backbone,
    ):
        assert_same(task.backbone, loaded)
        assert loaded.sawtooth_layers[0].dtype_policy.name == dtype
    other = SawtoothBackbone.from_preset(tmp_path, dtype="float32")
    assert other.sawtooth_layers[0].dtype_policy.name == "float32"


def data(rows=16):
    x = np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")
    return x, x[:, :1] * x[:, 1:2]


@pytest.fixture(scope="module")
def trained():
    """A regressor that was released while it was trained."""
    keras.utils.set_random_seed(0)
    task = SawtoothRegressor(backbone(num_layers=1, depth=2))
    task.compile(run_eagerly=True)
    x, y = data()
    task.fit(x, y, epochs=2, verbose=0, callbacks=[ks.ReleaseConstraints(epoch=1)])
    assert task.backbone.constrained is False
    return task


def test_a_trained_task(trained, tmp_path):
    task, optimizer = trained, trained.optimizer
    before = [to_numpy(v.value) for v in optimizer.variables]
    task.save_to_preset(tmp_path / "preset")
    assert sorted(os.listdir(tmp_path / "preset")) == TASK_FILES
    # No state of the optimizer in the files, and all of it in the task.
    assert task.compiled and task.optimizer is optimizer
    for value, variable in zip(before, optimizer.variables, strict=True):
        np.testing.assert_array_equal(value, to_numpy(variable.value))
    for name in ("task", "model"):
        names = []
        with h5py.File(tmp_path / f"preset/{name}.weights.h5") as file:
            file.visit(names.append)
        assert not [name for name in names if "optimizer" in name]
    assert "compile_config" not in (tmp_path / "preset/task.json").read_text()

    loaded = SawtoothRegressor.from_preset(tmp_path / "preset")
    assert_same(task, loaded)
    assert loaded.compiled and loaded.backbone.constrained is False
    plain = SawtoothRegressor.from_preset(tmp_path / "preset", compile=False)
    assert_same(task, plain)
    assert not plain.compiled
    assert_same(task.backbone, ks.from_preset(tmp_path / "preset"))


def test_a_backbone_spares_the_preset_of_a_task(trained, tmp_path):
    trained.save_to_preset(tmp_path)
    other = randomized(backbone())
    with pytest.raises(FileExistsError, match="holds a task") as error:
        other.save_to_preset(tmp_path)
    assert f"preset_dir={str(tmp_path)!r}" in str(error.value)
    assert sorted(os.listdir(tmp_path)) == TASK_FILES
    assert_same(trained, SawtoothRegressor.from_preset(tmp_path))
    # Tasks replace tasks, and backbones backbones.
    task = randomized(SawtoothClassifier(other, num_classes=3))
    task.save_to_preset(tmp_path)
    assert_same(task, SawtoothClassifier.from_preset(tmp_path))
    for name in ("task.json", "task.weights.h5"):
        (tmp_path / name).unlink()
    for model in (other, trained.backbone):
        model.save_to_preset(tmp_path)
        assert_same(model, SawtoothBackbone.from_preset(tmp_path))


def test_another_head_on_the_same_backbone(trained, tmp_path):
    trained.save_to_preset(tmp_path)
    for task in (
        SawtoothClassifier.from_preset(tmp_path, num_classes=3),
        SawtoothRegressor.from_preset(tmp_path, num_outputs=3),
    ):
        assert task.output_shape == (None, 3)
        assert_same(trained.backbone, task.backbone)
    trained.backbone.save_to_preset(tmp_path / "backbone")
    task = SawtoothRegressor.from_preset(tmp_path / "backbone")
    assert_same(trained.backbone, task.backbone)


SAVED_TASKS = [
    (SawtoothRegressor, "num_outputs"),
    (SawtoothClassifier, "num_classes"),
]


@pytest.mark.parametrize("cls,number", SAVED_TASKS)
@pytest.mark.parametrize("n", [2, 3])
def test_a_new_head_keeps_the_rest_of_the_task(cls, number, n, tmp_path):
    preprocessor = keras.layers.Rescaling(2.0)
    task = cls(
        backbone(), **{number: 2}, preprocessor=preprocessor, dropout=0.5, name="mine"
    )
    randomized(task).save_to_preset(tmp_path)
    loaded = cls.from_preset(tmp_path, **{number: n})
    assert loaded.output_shape == (None, n)
    assert loaded.preprocessor.scale == 2
    assert (loaded.dropout, loaded.name) == (0.5, "mine")
    assert_same(task.backbone, loaded.backbone)
    if n == 2:
        before, after = (to_numpy(t.output_dense.kernel) for t in (task, loaded))
        assert np.abs(before - after).max() > 0


def test_a_given_backbone_keeps_its_weights(trained, tmp_path):
    trained.save_to_preset(tmp_path)
    other = randomized(backbone(num_layers=3))
    before = other.get_weights()
    for task in (
        SawtoothRegressor.from_preset(tmp_path, backbone=other),
        SawtoothRegressor.from_preset(tmp_path, backbone=other, num_outputs=2),
    ):
        assert task.backbone is other
        for a, b in zip(before, other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def own_softmax(x):
    return keras.ops.softmax(x / 2)


PROBABILITIES = {
    "softmax": lambda: "softmax",
    "function of keras.ops": lambda: keras.ops.softmax,
    "function": lambda: own_softmax,
    "layer": keras.layers.Softmax,
    "layer with a function": lambda: keras.layers.Activation("softmax"),
    "sigmoid": lambda: "sigmoid",
    "hard sigmoid": lambda: "hard_sigmoid",
}
LOGITS = {
    "linear": lambda: None,
    "layer without a function": lambda: keras.layers.Activation("linear"),
    "log softmax": lambda: keras.ops.log_softmax,
    "relu": lambda: "relu",
    "tanh": lambda: "tanh",
    "layer with weights": keras.layers.PReLU,
}


@pytest.mark.parametrize("name", [*PROBABILITIES, *LOGITS])
def test_the_default_loss_knows_logits(name):
    activation = {**PROBABILITIES, **LOGITS}[name]()
    task = SawtoothClassifier(backbone(), num_classes=3, activation=activation)
    assert task.loss.get_config()["from_logits"] is (name in LOGITS)


@keras.saving.register_keras_serializable(package="mine")
class MyBackbone(SawtoothBackbone):
    pass


@keras.saving.register_keras_serializable(package="mine")
class MyRegressor(SawtoothRegressor):
    backbone_cls = MyBackbone


@pytest.mark.parametrize("cls", [SawtoothRegressor, MyRegressor])
def test_registered_subclasses(cls, tmp_path):
    task = randomized(cls(MyBackbone(4, hidden_dim=3), num_outputs=2))
    task.save_to_preset(tmp_path / "task")
    task.backbone.save_to_preset(tmp_path / "backbone")
    for name in ("task", "backbone"):
        for load in (
            MyBackbone.from_preset,
            SawtoothBackbone.from_preset,
            ks.from_preset,
        ):
            assert_same(task.backbone, load(str(tmp_path / name)))
        new = SawtoothClassifier.from_preset(tmp_path / name, num_classes=3)
        assert_same(task.backbone, new.backbone)
        new = cls.from_preset(tmp_path / name, num_outputs=3)
        assert_same(task.backbone, new.backbone)
    for load in (cls.from_preset, SawtoothRegressor.from_preset):
        loaded = load(tmp_path / "task")
        assert_same(task, loaded)
        assert type(loaded.backbone) is MyBackbone
    backbone().save_to_preset(tmp_path / "plain")
    with pytest.raises(ValueError, match="not a subclass of calling class"):
        MyBackbone.from_preset(tmp_path / "plain")


def test_release_by_hand(tmp_path):
    task = SawtoothClassifier(
        backbone(), num_classes=3, activation="softmax", dropout=0.5
    )
    x, _ = data()
    before = task.predict(x, verbose=0)
    assert len(ks.release(task)) == 2
    np.testing.assert_allclose(task.predict(x, verbose=0), before, atol=1e-5)
    task.save_to_preset(tmp_path)
    loaded = SawtoothClassifier.from_preset(tmp_path)
    assert_same(task, loaded)
    assert loaded.activation is keras.activations.softmax
    assert loaded.backbone.constrained is False


@pytest.mark.parametrize("constrained", PHASES)
def test_lora(constrained, tmp_path):
    keras.utils.set_random_seed(0)
    model = backbone(normalization="layer", constrained=constrained)
    x, y = data()
    before = to_numpy(model(x))
    model.enable_lora(2)
    np.testing.assert_allclose(to_numpy(model(x)), before, atol=1e-6)
    for layer in model.layers:
        assert layer.trainable is (layer in model.sawtooth_layers)
    task = SawtoothRegressor(model)
    names = {v.name for v in model.trainable_variables}
    assert {"lora_kernel_a", "lora_kernel_b", "bias"} < names and "kernel" not in names
    kernels = [to_numpy(layer._kernel.value) for layer in model.sawtooth_layers]
    task.fit(x, y, epochs=2, verbose=0)
    for layer, kernel in zip(model.sawtooth_layers, kernels, strict=True):
        np.testing.assert_array_equal(to_numpy(layer._kernel.value), kernel)
        assert np.abs(to_numpy(layer.kernel) - kernel).max() > 0
    # A preset has the sum of kernel and factors.
    task.save_to_preset(tmp_path)
    np.testing.assert_allclose(
        SawtoothRegressor.from_preset(tmp_path).predict(x, verbose=0),
        task.predict(x, verbose=0),
        atol=1e-6,
    )


def test_arrays_reach_keras_as_arrays(monkeypatch):
    """As datasets, which KerasHub makes of them, they would not be shuffled."""
    task, (x, y) = SawtoothRegressor(backbone()), data()
    seen = []
    for name in ("fit", "evaluate", "predict"):
        monkeypatch.setattr(keras.Model, name, lambda *args: seen.extend(args))
    task.fit(x, y)
    task.evaluate(x, y)
    task.predict(x)
    expected = [task, x, y, task, x, y, task, x]
    assert len(seen) == len(expected)
    assert all(a is b for a, b in zip(seen, expected, strict=True))


def test_a_preprocessor():
    task = SawtoothRegressor(backbone(), preprocessor=keras.layers.Rescaling(2.0))
    x, _ = data()
    expected = to_numpy(task(2 * x))
    np.testing.assert_allclose(task.predict(x, verbose=0), expected, rtol=1e-5)


def adapted(layer, values):
    layer.adapt(values)
    return layer


def normalization():
    return adapted(keras.layers.Normalization(), data()[0])


def given_normalization():
    layer = keras.layers.Normalization(mean=[1.0] * 4, variance=[4.0] * 4)
    layer.build((None, 4))
    return layer


PREPROCESSORS = {
    "adapted": normalization,
    "given": given_normalization,
    "pipeline": lambda: keras.layers.Pipeline([normalization()]),
    "buckets": lambda: adapted(keras.layers.Discretization(num_bins=3), data()[0]),
    "lookup": lambda: keras.layers.IntegerLookup(
        vocabulary=[0, 1, 2], output_mode="multi_hot"
    ),
}


@pytest.mark.parametrize("name", PREPROCESSORS)
def test_preprocessors_come_back(name, tmp_path):
    task = SawtoothRegressor(backbone(), preprocessor=PREPROCESSORS[name]())
    x = np.abs(data()[0]).round() if name == "lookup" else data()[0]
    expected = to_numpy(task(task.preprocessor(x)))
    task.save_to_preset(tmp_path)
    loaded = SawtoothRegressor.from_preset(tmp_path)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6
    )
    new = SawtoothRegressor.from_preset(tmp_path, num_outputs=2)
    np.testing.assert_allclose(
        to_numpy(new.preprocessor(x)), to_numpy(task.preprocessor(x)), rtol=1e-6
    )
    given = adapted(keras.layers.Normalization(), 2 * x)
    before = given.get_weights()
    for arguments in ({}, {"num_outputs": 2}):
        new = SawtoothRegressor.from_preset(tmp_path, preprocessor=given, **arguments)
        assert new.preprocessor is given
        for a, b in zip(before, given.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


class UnregisteredLayer(keras.layers.Layer):
    pass


NO_PREPROCESSORS = {
    "function": (lambda: keras.ops.abs, "layers.*no other callables"),
    "lambda": (lambda: lambda x: 2 * x, "layers.*no other callables"),
    "code": (lambda: keras.layers.Lambda(lambda x: 2 * x), "lambda"),
    "unregistered": (UnregisteredLayer, "nor registered with it"),
    "vocabulary": (
        lambda: adapted(keras.layers.StringLookup(), ["a", "b"]),
        "keeps data outside its weights",
    ),
}


@pytest.mark.parametrize("name", NO_PREPROCESSORS)
def test_preprocessors_that_no_preset_brings_back(name, tmp_path):
    build, message = NO_PREPROCESSORS[name]
    preprocessor = build()
    task = SawtoothRegressor(backbone(), preprocessor=preprocessor)
    with pytest.raises(ValueError, match=message) as error:
        task.save_to_preset(tmp_path / "preset")
    assert f"preprocessor={preprocessor!r}" in str(error.value)
    assert os.listdir(tmp_path) == []
    task.preprocessor = None
    task.save_to_preset(tmp_path / "preset")
    assert SawtoothRegressor.from_preset(tmp_path / "preset").preprocessor is None


def test_keras_saves_tasks_too(trained, tmp_path):
    trained.save(tmp_path / "task.keras")
    loaded = keras.saving.load_model(tmp_path / "task.keras")
    assert_same(trained, loaded)
    for a, b in zip(
        trained.optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(to_numpy(a.value), to_numpy(b.value))


def test_plain_presets_are_no_backbones():
    with pytest.raises(ValueError, match="'Sequential', which is not a backbone"):
        SawtoothBackbone.from_preset("sawtooth_square")


@pytest.mark.parametrize(
    "directory, message", [("hf://a/b", "local path"), ("sawtooth_tanh", "built-in")]
)
def test_only_what_can_be_loaded_again_is_saved(directory, message, tmp_path):
    for model in (backbone(), SawtoothRegressor(backbone(), 1)):
        with (
            contextlib.chdir(tmp_path),
            pytest.raises(ValueError, match=f"{message}.*preset_dir={directory!r}"),
        ):
            model.save_to_preset(directory)
        assert not os.listdir(tmp_path)


def test_models_of_keras_hub_save_themselves(tmp_path):
    with pytest.raises(TypeError, match="Call its method"):
        ks.save_to_preset(backbone(), tmp_path / "preset")


# Sharing


@pytest.fixture
def fake_hf(monkeypatch, tmp_path):
    """Hugging Face as a directory, and what it was asked."""
    remote, asked = tmp_path / "remote", []

    def upload_folder(repo_id, folder_path):
        asked.append(("upload", repo_id))
        shutil.copytree(folder_path, remote)

    def snapshot_download(repo_id, allow_patterns):
        asked.append(("download", repo_id, sorted(allow_patterns)))
        return str(remote)

    import huggingface_hub

    for name, function in {
        "create_repo": lambda repo_id, exist_ok: types.SimpleNamespace(repo_id=repo_id),
        "file_exists": lambda repo_id, filename: False,
        "upload_folder": upload_folder,
        "snapshot_download": snapshot_download,
    }.items():
        monkeypatch.setattr(huggingface_hub, name, function)
    return remote, asked


def test_upload_to_hugging_face(trained, fake_hf, tmp_path):
    remote, asked = fake_hf
    trained.save_to_preset(tmp_path / "preset")
    keras_hub.upload_preset("hf://me/net", str(tmp_path / "preset"))
    assert sorted(os.listdir(remote)) == sorted([*TASK_FILES, "README.md"])
    assert_same(trained, SawtoothRegressor.from_preset("hf://me/net"))
    assert_same(trained.backbone, SawtoothBackbone.from_preset("hf://me/net"))
    assert asked == [
        ("upload", "me/net"),
        ("download", "me/net", TASK_FILES),
        ("download", "me/net", BACKBONE_FILES),
    ]


def test_plain_presets_are_uploaded_too(fake_hf, tmp_path):
    model = keras.Sequential([keras.Input((2,)), ks.SawtoothDense(2)])
    ks.save_to_preset(model, tmp_path / "preset")
    keras_hub.upload_preset("hf://me/net", str(tmp_path / "preset"))
    loaded = ks.from_preset("hf://me/net")
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_upload_to_kaggle(trained, tmp_path, monkeypatch):
    import kagglehub

    def model_upload(handle, directory):
        shutil.copytree(directory, tmp_path / handle)

    def model_download(handle, path):
        if not (tmp_path / handle / path).exists():
            raise ValueError(f"{path} is not present in the model files.")
        return str(tmp_path / handle / path)

    monkeypatch.setattr(kagglehub, "model_upload", model_upload)
    monkeypatch.setattr(kagglehub, "model_download", model_download)
    trained.save_to_preset(tmp_path / "task")
    trained.backbone.save_to_preset(tmp_path / "backbone")
    for name in ("task", "backbone"):
        keras_hub.upload_preset(f"kaggle://me/net/keras/{name}", tmp_path / name)
    assert_same(trained, SawtoothRegressor.from_preset("kaggle://me/net/keras/task"))
    task = SawtoothRegressor.from_preset("kaggle://me/net/keras/backbone")
    assert_same(trained.backbone, task.backbone)


# What is refused


def change(path, edit):
    config = json.loads(path.read_text())
    edit(config["config"])
    path.write_text(json.dumps(config))


def lambda_head(config):
    config["preprocessor"] = {"class_name": "Lambda", "config": {}}


def large_preprocessor(config):
    config["preprocessor"] = {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {"units": 10**6},
        "build_config": {"input_shape": [None, 10**6]},
    }


HOSTILE = [
    ("config.json", lambda c: c.update(num_layers=10**9), "num_layers=1000000000"),
    ("config.json", lambda c: c.update(hidden_dim=10**12), "describes a model with"),
    ("task.json", lambda c: c.update(num_outputs=10**12), "describes a model with"),
    ("task.json", lambda_head, "`Lambda` layer"),
    ("task.json", large_preprocessor, "describes a model with"),
    (
        "task.json",
        lambda c: c["backbone"].update(
            class_name="system", module="os", registered_name=None
        ),
        "'system' of the module 'os'",
    ),
]


@pytest.mark.parametrize("case", range(len(HOSTILE)))
def test_hostile_presets(case, tmp_path):
    name, edit, message = HOSTILE[case]
    SawtoothRegressor(backbone()).save_to_preset(tmp_path)
    change(tmp_path / name, edit)
    with pytest.raises(ValueError, match=message) as error:
        SawtoothRegressor.from_preset(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["BertBackbone", "BertTokenizer"])
def test_models_of_keras_hub_are_left_to_it(name, tmp_path):
    backbone().save_to_preset(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["registered_name"] = f"keras_hub>{name}"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"'{name}' of KerasHub"):
        ks.from_preset(tmp_path)


def test_links_are_refused(tmp_path):
    SawtoothRegressor(backbone()).save_to_preset(tmp_path / "preset")
    weights = tmp_path / "preset/task.weights.h5"
    weights.rename(tmp_path / "moved.h5")
    weights.symlink_to(tmp_path / "moved.h5")
    with pytest.raises(ValueError, match="symbolic link"):
        SawtoothRegressor.from_preset(tmp_path / "preset")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"task\.weights\.h5"):
        SawtoothRegressor.from_preset(tmp_path / "preset")


def test_without_keras_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    monkeypatch.delitem(sys.modules, "keras_sawtooth.hub")
    with pytest.raises(ImportError, match=r"pip install 'keras-sawtooth\[hub\]'"):
        importlib.import_module("keras_sawtooth.hub")
