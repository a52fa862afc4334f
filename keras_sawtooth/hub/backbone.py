"""`SawtoothBackbone`."""

import keras
import keras_hub

from keras_sawtooth.arguments import check_boolean
from keras_sawtooth.arguments import check_choice
from keras_sawtooth.arguments import check_integer
from keras_sawtooth.arguments import check_names
from keras_sawtooth.arguments import check_number
from keras_sawtooth.hub.files import locate_checked
from keras_sawtooth.hub.files import refuse_older_task
from keras_sawtooth.preset_io.atomic_directory import written_whole
from keras_sawtooth.preset_io.files import errors_naming
from keras_sawtooth.preset_io.handles import check_directory
from keras_sawtooth.preset_io.handles import label_of
from keras_sawtooth.sawtooth_dense import SawtoothDense

# A preset may ask for any number, and every layer takes a moment.
MAX_LAYERS = 1000
NORMALIZATIONS = {
    "batch": keras.layers.BatchNormalization,
    "layer": keras.layers.LayerNormalization,
}


@keras.saving.register_keras_serializable(package="keras_sawtooth")
class SawtoothBackbone(keras_hub.models.Backbone):
    """A stack of `SawtoothDense` layers, as a backbone of KerasHub.

    For vectors of features, such as the rows of a table. Every layer is followed by
    its normalization and dropout, where asked for. Which layers are released is a part
    of the config, so that presets come back in the phase that they had.

    Args:
        num_features: int. Size of the input.
        num_layers: int from 1 to 1000.
        hidden_dim: int. Units of every layer, and size of the output.
        depth: int. Number of triangles per unit, see `SawtoothDense`.
        scales: `"tied"` or `"free"`, see `SawtoothDense`.
        tails: `"free"` or `"line"`, see `SawtoothDense`.
        constrained: bool, or list of one per layer. `False` starts released.
        normalize_inputs: bool. Whether a `Normalization` layer comes first,
            `backbone.input_normalization`: call its `adapt(data)` before training.
        normalization: `None`, `"batch"` or `"layer"`. What follows every layer.
        dropout: float. Rate of the dropout after every layer.
        residual: bool. Whether all layers but the first add their input to their
            output.
        dtype: dtype, or dtype policy, of all layers.
        **kwargs: `name` and `trainable`.

    Input shape:
        `(batch, num_features)`.

    Output shape:
        `(batch, hidden_dim)`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:

        >>> from keras_sawtooth.hub import SawtoothBackbone
        >>> backbone = SawtoothBackbone(num_features=8, num_layers=2, hidden_dim=50)
        >>> backbone(np.zeros((4, 8))).shape == (4, 50)
        True
        >>> directory = os.path.join(tempfile.mkdtemp(), "backbone")
        >>> backbone.save_to_preset(directory)
        >>> SawtoothBackbone.from_preset(directory).hidden_dim
        50
    """

    def __init__(
        self,
        num_features,
        num_layers=2,
        hidden_dim=50,
        depth=3,
        scales="tied",
        tails="free",
        constrained=True,
        normalize_inputs=False,
        normalization=None,
        dropout=0.0,
        residual=False,
        dtype=None,
        **kwargs,
    ):
        num_features = check_integer("num_features", num_features, 1)
        num_layers = check_integer("num_layers", num_layers, 1, MAX_LAYERS)
        hidden_dim = check_integer("hidden_dim", hidden_dim, 1)
        if normalization is not None:
            check_choice("normalization", normalization, NORMALIZATIONS)
        dropout = check_number("dropout", dropout, 0, 1)
        normalize_inputs = check_boolean("normalize_inputs", normalize_inputs)
        residual = check_boolean("residual", residual)
        phases = _phases(constrained, num_layers)
        check_names(kwargs, ("name", "trainable"))

        # === Layers ===
        self.input_normalization = None
        if normalize_inputs:
            self.input_normalization = keras.layers.Normalization(
                dtype=dtype, name="input_normalization"
            )
        self.sawtooth_layers = [
            SawtoothDense(
                hidden_dim,
                depth=depth,
                scales=scales,
                tails=tails,
                constrained=phases[i],
                dtype=dtype,
                name=f"sawtooth_{i}",
            )
            for i in range(num_layers)
        ]

        # === Functional Model ===
        inputs = keras.Input((num_features,), name="features")
        x = inputs
        if self.input_normalization is not None:
            x = self.input_normalization(x)
        for i, layer in enumerate(self.sawtooth_layers):
            y = layer(x)
            if normalization is not None:
                normalize = NORMALIZATIONS[normalization]
                y = normalize(dtype=dtype, name=f"normalization_{i}")(y)
            if dropout:
                y = keras.layers.Dropout(dropout, dtype=dtype, name=f"dropout_{i}")(y)
            if residual and i:
                y = keras.layers.Add(dtype=dtype, name=f"residual_{i}")([x, y])
            x = y
        super().__init__(inputs=inputs, outputs=x, dtype=dtype, **kwargs)

        # === Config ===
        self.num_features = num_features
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.depth = depth
        self.scales = scales
        self.tails = tails
        self.normalize_inputs = normalize_inputs
        self.normalization = normalization
        self.dropout = dropout
        self.residual = residual
        if not self.trainable:
            # The argument of the constructor does not reach all layers, nor does
            # setting it again on TensorFlow, where nothing seems to change.
            for layer in self.layers:
                layer.trainable = False

    @property
    def constrained(self):
        """Whether the layers are constrained: a bool, or a list if they differ."""
        phases = [layer.constrained for layer in self.sawtooth_layers]
        return phases if len(set(phases)) > 1 else phases[0]

    def get_config(self):
        return {
            **super().get_config(),
            "num_features": self.num_features,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "depth": self.depth,
            "scales": self.scales,
            "tails": self.tails,
            "constrained": self.constrained,
            "normalize_inputs": self.normalize_inputs,
            "normalization": self.normalization,
            "dropout": self.dropout,
            "residual": self.residual,
        }

    def default_lora_layer_names(self):
        """Names of the layers that `enable_lora` adapts: all sawtooth layers.

        Their biases and functions are trained, too, and everything else is frozen.
        """
        return [layer.name for layer in self.sawtooth_layers]

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """Load the backbone of a preset.

        Unlike other backbones of KerasHub, it keeps the dtype that was saved.

        Args:
            preset: str. A handle, see `keras_sawtooth.from_preset`, which says what
                is checked and refused.
            load_weights: bool. Whether to load the weights, too.
            **kwargs: arguments of the class that replace those in the preset.

        Returns:
            The backbone.

        Raises:
            FileNotFoundError: if there is no such preset, or a file is missing.
            ImportError: if the package that the handle needs is missing.
            ValueError: if the preset is damaged, asks for what is not allowed, or holds
                another model than a backbone.
        """
        directory, dtype, _ = locate_checked(preset, SawtoothBackbone)
        # KerasHub would take the dtype policy of the moment.
        kwargs["dtype"] = kwargs.get("dtype") or dtype
        with errors_naming(label_of(preset)):
            return super().from_preset(str(directory), load_weights, **kwargs)

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Save the backbone to a preset directory, see KerasHub.

        Args:
            preset_dir: str or path. A local directory.
            max_shard_size: number. GB of weights in one file.

        Raises:
            FileExistsError: if there is the preset of a task already.
            ValueError: if it is no local path, or the name of a built-in preset.
        """
        check_directory("preset_dir", preset_dir)
        refuse_older_task(preset_dir)
        with written_whole(preset_dir) as draft:
            super().save_to_preset(str(draft), max_shard_size)


def _phases(constrained, num_layers):
    phases = constrained
    if isinstance(phases, bool):
        phases = [phases] * num_layers
    if (
        not isinstance(phases, list | tuple)
        or len(phases) != num_layers
        or not all(isinstance(phase, bool) for phase in phases)
    ):
        raise ValueError(
            f"`constrained` must be a boolean, or a list of {num_layers} of them, one "
            f"a layer. Received: constrained={constrained!r}"
        )
    return phases
