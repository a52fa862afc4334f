"""One GPU kernel for the values and one for the derivative of a layer (torch).

Without a compiler, torch takes a kernel for every operation, several dozen for a
constrained layer of depth 3, and each reads what the one before wrote. The kernels of
`triton_kernels.py` read an input once and write a result. They are operators of torch,
which `torch.compile` takes as they are. Triton comes with torch for GPUs.

Triton has no automatic differentiation: derivatives of derivatives, `vmap` and
forward-mode derivatives are those of the plain formulas.
"""

import functools
import importlib.util
import warnings

import torch
from torch.autograd import forward_ad

from keras_sawtooth import relu_network
from keras_sawtooth import sawtooth

# A thread has a channel.
MOST_CHANNELS, LEAST_CHANNELS = 128, 32
MOST_ROWS, LEAST_ROWS = 128, 32
# So many programs keep a large GPU busy. Tiles of smaller inputs get fewer rows, so
# that there are more of them.
ENOUGH_PROGRAMS = 512
# Parameters and their sums are in registers, of which a thread has 255.
MOST_PARAMETERS = 96
# Set by tests: the kernels run without a GPU, slowly.
INTERPRETED = False


def fits(z, parameters):
    """Whether the kernels take `z` and `parameters`, here and now."""
    tensors = (z, *parameters)
    return (
        # Not what behaves like a tensor, as `DTensor` does.
        all(type(t) in (torch.Tensor, torch.nn.Parameter) for t in tensors)
        and (INTERPRETED or (z.is_cuda and torch.version.hip is None))
        and all(p.device == z.device for p in parameters)
        and not _sees_through()
        and z.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and all(p.dtype == torch.float32 for p in parameters)
        # Positions are 32-bit integers.
        and 0 < z.numel() < 2**31
        and sum(_number_of_rows(p) for p in parameters) <= MOST_PARAMETERS
        and can_compile()
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
def can_compile():
    """Whether a small kernel compiles here; there is a warning if Triton fails."""
    return _try_to_compile()


# `torch.compile` does not look into the function above, and would warn of this cache.
@functools.cache
def _try_to_compile():
    # It is not there where torch is for CPUs, and on Windows.
    if importlib.util.find_spec("triton") is None:
        return False
    device = "cpu" if INTERPRETED else "cuda"
    z, rows = torch.zeros(1, 1, device=device), torch.ones(33, 1, device=device)
    try:
        derivative(z, z, rows, "relu_network", [2, 0, 1], [-1.0, 1.0])
    except Exception as error:
        warnings.warn(
            "Sawtooth layers go without kernels of their own on this GPU, and are "
            f"slower: {error}",
            stacklevel=2,
        )
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
    rows = torch.cat([p.reshape(-1, p.shape[-1]) for p in parameters])
    return value(z, rows, name, sizes, list(domain))


@torch.library.custom_op("keras_sawtooth::value", mutates_args=())
def value(
    z: torch.Tensor,
    rows: torch.Tensor,
    name: str,
    sizes: list[int],
    domain: list[float],
) -> torch.Tensor:
    y = z.new_empty(z.shape)
    _launch("value_kernel", name, sizes, domain, rows, z.contiguous(), y)
    return y


@torch.library.custom_op("keras_sawtooth::derivative", mutates_args=())
def derivative(
    z: torch.Tensor,
    dy: torch.Tensor,
    rows: torch.Tensor,
    name: str,
    sizes: list[int],
    domain: list[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    dz, sums = z.new_empty(z.shape), rows.new_empty((_tiles(z)[0], *rows.shape))
    tensors = z.contiguous(), dy.contiguous(), dz, sums
    name = f"{name}_derivative"
    _launch("derivative_kernel", name, sizes, domain, rows, *tensors)
    return dz, sums.sum(0)


@value.register_fake
def _(z, rows, *constants):
    return z.new_empty(z.shape)


@derivative.register_fake
def _(z, dy, rows, *constants):
    return z.new_empty(z.shape), rows.new_empty(rows.shape)


def _save(ctx, inputs, output):
    *tensors, name, sizes, domain = inputs
    ctx.save_for_backward(*tensors)
    ctx.constants = name, sizes, domain


def _value_backward(context, dy):
    z, rows = context.saved_tensors
    return *derivative(z, dy, rows, *context.constants), None, None, None


def _derivative_backward(context, *upstream):
    plain = _plain(*context.constants)

    def gradients(z, dy, rows):
        return torch.func.vjp(plain, z, rows)[1](dy)

    _, pull_back = torch.func.vjp(gradients, *context.saved_tensors)
    return *pull_back(upstream), None, None, None


value.register_autograd(_value_backward, setup_context=_save)
derivative.register_autograd(_derivative_backward, setup_context=_save)


def _plain(name, sizes, domain):
    """The plain formula, as a function of `z` and the rows of all parameters."""
    depth, peaks, slopes = sizes

    def of_sawtooth(z, rows):
        return sawtooth.sawtooth(z, *rows.split([peaks, depth, slopes]), domain)

    def of_relu_network(z, rows):
        numbers = [slopes, 4, 4, 16 * (depth - 1), 4 * (depth - 1), 4]
        first, *blocks = rows.split(numbers)
        blocks = relu_network.ReluBlocks(*blocks)
        blocks = blocks._replace(
            kernel=blocks.kernel.reshape(depth - 1, 4, 4, z.shape[-1]),
            bias=blocks.bias.reshape(depth - 1, 4, z.shape[-1]),
        )
        return relu_network.relu_network(z, blocks, first, domain)

    function = of_sawtooth if name == "sawtooth" else of_relu_network
    return lambda z, rows: function(z.to(rows.dtype), rows).to(z.dtype)


def _tiles(z):
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
    # Slow to import, and not there without a GPU.
    from keras_sawtooth.backend import triton_kernels

    down, across, height, width = _tiles(z)
    # Triton launches on the current device.
    with torch.cuda.device_of(z):
        getattr(triton_kernels, kernel)[down, across](
            z,
            *others,
            rows,
            z.numel() // z.shape[-1],
            z.shape[-1],
            height,
            *domain,
            getattr(triton_kernels, function),
            *sizes,
            NUMBER=rows.shape[0],
            CHANNELS=width,
            num_warps=width // 32,
            enable_fp_fusion=True,
        )
