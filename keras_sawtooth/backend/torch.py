"""Derivatives on PyTorch, which needs no help on CPUs."""

import contextlib

import torch

from keras_sawtooth import relu_network
from keras_sawtooth.backend import torch_gpu_kernels


def cached_on_jax(make):
    # `torch.compile` warns of a cache, and needs none.
    return make


def compiled_for_cpu():
    # By XLA: `torch.compile` makes all sums in one loop.
    return False


init_scope = contextlib.nullcontext


def fits_one_kernel(z, *parameters):
    return torch_gpu_kernels.fits(z, parameters)


def sawtooth_kernels(function, domain):
    def of_tensors(z, peaks, scales, slopes):
        sizes = [len(scales), len(peaks), len(slopes)]
        parameters = peaks, scales, slopes
        return torch_gpu_kernels.of_parameters(z, parameters, "sawtooth", sizes, domain)

    return of_tensors


def relu_network_kernels(function, domain):
    def of_tensors(z, slopes, *blocks):
        sizes = [len(relu_network.ReluBlocks(*blocks).kernel) + 1, 0, len(slopes)]
        return torch_gpu_kernels.of_parameters(
            z, [slopes, *blocks], "relu_network", sizes, domain
        )

    return of_tensors


def triangle(w, peak):
    # `torch.compile` makes far better loops of this than of `where`. At the
    # peak `clamp` has the derivative of the left side, other than `minimum`.
    rising = torch.clamp(w, max=peak)
    return rising * (1 / peak) - torch.relu(w - peak) * (1 / (1 - peak))
