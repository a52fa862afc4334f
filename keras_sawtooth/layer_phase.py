"""Makes the variables of a `RegionConstraint`, and replaces them in the other phase.

What models and optimizers hold of variables is left to `training/model_phase.py`.
"""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_sawtooth import relu_network
from keras_sawtooth import sawtooth
from keras_sawtooth.backend import current as backend
from keras_sawtooth.variable_shapes import VARIABLES


def change_phase(layer):
    """Release a constrained layer, or constrain a released one.

    A release keeps the function. The way back does not, as weights that were trained
    freely are not composed triangles: its variables wait for values to come.
    """
    replaced = _variables_of_phase(layer)
    others = added_variables(layer)
    with _unlocked(layer):
        if layer.constrained:
            add_relu_variables(layer)
        else:
            add_constrained_variables(layer)
            # `slope` comes last in the constrained phase.
            others = [layer.slope, *others]
            _forget(layer, replaced)
        _move_to_end(layer, others)
    layer.constrained = not layer.constrained
    _freeze_like(replaced, layer)
    _invalidate(replaced)


def add_constrained_variables(layer):
    """Make the variables of the constrained phase, except `slope`, which both share."""
    add_variable(layer, "peak_logits", layer.peak_initializer)
    initializer = layer.amplitude_initializer
    if layer.scale_mode == "free":
        initializer = _free_scales_initializer(layer, layer.peak_logits)
    add_variable(layer, "amplitude", initializer)
    if layer.tail_mode == "free":
        add_variable(layer, "tail_slopes", layer.tail_initializer)


def _free_scales_initializer(layer, peak_logits):
    """Free scales start as the tied ones of the same peaks and `s_0`."""

    def initial_value(shape, dtype=None):
        amplitude = layer.amplitude_initializer(shape[1:], dtype=dtype)
        logits, amplitude = (
            ops.cast(x, layer.evaluated_dtype) for x in (peak_logits, amplitude)
        )
        peaks = sawtooth.peaks_from_logits(logits, layer.margin)
        return ops.cast(sawtooth.tied_scales(amplitude, peaks), dtype)

    return initial_value


def add_relu_variables(layer):
    """Put variables of the released phase in the place of the constrained ones."""
    # The initializers may run later than this function: when a model is built
    # symbolically, Keras gives variables their values afterwards, in the order of
    # creation.
    stored = layer.peak_logits, layer.amplitude, layer.tail_slopes

    def initializer(name):
        def initial_value(shape, dtype=None):
            peaks, scales, slopes = layer.sawtooth_parameters(stored)
            if name == "relu_tail_slopes":
                value = slopes[1:] / layer.relu_rate
            else:
                field = name.removeprefix("relu_")
                # JAX would compile every operation by itself.
                blocks = backend.compiled_on_jax(relu_network.relu_blocks)
                value = getattr(blocks(peaks, scales), field) / layer.relu_unit(field)
            return ops.cast(value, dtype)

        return initial_value

    for name in layer.variable_shapes(constrained=False):
        if name != "slope":
            add_variable(layer, name, initializer(name))
    _forget(layer, [v for v in stored if v is not None])


def add_variable(layer, name, initializer):
    """Make a variable, the attribute `name` of its layer.

    Args:
        layer: a `RegionConstraint`.
        name: str. A key of `layer.variable_shapes(constrained)` in one of the phases.
        initializer: initializer, or function of a shape and a dtype.
    """
    # Regularizers and constraints are called "peak", "amplitude", ..., "relu".
    kind = name.split("_")[0]
    variable = layer.add_weight(
        name=name,
        shape=layer.variable_shapes(constrained=not name.startswith("relu_"))[name],
        initializer=initializer,
        regularizer=getattr(layer, f"{kind}_regularizer"),
        constraint=getattr(layer, f"{kind}_constraint"),
        # The waves are evaluated in float32 or wider.
        autocast=False,
    )
    setattr(layer, name, variable)


def take_back(layer, variables, constrained):
    """Undo a change of phase, also one that was left halfway.

    `variables` are the weights from before it, and `constrained` is the phase.
    """
    with _unlocked(layer):
        for variable in own_variables(layer):
            layer._untrack_variable(variable)
        for name in VARIABLES:
            setattr(layer, name, None)
        for variable in variables:
            _track_again(layer, variable)
            if variable.name in VARIABLES:
                setattr(layer, variable.name, variable)
    layer.constrained = constrained


def own_variables(layer):
    """The variables of a layer itself, also those that a subclass has added."""
    own = {}
    # Keras' public way to them: `weights` has those of layers inside, too.
    keras.layers.Layer.save_own_variables(layer, own)
    return list(own.values())


def added_variables(layer):
    """List of the variables that a subclass has added."""
    known = layer.variable_shapes(layer.constrained)
    return [v for v in own_variables(layer) if v.name not in known]


def _variables_of_phase(layer):
    """What a change of phase replaces."""
    names = layer.variable_shapes(layer.constrained)
    return [getattr(layer, name) for name in names if name != "slope"]


def _forget(layer, variables):
    for variable in variables:
        layer._untrack_variable(variable)
        setattr(layer, variable.name, None)


def _move_to_end(layer, variables):
    for variable in variables:
        layer._untrack_variable(variable)
        _track_again(layer, variable)


def _track_again(layer, variable):
    # Keras sorts a frozen variable into another list, and forgets to unfreeze it.
    trainable, variable.trainable = variable.trainable, True
    layer._track_variable(variable)
    variable.trainable = trainable


@contextlib.contextmanager
def _unlocked(layer):
    # Keras locks the lists of variables of a built layer.
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def _freeze_like(variables, layer):
    """Freeze a layer's variables of its phase if those that they replace are frozen.

    Variables may be frozen (`variable.trainable = False`) without their layer, and on
    torch also tensors (`parameter.requires_grad_(False)`).
    """
    successors = _variables_of_phase(layer)
    if not any(variable.trainable for variable in variables):
        for variable in successors:
            variable.trainable = False
    elif not any(getattr(v.value, "requires_grad", True) for v in variables):
        for variable in successors:
            variable.value.requires_grad_(False)


def _invalidate(variables):
    """Let a function that still uses variables of the other phase give NaN.

    TensorFlow's functions hold the variables with which they were traced, and would
    compute, and train, what is not a part of the model any more.
    """
    if keras.backend.backend() == "tensorflow":
        for variable in variables:
            # In NumPy: `tf.debugging.enable_check_numerics` refuses what makes a NaN.
            variable.assign(np.full(variable.shape, np.nan, variable.dtype))
