"""A model with sawtooth layers as a model of Keras' own layers."""

import warnings
from contextlib import contextmanager

import keras
from keras import layers

from keras_sawtooth.arguments import check_model
from keras_sawtooth.cloning import ENDS_IN_ACTIVATION
from keras_sawtooth.cloning import clone_graph
from keras_sawtooth.cloning import copy_assets
from keras_sawtooth.cloning import uncompiled
from keras_sawtooth.graphs import is_graph
from keras_sawtooth.graphs import read_shapes
from keras_sawtooth.layer_phase import own_variables
from keras_sawtooth.nested_layers import flatten_layers
from keras_sawtooth.nested_layers import region_layers
from keras_sawtooth.region_constraint import RegionConstraint
from keras_sawtooth.sawtooth_dense import SawtoothDense
from keras_sawtooth.standard_network import standard_network

# Wrappers that change the kernel only, or apply the layer to every time step.
WRAPPERS = (layers.TimeDistributed, layers.SpectralNormalization)


def to_standard_layers(model):
    """An equal model that Keras can load, run and export without this package.

    Every `SawtoothDense` and `RegionConstraint`, in either phase, becomes the ReLU
    network of width 4 that it equals, made of `Dense`, `EinsumDense`, `Add` and such.
    This includes layers in nested models and in `TimeDistributed`, and those that are
    the `activation` of a layer of Keras. Each becomes a small model with the name of
    the layer. All other layers are copied with their weights, so that a model without
    sawtooth layers is copied as it is.

    The copy is for inference. It is not compiled: its file then loads on every
    backend, whatever the old model was trained with. It has the `trainable` flags of
    the old layers, LoRA is merged into the kernels of `SawtoothDense`, and
    regularizers of peaks, amplitudes, slopes, tails and ReLU weights are left out.

    Args:
        model: a built `keras.Sequential` or functional model, left as it is.

    Returns:
        The new model. On the inputs that the layers' domains cover, its outputs are
        those of `model` up to float32 rounding; far outside, the rounding grows with
        the input.

    Raises:
        TypeError: if `model` is neither a Sequential nor a functional model, or a class
            in it has a `call` of its own.
        ValueError: if the model or a sawtooth layer is not built, if a layer or model
            with code of its own holds a sawtooth layer, or if a mask reaches one:
            `EinsumDense` cannot hand it on.

    Example:

        >>> model = keras.Sequential([keras.Input((3,)), SawtoothDense(8)])
        >>> standard = to_standard_layers(model)
        >>> [type(layer).__name__ for layer in standard.layers[0].layers[1:4]]
        ['Dense', 'EinsumDense', 'EinsumDense']
        >>> x = np.ones((2, 3))
        >>> outputs = [keras.ops.convert_to_numpy(m(x)) for m in (model, standard)]
        >>> np.allclose(*outputs, atol=1e-5)
        True

    Reference:
        - [Milkert et al., 2025](https://arxiv.org/abs/2311.18022), section 3.2.
    """
    _check(model)
    converted = [x.name for x in flatten_layers(model) if region_layers(x)]
    converter = _Converter()
    with uncompiled(model), _mask_errors(converted):
        result = converter.graph(model)
    if not result.built:
        result.build(model.input_shape)
    converter.copy_states()
    if not model.trainable:
        result.trainable = False
    return result


class _Converter:
    """Clones layers, with standard ones in place of sawtooth layers.

    Their variables are copied at the end, when all are built.
    """

    def __init__(self):
        # Pairs of an old layer and its copy, with all that is inside of it.
        self._copied = []
        # Pairs of an old layer and one that does what it did before its nonlinearity.
        self._linear = []

    def graph(self, model):
        """The copy of a Sequential or functional model."""
        return clone_graph(model, self._clone)

    def copy_states(self):
        for layer, copy in self._copied:
            for old, new in _layer_pairs(layer, copy):
                _copy_state(old, new)
        for layer, linear in self._linear:
            _copy_state(layer, linear)

    def _clone(self, layer):
        # Functional models also hold operations, such as `ops.sin` of a tensor.
        if not isinstance(layer, layers.Layer):
            return type(layer).from_config(layer.get_config())
        if not region_layers(layer):
            copy = type(layer).from_config(layer.get_config())
            self._copied.append((layer, copy))
            return copy
        if type(layer) is layers.TimeDistributed and is_graph(layer.layer):
            return _wrap(layer, self.graph(layer.layer))
        return self._as_model(layer)

    def _as_model(self, layer):
        linear, stages = self._split(layer)
        inputs = keras.Input(batch_shape=_input_shape(layer), dtype=layer.input_dtype)
        outputs = inputs if linear is None else linear(inputs)
        for i, stage in enumerate(stages):
            name = f"{layer.name}_{i}"
            if type(stage) is RegionConstraint:
                outputs = standard_network(stage, outputs, name)
            elif isinstance(stage, layers.Layer):
                outputs = self._clone(stage)(outputs)
            else:
                last = layers.Activation(stage, dtype=layer.dtype_policy, name=name)
                outputs = last(outputs)
        result = keras.Model(inputs, outputs, name=layer.name)
        # `True` would unfreeze a frozen part.
        if not layer.trainable:
            result.trainable = False
        return result

    def _split(self, layer):
        """What a layer does before its nonlinearities, a new layer or none, and these.

        The new layer is as the old one, without activation.
        """
        activation = getattr(layer, "activation", None)
        if type(layer) is RegionConstraint:
            return None, [layer]
        if type(layer) is layers.Activation:
            return None, [activation]
        if type(layer) is SawtoothDense:
            linear = _linear_dense(layer)
            stages = [layer.region_constraint]
            if activation is not keras.activations.linear:
                stages.append(activation)
        elif type(layer) in ENDS_IN_ACTIVATION and isinstance(activation, layers.Layer):
            linear = type(layer).from_config({**layer.get_config(), "activation": None})
            stages = [activation]
        elif type(layer) in WRAPPERS:
            linear, stages = self._split(layer.layer)
            if linear is not None:
                linear = _wrap(layer, linear)
        else:
            raise ValueError(_hidden(layer))
        if linear is not None:
            self._linear.append((layer, linear))
        return linear, stages


