"""Constants and functions that backends share."""

import os
import warnings

from keras import ops

# Most parameters per unit that a GPU kernel takes: they and their sums are kept in
# registers, and a thread has 255.
MOST_PARAMETERS = 96
# A sum in a loop loses a digit with every tenfold of its length. By itself XLA takes
# long sums apart, but no reductions of many operands.
LONGEST_SUM = 256
# Measured on one and two cores. A loop over blocks of rows runs on one core, and all
# cores share the one loop of all sums, which does three times the work.
FEW_CORES = 2


def unchanged(function):
    return function


def on_few_cores():
    """Whether this process has so few cores that a loop on one of them is faster."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) <= FEW_CORES
    return (os.cpu_count() or 1) <= FEW_CORES


def triangle_slope(w, peak):
    """Slope `t` of a triangle `T`, whose derivative is `t * (dw - T * dpeak)`.

    Both sides are `T = (w - side) / (peak - side)`, with `side` 0 or 1.
    """
    return ops.where(w <= peak, 1 / peak, 1 / (peak - 1))


def warn_of_no_kernels(error):
    warnings.warn(
        "Sawtooth layers go without kernels of their own on this GPU, and are "
        f"slower: {error}",
        stacklevel=3,
    )
