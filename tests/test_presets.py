"""Presets: what is saved, where, and what comes back."""

import json
import os
import random
import shutil
import sys
import types

import h5py
import keras
import numpy as np
import pytest
from backend import to_numpy
from keras import layers
from models import MODELS
from models import PHASES
from models import assert_same_state
from models import compiled
from models import continue_training
from models import phases
from models import plain
from models import state
from models import trained
from test_models import functional_with_two_inputs
from test_models import recurrent
from test_models import sequential

import keras_sawtooth as ks
from keras_sawtooth.preset_io import atomic_directory
from keras_sawtooth.preset_io import handles
from keras_sawtooth.preset_io import size

each_phase = pytest.mark.parametrize("phase", PHASES)
FILES = ["config.json", "metadata.json", "model.weights.h5"]


def assert_same(model, loaded):
    assert not loaded.compiled
    assert list(map(type, loaded.layers)) == list(map(type, model.layers))
    for a, b in zip(model.weights, loaded.weights, strict=True):
        assert (a.name, a.dtype, a.trainable) == (b.name, b.dtype, b.trainable)
        np.testing.assert_array_equal(to_numpy(a.value), to_numpy(b.value))


def test_a_trained_model(tmp_path):
    model = trained(plain, "constrained")
    before, optimizer = state(model), model.optimizer
    ks.save_to_preset(model, tmp_path / "preset")
    loaded = ks.from_preset(tmp_path / "preset")
    assert_same(model, loaded)
    # Compiled and trained as before.
    assert model.compiled and model.optimizer is optimizer
    assert_same_state(model, before, atol=0)
    # And what was loaded can be trained.
    continue_training(compiled(loaded))


@each_phase
@pytest.mark.parametrize("build", MODELS)
def test_round_trip(build, phase, tmp_path):
    model = build(constrained=phase == "constrained")
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    ks.save_to_preset(model, tmp_path / "preset")
    for load in (ks.from_preset, keras.saving.load_model):
        loaded = load(tmp_path / "preset")
        assert_same(model, loaded)
        assert set(phases(loaded)) == {phase}


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [ks.SawtoothDense(3), ks.SawtoothDense(2)]

    def call(self, x):
        return self.hidden[1](self.hidden[0](x))


def subclassed():
    return Subclassed(), [(5,)]


@pytest.mark.parametrize(
    "build", [sequential, functional_with_two_inputs, subclassed, recurrent]
)
def test_models_of_every_kind(build, tmp_path):
    model, shapes = build()
    if not model.built:
        model(np.ones((2, *shapes[0]), "float32"))
    with keras.saving.custom_object_scope({type(model).__name__: type(model)}):
        ks.save_to_preset(model, tmp_path / "preset")
        assert_same(model, ks.from_preset(tmp_path / "preset"))


def test_both_phases_in_one_model(tmp_path):
    model = plain()
    model.layers[1].release()
    ks.save_to_preset(model, tmp_path / "preset")
    loaded = ks.from_preset(tmp_path / "preset")
    assert phases(loaded) == ["released", "constrained"]
    assert_same(model, loaded)


@pytest.mark.parametrize(
    ("dtype", "phase"),
    [
        ("float64", "released"),
        ("float16", "constrained"),
        ("bfloat16", "released"),
        *[("mixed_bfloat16", phase) for phase in PHASES],
    ],
)
def test_the_saved_dtype_is_kept(dtype, phase, tmp_path, request):
    if dtype == "float64":
        request.getfixturevalue("float64")
    model = plain(dtype=dtype, constrained=phase == "constrained")
    ks.save_to_preset(model, tmp_path / "preset")
    loaded = ks.from_preset(tmp_path / "preset")
    assert_same(model, loaded)
    policies = [layer.dtype_policy.name for layer in loaded.layers]
    assert policies == [layer.dtype_policy.name for layer in model.layers]
    assert dtype in policies


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_the_limit_of_sizes_serves_every_dtype(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(size, "SPARE", 0)
    monkeypatch.setattr(size, "SPARE_FACTOR", 1)
    float_dtype = "float32" if dtype == "int8" else dtype
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(64, dtype=float_dtype, use_bias=False)]
    )
    if dtype == "int8":
        model.layers[0].quantize("int8")
    ks.save_to_preset(model, tmp_path / "preset")
    loaded = ks.from_preset(tmp_path / "preset")
    assert_same(model, loaded)
    assert loaded.weights[0].dtype == dtype


