"""Carry the state of an optimiser over to a changed list of variables."""

from collections import defaultdict

from keras import ops


def copy_optimizer(optimizer):
    """An unbuilt optimiser of the same class and configuration.

    Raises:
        ValueError: if Keras cannot copy it.
    """
    try:
        new = type(optimizer).from_config(optimizer.get_config())
        _copy_weight_decay_exclusions(optimizer, new)
    except Exception as error:
        raise ValueError(
            f"The optimiser {optimizer.name!r} must be copied when the layers are "
            f"released, and Keras cannot: {error} Give classes of your own a "
            "`get_config` and register them with "
            "`keras.saving.register_keras_serializable`; use a "
            "`LearningRateSchedule` or an `OptimizerMap` instead of a function."
        ) from error
    return new


def carry_over(optimizer, new, variables, velocities):
    """Build `new` for `variables` in the state that `optimizer` has.

    Slots of variables that stay, the step count, the learning rate and loss
    scales are copied. Slots of new variables start at zero, with two exceptions:
    the moving average of a variable starts at its value, and second moments
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

    # Slots are matched by name, and where several variables share a path, by
    # their order. Values are copied: JAX donates the old buffers, and two
    # variables must not share one. They stay on their devices: a process need not
    # hold all of a sharded value, and a mirrored one cannot become an array.
    values = defaultdict(list)
    for slot in optimizer.variables:
        values[slot.name].append(ops.copy(slot.value))
    slots = defaultdict(list)
    for slot in new.variables:
        slots[slot.name].append(slot)
    for name, value in values.items():
        if len(slots[name]) == len(value):
            for slot, old in zip(slots[name], value, strict=True):
                slot.assign(old)

    fresh = [v for v in variables if _slot_name(v, "average") not in values]
    start_averages(new, fresh, variables)
    for variable, velocity in velocities:
        slot = _find_slot(new, variable, "velocity", variables)
        if slot is not None:
            slot.assign(velocity)


def start_averages(optimizer, fresh, variables):
    """Let the moving averages of fresh variables, if any, start at their values."""
    for variable in fresh:
        average = _find_slot(optimizer, variable, "average", variables)
        if average is not None:
            average.assign(ops.copy(variable.value))


def slot_value(optimizer, variable, slot, variables=()):
    """The value of a slot of `variable`, or `None` if there is none.

    `variables` are those of the optimiser, to tell several of one path apart.
    """
    found = _find_slot(optimizer, variable, slot, variables)
    return None if found is None else ops.convert_to_tensor(found.value)


def _find_slot(optimizer, variable, slot, variables):
    name = _slot_name(variable, slot)
    slots = [candidate for candidate in optimizer.variables if candidate.name == name]
    twins = [id(v) for v in variables if v.path == variable.path] or [id(variable)]
    found = dict(zip(twins, slots, strict=False))
    return found.get(id(variable))


def _slot_name(variable, slot):
    # As in `Optimizer.add_variable_from_reference`.
    return f"{variable.path.replace('/', '_')}_{slot}"


def _copy_weight_decay_exclusions(old, new):
    # `exclude_from_weight_decay` leaves no trace in the configuration.
    for name in (
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_pattern",
    ):
        if hasattr(old, name):
            setattr(new, name, getattr(old, name))
    if hasattr(old, "inner_optimizer"):
        _copy_weight_decay_exclusions(old.inner_optimizer, new.inner_optimizer)
    # Of a `MultiOptimizer`. One with a function in place of a map has none before it
    # is built, and the function would return the old ones: an error is right.
    inner = getattr(old, "optimizers", ()), getattr(new, "optimizers", ())
    for old_inner, new_inner in zip(*inner, strict=True):
        _copy_weight_decay_exclusions(old_inner, new_inner)
