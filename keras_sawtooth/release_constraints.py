"""`ReleaseConstraints`: from constrained to free training inside `fit`.

`model.history.restored` and `.directions` are explained in `backup_and_restore.py`.
"""

import warnings

import keras
import numpy as np
from keras import ops

from keras_sawtooth.arguments import check_choice
from keras_sawtooth.arguments import check_integer
from keras_sawtooth.arguments import check_number
from keras_sawtooth.nested_layers import constrained_layers
from keras_sawtooth.nested_layers import region_layers
from keras_sawtooth.optimizer_state import copy_optimizer
from keras_sawtooth.release import release
from keras_sawtooth.weight_methods import follow_phases

# The default of `min_delta` is this share of the best value so far.
RELATIVE_DELTA = 0.01


class ReleaseConstraints(keras.callbacks.EarlyStopping):
    """Callback that releases the constrained layers inside `fit`.

    The constrained phase ends at the start of `epoch`, or once `monitor` has not
    improved by `min_delta` for `patience` epochs: when `keras.callbacks.EarlyStopping`
    with these arguments would stop, the layers are released and the training continues.
    NaN is not an improvement. After that the callback does nothing, also in later `fit`
    calls. From its first `fit` on, `model.load_weights` and `model.set_weights` follow
    the phase of what they load, as `keras_sawtooth.load_weights` does.

    Every epoch's logs, and so the history, get the entry `constrained`: 1.0 in
    the constrained phase, 0.0 after it.

    Args:
        epoch: int or `None`. Epoch, counted from 0 as in Keras, at whose start
            the layers are released: below the `epochs` of `fit`, which counts from 0
            in every call without `initial_epoch`. With an epoch nothing is monitored.
        monitor: str. Quantity to be monitored, any entry of the logs. Defaults
            to `"loss"`, unless `epoch` is given.
        patience: int. Number of epochs without improvement, in one call of `fit`.
        min_delta: float or `None`. Smallest change that counts as an improvement, in
            the unit of `monitor`. Defaults to a hundredth of the best value so far.
        mode: `"auto"`, `"min"` or `"max"`, as in `EarlyStopping`.
        verbose: 0 or 1. 1 prints a line at the release, or if there is nothing to
            release (any more).

    Warns:
        UserWarning: at the end of a training that left layers constrained, as it did
            not get to `epoch`, or was stopped while the callback waited, or a
            validation metric to be monitored was in no logs.

    Raises:
        ValueError: if an argument is outside its range, or both `epoch` and
            `monitor` are given; at the start of training, if the model holds no
            `SawtoothDense` or `RegionConstraint`, or its optimizer cannot be
            copied; at the end of the first epoch, if `monitor` is not in its
            logs. A validation metric may come later (`validation_freq`): then
            there is a warning.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((1,)), SawtoothDense(8), keras.layers.Dense(1)]
    ... )
    >>> model.compile("adam", "mse")
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> history = model.fit(
    ...     x, x**2, epochs=3, verbose=0, callbacks=[ReleaseConstraints(epoch=2)]
    ... )
    >>> history.history["constrained"]
    [1.0, 1.0, 0.0]

    Reference:
        - [Milkert et al., 2025](https://arxiv.org/abs/2311.18022), section 4.
    """

    def __init__(
        self,
        epoch=None,
        monitor=None,
        patience=10,
        min_delta=None,
        mode="auto",
        verbose=0,
    ):
        if isinstance(epoch, str):
            raise ValueError(
                "`epoch` must be an integer; to wait for a plateau give "
                f"`monitor={epoch!r}`. Received: epoch={epoch!r}"
            )
        if epoch is not None:
            epoch = check_integer("epoch", epoch, 0)
            if monitor is not None:
                raise ValueError(
                    "Give either `epoch` or `monitor`: the release cannot both "
                    "have a fixed date and wait for a plateau. Received: "
                    f"epoch={epoch!r}, monitor={monitor!r}"
                )
        if monitor is None:
            monitor = "loss"
        if not isinstance(monitor, str) or not monitor:
            raise ValueError(
                "`monitor` must be the name of a logged quantity, such as "
                f'"loss" or "val_loss". Received: monitor={monitor!r}'
            )
        # Losses have no common unit: 1e-4 may be a thousandth of one or all of it.
        relative = min_delta is None
        super().__init__(
            monitor=monitor,
            patience=check_integer("patience", patience, 0),
            min_delta=0 if relative else check_number("min_delta", min_delta, 0),
            mode=check_choice("mode", mode, ("auto", "min", "max")),
            verbose=check_integer(
                "verbose", +verbose if isinstance(verbose, bool) else verbose, 0
            ),
        )
        self.epoch = epoch
        self._relative = relative

    def set_model(self, model):
        super().set_model(model)
        follow_phases(self.model)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._plateau = False
        self._seen = False
        self._missing = None
        self._checked = False
        self._replayed = False
        self._released = False
        self._check_model()

    def on_train_batch_begin(self, batch, logs=None):
        if not self._checked:  # A model may be built by its first batch.
            self._check_model()

    def on_epoch_begin(self, epoch, logs=None):
        self._replay()
        due = self._plateau if self.epoch is None else epoch >= self.epoch
        if not due:
            return
        if not self.model.built:
            raise ValueError(
                f"{self.model.name!r} is not built yet, so it cannot be released "
                f"at the start of epoch {epoch}. Build it before `fit`, or create "
                "its layers with `constrained=False`."
            )
        if constrained_layers(self.model):
            released = release(self.model)
            self._released = True
            if self.verbose > 0:
                print(
                    f"\nEpoch {epoch + 1}: released {len(released)} layer(s); "
                    "their ReLU weights train freely from now on."
                )

    def on_epoch_end(self, epoch, logs=None):
        self._check_model()
        self._replay(late=True)
        logs = {} if logs is None else logs
        constrained = bool(constrained_layers(self.model))
        if self.epoch is None and constrained:
            self._watch(epoch, logs)
        logs["constrained"] = float(constrained)

    def on_train_end(self, logs=None):
        if self._missing:
            warnings.warn(f"{self._missing} Nothing was released.", stacklevel=2)
        elif constrained_layers(self.model):
            self._report_constrained()

    def _report_constrained(self):
        """Say that a training has ended without a release."""
        if self._released:
            return  # `EarlyStopping` has restored weights from before the release.
        epochs = getattr(getattr(self.model, "history", None), "epoch", [])
        if len(epochs) < 2:
            return  # A loop by hand, one epoch a `fit`.
        if self.epoch is None and not self.model.stop_training:
            # There was no plateau, and nobody said how long to wait for one.
            if self.verbose > 0:
                print(f"\nNo release: no plateau of `{self.monitor}` before the end.")
            return
        reason = (
            f"it was stopped before there was an epoch after patience={self.patience} "
            f"without improvement of `{self.monitor}`; give what stops it, such as "
            "`EarlyStopping`, a longer `patience`"
            if self.epoch is None
            else f"its last epoch was {epochs[-1]}, counted from 0, and the "
            f"release is to come at the start of epoch={self.epoch}"
        )
        warnings.warn(
            f"The training has ended, and the layers of {self.model.name!r} are still "
            f"constrained: {reason}. `keras_sawtooth.release(model)` releases them "
            "between two trainings; `fit(..., initial_epoch=...)` continues to count.",
            stacklevel=2,
        )

    def _replay(self, late=False):
        """See again what a training that continues from a backup has seen before."""
        if not self._replayed and self.epoch is None:
            history = getattr(self.model, "history", None)
            past = getattr(history, "restored", {}).get(self.monitor, [])
            direction = getattr(history, "directions", {}).get(self.monitor)
            if self.mode == "auto" and direction is not None:
                self.mode = direction
            elif len(past) == 1 and not late:
                return  # No plateau yet, and no direction before the first step.
            for epoch, value in enumerate(past):
                self._watch(epoch, {self.monitor: value})
        self._replayed = True

    def _watch(self, epoch, logs):
        """Let `EarlyStopping` look for a plateau, but do not stop for it."""
        if self.monitor not in logs:
            if not self._seen:
                self._report_missing(logs)
            return
        self._seen, self._missing = True, None
        if self._relative and self.monitor_op is not None and self.best is not None:
            sign = -1 if self.monitor_op is ops.less else 1
            self.min_delta = sign * RELATIVE_DELTA * abs(self.best)
        stopped_by_others = self.model.stop_training
        super().on_epoch_end(epoch, logs)
        if self.best is not None and not np.isfinite(self.best):
            # `EarlyStopping` takes the first value for the best, also NaN; and from
            # infinity no improvement is a share of it.
            self.best = None
        history = getattr(self.model, "history", None)
        if history is not None:
            # For a training that continues from a backup: metrics that are not built
            # yet have no direction.
            direction = "min" if self.monitor_op is ops.less else "max"
            # Several callbacks may wait, each for its own metric.
            known = getattr(history, "directions", {})
            history.directions = {**known, self.monitor: direction}
        if self.model.stop_training and not stopped_by_others:
            self.model.stop_training = False
            self.stopped_epoch = 0
            self._plateau = True

    def _report_missing(self, logs):
        message = (
            "`ReleaseConstraints` waits for a quantity that is not in the logs. "
            f"Received: monitor={self.monitor!r}. Available: {sorted(logs)}"
        )
        if not self.monitor.startswith("val_"):
            raise ValueError(message)
        # With `validation_freq` above 1 it may come yet: a warning for now.
        if self._missing is None:
            warnings.warn(message, stacklevel=2)
        self._missing = message

    def _check_model(self):
        """Refuse what would fail at the release, as soon as it can be seen."""
        if self._checked or not self.model.built:
            return
        self._checked = True
        if not region_layers(self.model):
            raise ValueError(
                f"`ReleaseConstraints` found no layer to release in "
                f"{self.model.name!r}: it holds no `SawtoothDense` or "
                "`RegionConstraint`. Put one into the model, or remove the "
                "callback."
            )
        if self.verbose > 0 and not constrained_layers(self.model):
            print(f"\nAll layers of {self.model.name!r} were released before.")
        if self.model.optimizer is not None:
            copy_optimizer(self.model.optimizer)