def test_what_is_in_the_files(tmp_path):
    inner = compiled(keras.Sequential([keras.Input((5,)), ks.SawtoothDense(6)]))
    x = keras.Input((5,))
    model = compiled(keras.Model(x, layers.Dense(1)(inner(x))))
    continue_training(model)
    metadata = {"description": "A test.", "source": "here", "interval": [0, 1]}
    ks.save_to_preset(model, tmp_path / "preset", metadata)
    assert sorted(os.listdir(tmp_path / "preset")) == FILES
    assert os.listdir(tmp_path) == ["preset"]
    config = (tmp_path / "preset/config.json").read_text()
    assert "compile_config" not in config and "dam" not in config
    with h5py.File(tmp_path / "preset/model.weights.h5") as file:
        names = []
        file.visit(names.append)
    assert not [name for name in names if "optimizer" in name]
    written = json.loads((tmp_path / "preset/metadata.json").read_text())
    assert written.pop("date_saved")
    assert written == {
        **metadata,
        "keras_version": keras.__version__,
        "keras_sawtooth_version": ks.__version__,
        "parameter_count": model.count_params(),
    }


def test_saving_leaves_random_numbers_and_names_alone(tmp_path):
    model = keras.Sequential(
        [keras.Input((5,)), ks.SawtoothDense(3), layers.Dropout(0.5)]
    )
    # A layer draws the seeds of its initializers.
    name, before = ks.SawtoothDense(3).name, random.getstate()
    ks.save_to_preset(model, tmp_path / "preset")
    assert random.getstate() == before
    number = int(name.removeprefix("sawtooth_dense").removeprefix("_") or 0)
    assert ks.SawtoothDense(3).name == f"sawtooth_dense_{number + 1}"


class Halved(layers.Layer):
    def call(self, x):
        return x / 2


def with_own_layer(cls):
    return keras.Sequential([keras.Input((5,)), ks.SawtoothDense(2), cls()])


def test_classes_of_ones_own(tmp_path):
    model = with_own_layer(Halved)
    with pytest.raises(ValueError, match=r"'Halved'.*registered"):
        ks.save_to_preset(model, tmp_path / "preset")
    assert os.listdir(tmp_path) == []
    with keras.saving.custom_object_scope({"Halved": Halved}):
        ks.save_to_preset(model, tmp_path / "preset")
        assert_same(model, ks.from_preset(tmp_path / "preset"))
    objects = {"Halved": Halved}
    assert_same(model, ks.from_preset(tmp_path / "preset", custom_objects=objects))
    with pytest.raises(ValueError, match=r"preset'.*'Halved' of the module 'test_pres"):
        ks.from_preset(tmp_path / "preset")


# What cannot be saved


def test_no_model(tmp_path):
    with pytest.raises(TypeError, match=r"takes a `keras.Model`.*SawtoothDense"):
        ks.save_to_preset(ks.SawtoothDense(2), tmp_path / "preset")


def test_unbuilt_model(tmp_path):
    model = keras.Sequential([ks.SawtoothDense(2)])
    with pytest.raises(ValueError, match="not built"):
        ks.save_to_preset(model, tmp_path / "preset")


def test_a_layer_that_wrappers_share(tmp_path):
    """Keras saves such a model without an error, and cannot load it."""
    layer = ks.SawtoothDense(3)
    x = keras.Input((4, 3))
    y = layers.TimeDistributed(layer)(x)
    model = keras.Model(x, layers.TimeDistributed(layer)(y))
    with pytest.raises(ValueError, match="expected 2 variables"):
        ks.save_to_preset(model, tmp_path / "preset")
    assert os.listdir(tmp_path) == []


def test_nan(tmp_path):
    model = plain()
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, np.nan))
    with pytest.raises(ValueError, match="NaN"):
        ks.save_to_preset(model, tmp_path / "preset")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "metadata", ["text", ["a"], {1: 2}, {"a": float("nan")}, {"a": np.ones(2)}]
)
def test_metadata_that_is_no_json(metadata, tmp_path):
    with pytest.raises(TypeError, match=r"dict of plain JSON data.*metadata="):
        ks.save_to_preset(plain(), tmp_path / "preset", metadata)


def test_metadata_that_is_written_anyway(tmp_path):
    with pytest.raises(ValueError, match=r"\['parameter_count'\]"):
        ks.save_to_preset(plain(), tmp_path / "preset", {"parameter_count": 3})
    assert os.listdir(tmp_path) == []


# Directories


