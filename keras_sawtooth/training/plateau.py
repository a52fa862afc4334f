"""`EarlyStopping` that notes a plateau and lets the training go on.

`model.history.restored` and `.directions` are explained in `backup_and_restore.py`.
"""

import warnings

import keras
import numpy as np
from keras import ops

from keras_sawtooth.arguments import check_choice
from keras_sawtooth.arguments import check_integer
from keras_sawtooth.arguments import check_number
from keras_sawtooth.arguments import check_verbose

# The default of `min_delta` is this share of the best value so far.
RELATIVE_DELTA = 0.01


class Plateau(keras.callbacks.EarlyStopping):
    """Sees when `EarlyStopping` would stop, also over a training that was killed.

    Args:
        monitor, patience, min_delta, mode, verbose: see `ReleaseConstraints`.

    Subclasses call `_replay` and `_watch`, and read
    `_reached`: bool. Whether there was a plateau since the training began.
    `_missing`: str or `None`. Why there was nothing to watch, so far.
    """

    def __init__(self, monitor, patience, min_delta, mode, verbose):
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
            verbose=check_verbose(verbose),
        )
        self._relative = relative

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        # Keras 3.12 remembers that of the training before.
        self.best = None
        self._reached = False
        self._missing = None
        self._seen = False
        self._replayed = False

    def on_epoch_end(self, epoch, logs=None):
        """Nothing: see `_watch`."""

    def _replay(self, late=False):
        """See again what a training that continues from a backup has seen before.

        Args:
            late: bool. Whether this is the end of an epoch; the first call may come at
                its start, when a metric may not be known yet.
        """
        if self._replayed:
            return
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
        """Let `EarlyStopping` look for a plateau in the logs, but do not stop for it.

        Raises:
            ValueError: if `monitor` is not in the first logs. For a validation metric
                there is a warning.
        """
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
            # For a training that continues from a backup: before a metric is built,
            # Keras does not know its direction.
            direction = "min" if self.monitor_op is ops.less else "max"
            # Several callbacks may wait, each for its own metric.
            known = getattr(history, "directions", {})
            history.directions = {**known, self.monitor: direction}
        if self.model.stop_training and not stopped_by_others:
            self.model.stop_training = False
            self.stopped_epoch = 0
            self._reached = True

    def _report_missing(self, logs):
        message = (
            "`ReleaseConstraints` waits for a quantity that is not in the logs. "
            f"Received: monitor={self.monitor!r}. Available: {sorted(logs)}"
        )
        if not self.monitor.startswith("val_"):
            raise ValueError(message)
        message += ". Give `fit` `validation_data` or a `validation_split`."
        # With `validation_freq` above 1 it may come yet: a warning for now.
        if self._missing is None:
            warnings.warn(message, stacklevel=2)
        self._missing = message
