"""Carry the state of an optimizer over to a changed list of variables."""

import keras
from keras import ops


def copy_optimizer(optimizer):
    """An unbuilt optimizer of the same class and configuration.

    Raises:
        ValueError: if Keras cannot copy it.
    """
    try:
        new = type(optimizer).from_config(optimizer.get_config())
        copy_weight_decay_exclusions(optimizer, new)
    except Exception as error:
        raise ValueError(
            f"The optimizer {optimizer.name!r} must be copied when layers change their "
            f"phase, and Keras cannot: {error} Give classes of your own a "
            "`get_config` and register them with "
            "`keras.saving.register_keras_serializable`; use a "
            "`LearningRateSchedule` or an `OptimizerMap` instead of a function, and an "
            "optimizer of its own for every pattern of an `OptimizerMap`."
        ) from error
    return new


def carry_over(optimizer, new, variables, velocities):
    """Build `new` for `variables` in the state that `optimizer` has.

    Slots of variables that stay, the step count, the learning rate and loss
    scales are copied. Slots of new variables start at zero, with two exceptions:
    those that stand for a variable itself start at its value, and second moments
    ("velocities") where the caller says: next to a large step count Adam takes
    fresh zeros for tiny gradients and makes its first steps several times too
    long.

    Args:
        optimizer: a built `keras.optimizers.Optimizer`, wrapped or not.
        new: the unbuilt copy of it.
        variables: list of the trainable variables from now on.
        velocities: list of pairs (new variable, tensor of its shape).
    """
    new.build(variables)

    # Values are copied: JAX donates the old buffers, and two variables must not
    # share one. They stay on their devices: a process need not hold all of a sharded
    # value, and a mirrored one cannot become an array.
    old_slots, slots = _slots(optimizer), _slots(new)
    for key, slot in slots.items():
        if key in old_slots:
            slot.assign(ops.copy(old_slots[key].value))

    known = {owner for _, owner in old_slots}
    fresh = [v for v in variables if id(v) not in known]
    start_value_slots(new, fresh)
    for variable, velocity in velocities:
        slot = _slot(slots, variable, "velocity")
        if slot is not None:
            slot.assign(velocity)


def copy_weight_decay_exclusions(optimizer, new, pairs=None):
    """Exclude from weight decay in a copy of an optimizer what its original excludes.

    Args:
        optimizer: a `keras.optimizers.Optimizer`, wrapped or not.
        new: a copy of it by its configuration, in which exclusions leave no trace.
        pairs: list of pairs (variable of the original, its counterpart), if the copy
            is for other variables.
    """
    for old, copy in _paired_optimizers(optimizer, new):
        pattern = getattr(old, "_exclude_from_weight_decay_pattern", None)
        excluded = getattr(old, "_exclude_from_weight_decay", set())
        if pairs is not None:
            kept = [b for a, b in pairs if old._var_key(a) in excluded]
            excluded = {copy._var_key(variable) for variable in kept}
        copy._exclude_from_weight_decay_pattern = pattern
        copy._exclude_from_weight_decay = excluded


def excludes_from_weight_decay(optimizer):
    """Whether there are variables that do not decay."""
    names = "_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"
    return any(
        getattr(x, name, None) for x in _flatten_optimizers(optimizer) for name in names
    )


def exclude_fresh_variables(optimizer, new, gone, fresh):
    """If no weights of `gone` decay, let those of `fresh` in their place not decay.

    Args:
        optimizer: a `keras.optimizers.Optimizer`, wrapped or not.
        new: its copy, built or not.
        gone, fresh: lists of variables.
    """
    for old, copy in _paired_optimizers(optimizer, new):
        excluded = {*getattr(copy, "_exclude_from_weight_decay", ())}
        if not any(old._use_weight_decay(v) for v in gone):
            excluded |= {copy._var_key(v) for v in fresh}
        # Others may get the keys of variables that are gone.
        copy._exclude_from_weight_decay = excluded - {copy._var_key(v) for v in gone}