def test_files_are_not_overwritten_unasked(tmp_path):
    model = plain()
    ks.save_to_preset(model, tmp_path / "a/b/preset")
    with pytest.raises(FileExistsError, match=r"config.json.*overwrite=True"):
        ks.save_to_preset(plain(), tmp_path / "a/b/preset")
    assert_same(model, ks.from_preset(tmp_path / "a/b/preset"))
    (tmp_path / "a/b/preset/README.md").write_text("Mine.")
    other = plain()
    ks.save_to_preset(other, tmp_path / "a/b/preset", overwrite=True)
    assert_same(other, ks.from_preset(tmp_path / "a/b/preset"))
    assert (tmp_path / "a/b/preset/README.md").read_text() == "Mine."
    assert os.listdir(tmp_path / "a/b") == ["preset"]
    (tmp_path / "a/b/preset/thesis.tex").write_text("Mine.")
    with pytest.raises(FileExistsError, match=r"thesis.tex"):
        ks.save_to_preset(other, tmp_path / "a/b/preset", overwrite=True)


def test_a_preset_survives_a_failure_to_replace_it(tmp_path):
    model = plain()
    ks.save_to_preset(model, tmp_path / "preset")
    with pytest.raises(ValueError, match="Halved"):
        ks.save_to_preset(with_own_layer(Halved), tmp_path / "preset", overwrite=True)
    assert_same(model, ks.from_preset(tmp_path / "preset"))
    assert os.listdir(tmp_path) == ["preset"]


def test_an_empty_directory_is_filled(tmp_path):
    ks.save_to_preset(plain(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == FILES


def test_a_directory_stays_itself(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    before = os.stat(tmp_path)
    model = plain()
    for overwrite in (False, True):
        ks.save_to_preset(model, ".", overwrite=overwrite)
        assert_same(model, ks.from_preset(os.getcwd()))
        assert sorted(os.listdir(tmp_path)) == FILES
        after = os.stat(tmp_path)
        assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("full", [True, False])
def test_files_that_cannot_be_moved(full, tmp_path, monkeypatch):
    model = plain()
    if full:
        ks.save_to_preset(model, tmp_path)
    moved, replace = [], os.replace

    def fail_once(source, destination):
        moved.append(os.path.basename(source))
        if len(moved) == (5 if full else 2):
            # So that a crash leaves no preset.
            assert "config.json" not in os.listdir(tmp_path)
            raise OSError("disk full")
        replace(source, destination)

    with monkeypatch.context() as context:
        context.setattr(os, "replace", fail_once)
        with pytest.raises(OSError, match="disk full"):
            ks.save_to_preset(plain(), tmp_path, overwrite=True)
    if full:
        assert moved[0] == "config.json"
        assert_same(model, ks.from_preset(tmp_path))
    assert sorted(os.listdir(tmp_path)) == (FILES if full else [])


@pytest.mark.parametrize("directory", ["hf://a/b", None, 3])
def test_no_local_path(directory):
    with pytest.raises(ValueError, match=r"local path.*directory="):
        ks.save_to_preset(plain(), directory)


def test_the_name_of_a_built_in_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"built-in.*directory='sawtooth_tanh'"):
        ks.save_to_preset(plain(), "sawtooth_tanh")
    ks.save_to_preset(plain(), "./sawtooth_tanh")


def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "preset").write_text("A file.")
    with pytest.raises(FileExistsError, match="There is a file"):
        ks.save_to_preset(plain(), tmp_path / "preset", overwrite=True)


# Handles


@pytest.fixture
def preset(tmp_path):
    model = plain()
    ks.save_to_preset(model, tmp_path / "saved", {"description": "A test."})
    return model, tmp_path / "saved"


def test_built_in_presets(preset, tmp_path, monkeypatch):
    model, saved = preset
    shutil.copytree(saved, tmp_path / "built_in/sawtooth_test")
    monkeypatch.setattr(handles, "BUILT_IN", tmp_path / "built_in")
    assert handles.built_in_presets() == {
        "sawtooth_test": {
            "description": "A test.",
            "parameters": model.count_params(),
            "source": "",
        }
    }
    assert_same(model, ks.from_preset("sawtooth_test"))
    with pytest.raises(FileNotFoundError, match=r"'sawtooth_tst'.*: sawtooth_test"):
        ks.from_preset("sawtooth_tst")


def test_presets_are_plain_data():
    assert type(ks.presets) is dict
    assert json.loads(json.dumps(ks.presets)) == ks.presets
    for name, facts in ks.presets.items():
        assert name.startswith("sawtooth_")
        assert facts["description"] and facts["parameters"] and facts["source"]


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        *[(h, "'hf://{owner}/{name}'") for h in ("hf://", "hf://a", "hf://a/b/c")],
        *[(h, "'hf://{owner}/{name}'") for h in ("hf://a b/c", "hf://../..")],
        ("kaggle://x/y", "'kaggle://{owner}/{model}/{framework}/{variation}"),
        ("kaggle://a/b/c/../..", "'kaggle://{owner}/{model}/{framework}/{variation}"),
        ("kaggle://a/b/c/d/e", "'kaggle://{owner}/{model}/{framework}/{variation}"),
        ("gs://a/b", "'hf://' or 'kaggle://'"),
        (3, "`handle` must be"),
        ("", "`handle` must be"),
        (None, "`handle` must be"),
    ],
)
def test_malformed_handles(handle, message):
    with pytest.raises(ValueError) as error:
        ks.from_preset(handle)
    assert message in str(error.value)
    assert f"handle={handle!r}" in str(error.value)