def _layer_pairs(layer, copy):
    """Pairs of every layer inside `layer`, itself included, and its copy."""
    for old, new in zip(flatten_layers(layer), flatten_layers(copy), strict=False):
        # Keras builds the `activation` of a layer when that is called on data.
        if old.built and not new.built:
            new.build_from_config(old.get_build_config())
    return zip(flatten_layers(layer), flatten_layers(copy), strict=True)


def _copy_state(layer, copy):
    """Copy what a layer itself would save: its variables, not those of its layers,
    and its assets."""
    store = {}
    if type(layer) is SawtoothDense:
        # With LoRA merged into the kernel, and without a checksum.
        layers.Dense.save_own_variables(layer, store)
    else:
        layer.save_own_variables(store)
    # Through NumPy: on JAX the two would share a buffer.
    store = {k: keras.ops.convert_to_numpy(v) for k, v in store.items()}
    copy.load_own_variables(store)
    # Variables may be frozen without their layer.
    pairs = zip(own_variables(layer), own_variables(copy), strict=False)
    for old, new in pairs:
        if not old.trainable:
            new.trainable = False
    copy_assets(layer, copy)


def _check(model):
    if not is_graph(model):
        raise TypeError(
            "`to_standard_layers` takes a Sequential or functional model: Keras cannot "
            "see how other models call their layers. `model.export` takes every model. "
            f"Received: model={model!r}"
        )
    check_model("to_standard_layers", model)
    for region in region_layers(model):
        if not region.built:
            # Keras builds the `activation` of a layer when that is called on data.
            raise ValueError(
                f"Layer {region.name!r} of {model.name!r} is not built, so it has no "
                "weights to copy. Call the model on data once."
            )


def _hidden(layer):
    held = ", ".join(repr(x.name) for x in region_layers(layer))
    return (
        f"Layer {layer.name!r} ({type(layer).__name__}) holds the sawtooth layers "
        f"{held} and calls them in code of its own, which Keras cannot see. Use them "
        "as layers of a Sequential or functional model, or as the `activation` of a "
        "layer such as `Dense` or `Conv2D`. `model.export` takes the model as it is."
    )


def _input_shape(layer):
    # The sizes of the graph. A shared layer may have inputs of several sizes.
    shapes = read_shapes(layer)
    shapes = [shape for shape in shapes if len(shape) == len(shapes[0])]
    sizes = [{*axis} for axis in zip(*shapes, strict=True)]
    return (None, *[axis.pop() if len(axis) == 1 else None for axis in sizes[1:]])


def _linear_dense(layer):
    config = layer.get_config()
    known = layers.Dense(1).get_config()
    config = {name: value for name, value in config.items() if name in known}
    return layers.Dense.from_config({**config, "activation": None})


def _wrap(wrapper, layer):
    config = {k: v for k, v in wrapper.get_config().items() if k != "layer"}
    return type(wrapper)(layer, **config)


@contextmanager
def _mask_errors(names):
    """Turn Keras' warning that a layer with one of these names lost a mask into an
    error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        message = str(warning.message)
        if "mask" in message and any(f"'{name}'" in message for name in names):
            raise ValueError(
                f"A mask reaches a sawtooth layer. {message} Layers that come after "
                "it would compute something else. `model.export` takes the model as "
                "it is."
            )
        warnings.warn_explicit(
            warning.message, warning.category, warning.filename, warning.lineno
        )
