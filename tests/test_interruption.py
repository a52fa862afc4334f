"""Training that is killed and started again, with real processes."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from interrupted import POINTS
from models import assert_same_state
from models import compiled
from models import continue_training
from models import data
from models import phases
from models import plain
from models import state
from models import trained

import keras_sawtooth as ks

pytestmark = pytest.mark.workflow("interruption")
SCRIPT = str(pathlib.Path(__file__).with_name("interrupted.py"))


def start(directory, release, *point):
    command = [sys.executable, SCRIPT, str(directory), release, *point]
    path = os.path.dirname(os.path.dirname(ks.__file__))
    environment = {**os.environ, "PYTHONPATH": path}
    if point:
        # Reads compiled programs and keeps none: it may be killed while it writes one.
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1e9"
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def finish(directory, release, *point):
    process = start(directory, release, *point)
    process.communicate(timeout=300)
    return process.returncode


def result(directory):
    with np.load(directory / "result.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_same_result(a, b):
    a, b = result(a), result(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    assert finish(directory, "epoch") == 0
    return directory


@pytest.mark.parametrize(
    ("release", "points"),
    [
        pytest.param("epoch", POINTS, marks=pytest.mark.long),
        ("plateau", ["batch 4 2", "batch 5 1"]),
    ],
)
def test_killed_at_every_point_and_started_again(
    release, points, whole, tmp_path, record_property
):
    record_property("cases", len(points))
    for point in points:
        assert finish(tmp_path, release, point) == -signal.SIGKILL, point
    assert finish(tmp_path, release) == 0
    assert_same_result(tmp_path, whole)
    assert os.listdir(tmp_path) == ["result.npz"]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_time(seed, whole, tmp_path, record_property):
    rng, killed = random.Random(seed), 0
    for _ in range(4):
        process = start(tmp_path, "epoch", "any")
        process.stdout.readline()
        time.sleep(rng.uniform(0.1, 3))
        process.kill()
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
    record_property("cases", killed)
    assert killed > 0
    assert finish(tmp_path, "epoch") == 0
    assert_same_result(tmp_path, whole)


@pytest.mark.long
def test_killed_while_the_last_backup_is_deleted(whole, tmp_path):
    assert finish(tmp_path, "epoch", "while the last backup goes") == -signal.SIGKILL
    assert finish(tmp_path, "epoch") == 0
    assert_same_result(tmp_path, whole)


# In one process


class Crash(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise RuntimeError("crash")


def train(callbacks, epochs=4):
    keras.utils.set_random_seed(0)
    model = plain()
    compiled(model, metrics=["mae"])
    return model, continue_training(model, epochs, callbacks=callbacks)


def backups(directory):
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


@pytest.fixture(scope="module")
def uninterrupted():
    return train([ks.ReleaseConstraints(epoch=2)])


AT_EPOCH = {"epoch": 2}
ON_PLATEAU = {"monitor": "mae", "patience": 1, "min_delta": 10.0}


@pytest.mark.parametrize(
    ("arguments", "epoch", "first"),
    [
        (AT_EPOCH, 2, "release"),
        (AT_EPOCH, 3, "backup"),
        (ON_PLATEAU, 1, "backup"),
        (ON_PLATEAU, 2, "release"),
        pytest.param(ON_PLATEAU, 2, "backup", marks=pytest.mark.long),
        pytest.param(ON_PLATEAU, 3, "release", marks=pytest.mark.long),
    ],
)
def test_goes_on_after_a_crash(arguments, epoch, first, uninterrupted, tmp_path):
    def callbacks():
        pair = [ks.ReleaseConstraints(**arguments), ks.BackupAndRestore(tmp_path / "b")]
        return pair if first == "release" else pair[::-1]

    whole, expected = uninterrupted
    with pytest.raises(RuntimeError, match="crash"):
        train([*callbacks(), Crash(epoch)])
    assert backups(tmp_path / "b") == [f"epoch-{epoch:08}"]
    model, history = train(callbacks())
    assert_same_state(model, whole, atol=1e-6)
    assert history.epoch == expected.epoch == [0, 1, 2, 3]
    np.testing.assert_allclose(
        history.history["loss"], expected.history["loss"], atol=1e-6
    )
    assert expected.history["constrained"] == [1.0, 1.0, 0.0, 0.0]
    assert backups(tmp_path / "b") == []
    # A later training starts at its own first epoch.
    assert continue_training(model, 2).epoch == [0, 1]


def test_two_callbacks_that_wait_for_different_metrics(tmp_path):
    def callbacks():
        monitors = ("val_mae", "val_r2_score")
        waiting = [ks.ReleaseConstraints(monitor=m, patience=1) for m in monitors]
        return [*waiting, ks.BackupAndRestore(tmp_path / "b")]

    def go(*others):
        model, ours = compiled(plain(), metrics=["mae", "r2_score"]), callbacks()
        history = continue_training(
            model, 3, callbacks=[*ours, *others], validation_data=data()
        )
        return history.epoch, [callback.mode for callback in ours[:2]]

    with pytest.raises(RuntimeError, match="crash"):
        go(Crash(2))
    # From the backup: metrics that are not built yet have no direction.
    assert go() == ([0, 1, 2], ["min", "max"])


@pytest.mark.parametrize(("epoch", "dtype"), [(1, "float32"), (3, "bfloat16")])
def test_lora_goes_on_after_a_crash(epoch, dtype, tmp_path):
    def go(*others):
        keras.utils.set_random_seed(0)
        model = plain(dtype=dtype)
        for layer in model.layers[1:3]:
            layer.enable_lora(2, b_initializer="ones")
        compiled(model)
        release = ks.ReleaseConstraints(epoch=2)
        continue_training(model, 4, callbacks=[release, *others])
        return model

    backup = ks.BackupAndRestore(tmp_path / "b")
    with pytest.raises(RuntimeError, match="crash"):
        go(backup, Crash(epoch))
    other = compiled(plain(dtype=dtype))
    for layer in other.layers[1:3]:
        layer.enable_lora(3)
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"lora_kernel_a.*\(5, 3\), and \(5, 2\)"):
        continue_training(other, callbacks=[backup])
    for a, b in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert_same_state(go(backup), go())


def test_the_callback_of_keras_goes_on_after_a_crash_between_its_writes(
    uninterrupted, tmp_path
):
    def callbacks():
        backup = keras.callbacks.BackupAndRestore(tmp_path / "b")
        return [backup, ks.ReleaseConstraints(epoch=2)]

    with pytest.raises(RuntimeError, match="crash"):
        train([*callbacks(), Crash(3)])
    model, history = train(callbacks())
    assert history.epoch == [3]
    assert_same_state(model, uninterrupted[0])


def test_a_finished_training_keeps_its_backup_if_asked(tmp_path):
    backup = ks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    train([backup])
    longer, history = train([backup], epochs=6)
    assert history.epoch == list(range(6))
    whole, _ = train([], epochs=6)
    assert_same_state(longer, whole)


@pytest.mark.parametrize("name", ["model.weights.h5", "unsaved.npz", "state.json"])
def test_a_damaged_backup_is_refused(name, tmp_path):
    backup = ks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    train([backup])
    path = tmp_path / "epoch-00000004" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content[: -20 if name == "state.json" else None])
    model = trained(plain, "constrained")
    before = state(model)
    with pytest.raises(ValueError, match=r"cannot be restored.*delete the directory"):
        continue_training(model, callbacks=[backup])
    assert_same_state(model, before, atol=0)


def test_a_backup_of_another_model_is_refused(tmp_path):
    backup = ks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    train([backup, ks.ReleaseConstraints(epoch=2)])
    model = trained(lambda: plain(depth=3), "constrained")
    before = state(model)
    with pytest.raises(ValueError, match="cannot be restored"):
        continue_training(model, callbacks=[backup])
    assert phases(model) == ["constrained"] * 2
    assert_same_state(model, before, atol=0)


def test_a_remote_directory_is_refused():
    with pytest.raises(ValueError, match="gs://bucket"):
        ks.BackupAndRestore("gs://bucket/backup")


@pytest.mark.parametrize("backup_dir", [None, 5, b"backup"])
def test_what_is_no_path_is_refused(backup_dir):
    with pytest.raises(TypeError, match=f"backup_dir={backup_dir!r}"):
        ks.BackupAndRestore(backup_dir)


def test_a_backup_with_other_seed_generators_changes_nothing(tmp_path):
    backup = ks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    train([backup])
    model = trained(plain, "constrained")
    model.layers[1]._tracker.unlock()
    model.layers[1].seed_generator = keras.random.SeedGenerator(1)
    before = state(model)
    with pytest.raises(ValueError, match="cannot be restored"):
        continue_training(model, callbacks=[backup])
    assert_same_state(model, before, atol=0)