def test_no_such_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="no directory"):
        ks.from_preset(tmp_path / "none")
    (tmp_path / "m.keras").touch()
    with pytest.raises(ValueError, match=r"load_model`. Received: handle="):
        ks.from_preset(tmp_path / "m.keras")


@pytest.mark.parametrize(
    ("handle", "package"),
    [("hf://a/b", "huggingface_hub"), ("kaggle://a/b/keras/d", "kagglehub")],
)
def test_a_missing_package(handle, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"'{handle}'.*pip install {package}"):
        ks.from_preset(handle)


@pytest.mark.parametrize("links", [True, False])
def test_hugging_face(links, preset, tmp_path, monkeypatch):
    model, saved = preset
    cache, asked = tmp_path / "cache/models--me--my.net", []
    snapshot = cache / "snapshots/0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for name in FILES:
        shutil.copy(saved / name, cache / "blobs" / name if links else snapshot)
        if links:
            (snapshot / name).symlink_to(f"../../blobs/{name}")

    def snapshot_download(repo_id, allow_patterns):
        asked.append((repo_id, sorted(allow_patterns)))
        return str(snapshot)

    fake = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert_same(model, ks.from_preset("hf://me/my.net"))
    assert asked == [("me/my.net", FILES)]
    # Out of the cache of this repository, no link is followed.
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(saved / "config.json")
    with pytest.raises(ValueError, match=r"'hf://me/my.net'.*leads out of the preset"):
        ks.from_preset("hf://me/my.net")


def test_kaggle(preset, monkeypatch):
    model, saved = preset
    asked = []

    def model_download(handle, path):
        asked.append((handle, path))
        return str(saved / path)

    fake = types.SimpleNamespace(model_download=model_download)
    monkeypatch.setitem(sys.modules, "kagglehub", fake)
    assert_same(model, ks.from_preset("kaggle://me/net/keras/small/3"))
    assert sorted(asked) == [("me/net/keras/small/3", name) for name in FILES]


def test_directories_inside_of_a_preset_are_replaced(tmp_path):
    """KerasHub keeps vocabularies in one."""
    for content in ("old", "new"):
        with atomic_directory.written_whole(tmp_path / "preset") as draft:
            (draft / "assets").mkdir()
            (draft / "assets" / "vocabulary.txt").write_text(content)
    assert (tmp_path / "preset" / "assets" / "vocabulary.txt").read_text() == "new"
    assert [path.name for path in (tmp_path / "preset").iterdir()] == ["assets"]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras' lookups need TensorFlow"
)
def test_a_vocabulary_in_the_constructor_is_no_data_outside(tmp_path):
    inputs = keras.Input((1,), dtype="int64")
    numbers = layers.IntegerLookup(vocabulary=[3, 5, 7])(inputs)
    hidden = layers.Flatten()(layers.Embedding(5, 3)(numbers))
    model = keras.Model(inputs, ks.SawtoothDense(3, depth=2)(hidden))
    ks.save_to_preset(model, tmp_path / "preset")
    x = np.array([[5], [4], [7]])
    loaded = ks.from_preset(str(tmp_path / "preset"))
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_arguments_of_a_wrong_kind_are_quoted(tmp_path):
    with pytest.raises(ValueError, match="overwrite='no'"):
        ks.save_to_preset(plain(), tmp_path / "preset", overwrite="no")
    assert not (tmp_path / "preset").exists()
    with pytest.raises(TypeError, match="custom_objects=3"):
        ks.from_preset("sawtooth_tanh", custom_objects=3)
