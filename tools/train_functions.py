"""Sawtooth models of elementary functions: how they begin, and how they are trained.

A unit of a constrained layer is convex or concave on its domain and a line outside,
and with all peaks 1/2 it is a parabola up to the length of its pieces (Yarotsky,
2017). So the units are laid out like a hierarchical basis: one on the whole interval,
one on each half, on each quarter, and so on, each of them correcting the sum of those
before it in the middle of its section. What has to be trained are the peaks, which
skew the parabolas, and the amplitudes.
"""

from typing import NamedTuple

import keras
import numpy as np
from exact_error import extreme_errors
from exact_error import vertices
from keras import ops

import keras_sawtooth as ks

DEPTH = 8
# The domain of the layers; every unit maps its section to it.
LOW, HIGH = -2.0, 2.0
# Power means of the error: least squares first, then almost the largest error.
PHASES = ((2, 3e-2), (12, 1e-2), (40, 1e-3))
STEPS, STEPS_PER_EPOCH, WARM_UP_STEPS = 6000, 100, 200
# Among these are the ends of all sections.
POINTS = 2**10 + 1


class Recipe(NamedTuple):
    """`2 ** levels - 1` units, whose sections are equal in `x ** (1 / grading)`."""

    levels: int
    grading: int = 1
    trained: bool = True


RECIPES = {
    # All peaks 1/2 are the best there is: the chords of x^2, and half their error up.
    "square": Recipe(levels=1, trained=False),
    "cube": Recipe(levels=4),
    "exp": Recipe(levels=4),
    "sin": Recipe(levels=5),
    "tanh": Recipe(levels=5),
    "gelu": Recipe(levels=5),
    # Its second derivative is infinite at 0, where the sections have to be short.
    "sqrt": Recipe(levels=5, grading=4),
}


def make(function, recipe, phases=PHASES, steps=STEPS, points=POINTS):
    """A trained model of a function, a `Sequential` with one constrained layer.

    Args:
        function: `functions.Function`.
        recipe: `Recipe`.
        phases: sequence of pairs, powers and learning rates.
        steps: int. Steps of every phase.
        points: int. Points of the interval to train on, all of them in every step.

    Returns:
        The model, uncompiled.
    """
    keras.utils.set_random_seed(0)
    model = start(function, recipe)
    if recipe.trained:
        train(model, function, graded(function, recipe, points), phases, steps)
    # The largest error is smallest where it is as large to both sides.
    lowest, highest = extreme_errors(*vertices(model, *function.interval), function)
    bias = model.layers[-1].bias
    bias.assign(ops.convert_to_numpy(bias) - (lowest + highest) / 2)
    return keras.Sequential([keras.Input((1,)), *model.layers])


def graded(function, recipe, points):
    """Points from end to end of the interval, equally spaced up to the grading."""
    low, high = function.interval
    return low + (high - low) * np.linspace(0, 1, points) ** recipe.grading


def start(function, recipe):
    """The untrained model, an interpolant of the function by about parabolas."""
    ends = graded(function, recipe, 2 ** (recipe.levels - 1) + 1)
    left, middle, right, level = _sections(ends, recipe.levels)
    layer = ks.SawtoothDense(len(level), DEPTH, domain=(LOW, HIGH), tails="line")
    head = keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((1,)), layer, head])
    kernel = (HIGH - LOW) / (right - left)
    layer.kernel.assign(kernel[None])
    layer.bias.assign(LOW - kernel * left)
    # The first triangle of a unit has its peak where the units below it meet.
    region_constraint = layer.region_constraint
    logits = np.zeros((DEPTH + 1, len(level)))
    logits[0] = _logits((middle - left) / (right - left), region_constraint.margin)
    region_constraint.peak_logits.assign(logits)
    # The first unit brings the line through the ends, the others have no slope.
    values = function.function(ends)
    slopes = np.zeros(len(level))
    slopes[0] = (values[-1] - values[0]) / (HIGH - LOW)
    region_constraint.slope.assign(slopes)
    amplitudes, sizes = np.zeros(len(level)), np.zeros(len(level))
    sizes[0] = 1
    offset = values[0] - slopes[0] * LOW
    for k in range(recipe.levels):
        region_constraint.amplitude.assign(amplitudes)
        head.set_weights([sizes[:, None], np.array([offset])])
        here = level == k
        missing = _missing(model, function, left, middle, right)[here]
        if k == 0:
            amplitudes[here] = missing
        else:
            amplitudes[here] = np.where(missing < 0, -1, 1)
            sizes[here] = np.abs(missing)
    region_constraint.amplitude.assign(amplitudes)
    head.set_weights([sizes[:, None], np.array([offset])])
    # Units stay where they are and as large as they are. Adam's steps are of one size
    # for all numbers, and the smallest units would be lost in those of the largest.
    for variable in (layer.kernel, layer.bias, region_constraint.slope, head.kernel):
        variable.trainable = False
    return model


def train(model, function, x, phases, steps):
    x = x[:, None]
    y = function.function(x)
    # Many full batches an epoch: what Keras does between epochs takes longer.
    per_epoch = min(STEPS_PER_EPOCH, steps)
    data = [np.tile(values.astype("float32"), (per_epoch, 1)) for values in (x, y)]
    for power, rate in phases:
        warm_up = min(WARM_UP_STEPS, steps // 2)
        schedule = keras.optimizers.schedules.CosineDecay(
            1e-2 * rate, steps - warm_up, warmup_target=rate, warmup_steps=warm_up
        )
        model.compile(keras.optimizers.Adam(schedule, 0.95, 0.95), power_mean(power))
        model.fit(
            *data,
            batch_size=len(x),
            epochs=steps // per_epoch,
            shuffle=False,
            verbose=0,
        )


def power_mean(power):
    """The loss `mean(error ** power) ** (1 / power)`."""

    def loss(y, outputs):
        errors = ops.abs(y - outputs)
        # Powers of small errors would vanish in float32.
        largest = ops.stop_gradient(ops.max(errors))
        return largest * ops.mean((errors / largest) ** power) ** (1 / power)

    return loss


def _sections(ends, levels):
    """Left ends, where the halves meet, right ends and levels of all units."""
    smallest, sections = len(ends) - 1, []
    for level in range(levels):
        size = smallest // 2**level
        for k in range(0, smallest, size):
            left, right = ends[k], ends[k + size]
            middle = ends[k + size // 2] if size > 1 else (left + right) / 2
            sections.append((left, middle, right, level))
    return np.array(sections).T


def _missing(model, function, left, middle, right):
    """What the model lacks in the middle of sections, beside what it lacks at ends."""
    knots, values = vertices(model, *function.interval)

    def lack(x):
        return function.function(x) - np.interp(x, knots, values)

    share = (middle - left) / (right - left)
    return lack(middle) - (1 - share) * lack(left) - share * lack(right)


def _logits(peaks, margin):
    share = (peaks - margin) / (1 - 2 * margin)
    return np.log(share / (1 - share))
