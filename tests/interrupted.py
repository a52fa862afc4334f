"""A training to be killed: `python interrupted.py DIRECTORY RELEASE [POINT]`.

RELEASE is "epoch" or "plateau". POINT names the moment at which the process sends
itself SIGKILL; without one it writes its weights and optimizer to `result.npz`.
"""

import os
import shutil
import signal
import sys
import time

import keras
import numpy as np
from keras import layers
from models import continue_training
from models import state

import keras_sawtooth as ks
from keras_sawtooth.training import backup_and_restore

EPOCHS = 8
# Every point lies behind the one before, so that a chain of kills makes progress.
POINTS = [
    "batch 0 1",
    "inside the first write",
    "epoch begin 1",
    "batch 2 0",
    "before the state is written",
    "epoch begin 4",
    "after the release",
    "batch 4 2",
    "before the older backup goes",
    "while restoring",
    "batch 5 1",
    "inside a write",
    "while the older backup goes",
    "train end",
]


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_call(owner, name, number, before=True):
    """Kill in the call `number`, counted from 1, of a function."""
    function, calls = getattr(owner, name), []

    def wrapper(*args, **kwargs):
        calls.append(name)
        if len(calls) == number and before:
            kill()
        result = function(*args, **kwargs)
        if len(calls) == number:
            kill()
        return result

    setattr(owner, name, wrapper)


class Kill(keras.callbacks.Callback):
    def __init__(self, point):
        super().__init__()
        self.point = point

    def on_epoch_begin(self, epoch, logs=None):
        if self.point == f"epoch begin {epoch}":
            kill()

    def on_train_batch_end(self, batch, logs=None):
        epoch = self.model.optimizer.iterations // 4
        if self.point == f"batch {int(epoch)} {batch}":
            kill()
        if self.point == "any":
            time.sleep(0.1)

    def on_train_end(self, logs=None):
        if self.point == "train end":
            kill()


class KillAfterRelease(Kill):
    def on_epoch_begin(self, epoch, logs=None):
        released = not self.model.layers[0].constrained
        if self.point == "after the release" and released:
            kill()


def train(directory, release, point):
    if point == "inside the first write":
        kill_at_call(ks.RegionConstraint, "save_own_variables", 2)
    if point == "inside a write":
        kill_at_call(ks.RegionConstraint, "save_own_variables", 2)
    if point == "before the state is written":
        kill_at_call(backup_and_restore, "_digest", 2)
    if point == "before the older backup goes":
        kill_at_call(ks.BackupAndRestore, "_discard", 1)
    if point == "while restoring":
        kill_at_call(ks.RegionConstraint, "load_own_variables", 2)
    if point == "while the older backup goes":
        kill_at_call(shutil, "rmtree", 2, before=False)
    if point == "while the last backup goes":
        kill_at_call(os, "rmdir", 1)

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            ks.SawtoothDense(6, depth=2),
            layers.Dropout(0.1, seed=1),
            ks.SawtoothDense(6, depth=2, scales="free"),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    if release == "epoch":
        release = ks.ReleaseConstraints(epoch=4)
    else:
        release = ks.ReleaseConstraints(monitor="loss", patience=3, min_delta=10.0)
    callbacks = [
        Kill(point),
        release,
        KillAfterRelease(point),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.9 * rate),
        ks.BackupAndRestore(os.path.join(directory, "backup")),
    ]
    print("training", flush=True)
    history = continue_training(model, EPOCHS, batch_size=8, callbacks=callbacks)
    assert history.epoch == list(range(EPOCHS)), history.epoch
    assert history.history["constrained"] == [1.0] * 4 + [0.0] * 4, history.history
    values = {name.replace("/", "."): value for name, value in state(model)}
    losses = np.array(history.history["loss"])
    np.savez(os.path.join(directory, "result.npz"), losses=losses, **values)


if __name__ == "__main__":
    train(*sys.argv[1:3], "".join(sys.argv[3:]))
