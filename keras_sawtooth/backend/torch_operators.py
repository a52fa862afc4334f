"""Values and derivatives of a layer as operators of torch, with their derivatives.

On GPUs they are the kernels of `triton_kernels.py`, on CPUs `torch_eager.py`. Neither
has derivatives of derivatives: those are of the plain formulas.
"""

import torch

from keras_sawtooth import relu_network
from keras_sawtooth import sawtooth
from keras_sawtooth.backend import torch as backend
from keras_sawtooth.backend import torch_eager
from keras_sawtooth.backend import torch_gpu_kernels

# A thread has a channel.
MOST_CHANNELS, LEAST_CHANNELS = 128, 32
MOST_ROWS, LEAST_ROWS = 128, 32
# So many programs keep a large GPU busy. Tiles of smaller inputs get fewer rows, so
# that there are more of them.
ENOUGH_PROGRAMS = 512

CONSTANTS = "str name, int[] sizes, float[] domain"


@torch.library.custom_op(
    "keras_sawtooth::value",
    mutates_args=(),
    schema=f"(Tensor z, Tensor rows, {CONSTANTS}) -> Tensor",
)
def value(z, rows, name, sizes, domain):
    if not torch_gpu_kernels.serve(z):
        return torch_eager.value(z, rows, name, sizes, domain)
    y = z.new_empty(z.shape)
    _launch("value_kernel", name, sizes, domain, rows, z.contiguous(), y)
    return y


@torch.library.custom_op(
    "keras_sawtooth::derivative",
    mutates_args=(),
    schema=f"(Tensor z, Tensor dy, Tensor rows, {CONSTANTS}) -> (Tensor, Tensor)",
)
def derivative(z, dy, rows, name, sizes, domain):
    if not torch_gpu_kernels.serve(z):
        return torch_eager.derivative(z, dy, rows, name, sizes, domain)
    tiles, _, _, _ = _tiles(z)
    dz, sums = z.new_empty(z.shape), rows.new_empty((tiles, *rows.shape))
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
    # What is to be differentiated again, and what `vmap` goes through, is that of the
    # plain formulas.
    if torch.is_grad_enabled() or backend.is_transformed():
        return *_plain_gradients(context, dy), None, None, None
    z, rows = context.saved_tensors
    return *derivative(z, dy, rows, *context.constants), None, None, None


def _plain_gradients(context, dy):
    tensors = context.saved_tensors
    needed = context.needs_input_grad[:2]
    with torch.enable_grad():
        y = _plain(*context.constants)(*tensors)
        inputs = [t for t, need in zip(tensors, needed, strict=True) if need]
        found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))
    return [next(found) if need else None for need in needed]


value.register_autograd(_value_backward, setup_context=_save)


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


def of_parameters(z, parameters, name, sizes, domain):
    """Result of a layer, with its values and its gradients from one operator each.

    Args:
        z: tensor `(..., channels)`.
        parameters: list of tensors `(..., channels)`; `fits_one_kernel` is true of them
            and `z`.
        name: `"sawtooth"` or `"relu_network"`.
        sizes: `[depth, number of peaks or 0, number of slopes]`, list of int.
        domain: pair of floats.

    Returns:
        Tensor like `z`.
    """
    rows = torch.cat([p.reshape(-1, p.shape[-1]) for p in parameters])
    return value(z, rows, name, sizes, list(domain))


def _launch(kernel, function, sizes, domain, rows, z, *others):
    # Slow to import, and only there where Triton is.
    from keras_sawtooth.backend import triton_functions
    from keras_sawtooth.backend import triton_kernels

    down, across, height, width = _tiles(z)
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
