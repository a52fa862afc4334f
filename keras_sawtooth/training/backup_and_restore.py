"""`BackupAndRestore`: training that continues after a crash as if there were none.

`BackupAndRestore` puts two dicts on `model.history` for `ReleaseConstraints`:
`restored`, the logged values from before the crash by name, and `directions`, "min" or
"max" by monitored name. The latter are in a backup because `ReleaseConstraints` had put
them there.
"""

import hashlib
import json
import os
import pathlib
import shutil

import keras
import numpy as np

from keras_sawtooth.layer_phase import own_variables
from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.saving.weights import load_weights

WEIGHTS = "model.weights.h5"
UNSAVED = "unsaved.npz"
STATE = "state.json"


class BackupAndRestore(keras.callbacks.BackupAndRestore):
    """`keras.callbacks.BackupAndRestore` that survives a kill at any moment.

    Backs the model, its optimizer and the history up at the end of every epoch. The
    same script started again continues after the last epoch that was backed up, in the
    phase it was in, and with the same data ends with the same weights. Keras' own
    callback does so only between two writes: it overwrites the one file it has, and
    writes weights and epoch one after the other.

    `ReleaseConstraints` waits for its plateau from where it was, and
    `fit(...).history` begins with the epochs from before the crash. Keras' own
    `EarlyStopping` and `ReduceLROnPlateau` count their epochs from the start.

    On torch, `Dropout` without a `seed` uses torch's global generator, which is not
    backed up: pass a seed.

    Put it after the callbacks that add to the logs or change the learning rate: what
    they do at the end of an epoch comes too late for its backup otherwise. Only
    `SwapEMAWeights(swap_on_epoch=True)` belongs after it. Data in random order
    (`shuffle=True`) comes in another order after a restart.

    Args:
        backup_dir: str or path of a local directory for this training alone.
        delete_checkpoint: bool. Whether to delete the backup when `fit` is through.

    Raises:
        TypeError: if `backup_dir` is no path.
        ValueError: if `backup_dir` is empty or remote; at the start of training, if
            the model is not built, or the backup is damaged or of another model.

    Example:

        >>> model = keras.Sequential([keras.Input((1,)), SawtoothDense(4)])
        >>> model.compile("adam", "mse")
        >>> x = np.linspace(-1, 1, 64)[:, None]
        >>> backup = BackupAndRestore(tempfile.mkdtemp(), delete_checkpoint=False)
        >>> history = model.fit(x, x**2, epochs=2, verbose=0, callbacks=[backup])
        >>> history = model.fit(x, x**2, epochs=3, verbose=0, callbacks=[backup])
        >>> history.epoch
        [0, 1, 2]
    """

    def __init__(self, backup_dir, delete_checkpoint=True):
        if not isinstance(backup_dir, str | os.PathLike):
            raise TypeError(
                "`backup_dir` must be a path, as a str or an `os.PathLike`. "
                f"Received: backup_dir={backup_dir!r}"
            )
        if "://" in str(backup_dir):
            raise ValueError(
                "`backup_dir` must be a local directory: only there a backup can be "
                f"put into its place at once. Received: backup_dir={backup_dir!r}"
            )
        super().__init__(str(backup_dir), delete_checkpoint=delete_checkpoint)
        self._epochs = []

    def on_train_begin(self, logs=None):
        # Keras leaves the epoch of an earlier restart in the model.
        self.model._initial_epoch = None
        self._epochs = []
        self._collect_garbage()
        backups = sorted(pathlib.Path(self.backup_dir).glob("epoch-*"))
        if backups:
            self._restore(backups[-1])

    def on_epoch_begin(self, epoch, logs=None):
        self._prepend_epochs()

    def on_epoch_end(self, epoch, logs=None):
        history = getattr(self.model, "history", None)
        state = {"epoch": epoch + 1, "epochs": [], "history": {}, "directions": {}}
        if history is not None:
            # `History` comes after all other callbacks and lacks this epoch yet.
            state["epochs"] = [*history.epoch, epoch]
            records = {name: list(values) for name, values in history.history.items()}
            for name, value in (logs or {}).items():
                records.setdefault(name, []).append(value)
            state["history"] = records
            state["directions"] = getattr(history, "directions", {})
        self._back_up(state)

    def on_train_end(self, logs=None):
        self._prepend_epochs()
        self.model._initial_epoch = None
        history = getattr(self.model, "history", None)
        if history is not None:
            history.restored = {}
        if self.delete_checkpoint:
            self._discard(pathlib.Path(self.backup_dir).glob("epoch-*"))
            if os.path.isdir(self.backup_dir) and not os.listdir(self.backup_dir):
                os.rmdir(self.backup_dir)

    def _prepend_epochs(self):
        # Not sooner: `History` empties its list when training begins.
        if self._epochs:
            self.model.history.epoch = self._epochs + self.model.history.epoch
            self._epochs = []

    def _back_up(self, state):
        # A backup is complete from the moment on that it has its name.
        directory = pathlib.Path(self.backup_dir)
        draft = directory / ".draft"
        draft.mkdir(parents=True)
        self.model.save_weights(draft / WEIGHTS)
        np.savez(draft / UNSAVED, *[_to_numpy(v) for v in _unsaved(self.model)])
        state["sha256"] = {name: _digest(draft / name) for name in (WEIGHTS, UNSAVED)}
        with open(draft / STATE, "w") as file:
            json.dump(state, file, default=lambda value: np.asarray(value).tolist())
        older = list(directory.glob("epoch-*"))
        draft.rename(directory / f"epoch-{state['epoch']:08}")
        self._discard(older)

    def _restore(self, backup):
        if not self.model.built:
            raise ValueError(
                f"{self.model.name!r} must be built before `fit` to continue from the "
                f"backup in {self.backup_dir!r}: give it an `Input`, or call it on "
                "a batch of data."
            )
        try:
            state = json.loads((backup / STATE).read_text())
            for name, digest in state["sha256"].items():
                if digest != _digest(backup / name):
                    raise ValueError(f"{name} has changed since it was written.")
            with np.load(backup / UNSAVED) as file:
                values = list(file.values())
            # A difference shows before the model is changed.
            unsaved = list(zip(_unsaved(self.model), values, strict=True))
            for variable, value in unsaved:
                if tuple(variable.shape) != value.shape:
                    raise ValueError(
                        f"{variable.path!r} has the shape {tuple(variable.shape)}, and "
                        f"{value.shape} in the backup."
                    )
            load_weights(self.model, backup / WEIGHTS)
            for variable, value in unsaved:
                variable.assign(value)
        except Exception as error:
            raise ValueError(
                f"The backup {str(backup)!r} cannot be restored. {error} To train "
                "from the start, delete the directory."
            ) from error
        self.model._initial_epoch = state["epoch"]
        history = getattr(self.model, "history", None)
        if history is not None:
            history.history = state["history"]
            # For `ReleaseConstraints`, which has to see these values again.
            history.restored = {k: list(v) for k, v in state["history"].items()}
            history.directions = state["directions"]
            self._epochs = state["epochs"]

    def _discard(self, backups):
        # A directory that is deleted halfway must not look like a backup.
        for backup in backups:
            backup.rename(backup.with_name(f".{backup.name}"))
        self._collect_garbage()

    def _collect_garbage(self):
        directory = pathlib.Path(self.backup_dir)
        for rest in [*directory.glob(".draft"), *directory.glob(".epoch-*")]:
            shutil.rmtree(rest)


def _unsaved(model):
    """The variables that Keras does not save in a weights file, a list.

    The states of seed generators, and what is trained with LoRA: a file has the
    product of the two factors in the kernel, and zeros in their place.
    """
    others = {id(v) for v in model.weights + model.metrics_variables}
    seeds = [v for v in model.variables if id(v) not in others]
    adapted = [x for x in flatten_layers(model) if getattr(x, "lora_enabled", False)]
    return seeds + [v for layer in adapted for v in own_variables(layer)]


def _to_numpy(variable):
    value = variable.numpy()
    # NumPy's files know no bfloat16, and all of its numbers are also float32's.
    return value.astype("float32") if variable.dtype == "bfloat16" else value


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
