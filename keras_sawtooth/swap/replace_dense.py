"""Replace the dense layers of an existing model."""

import contextlib
import warnings

import keras

from keras_sawtooth.arguments import check_model
from keras_sawtooth.arguments import check_verbose
from keras_sawtooth.cloning import ENDS_IN_ACTIVATION
from keras_sawtooth.cloning import clone_graph
from keras_sawtooth.cloning import uncompiled
from keras_sawtooth.graphs import is_graph
from keras_sawtooth.region_constraint import RegionConstraint
from keras_sawtooth.sawtooth_dense import SawtoothDense
from keras_sawtooth.swap.carry_weights import carry_weights
from keras_sawtooth.swap.carry_weights import check_copy
from keras_sawtooth.swap.carry_weights import same_variables
from keras_sawtooth.swap.choice import choose_layers
from keras_sawtooth.swap.rewriter import Rewriter
from keras_sawtooth.swap.table import replacement_table
from keras_sawtooth.training.model_phase import variable_scope
from keras_sawtooth.training.optimizer_state import copy_weight_decay_exclusions

# Methods that decide what `fit`, `evaluate` and `predict` do.
OWN_TRAINING = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
)


def replace_dense(
    model, depth=3, where=None, verbose=0, kinds=(keras.layers.Dense,), **kwargs
):
    """A copy of a model with `SawtoothDense` in place of its nonlinear dense layers.

    Train the copy before use: its units start as gently bent lines, whatever function
    the model had learned.

    Replaces every `Dense` with a nonlinear pointwise activation (relu, gelu, tanh,
    ...), also in nested models, in `TimeDistributed` and in layers and models of
    other classes that can be made from their `get_config()`. A replacement has the
    name, units, dtype policy, regularizers and constraints of the old layer, and
    starts with its kernel and bias. In Sequential and functional models, an
    activation that is a layer of its own becomes a `RegionConstraint`, if it comes
    right after a linear `Dense` or after normalizations, dropout, sums and
    concatenations behind one. All other layers are copied with their weights, such as
    linear, softmax and sigmoid heads, and whatever computes an output of a Sequential
    or functional model, as the range of its activation may matter. If the model is
    compiled, so is the copy, with an optimizer of the same settings that starts
    afresh; what does not decay there does not decay here. Second derivatives of the
    copy are zero, as those of relu: if the loss needs them, leave tanh and gelu as
    they are.

    If a layer's config exposes only the activation of the dense layers inside it
    (`TransformerEncoder(activation="gelu")` of KerasHub), they stay `Dense` and get a
    `RegionConstraint` as activation. Layers of the other `kinds` keep their class, too.

    Args:
        model: a built `keras.Model`, left as it is. Of a functional model with a class
            of its own, the copy may be a plain functional model, see
            `keras.models.clone_model`.
        depth: int. Number of triangles per unit, see `SawtoothDense`.
        where: callable that takes a layer to be replaced, one of the `kinds` or an
            activation behind it, and returns whether to do so. Defaults to all.
        verbose: 0 or 1. Whether to print a table of what was replaced.
        kinds: tuple of layer classes to look for: `Dense`, and `EinsumDense`,
            `Conv1D`, `Conv2D`, `Conv3D`, their transposes, `DepthwiseConv1D`,
            `DepthwiseConv2D`, `SeparableConv1D`, `SeparableConv2D`. Subclasses do not
            count, as they may compute anything.
        **kwargs: other arguments of `SawtoothDense` or, for activations that are layers
            and for layers that keep their class, of `RegionConstraint`, such as
            `domain`, for every replacement. What the old layer decides (its units,
            bias, dtype, name and so on) is no argument.

    Returns:
        The new model.

    Warns:
        UserWarning: if the model is compiled and Keras cannot copy how, as with a loss
            function of your own that is not registered. The copy is not compiled then.

    Raises:
        TypeError: if `model` is not a `keras.Model`, `where` not a function, a part of
            the model cannot be made from its `get_config()`, or a functional model has
            a `call`, `train_step` or `compute_loss` that its copy would not have.
        ValueError: if the model is not built, nothing is to be replaced, or a layer
            to be replaced is quantized, has LoRA enabled, has its channels first, or
            cannot be replaced by way of the configuration of what holds it.

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
    kinds = _check_arguments(model, kinds, where, {"depth": depth, **kwargs})
    verbose = check_verbose(verbose)
    chosen, left = choose_layers(model, kinds, where)
    rewriter = Rewriter(model, chosen, {"depth": depth, **kwargs})
    with variable_scope(model), uncompiled(model):
        result, copies = _copy(model, rewriter)
    hidden = [x for x in chosen if id(x) not in rewriter.done]
    if hidden:
        raise ValueError(
            f"{[x.path for x in hidden]} cannot be replaced: their activations stand "
            "in the code of what holds them, not in its configuration, so a copy has "
            "the same ones. In a class of your own, make the activation an argument "
            "that `get_config` returns, or write `SawtoothDense` instead. To replace "
            "others only: `where=lambda layer: layer.name not in "
            f"{sorted({x.name for x in hidden})}`."
        )
    pairs = []
    for old, new in copies:
        pairs += carry_weights(old, new, rewriter.chosen, rewriter.regions)
    replaced = [(old, new) for old, new in pairs if id(old) in rewriter.chosen]
    check_copy(model, result, replaced, rewriter)
    if model.compiled:
        with variable_scope(model):
            _compile_like(model, result, pairs)
    if verbose:
        print(replacement_table(replaced, left))
    return result


def _check_arguments(model, kinds, where, arguments):
    check_model("replace_dense", model)
    kinds = kinds if isinstance(kinds, list | tuple) else (kinds,)
    if not kinds or not all(kind in ENDS_IN_ACTIVATION for kind in kinds):
        names = [kind.__name__ for kind in ENDS_IN_ACTIVATION]
        raise ValueError(
            f"`kinds` must be a tuple of some of {names}. Received: kinds={kinds!r}"
        )
    if where is not None and not callable(where):
        raise TypeError(
            "`where` must be a function that takes a layer and returns a bool. "
            f"Received: where={where!r}"
        )
    fixed = {"activation", "bias_initializer", "dtype", "kernel_initializer"}
    fixed |= {"lora_rank", "name", "trainable", "units", "use_bias"}
    for name in sorted(fixed & {*arguments}):
        raise ValueError(
            f"`{name}` is that of the layer which is replaced, and no argument here. "
            f"Received: {name}={arguments[name]!r}"
        )
    # Their errors quote the argument; inside of `from_config` they would be wrapped.
    if keras.layers.Dense in kinds:
        SawtoothDense(1, **arguments)
    else:
        RegionConstraint(**arguments)
    return kinds


def _check_same_training(model, copy):
    changed = [
        name
        for name in OWN_TRAINING
        if getattr(type(model), name) is not getattr(type(copy), name)
    ]
    if changed:
        cls, plain = type(model).__name__, type(copy).__name__
        raise TypeError(
            f"{model.name!r} cannot be copied: Keras makes a plain {plain} model of "
            f"it, without the {changed} of {cls}. Give {cls} layers that were "
            "replaced before: make a plain model of the same layers, replace those, "
            f"and make a {cls} of the copy. Received: model={model!r}"
        )


def _compile_like(model, copy, pairs):
    try:
        copy.compile_from_config(model.get_compile_config())
    except (TypeError, ValueError) as error:
        warnings.warn(
            f"The copy of {model.name!r} is not compiled: Keras cannot copy what the "
            f"model was compiled with. Call `compile`. {error}",
            stacklevel=3,
        )
        return
    if copy.optimizer is not None:
        # Those of an outer layer may not line up, as activations were added inside of
        # it. Those of the layers inside do, and come later.
        counterparts = {
            id(a): (a, b) for old, new in pairs for a, b in same_variables(old, new)
        }.values()
        # A `MultiOptimizer` with a function has no others before it is built.
        with contextlib.suppress(ValueError):
            copy_weight_decay_exclusions(model.optimizer, copy.optimizer, counterparts)


def _copy(model, rewriter):
    """A copy, and pairs (layer, its copy) that hold all the weights."""
    copies = []

    def clone(layer):
        copy = rewriter.copy(layer)
        # Functional models also hold operations, such as `ops.sin` of a tensor.
        if isinstance(layer, keras.layers.Layer):
            copies.append((layer, copy))
        return copy

    if is_graph(model):
        copy = clone_graph(model, clone)
        _check_same_training(model, copy)
        return copy, copies
    copy = clone(model)
    if not copy.built:
        # A warning of it would only say what the error below says.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copy.build_from_config(model.get_build_config())
        # Keras runs its `call`, and leaves the rest to the first call on data.
        copy.built = True
    return copy, copies
