"""Release the constrained layers of a model, by hand or inside `fit`."""

import keras
import numpy as np

from keras_sawtooth.optimizer_state import rebuild_optimizer
from keras_sawtooth.optimizer_state import slot_value
from keras_sawtooth.region_constraint import RegionConstraint


def release(model):
    """Release every constrained layer of a model, and keep its function.

    Finds `RegionConstraint` and `SawtoothDense` at any depth of nesting. If the
    model is compiled, its optimiser is replaced by one for the new variables,
    which keeps the class, the step count, the learning rate and the state of all
    variables that stay; the compiled training, test and prediction functions are
    made anew. Training goes on with `fit` as if nothing had happened.

    Args:
        model: a built `keras.Model`, or a layer that holds other layers.

    Returns:
        List of the `RegionConstraint` layers that were released.

    Raises:
        ValueError: if there is nothing to release, or a layer is not built. The
            model is unchanged then.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), SawtoothDense(8)])
    >>> len(release(model))
    1
    >>> model.layers[0].constrained
    False

    Reference:
        - [Milkert et al., 2025](https://arxiv.org/abs/2311.18022), section 3.2.
    """
    layers = constrained_layers(model)
    if not layers:
        raise ValueError(
            f"{model.name!r} has no constrained layer to release: it holds no "
            "`SawtoothDense` or `RegionConstraint`, or all of them were "
            "released before."
        )
    for layer in layers:
        if not layer.built:
            raise ValueError(
                f"Layer {layer.path or layer.name!r} of {model.name!r} is not "
                "built yet, so there is nothing to release. Call the model on "
                "data, or build it, first."
            )
    trainers = [
        layer
        for layer in _flatten(model)
        if isinstance(layer, keras.Model) and layer.compiled
    ]
    replaced = {id(layer): (layer.peak_logits, layer.amplitude) for layer in layers}
    for layer in layers:
        layer.release()
    for trainer in trainers:
        _refresh(trainer, layers, replaced)
    return layers


def constrained_layers(model):
    """All constrained `RegionConstraint` layers inside a model or layer."""
    return [
        layer
        for layer in _flatten(model)
        if isinstance(layer, RegionConstraint) and layer.constrained
    ]


def _flatten(model):
    # Keras has no public way to walk nested layers of every kind.
    return model._flatten_layers()


def _refresh(model, layers, replaced):
    """Bring a compiled model up to date with its changed variables."""
    optimizer = model.optimizer
    if optimizer is not None and optimizer.built:
        velocities = []
        for layer in layers:
            velocities += _velocities(optimizer, layer, replaced[id(layer)])
        model.optimizer = rebuild_optimizer(
            optimizer, model.trainable_variables, velocities
        )
    model.test_function = model.predict_function = None
    if model.train_function is not None:
        model.make_train_function(force=True)


def _velocities(optimizer, layer, replaced):
    """Second moments for the ReLU weights, from the variables they replace.

    Stored as they are, see `relu_rate`, the ReLU weights have gradients of about
    the size that the peaks had. Twice the largest size of the channel is a safe
    start: too large an estimate shortens the first steps and decays by itself.
    """
    known = [slot_value(optimizer, v, "velocity") for v in replaced]
    known = [np.atleast_2d(value) for value in known if value is not None]
    if not known:
        return []
    largest = np.concatenate(known).max(axis=0)
    return [
        (v, np.broadcast_to(4 * largest, v.shape))
        for v in layer.weights
        if v.name.startswith("relu_")
    ]


