"""Derivatives on PyTorch. It needs help on GPUs, and on CPUs without its compiler."""

import contextlib

import torch
from torch.autograd import forward_ad

from keras_sawtooth.backend import torch_eager
from keras_sawtooth.backend import torch_gpu_kernels
from keras_sawtooth.backend.common import unchanged

# `torch.compile` warns of a cache, and needs none.
cached = compiled_on_jax = traced_once = unchanged


def xla_on_cpu():
    # By XLA: `torch.compile` makes all sums in one loop.
    return False


init_scope = contextlib.nullcontext


def can_fuse(z, *parameters):
    tensors = (z, *parameters)
    return (
        # Before torch 2.7, there was no way to know what `_needs_plain_formulas` asks.
        hasattr(torch.compiler, "is_exporting")
        # Not what behaves like a tensor, as `DTensor` does.
        and all(type(t) in (torch.Tensor, torch.nn.Parameter) for t in tensors)
        and all(p.device == z.device for p in parameters)
        and all(p.shape[-1] == z.shape[-1] for p in parameters)
        and not _needs_plain_formulas()
        and z.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and all(p.dtype == torch.float32 for p in parameters)
        and operators_on(z).fits(z, parameters)
    )


def operators_on(z):
    """The module with the values and the derivatives for the device of `z`."""
    return torch_gpu_kernels if torch_gpu_kernels.serve(z) else torch_eager


@torch.compiler.assume_constant_result
def _needs_plain_formulas():
    """Whether torch writes a program for others, or has to see the plain formulas."""
    return (
        torch.compiler.is_exporting()
        or torch.jit.is_tracing()
        or is_transformed()
        # Forward-mode derivatives.
        or forward_ad._current_level >= 0
    )


def is_transformed():
    """Whether `vmap` or another transform of `torch.func` is under way."""
    return torch._C._are_functorch_transforms_active()


def fused(function, name, domain):
    def of_tensors(z, *parameters):
        # Registered when they are used: `import keras_sawtooth` stays fast.
        from keras_sawtooth.backend import torch_operators

        return torch_operators.of_parameters(z, parameters, name, domain)

    return of_tensors


def triangle(w, peak):
    # `torch.compile` makes far better loops of this than of `where`. At the peak the
    # derivative is that of the left side. From torch 2.14 on `clamp` has half of it
    # where its arguments are equal: so for the derivative it ends just behind the peak.
    end = peak * (1 + torch.finfo(peak.dtype).eps)
    rising = torch.clamp(w, max=end)
    rising = rising - torch.relu(rising - peak).detach()
    return rising * (1 / peak) - torch.relu(w - peak) * (1 / (1 - peak))
