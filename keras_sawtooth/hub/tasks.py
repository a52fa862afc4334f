"""Tasks on top of `SawtoothBackbone`: regression and classification."""

import json

import keras
import keras_hub
import numpy as np

from keras_sawtooth.arguments import check_integer
from keras_sawtooth.arguments import check_names
from keras_sawtooth.arguments import check_number
from keras_sawtooth.hub.backbone import SawtoothBackbone
from keras_sawtooth.hub.files import TASK
from keras_sawtooth.hub.files import TASK_WEIGHTS
from keras_sawtooth.hub.files import is_registered
from keras_sawtooth.hub.files import locate_checked
from keras_sawtooth.hub.files import preprocessor_config
from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.preset_io.atomic_directory import written_whole
from keras_sawtooth.preset_io.files import errors_naming
from keras_sawtooth.preset_io.handles import check_directory
from keras_sawtooth.preset_io.handles import label_of


class SawtoothTask(keras_hub.models.Task):
    """What the tasks below share: one dense layer after the backbone."""

    backbone_cls = SawtoothBackbone

    def __init__(self, backbone, units, preprocessor, activation, dropout, **kwargs):
        dropout = check_number("dropout", dropout, 0, 1)
        if not isinstance(backbone, SawtoothBackbone):
            raise TypeError(
                "`backbone` must be a `SawtoothBackbone`, such as that of "
                '`SawtoothBackbone.from_preset("my_preset")`. '
                f"Received: backbone={backbone!r}"
            )
        check_names(kwargs, ("name", "trainable", "compile"))

        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        dtype = backbone.dtype_policy
        self.output_dropout = keras.layers.Dropout(
            dropout, dtype=dtype, name="output_dropout"
        )
        self.output_dense = keras.layers.Dense(
            units, activation=activation, dtype=dtype, name="predictions"
        )

        # === Functional Model ===
        inputs = backbone.input
        outputs = self.output_dense(self.output_dropout(backbone(inputs)))
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

        # === Config ===
        self.dropout = dropout

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout}

    def compile(self, optimizer="auto", loss="auto", *, metrics="auto", **kwargs):
        """See `keras.Model.compile`. Defaults: Adam, the task's loss and metric."""
        super().compile(
            keras.optimizers.Adam() if optimizer == "auto" else optimizer,
            self._default_loss() if loss == "auto" else loss,
            metrics=[self._default_metric()] if metrics == "auto" else metrics,
            **kwargs,
        )

    def compile_from_config(self, config):
        # Keras leaves it to classes whose `compile` is their own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """Load the task of a preset, or put a new head on the backbone of one.

        Args:
            preset: str. A handle, see `keras_sawtooth.from_preset`, which says what
                is checked and refused.
            load_weights: bool. Whether to load the weights, too.
            **kwargs: arguments of the class that replace those in the preset. A
                backbone or preprocessor that is given keeps its weights. Where the
                number of outputs or classes is given, the head starts untrained.

        Returns:
            The task, compiled with its defaults unless `compile=False` is given.

        Raises:
            FileNotFoundError: if there is no such preset, or a file is missing.
            ImportError: if the package that the handle needs is missing.
            ValueError: if the preset is damaged, asks for what is not allowed, or holds
                neither a task nor a backbone.
        """
        directory, dtype, saved = locate_checked(preset, SawtoothBackbone, task=True)
        dtype = kwargs.pop("dtype", None) or dtype
        new_head = not kwargs.keys().isdisjoint(("num_classes", "num_outputs"))
        with errors_naming(label_of(preset)):
            if "backbone" not in kwargs:
                # Not by `SawtoothBackbone`, which would check all files again.
                kwargs["backbone"] = keras_hub.models.Backbone.from_preset(
                    str(directory), load_weights, dtype=dtype
                )
            # KerasHub's own method keeps the config with `num_classes` only, and finds
            # no task for a subclass of the backbone.
            if saved is None or not is_registered(saved, cls):
                return cls(**kwargs)
            saved = {**saved, "config": {**saved["config"], **kwargs}}
            task = keras.saving.deserialize_keras_object(saved)
            if load_weights:
                # A preprocessor may have weights, too.
                new = [*(task.layers if new_head else ()), kwargs.get("preprocessor")]
                task.load_task_weights(directory / TASK_WEIGHTS, new)
            return task

    # KerasHub makes a dataset of arrays, for its preprocessing: Keras would not shuffle
    # it, and it needs TensorFlow or Grain.

    def fit(self, *args, **kwargs):
        """See `keras.Model.fit`."""
        if self.preprocessor is None:
            return keras.Model.fit(self, *args, **kwargs)
        return super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        """See `keras.Model.evaluate`."""
        if self.preprocessor is None:
            return keras.Model.evaluate(self, *args, **kwargs)
        return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        """See `keras.Model.predict`."""
        if self.preprocessor is None:
            return keras.Model.predict(self, *args, **kwargs)
        return super().predict(*args, **kwargs)

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Save the task to a preset directory, see KerasHub.

        Args:
            preset_dir: str or path. A local directory.
            max_shard_size: number. GB of weights in one file.

        Raises:
            ValueError: if the preset could not bring back the preprocessor, or
                `preset_dir` is no local path, or the name of a built-in preset.
        """
        check_directory("preset_dir", preset_dir)
        preprocessor = preprocessor_config(self.preprocessor)
        with written_whole(preset_dir) as draft:
            super().save_to_preset(str(draft), max_shard_size)
            # KerasHub leaves out the shape that it was built for, without which it has
            # no weights to load.
            saved = json.loads((draft / TASK).read_text())
            saved["config"]["preprocessor"] = preprocessor
            (draft / TASK).write_text(json.dumps(saved, indent=4))

    def save_task_weights(self, filepath):
        # KerasHub's own method would save the state of the optimizer, too.
        keras.saving.save_weights(self, filepath, objects_to_skip=self._not_ours())

    def load_task_weights(self, filepath, skipped=()):
        skipped = [*self._not_ours(), *skipped]
        keras.saving.load_weights(self, filepath, objects_to_skip=skipped)

    def _not_ours(self):
        # A task that was never compiled has no such attribute.
        optimizer = getattr(self, "optimizer", None)
        return [*flatten_layers(self.backbone), optimizer]


