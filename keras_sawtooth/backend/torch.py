"""Derivatives on PyTorch, which mostly needs no help."""

import torch


def cached_on_jax(make):
    # `torch.compile` warns of a cache, and needs none.
    return make


def compiled_for_cpu():
    # By XLA: `torch.compile` makes all sums in one loop.
    return False


def fits_one_kernel(z, *parameters):
    return False


def triangle(w, peak):
    # `torch.compile` makes far better loops of this than of `where`. At the
    # peak `clamp` has the derivative of the left side, other than `minimum`.
    rising = torch.clamp(w, max=peak)
    return rising * (1 / peak) - torch.relu(w - peak) * (1 / (1 - peak))
