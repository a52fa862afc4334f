"""One GPU kernel for the values and one for the derivative of a layer (torch).

Without a compiler, torch takes a kernel for every operation, several dozen for a
constrained layer of depth 3, and each reads what the one before wrote. The kernels of
`triton_kernels.py` read an input once and write a result. They are operators of torch
(`torch_operators.py`), which `torch.compile` takes as they are. Triton comes with torch
for GPUs.

Triton has no automatic differentiation: derivatives of derivatives, `vmap` and
forward-mode derivatives are those of the plain formulas.
"""

import functools
import importlib.util

import torch
from torch.autograd import forward_ad

from keras_sawtooth.backend.common import warn_of_no_kernels

# Parameters and their sums are in registers, of which a thread has 255.
MOST_PARAMETERS = 96
# Set by tests: the kernels run without a GPU, slowly.
INTERPRETED = False


def fits(z, parameters):
    """Whether the kernels take `z` and `parameters`, here and now."""
    tensors = (z, *parameters)
    return (
        # Before torch 2.7, there was no way to know what `_sees_through` asks.
        hasattr(torch.compiler, "is_exporting")
        # Not what behaves like a tensor, as `DTensor` does.
        and all(type(t) in (torch.Tensor, torch.nn.Parameter) for t in tensors)
        and (INTERPRETED or (z.is_cuda and torch.version.hip is None))
        and all(p.device == z.device for p in parameters)
        and all(p.shape[-1] == z.shape[-1] for p in parameters)
        and not _sees_through()
        and z.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and all(p.dtype == torch.float32 for p in parameters)
        and sum(_number_of_rows(p) for p in parameters) <= MOST_PARAMETERS
        and can_compile(z.device)
    )


@torch.compiler.assume_constant_result
def _sees_through():
    """Whether torch writes a program for others, or has to see the plain formulas."""
    return (
        torch.compiler.is_exporting()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        # Forward-mode derivatives.
        or forward_ad._current_level >= 0
    )


def _number_of_rows(parameter):
    return parameter.numel() // parameter.shape[-1]


@torch.compiler.assume_constant_result
def can_compile(device):
    """Whether a small kernel compiles here; there is a warning if Triton fails."""
    return _try_to_compile(device)


# `torch.compile` does not look into the function above, and would warn of this cache.
@functools.cache
def _try_to_compile(device):
    # It is not there where torch is for CPUs, and on Windows.
    if importlib.util.find_spec("triton") is None:
        return False
    z, rows = torch.zeros(1, 1, device=device), torch.ones(33, 1, device=device)
    try:
        # Slow to import, and needs Triton.
        from keras_sawtooth.backend import torch_operators

        torch_operators.derivative(z, z, rows, "relu_network", [2, 0, 1], [-1.0, 1.0])
    except Exception as error:
        warn_of_no_kernels(error)
        return False
    return True


def of_parameters(z, parameters, name, sizes, domain):
    """Result of a layer, with values and gradients from one kernel each.

    Args:
        z: tensor `(..., channels)`.
        parameters: list of tensors `(..., channels)`; `fits` is true of them and `z`.
        name: `"sawtooth"` or `"relu_network"`.
        sizes: `[depth, number of peaks or 0, number of slopes]`, list of int.
        domain: pair of floats.

    Returns:
        Tensor like `z`.
    """
    from keras_sawtooth.backend import torch_operators

    rows = torch.cat([p.reshape(-1, p.shape[-1]) for p in parameters])
    return torch_operators.value(z, rows, name, sizes, list(domain))