def start_value_slots(optimizer, fresh):
    """Let the slots that stand for fresh variables themselves, if any, start at them.

    These are moving averages, and what FTRL computes its variables from at every step.
    """
    slots = _slots(optimizer)
    for variable in fresh:
        average = _slot(slots, variable, "average")
        if average is not None:
            average.assign(ops.copy(variable.value))
    for single in _flatten_optimizers(optimizer):
        if isinstance(single, keras.optimizers.Ftrl):
            for variable in fresh:
                _start_ftrl(single, slots, variable)


def _start_ftrl(ftrl, slots, variable):
    """Let the next step start from the value that the variable has.

    McMahan et al., 2013, algorithm 1: `variable = (clip(linear) - linear) / quadratic`.
    """
    linear = _slot(slots, variable, "linear")
    if linear is None:
        return
    power = ops.power(
        _slot(slots, variable, "accumulator").value, -ftrl.learning_rate_power
    )
    rate = ops.cast(ftrl.learning_rate, variable.dtype)
    quadratic = (power + ftrl.beta) / rate + 2 * ftrl.l2_regularization_strength
    clipped = ftrl.l1_regularization_strength * ops.sign(variable.value)
    linear.assign(-quadratic * variable.value - clipped)


def is_stale(optimizer, model):
    """Whether a built optimizer is for variables that were replaced in the model.

    One that trains a part of the model, or variables outside of it as well, is not.
    """
    singles = _flatten_optimizers(optimizer)
    known = {id(v) for single in singles for v in single._trainable_variables}
    gone = known - {id(v) for v in model.variables}
    return bool(gone) and any(id(v) not in known for v in model.trainable_variables)


def slot_value(optimizer, variable, slot):
    """The value of a slot of `variable`, or `None` if there is none."""
    found = _slot(_slots(optimizer), variable, slot)
    return None if found is None else ops.convert_to_tensor(found.value)


def _slots(optimizer):
    """Variables of an optimizer, by attribute and by what they belong to.

    Optimizers keep slots in lists parallel to the variables they train. Names do not
    tell owners apart: layers of the same name may share paths. A variable that belongs
    to no weight belongs to its optimizer, by its place among the inner ones.
    """
    slots = {}
    for place, single in enumerate(_flatten_optimizers(optimizer)):
        trained = single._trainable_variables
        own = {id(variable) for variable in single._variables}
        for attribute, value in vars(single).items():
            if id(value) in own:
                slots[attribute, place] = value
            if isinstance(value, dict):  # Muon in Keras 3.12: by path.
                value = [value.get(variable.path) for variable in trained]
            if isinstance(value, list) and len(value) == len(trained):
                for variable, slot in zip(trained, value, strict=True):
                    if id(slot) in own and attribute != "_variables":
                        slots[attribute, id(variable)] = slot
    return slots


def _slot(slots, variable, name):
    """The slot of this name that belongs to `variable`, or `None`."""
    # As in `Optimizer.add_variable_from_reference`.
    name = f"{variable.path.replace('/', '_')}_{name}"
    for (_, owner), slot in slots.items():
        if owner == id(variable) and slot.name == name:
            return slot
    return None


def _paired_optimizers(old, new):
    """Pairs of an optimizer and its copy, and of those inside of them."""
    # A `MultiOptimizer` with a function in place of a map has none before it is built,
    # and the function would return the old ones: an error is right.
    return zip(_flatten_optimizers(old), _flatten_optimizers(new), strict=True)


def _flatten_optimizers(optimizer):
    """An optimizer, and those inside of it."""
    yield optimizer
    if hasattr(optimizer, "inner_optimizer"):
        yield from _flatten_optimizers(optimizer.inner_optimizer)
    for inner in getattr(optimizer, "optimizers", ()):
        yield from _flatten_optimizers(inner)