@keras.saving.register_keras_serializable(package="keras_sawtooth")
class SawtoothRegressor(SawtoothTask):
    """A `SawtoothBackbone` with a linear output, for regression.

    Args:
        backbone: a `SawtoothBackbone`.
        num_outputs: int. Number of predicted values.
        preprocessor: `None`, or a layer or callable for the inputs. Presets bring back
            layers only, and their vocabularies only from the constructor.
        dropout: float. Rate of the dropout in front of the output.
        **kwargs: `name`; `compile=False` leaves the task uncompiled.

    Input shape:
        `(batch, num_features)`, or what the preprocessor takes.

    Output shape:
        `(batch, num_outputs)`.

    Raises:
        TypeError: if `backbone` is no `SawtoothBackbone`.
        ValueError: if another argument is outside its range.

    Example:

        >>> from keras_sawtooth.hub import SawtoothBackbone, SawtoothRegressor
        >>> task = SawtoothRegressor(SawtoothBackbone(num_features=3))
        >>> x = np.random.normal(size=(32, 3))
        >>> history = task.fit(x, x.sum(axis=1), verbose=0)
        >>> task.predict(x, verbose=0).shape
        (32, 1)
    """

    def __init__(
        self, backbone, num_outputs=1, preprocessor=None, dropout=0.0, **kwargs
    ):
        num_outputs = check_integer("num_outputs", num_outputs, 1)
        super().__init__(
            backbone,
            num_outputs,
            preprocessor,
            activation=None,
            dropout=dropout,
            **kwargs,
        )
        self.num_outputs = num_outputs

    def get_config(self):
        return {**super().get_config(), "num_outputs": self.num_outputs}

    def _default_loss(self):
        return keras.losses.MeanSquaredError()

    def _default_metric(self):
        return keras.metrics.RootMeanSquaredError()


@keras.saving.register_keras_serializable(package="keras_sawtooth")
class SawtoothClassifier(SawtoothTask):
    """A `SawtoothBackbone` with one output per class, for integer labels.

    Args:
        backbone: a `SawtoothBackbone`.
        num_classes: int.
        preprocessor: `None`, or a layer or callable for the inputs. Presets bring back
            layers only, and their vocabularies only from the constructor.
        activation: activation of the output, such as `"softmax"`. By default the
            outputs are logits. The default loss takes outputs that stay between 0 and 1
            for probabilities, all others for logits.
        dropout: float. Rate of the dropout in front of the output.
        **kwargs: `name`; `compile=False` leaves the task uncompiled.

    Input shape:
        `(batch, num_features)`, or what the preprocessor takes.

    Output shape:
        `(batch, num_classes)`.

    Raises:
        TypeError: if `backbone` is no `SawtoothBackbone`.
        ValueError: if another argument is outside its range.

    Example:

        >>> from keras_sawtooth.hub import SawtoothBackbone, SawtoothClassifier
        >>> task = SawtoothClassifier(SawtoothBackbone(num_features=3), num_classes=5)
        >>> task.predict(np.zeros((2, 3)), verbose=0).shape
        (2, 5)
    """

    def __init__(
        self,
        backbone,
        num_classes,
        preprocessor=None,
        activation=None,
        dropout=0.0,
        **kwargs,
    ):
        num_classes = check_integer("num_classes", num_classes, 1)
        self.activation = keras.activations.get(activation)
        super().__init__(
            backbone,
            num_classes,
            preprocessor,
            activation=activation,
            dropout=dropout,
            **kwargs,
        )
        self.num_classes = num_classes

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "activation": keras.activations.serialize(self.activation),
        }

    def _default_loss(self):
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=self._gives_logits()
        )

    def _default_metric(self):
        return keras.metrics.SparseCategoricalAccuracy()

    def _gives_logits(self):
        # The activation may be any function or layer. Far from 0 on both sides, only
        # probabilities stay between 0 and 1.
        far = np.full((2, self.output_dense.units), [[-10.0], [10.0]], "float32")
        ends = self.activation(keras.ops.convert_to_tensor(far))
        ends = keras.ops.convert_to_numpy(ends)
        return not np.all((ends >= 0) & (ends <= 1))
