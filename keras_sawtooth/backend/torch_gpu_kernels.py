"""Where one GPU kernel computes the values and one the derivative of a layer (torch).

Without a compiler, torch takes a kernel for every operation, several dozen for a
constrained layer of depth 3, and each reads what the one before wrote. The kernels of
`triton_kernels.py` read an input once and write a result. They are operators of torch
(`torch_operators.py`), which `torch.compile` takes as they are. Triton comes with torch
for GPUs.
"""

import functools
import importlib.util

import torch

from keras_sawtooth.backend.common import warn_of_no_kernels

# Parameters and their sums are in registers, of which a thread has 255.
MOST_PARAMETERS = 96
# Set by tests: the kernels run without a GPU, slowly.
INTERPRETED = False


def serve(z):
    """Whether `z` is where kernels run."""
    return INTERPRETED or (z.is_cuda and torch.version.hip is None)


def fits(z, parameters):
    """Whether the kernels take `z` and `parameters`."""
    return (
        serve(z)
        and sum(_number_of_rows(p) for p in parameters) <= MOST_PARAMETERS
        and can_compile(z.device)
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
