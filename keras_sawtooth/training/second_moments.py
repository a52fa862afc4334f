"""Starting second moments for the variables that a change of phase creates.

Adam and its relatives divide by second moments ("velocities"). Next to a large step
count they take fresh zeros for tiny gradients, and their first steps are several times
too long.
"""

import numpy as np
from keras import ops

from keras_sawtooth.relu_network import ReluBlocks
from keras_sawtooth.relu_network import neuron_size
from keras_sawtooth.training.optimizer_state import slot_value

# How much more sensitive a function is to its ReLU weights than to its peaks.
SENSITIVITY = 16
# In so many steps, second moments that are too large for deeper layers have decayed.
PROTECTED_STEPS = 500


def starting_velocities(optimizer, layer, gone, fresh):
    """Second moments for the fresh variables of a layer, from those that are gone.

    The gradients of ReLU weights are at most about `SENSITIVITY` times as large as
    those of peaks, and stored as they are `relu_rate` times that. So the largest second
    moment of the channel gives a safe start: if it is too large, steps are short until
    it has decayed. It is too large for deeper layers, whose gradients shrink with their
    neurons. That protects their pieces, which the first steps could cut off, but with
    a `beta_2` of 0.999 it would last for thousands of steps.

    Args:
        optimizer: the `keras.optimizers.Optimizer` from before the change.
        layer: the `RegionConstraint`, after the change.
        gone, fresh: lists of the variables that the layer has lost and gained.

    Returns:
        List of pairs (fresh variable, tensor of its shape), empty if the optimizer has
        no second moments.
    """
    largest = _largest_velocity(optimizer, gone)
    if largest is None:
        return []
    factor = (SENSITIVITY * layer.relu_rate) ** 2
    largest = largest / factor if layer.constrained else largest * factor
    decay = (1 - second_moment_decay(optimizer)) * PROTECTED_STEPS
    velocities = []
    for variable in fresh:
        estimate = largest
        field = variable.name.removeprefix("relu_")
        if field in ReluBlocks._fields:
            # In logarithms: `exp(decay)` may be more than a float holds.
            size = np.log(ops.convert_to_numpy(neuron_size(field, layer.depth)))
            share = np.exp(np.minimum(0.0, decay + 2 * size))
            estimate = estimate * ops.cast(share, largest.dtype)
        estimate = ops.broadcast_to(estimate, variable.shape)
        velocities.append((variable, ops.copy(estimate)))
    return velocities


def _largest_velocity(optimizer, gone):
    """The largest second moment of every channel of `gone`, or `None`."""
    known = [slot_value(optimizer, v, "velocity") for v in gone]
    known = [ops.reshape(v, (-1, v.shape[-1])) for v in known if v is not None]
    return ops.max(ops.concatenate(known), axis=0) if known else None


def second_moment_decay(optimizer):
    """What is left of second moments after a step: Adam's `beta_2`, RMSprop's `rho`."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # The second name is that of `Muon`. Of a `MultiOptimizer` there may be several.
    for name in ("beta_2", "adam_beta_2", "rho"):
        if hasattr(optimizer, name):
            return getattr(optimizer, name)
    return 0.999
