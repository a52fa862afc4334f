"""`RegionConstraint`: one learnable sawtooth function for every channel."""

import keras
from keras import ops

from keras_sawtooth import hot_path
from keras_sawtooth import layer_phase
from keras_sawtooth import relu_network
from keras_sawtooth import sawtooth
from keras_sawtooth.arguments import check_boolean
from keras_sawtooth.arguments import check_choice
from keras_sawtooth.arguments import check_domain
from keras_sawtooth.arguments import check_integer
from keras_sawtooth.arguments import check_number
from keras_sawtooth.backend import current as backend
from keras_sawtooth.initializers import RandomPeaks
from keras_sawtooth.initializers import RandomSign
from keras_sawtooth.saving import phase_files
from keras_sawtooth.variable_shapes import VARIABLES
from keras_sawtooth.variable_shapes import relu_shapes
from keras_sawtooth.variable_shapes import variable_shapes

# At depth 24 the average piece is as narrow as the spacing of float32 numbers
# on the domain; deeper layers would cost time and add nothing.
MAX_DEPTH = 24
# With less, peaks would round to 0 or 1 in float32.
MIN_MARGIN = 1e-6


def _default(value, default):
    return default if value is None else value


@keras.saving.register_keras_serializable(package="keras_sawtooth")
class RegionConstraint(keras.layers.Layer):
    """Learnable piecewise-linear function with `2 ** depth` pieces per channel.

    Acts on the last axis of its input, like an activation function: put it after
    `Dense`, `Conv2D` or `EinsumDense`, or straight on input features.

    Constrained, channel c computes
    `slope * z + sum_i s_i W_i((z - low) / (high - low))`, where the waves `W_i`
    are composed triangles. Whatever the peaks of the triangles are, the function
    has exactly `2 ** depth` linear pieces on the domain. Outside of it the outermost
    pieces continue, with slopes that are trained. Trained are `peak_logits`,
    `amplitude`, `tail_slopes` and `slope`.

    After `release()` the same function is a ReLU network of width 4 and depth
    `depth`, and all of its weights are trained: `relu_input_kernel`,
    `relu_input_bias`, `relu_kernel`, `relu_bias`, `relu_output_kernel`,
    `relu_tail_slopes` and `slope`. Nothing holds the pieces in place any more.

    The starting values suit standardized pre-activations: a channel starts as a line
    that bends around the middle of the domain, with a slope of about 0.75 on one side
    and 0.25 on the other.

    Args:
        depth: int from 1 to 24. Number of triangles that are composed.
        domain: pair of floats `(low, high)`. The interval of the input that the
            pieces cover.
        scales: `"tied"` or `"free"`. `"tied"` derives the scales `s_i` from the
            peaks, `s_{i+1} = s_i (1 - a_{i+1}) a_{i+2}`: the function is convex
            or concave on the domain and close to a smooth one. `"free"` starts
            at the same values and trains every scale by itself.
        tails: `"free"` or `"line"`. What the function is outside of the domain.
            `"free"`: the outermost pieces continue (with free scales, those of the tied
            function with the same peaks and `s_0`), and two numbers per channel, which
            start at zero, bend them. `"line"`: it is `slope * z`, and so the pieces of
            a channel without a slope end with the domain.
        constrained: bool. `False` starts in the released phase.
        margin: float from 1e-6 to below 0.5. Peaks stay in `[margin, 1 - margin]`.
        relu_rate: float from 1e-6 to below 1e6. The ReLU weights of the released phase
            are stored divided by this number (`relu_bias`: of layer i, also by
            `4 ** -i`, the size of its neurons). The function is several times more
            sensitive to them than to the peaks; this way an optimizer with steps of a
            given size (Adam, Lion) moves them by `relu_rate` times the learning rate.
        peak_initializer: initializer of `peak_logits`. Defaults to `RandomPeaks()`,
            peaks of about 0.5 +- 0.07, but 0.85 +- 0.04 for the second triangle.
        amplitude_initializer: initializer of the first scale `s_0`. Defaults to
            `RandomSign((high - low) / 8)`: plus or minus an eighth of the domain.
        slope_initializer: initializer of `slope`. Defaults to `Constant(0.5)`.
        tail_initializer: initializer of `tail_slopes`. Defaults to zeros.
        peak_regularizer: regularizer of `peak_logits`.
        amplitude_regularizer: regularizer of `amplitude`.
        slope_regularizer: regularizer of `slope`.
        tail_regularizer: regularizer of `tail_slopes`.
        relu_regularizer: regularizer of every `relu_` variable, as stored. With a
            `relu_rate` of 1/8, `L2(f)` acts as `L2(64 * f)` would on the weights
            themselves, which are large at the release: begin with `f = 1e-6`.
        peak_constraint: constraint of `peak_logits`.
        amplitude_constraint: constraint of `amplitude`.
        slope_constraint: constraint of `slope`.
        tail_constraint: constraint of `tail_slopes`.
        relu_constraint: constraint of every `relu_` variable, as stored.
        **kwargs: arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Input shape:
        `(batch, ..., channels)`, any rank from 2.

    Output shape:
        Same as the input.

    Raises:
        ValueError: if an argument is outside its range, or if the last axis of
            the input is unknown when the layer is built.
        TypeError: if it is given a tensor in the place of its arguments.

    Example:

        >>> layer = RegionConstraint(depth=3)
        >>> layer(np.zeros((2, 4))).shape == (2, 4)
        True
        >>> layer.peaks.shape == (4, 4)
        True

    Reference:
        - [Milkert et al., 2025](https://arxiv.org/abs/2311.18022), Theorem 3.1
          and section 3.
    """

    def __init__(
        self,
        depth=3,
        domain=(-1.0, 1.0),
        scales="tied",
        tails="free",
        constrained=True,
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
        if getattr(depth, "shape", ()):
            raise TypeError(
                "`RegionConstraint` is a layer: call an instance on the tensor, "
                "`RegionConstraint()(x)`, and give one to a layer, "
                f"`activation=RegionConstraint()`. Received: {type(depth).__name__}"
            )
        super().__init__(**kwargs)
        self.depth = check_integer("depth", depth, 1, MAX_DEPTH)
        self.domain = check_domain(domain, self.evaluated_dtype)
        if self.dtype_policy.quantization_mode is not None:
            raise ValueError(
                "`RegionConstraint` has no products that could be quantized. "
                f"Received: dtype={self.dtype_policy.name!r}"
            )
        self.scale_mode = check_choice("scales", scales, ("tied", "free"))
        self.tail_mode = check_choice("tails", tails, ("free", "line"))
        self.constrained = check_boolean("constrained", constrained)
        self.margin = check_number("margin", margin, MIN_MARGIN, 0.5)
        self.relu_rate = check_number("relu_rate", relu_rate, 1e-6, 1e6)
        get = keras.initializers.get
        eighth = (self.domain[1] - self.domain[0]) / 8
        self.peak_initializer = get(_default(peak_initializer, RandomPeaks()))
        self.amplitude_initializer = get(
            _default(amplitude_initializer, RandomSign(eighth))
        )
        self.slope_initializer = get(
            _default(slope_initializer, keras.initializers.Constant(0.5))
        )
        self.tail_initializer = get(_default(tail_initializer, "zeros"))
        get = keras.regularizers.get
        self.peak_regularizer = get(peak_regularizer)
        self.amplitude_regularizer = get(amplitude_regularizer)
        self.slope_regularizer = get(slope_regularizer)
        self.tail_regularizer = get(tail_regularizer)
        self.relu_regularizer = get(relu_regularizer)
        get = keras.constraints.get
        self.peak_constraint = get(peak_constraint)
        self.amplitude_constraint = get(amplitude_constraint)
        self.slope_constraint = get(slope_constraint)
        self.tail_constraint = get(tail_constraint)
        self.relu_constraint = get(relu_constraint)
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True

    def build(self, input_shape):
        channels = input_shape[-1] if len(input_shape) > 1 else None
        if not channels:
            raise ValueError(
                f"The input of layer {self.name!r} must have at least 2 axes, and the "
                "last one, the channels, a known size of at least 1: give it to "
                "`keras.Input`, or to the layer in front. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: channels})
        self.channels = channels
        for name in VARIABLES:
            setattr(self, name, None)
        with backend.init_scope():
            layer_phase.add_constrained_variables(self)
            layer_phase.add_variable(self, "slope", self.slope_initializer)
            if not self.constrained:
                # It starts as the release of a constrained layer leaves it.
                layer_phase.add_relu_variables(self)

    def call(self, inputs):
        # What has the compute dtype is widened in `hot_path`. Others, such as integers,
        # may not fit into it.
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if dtype.startswith("complex"):
            raise ValueError(
                f"Layer {self.name!r} has functions of real numbers. Give it real and "
                "imaginary parts, or magnitudes and phases, as channels of their own. "
                f"Received: inputs of dtype {dtype!r}"
            )
        z = inputs if dtype == self.compute_dtype else self._evaluated(inputs)
        if self.constrained:
            outputs = hot_path.sawtooth(z, *self.sawtooth_parameters(), self.domain)
        else:
            blocks, slopes = self.relu_blocks, self.slopes
            outputs = hot_path.relu_network(z, blocks, slopes, self.domain)
        return ops.cast(outputs, self.compute_dtype)

    @property
    def peaks(self):
        """Current peaks, tensor `(depth + 1, channels)`.

        Raises:
            RuntimeError: if the layer is not built, or was released.
        """
        self._check_phase("peaks", constrained=True)
        return self.sawtooth_parameters()[0]

    @property
    def scales(self):
        """Current scales of the waves, tensor `(depth, channels)`.

        Raises:
            RuntimeError: if the layer is not built, or was released.
        """
        self._check_phase("scales", constrained=True)
        return self.sawtooth_parameters()[1]

    @property
    def slopes(self):
        """Current slope, and with free tails its changes left and right of the domain.

        Tensor `(1, channels)` or `(3, channels)`, see `sawtooth.bent_line`.

        Raises:
            RuntimeError: if the layer is not built.
        """
        self._check_built("slopes")
        if self.constrained:
            return self.sawtooth_parameters()[2]
        if self.tail_mode == "line":
            return self._slopes()
        return self._slopes(self._evaluated(self.relu_tail_slopes) * self.relu_rate)

    def sawtooth_parameters(self, stored=None):
        """The parameters of `sawtooth.sawtooth`, from the constrained variables.

        Args:
            stored: tuple of `peak_logits`, `amplitude` and `tail_slopes`. Defaults to
                the variables of the layer, which a release takes from it.

        Returns:
            Tuple of the tensors `peaks`, `scales` and `slopes`.
        """
        stored = stored or (self.peak_logits, self.amplitude, self.tail_slopes)
        peak_logits, amplitude, tail_slopes = stored
        logits, scales = self._evaluated(peak_logits), self._evaluated(amplitude)
        peaks = sawtooth.peaks_from_logits(logits, self.margin)
        if self.scale_mode == "tied":
            scales = sawtooth.tied_scales(scales, peaks)
        if self.tail_mode == "line":
            return peaks, scales, self._slopes()
        # Of tied scales also where they are free: one optimizer step of free ones could
        # change the slope of a tail by about `2 ** depth` times the length of the step.
        # Both start at the same values.
        tails = sawtooth.continuing_tails(scales[0], peaks, self.domain)
        return peaks, scales, self._slopes(tails + self._evaluated(tail_slopes))

    def _slopes(self, *tails):
        return ops.concatenate([self._evaluated(self.slope)[None], *tails])

    @property
    def relu_blocks(self):
        """Current weights of the ReLU network, a `relu_network.ReluBlocks`.

        Raises:
            RuntimeError: if the layer is not built, or is constrained.
        """
        self._check_phase("relu_blocks", constrained=False)
        blocks = {}
        for field in relu_network.ReluBlocks._fields:
            variable = getattr(self, f"relu_{field}")
            if variable is None:
                shapes = relu_shapes(self.depth, self.channels)
                variable = ops.zeros(shapes[f"relu_{field}"])
            blocks[field] = self._evaluated(variable) * self.relu_unit(field)
        return relu_network.ReluBlocks(**blocks)

    def relu_unit(self, field):
        """The unit in which the weights of a field of `relu_blocks` are stored.

        Float, or for `"bias"` a tensor `(depth - 1, 1, 1)`.
        """
        if field != "bias":
            return self.relu_rate
        # Neurons shrink by about 4 from layer to layer, and the steps of Adam do not:
        # with biases in one unit, the first steps move the last neurons past all of
        # their breakpoints, and most pieces are gone.
        size = relu_network.neuron_size("bias", self.depth)
        return self.relu_rate * self._evaluated(size)

    def variable_shapes(self, constrained):
        """Shapes of the variables in a phase, see `variable_shapes.variable_shapes`."""
        return variable_shapes(
            constrained, self.depth, self.channels, self.scale_mode, self.tail_mode
        )

    def release(self):
        """Turn the layer into the same function with free ReLU weights.

        Replaces the layer's variables. As after `Dense.enable_lora`, models, optimizers
        and, on torch, `model.parameters()` keep the old ones: use
        `keras_sawtooth.release(model)`, or compile the model again.

        Raises:
            ValueError: if the layer is not built, or was released before.

        Example:

            >>> layer = RegionConstraint(depth=3)
            >>> x = np.linspace(-3, 3, 8).reshape(2, 4)
            >>> before = keras.ops.convert_to_numpy(layer(x))
            >>> layer.release()
            >>> after = keras.ops.convert_to_numpy(layer(x))
            >>> np.allclose(before, after, atol=1e-5)
            True

        Reference:
            - Milkert et al., 2025, section 3.2.
        """
        if not self.built:
            raise ValueError(
                f"Layer {self.name!r} is not built yet, so there is nothing to "
                "release. Build it, or call its model on data, first; or create "
                "it with `constrained=False`."
            )
        if not self.constrained:
            raise ValueError(
                f"Layer {self.path!r} was released before. A layer can be "
                "released once."
            )
        layer_phase.change_phase(self)

    def _evaluated(self, value):
        """`value` as a tensor of the dtype in which the waves are evaluated."""
        return ops.cast(value, self.evaluated_dtype)

    @property
    def evaluated_dtype(self):
        """Dtype in which the function is evaluated: float32, under float64 float64."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def _check_built(self, attribute):
        if not self.built:
            raise RuntimeError(
                f"Layer {self.name!r} is not built yet and has no `{attribute}`."
            )

    def _check_phase(self, attribute, constrained):
        self._check_built(attribute)
        if self.constrained != constrained:
            # Not an AttributeError: torch modules replace its message.
            raise RuntimeError(
                f"Layer {self.path!r} is constrained and has no `{attribute}` "
                "before `release()`; it has `peaks` and `scales`."
                if self.constrained
                else f"Layer {self.path!r} was released and has no "
                f"`{attribute}` any more; its weights are in `relu_blocks`, its "
                "pieces in `keras_sawtooth.linear_regions(layer)`."
            )

    def save_own_variables(self, store):
        if not self.built:
            return
        phase_files.save(self, store)

    def load_own_variables(self, store):
        phase_files.load(self, store)

    def quantize(self, mode=None, type_check=True, config=None):
        # Keras turns this error into a warning and continues.
        raise NotImplementedError(
            f"Layer {self.name!r} stays in {self.variable_dtype}: "
            "`RegionConstraint` has no products that could be quantized."
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {
            "depth": self.depth,
            "domain": self.domain,
            "scales": self.scale_mode,
            "tails": self.tail_mode,
            "constrained": self.constrained,
            "margin": self.margin,
            "relu_rate": self.relu_rate,
        }
        for name in ("peak", "amplitude", "slope", "tail"):
            config[f"{name}_initializer"] = keras.initializers.serialize(
                getattr(self, f"{name}_initializer")
            )
        for name in ("peak", "amplitude", "slope", "tail", "relu"):
            config[f"{name}_regularizer"] = keras.regularizers.serialize(
                getattr(self, f"{name}_regularizer")
            )
            config[f"{name}_constraint"] = keras.constraints.serialize(
                getattr(self, f"{name}_constraint")
            )
        return {**super().get_config(), **config}
