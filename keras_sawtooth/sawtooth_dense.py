"""`SawtoothDense`: `Dense` with a learnable sawtooth function as nonlinearity."""

import keras
from keras import ops

from keras_sawtooth.arguments import check_boolean
from keras_sawtooth.arguments import check_integer
from keras_sawtooth.nested_layers import refresh_torch_parameters
from keras_sawtooth.region_constraint import RegionConstraint
from keras_sawtooth.saving import checked_store


@keras.saving.register_keras_serializable(package="keras_sawtooth")
class SawtoothDense(keras.layers.Dense):
    """`Dense` whose nonlinearity is a `RegionConstraint`.

    Computes `activation(region_constraint(dot(inputs, kernel) + bias))`: every
    unit has a learnable function with `2 ** depth` linear pieces. The function
    is constrained at first; `release()` frees its ReLU weights. Replaces
    `Dense(units, activation="relu")`; keep a plain `Dense` as output layer.

    Args:
        units: positive int. Size of the output.
        depth: int from 1 to 24. Number of triangles; a unit has `2 ** depth` pieces.
        domain: pair of floats. The interval of pre-activations that the pieces
            cover. The default suits standardized inputs.
        scales: `"tied"` or `"free"`, see `RegionConstraint`.
        tails: `"free"` or `"line"`, see `RegionConstraint`.
        constrained: bool. `False` starts in the released phase.
        region_trainable: bool. `False` trains the kernel and the bias, and leaves the
            functions as they are, as `layer.region_constraint.trainable = False` does.
            Setting `layer.trainable` sets both.
        activation: activation that is applied to the result. Defaults to none: the
            region constraint is the nonlinearity, of which relu would cut off a part.
        use_bias: bool. Whether the product has a bias.
        kernel_initializer: initializer of the kernel. Defaults to
            `"lecun_normal"`, which gives standard normal pre-activations for
            standardized inputs.
        **kwargs: all other arguments of `keras.layers.Dense`, such as
            `bias_initializer`, `kernel_regularizer`, `lora_rank`, `name`.

    `margin`, `relu_rate`, and the initializers, regularizers and constraints of peaks,
    amplitude, slope, tails and ReLU weights are those of `RegionConstraint`.

    Input shape:
        `(batch, ..., input_dim)`.

    Output shape:
        `(batch, ..., units)`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:

        >>> layer = SawtoothDense(16, depth=3)
        >>> layer(np.zeros((8, 3))).shape == (8, 16)
        True

    Reference:
        - [Milkert et al., 2025](https://arxiv.org/abs/2311.18022)
    """

    def __init__(
        self,
        units,
        depth=3,
        domain=(-1.0, 1.0),
        scales="tied",
        tails="free",
        constrained=True,
        region_trainable=True,
        activation=None,
        use_bias=True,
        kernel_initializer="lecun_normal",
        margin=0.01,
        relu_rate=1 / 8,
        peak_initializer=None,
        amplitude_initializer=None,
        slope_initializer=None,
        tail_initializer=None,
        peak_regularizer=None,
        amplitude_regularizer=None,
        slope_regularizer=None,
        tail_regularizer=None,
        relu_regularizer=None,
        peak_constraint=None,
        amplitude_constraint=None,
        slope_constraint=None,
        tail_constraint=None,
        relu_constraint=None,
        **kwargs,
    ):
        if depth is None or isinstance(depth, str) or callable(depth):
            raise ValueError(
                "The second argument is `depth`, and `SawtoothDense` needs no "
                "activation: a function with `2 ** depth` pieces takes its place. "
                f"Received: depth={depth!r}"
            )
        super().__init__(
            # Not every supported version of Keras checks it.
            check_integer("units", units, 1),
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )
        if self.quantization_mode is not None:
            self._refuse_quantization(f"dtype={self.dtype_policy.name!r}")
        self.region_constraint = RegionConstraint(
            depth=depth,
            domain=domain,
            scales=scales,
            tails=tails,
            constrained=constrained,
            margin=margin,
            relu_rate=relu_rate,
            peak_initializer=peak_initializer,
            amplitude_initializer=amplitude_initializer,
            slope_initializer=slope_initializer,
            tail_initializer=tail_initializer,
            peak_regularizer=peak_regularizer,
            amplitude_regularizer=amplitude_regularizer,
            slope_regularizer=slope_regularizer,
            tail_regularizer=tail_regularizer,
            relu_regularizer=relu_regularizer,
            peak_constraint=peak_constraint,
            amplitude_constraint=amplitude_constraint,
            slope_constraint=slope_constraint,
            tail_constraint=tail_constraint,
            relu_constraint=relu_constraint,
            dtype=getattr(self.dtype_policy, "default_policy", self.dtype_policy),
            name="region_constraint",
        )
        # The layer's own argument does not reach layers inside.
        region_trainable = check_boolean("region_trainable", region_trainable)
        self.region_constraint.trainable = self.trainable and region_trainable
        # `Model.quantize` silently skips layers that hold layers.
        self.region_constraint.quantize = self.quantize

    @keras.layers.Dense.dtype_policy.setter
    def dtype_policy(self, policy):
        policy = keras.dtype_policies.get(policy)
        if policy.quantization_mode is not None:
            self._refuse_quantization(f"dtype_policy={policy.name!r}")
        keras.layers.Dense.dtype_policy.fset(self, policy)
        self._share_dtype_policy()

    def _share_dtype_policy(self):
        policy = self.dtype_policy
        if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
            # It knows the path of this layer, not that of the one inside.
            policy = policy[self.path or ""]
        self.region_constraint.dtype_policy = policy

    def build(self, input_shape):
        self._share_dtype_policy()
        super().build(input_shape)
        self.region_constraint.build((*input_shape[:-1], self.units))

    def call(self, inputs, training=None):
        # `Dense.call` with the region constraint in front of the activation.
        outputs = ops.matmul(inputs, self.kernel)
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        outputs = self.region_constraint(outputs)
        if self.activation is not None:
            outputs = self.activation(outputs)
        return outputs

    @property
    def depth(self):
        """Number of triangles per unit."""
        return self.region_constraint.depth

    @property
    def constrained(self):
        """Whether the layer is in its constrained phase."""
        return self.region_constraint.constrained

    @property
    def peaks(self):
        """Current peaks, tensor `(depth + 1, units)`."""
        return self.region_constraint.peaks

    @property
    def scales(self):
        """Current scales of the waves, tensor `(depth, units)`."""
        return self.region_constraint.scales

    @property
    def slopes(self):
        """Current slope, and with free tails its changes left and right of the domain.

        See `RegionConstraint.slopes`.
        """
        return self.region_constraint.slopes

    @property
    def relu_blocks(self):
        """Current weights of the ReLU network, a `relu_network.ReluBlocks`."""
        return self.region_constraint.relu_blocks

    def release(self):
        """Turn every unit into the same function with free ReLU weights.

        See `RegionConstraint.release`.
        """
        if not self.built:
            raise ValueError(
                f"Layer {self.name!r} is not built yet and has no function to release. "
                "Build it, or call it on data, first."
            )
        self.region_constraint.release()
        refresh_torch_parameters(self)

    def quantize(self, mode=None, type_check=True, config=None):
        self._refuse_quantization(f"mode={mode!r}")

    def _refuse_quantization(self, received):
        # Dense's quantized products end in `activation`, without the regions.
        raise ValueError(
            f"Layer {self.name!r} cannot be quantized. Received: {received}. "
            "Quantize a `Dense` layer and put a `RegionConstraint` after it, or "
            "leave the layer out: `model.quantize(..., filters=lambda layer: not "
            "isinstance(layer, RegionConstraint))`: Keras asks for the layer inside. "
            "`model.quantize` may have quantized layers in front of it: load the model "
            "again."
        )

    def save_own_variables(self, store):
        if not self.built:
            return
        values = {}
        super().save_own_variables(values)
        checked_store.write(store, values)

    def load_own_variables(self, store):
        name = self.path or self.name
        values = checked_store.read(store, name)
        if self.built and not values:
            expected = {}
            super().save_own_variables(expected)
            raise ValueError(
                f"Layer {name!r} expected {len(expected)} variables, and the file has "
                "none for it: it is that of another model. A file of the model with "
                "`Dense` in place of sawtooth layers can be loaded into that one, "
                "before `keras_sawtooth.replace_dense`."
            )
        super().load_own_variables(values)

    def get_config(self):
        region_config = self.region_constraint.get_config()
        for name in ("name", "trainable", "dtype"):
            del region_config[name]
        # Under a frozen layer it is frozen as well, whatever it was.
        trainable = self.region_constraint.trainable or not self.trainable
        region_config["region_trainable"] = trainable
        return {**super().get_config(), **region_config}
