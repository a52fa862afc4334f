"""Layers on torch as one GPU kernel for the values and one for the gradients, and when.

Without a compiler, torch takes a kernel for every operation, several dozen for a
constrained layer of depth 3, and each reads what the one before wrote. The kernels of
`triton_kernels.py` read an input once and write a result. They are operators of torch
(`torch_operators.py`), which `torch.compile` takes as they are. Triton comes with torch
for GPUs.
"""

import functools
import importlib.util

import torch

from keras_sawtooth.backend.common import MOST_PARAMETERS
from keras_sawtooth.backend.common import warn_of_no_kernels
from keras_sawtooth.backend.parameter_rows import number_of_rows

# A thread has a channel.
MOST_CHANNELS, LEAST_CHANNELS = 128, 32
MOST_ROWS, LEAST_ROWS = 128, 32
# Enough programs for a large GPU, see `pallas_kernels.py`.
ENOUGH_PROGRAMS = 512
# Set by tests: the kernels run without a GPU, slowly.
INTERPRETED = False


def serve(z):
    """Whether `z` is where kernels run."""
    return INTERPRETED or (z.is_cuda and torch.version.hip is None)


def fits(z, parameters):
    """Whether the kernels take `z` and `parameters`."""
    number = sum(number_of_rows(p) for p in parameters)
    return number <= MOST_PARAMETERS and can_compile(z.device)


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
        derivative(z, z, rows, "relu_network", [2, 1], [-1.0, 1.0])
    except Exception as error:
        warn_of_no_kernels(error)
        return False
    return True


def value(z, rows, name, sizes, domain):
    """The operator `value` of `torch_operators.py`."""
    y = z.new_empty(z.shape)
    _launch("value_kernel", name, sizes, domain, rows, z.contiguous(), y)
    return y


def derivative(z, dy, rows, name, sizes, domain):
    """The operator `derivative` of `torch_operators.py`."""
    down, _, _, _ = tiles(z)
    dz, sums = z.new_empty(z.shape), rows.new_empty((down, *rows.shape))
    tensors = z.contiguous(), dy.contiguous(), dz, sums
    name = f"{name}_derivative"
    _launch("derivative_kernel", name, sizes, domain, rows, *tensors)
    return dz, sums.sum(0)


def tiles(z):
    """Numbers of tiles along rows and channels of `z`; height and width of a tile."""
    channels = z.shape[-1]
    rows = z.numel() // channels
    width, height = LEAST_CHANNELS, MOST_ROWS
    while width < min(channels, MOST_CHANNELS):
        width *= 2
    across = -(-channels // width)
    while height > LEAST_ROWS and rows * across < height * ENOUGH_PROGRAMS:
        height //= 2
    return -(-rows // height), across, height, width


def _launch(kernel, function, sizes, domain, rows, z, *others):
    # Slow to import, and only there where Triton is.
    from keras_sawtooth.backend import triton_functions
    from keras_sawtooth.backend import triton_kernels

    down, across, height, width = tiles(z)
    # Triton launches on the current device.
    with torch.cuda.device_of(z):
        getattr(triton_kernels, kernel)[(down * across,)](
            z,
            *others,
            rows.contiguous(),
            z.numel() // z.shape[-1],
            z.shape[-1],
            height,
            *domain,
            getattr(triton_functions, function),
            *sizes,
            NUMBER=rows.shape[0],
            CHANNELS=width,
            num_warps=width // 32,
            enable_fp_fusion=True,
        )
