"""Replace the dense layers of an existing model."""

import keras

from keras_sawtooth.sawtooth_dense import SawtoothDense

# Nonlinear activations that act on every channel by itself. Those whose range is a
# promise to what follows (sigmoid, softplus, exponential, ...) are left alone: they
# end in probabilities, gates and rates.
POINTWISE = (
    keras.activations.celu,
    keras.activations.elu,
    keras.activations.gelu,
    keras.activations.hard_silu,
    keras.activations.hard_tanh,
    keras.activations.leaky_relu,
    keras.activations.mish,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.selu,
    keras.activations.silu,
    keras.activations.softsign,
    keras.activations.tanh,
    keras.activations.tanh_shrink,
    keras.activations.threshold,
)


def replace_dense(model, depth=3, where=None, verbose=0, **kwargs):
    """A copy of a model with `SawtoothDense` in place of its nonlinear dense layers.

    Replaces every `Dense` with a nonlinear pointwise activation (relu, gelu, tanh,
    ...), also in nested models and in `TimeDistributed`. A
    replacement has the name, units, dtype policy, regularisers and constraints of the
    old layer, and starts with its kernel and bias; all other layers, such as linear,
    softmax and sigmoid heads, are copied with their weights. If the model is compiled,
    so is the copy, with an optimiser that starts afresh.

    Args:
        model: a built `keras.Sequential` or functional model, left as it is. Of a
            functional model with a class of its own, the copy may be a plain
            `keras.Model`, see `keras.models.clone_model`.
        depth: int. Number of triangles a unit, see `SawtoothDense`.
        where: callable that takes a `Dense` layer of the model with a nonlinear
            activation, and returns whether to replace it. Defaults to all.
        verbose: 0 or 1. Whether to print what was replaced.
        **kwargs: all other arguments of `SawtoothDense`, such as `domain`, for
            every replacement.

    Returns:
        The new model.

    Raises:
        TypeError: if `model` is neither a Sequential nor a functional model.
        ValueError: if the model is not built, nothing is to be replaced, or a layer
            to be replaced is quantised or has LoRA enabled.

    Example:

    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input((3,)),
    ...         keras.layers.Dense(8, activation="relu"),
    ...         keras.layers.Dense(1),
    ...     ]
    ... )
    >>> [type(layer).__name__ for layer in replace_dense(model).layers]
    ['SawtoothDense', 'Dense']
    """
    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        raise TypeError(
            "`replace_dense` takes a Sequential or functional model: Keras cannot see "
            "how other models call their layers. Put `SawtoothDense` into its "
            f"`__init__` instead. Received: model={model!r}"
        )
    if not model.built:
        raise ValueError(
            f"{model.name!r} is not built, so it has no weights to start from. Put a "
            "`keras.Input` first, or call the model on data once."
        )
    # Its errors quote the argument; behind `from_config` they would be wrapped.
    SawtoothDense(1, depth=depth, **kwargs)
    # Pairs of the old layer and the new.
    replaced, copied = [], []

    def chosen(layer):
        # A subclass of `Dense` may compute anything.
        return (
            type(layer) is keras.layers.Dense
            and layer.activation in POINTWISE
            and (where is None or where(layer))
        )

    def replacement(layer):
        _refuse_rewritten(layer)
        config = {**layer.get_config(), "activation": None, **kwargs, "depth": depth}
        return SawtoothDense.from_config(config)

    def clone(layer):
        if chosen(layer):
            copy = replacement(layer)
            replaced.append((layer, copy))
            return copy
        config = layer.get_config()
        # Other wrappers have variables of their own, or read those of the layer.
        if type(layer) is keras.layers.TimeDistributed and chosen(layer.layer):
            inner = replacement(layer.layer)
            config["layer"] = keras.saving.serialize_keras_object(inner)
            copy = type(layer).from_config(config)
            replaced.append((layer.layer, copy.layer))
            return copy
        copy = type(layer).from_config(config)
        # Functional models also hold operations, such as `ops.sin` of a tensor.
        if isinstance(layer, keras.layers.Layer):
            copied.append((layer, copy))
        return copy

    result = keras.models.clone_model(model, clone_function=clone, recursive=True)
    if not replaced:
        raise ValueError(
            f"{model.name!r} has no layer to replace: no `Dense` with a nonlinear "
            "pointwise activation"
            f"{'' if where is None else ' for which `where` is true'}. Its layers: "
            f"{', '.join(f'{x.name} ({type(x).__name__})' for x in model.layers)}."
        )
    for layer, copy in copied:
        copy.set_weights(layer.get_weights())
    for layer, copy in replaced:
        # Through NumPy: on JAX the two would share a buffer, and training the copy
        # would delete it under the old model.
        copy.kernel.assign(keras.ops.convert_to_numpy(layer.kernel))
        if layer.use_bias:
            copy.bias.assign(keras.ops.convert_to_numpy(layer.bias))
    if verbose:
        for layer, _ in replaced:
            print(
                f"{layer.name}: Dense({layer.units}, "
                f"activation={layer.activation.__name__!r}) -> "
                f"SawtoothDense({layer.units}, depth={depth})"
            )
    return result


def _refuse_rewritten(layer):
    if layer.quantization_mode is not None or layer.lora_enabled:
        state = "has LoRA enabled" if layer.lora_enabled else "is quantised"
        raise ValueError(
            f"Layer {layer.name!r} {state} and cannot be replaced. Replace it before, "
            f"or leave it out: `where=lambda layer: layer.name != {layer.name!r}`."
        )
