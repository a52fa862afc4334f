"""`ReleaseConstraints`: from constrained to free training inside `fit`."""

import warnings

from keras_sawtooth.arguments import check_integer
from keras_sawtooth.nested_layers import constrained_layers
from keras_sawtooth.nested_layers import region_layers
from keras_sawtooth.training.optimizer_state import copy_optimizer
from keras_sawtooth.training.plateau import Plateau
from keras_sawtooth.training.release_model import release
from keras_sawtooth.training.weight_methods import follow_phases

ADVICE = (
    "`keras_sawtooth.release(model)` releases them between two trainings; "
    "`fit(..., initial_epoch=...)` continues to count."
)


class ReleaseConstraints(Plateau):
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
        UserWarning: at the start of a training of several epochs that ends before
            `epoch`, or too soon for a plateau, which takes `patience + 2` epochs. At
            the end of one that left layers constrained, as it was stopped before
            `epoch` or while the callback waited, or a validation metric to be
            monitored was in no logs.

    Raises:
        ValueError: if an argument is outside its range, or `epoch` and one about a
            plateau are given; at the start of training, if the model holds no
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
            plateau = {
                "monitor": (monitor, None),
                "patience": (patience, 10),
                "min_delta": (min_delta, None),
                "mode": (mode, "auto"),
            }
            for name, (value, default) in plateau.items():
                if value != default:
                    raise ValueError(
                        f"Give either `epoch` or `{name}`: the release cannot both "
                        "have a fixed date and wait for a plateau. Received: "
                        f"epoch={epoch!r}, {name}={value!r}"
                    )
        super().__init__(
            monitor="loss" if monitor is None else monitor,
            patience=patience,
            min_delta=min_delta,
            mode=mode,
            verbose=verbose,
        )
        self.epoch = epoch

    def set_model(self, model):
        super().set_model(model)
        follow_phases(self.model)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._checked = False
        self._started = False
        # Whether the end of the training needs no report of constrained layers.
        self._told = False
        self._check_model()

    def on_train_batch_begin(self, batch, logs=None):
        # A model may be built by its first batch.
        self._check_model()

    def on_epoch_begin(self, epoch, logs=None):
        if not self._started:
            # Not before: `BackupAndRestore` may change the first epoch.
            self._started = True
            self._check_epochs(epoch)
        if self.epoch is None:
            self._replay()
        due = self._reached if self.epoch is None else epoch >= self.epoch
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
            # `EarlyStopping` may restore weights from before the release.
            self._told = True
            if self.verbose > 0:
                frozen = sum(not layer.trainable for layer in released)
                print(
                    f"\nEpoch {epoch + 1}: released {len(released)} layer(s)"
                    f"{f', {frozen} of them frozen' if frozen else ''}; "
                    "their ReLU weights train freely from now on."
                )

    def on_epoch_end(self, epoch, logs=None):
        self._check_model()
        logs = {} if logs is None else logs
        constrained = bool(constrained_layers(self.model))
        if self.epoch is None:
            self._replay(late=True)
            if constrained:
                self._watch(epoch, logs)
        logs["constrained"] = float(constrained)

    def on_train_end(self, logs=None):
        if self._missing:
            warnings.warn(f"{self._missing} Nothing was released.", stacklevel=2)
        elif constrained_layers(self.model):
            self._report_constrained()

    def _check_epochs(self, first):
        """Say at the start of a training that it will end before the release."""
        epochs = (self.params or {}).get("epochs")
        # Not in a loop by hand, one epoch a `fit`.
        if epochs is None or epochs - first < 2 or not constrained_layers(self.model):
            return
        if self.epoch is not None:
            soonest = self.epoch
            reason = f"the release is to come at the start of epoch={soonest}"
        else:
            # After the first epoch, which is the best so far, and those of a plateau.
            soonest = 1 + max(self.patience, 1)
            history = getattr(self.model, "history", None)
            if not getattr(history, "restored", None):
                soonest += first
            reason = (
                f"a plateau with patience={self.patience} leads to a release at the "
                f"start of epoch {soonest} at the soonest. Give a smaller `patience`, "
                "or an `epoch`"
            )
        if soonest >= epochs:
            self._told = True
            warnings.warn(
                f"The layers of {self.model.name!r} will stay constrained: the last "
                f"epoch of this training is {epochs - 1}, counted from 0, and "
                f"{reason}. {ADVICE}",
                stacklevel=2,
            )

    def _report_constrained(self):
        """Say that a training has ended without a release."""
        if self._told:
            return
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
            f"constrained: {reason}. {ADVICE}",
            stacklevel=2,
        )

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