class ReleaseConstraints(keras.callbacks.EarlyStopping):
    """Callback that releases the constrained layers inside `fit`.

    The constrained phase ends at the start of `epoch`, or once `monitor` has not
    improved by `min_delta` for `patience` epochs: what would stop the training
    with `keras.callbacks.EarlyStopping` starts its second phase here. After that
    the callback does nothing, also in later `fit` calls.

    Every epoch's logs, and so the history, get the entry `constrained`: 1.0 in
    the constrained phase, 0.0 after it.

    Args:
        epoch: int or `None`. Epoch, counted from 0 as in Keras, at whose start
            the layers are released. With an epoch nothing is monitored.
        monitor: str. Quantity to be monitored, any entry of the logs. Defaults
            to `"loss"`, unless `epoch` is given.
        patience: int. Number of epochs without improvement.
        min_delta: float. Smallest change that counts as an improvement, in the
            unit of `monitor`.
        mode: `"auto"`, `"min"` or `"max"`, as in `EarlyStopping`.
        verbose: 0 or 1. 1 prints a line at the release.

    Raises:
        ValueError: if an argument is outside its range, or both `epoch` and
            `monitor` are given; at the start of training, if the model holds no
            `SawtoothDense` or `RegionConstraint`; at the end of the first epoch,
            if `monitor` is not in its logs.

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
        min_delta=1e-4,
        mode="auto",
        verbose=0,
    ):
        if epoch is not None:
            _check_count("epoch", epoch)
            if monitor is not None:
                raise ValueError(
                    "Give either `epoch` or `monitor`: the release cannot both "
                    "have a fixed date and wait for a plateau. Received: "
                    f"epoch={epoch!r}, monitor={monitor!r}"
                )
        if monitor is not None and not isinstance(monitor, str):
            raise ValueError(
                "`monitor` must be the name of a logged quantity, such as "
                f'"loss" or "val_loss". Received: monitor={monitor!r}'
            )
        _check_count("patience", patience)
        if not (isinstance(min_delta, (int, float)) and 0 <= min_delta < np.inf):
            raise ValueError(
                "`min_delta` must be a finite number of at least 0. "
                f"Received: min_delta={min_delta!r}"
            )
        super().__init__(
            monitor=monitor or "loss",
            patience=patience,
            min_delta=min_delta,
            mode=mode,
            verbose=verbose,
        )
        self.epoch = epoch
        self._plateau = False

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._monitor_seen = False
        if self.model.built:
            self._check_model()

    def on_epoch_begin(self, epoch, logs=None):
        due = self._plateau if self.epoch is None else epoch >= self.epoch
        if due and constrained_layers(self.model):
            released = release(self.model)
            self._plateau = False
            if self.verbose > 0:
                print(
                    f"\nEpoch {epoch + 1}: released {len(released)} layer(s); "
                    "their ReLU weights train freely from now on."
                )

    def on_epoch_end(self, epoch, logs=None):
        self._check_model()
        constrained = bool(constrained_layers(self.model))
        if self.epoch is None and constrained:
            self._watch(epoch, logs)
        if logs is not None:
            logs["constrained"] = float(constrained)

    def _watch(self, epoch, logs):
        """Let `EarlyStopping` look for a plateau, but do not stop for it."""
        if self.monitor in logs:
            self._monitor_seen = True
        elif self._monitor_seen:  # `validation_freq` above 1
            return
        else:
            raise ValueError(
                f"`monitor` is not in the logs of the first epoch. Received: "
                f"monitor={self.monitor!r}. Available: {sorted(logs)}"
            )
        stopped_by_others = self.model.stop_training
        super().on_epoch_end(epoch, logs)
        if self.model.stop_training and not stopped_by_others:
            self.model.stop_training = False
            self.stopped_epoch = 0
            self._plateau = True

    def _check_model(self):
        if not any(
            isinstance(layer, RegionConstraint) for layer in _flatten(self.model)
        ):
            raise ValueError(
                f"`ReleaseConstraints` found no layer to release in "
                f"{self.model.name!r}: it holds no `SawtoothDense` or "
                "`RegionConstraint`. Put one into the model, or remove the "
                "callback."
            )


def _check_count(name, value):
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            f"`{name}` must be an integer of at least 0. Received: {name}={value!r}"
        )
