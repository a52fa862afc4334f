"""Values and derivatives of a layer as operators of torch, with their derivatives.

On GPUs `torch_gpu_kernels.py` computes them, on CPUs `torch_eager.py`. Neither has
derivatives of derivatives: those are of the plain formulas.
"""

import torch

from keras_sawtooth import relu_network
from keras_sawtooth import sawtooth
from keras_sawtooth.backend import torch as backend
from keras_sawtooth.backend import torch_eager

CONSTANTS = "str name, int[] sizes, float[] domain"


@torch.library.custom_op(
    "keras_sawtooth::value",
    mutates_args=(),
    schema=f"(Tensor z, Tensor rows, {CONSTANTS}) -> Tensor",
)
def value(z, rows, name, sizes, domain):
    return backend.operators_on(z).value(z, rows, name, sizes, domain)


@torch.library.custom_op(
    "keras_sawtooth::derivative",
    mutates_args=(),
    schema=f"(Tensor z, Tensor dy, Tensor rows, {CONSTANTS}) -> (Tensor, Tensor)",
)
def derivative(z, dy, rows, name, sizes, domain):
    return backend.operators_on(z).derivative(z, dy, rows, name, sizes, domain)


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
        y = _plain(*tensors, *context.constants)
        inputs = [t for t, need in zip(tensors, needed, strict=True) if need]
        found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))
    return [next(found) if need else None for need in needed]


value.register_autograd(_value_backward, setup_context=_save)


def _plain(z, rows, name, sizes, domain):
    """What `value` computes, by the plain formula."""
    parameters, wide = torch_eager.split_rows(rows, name, sizes), z.to(rows.dtype)
    if name == "sawtooth":
        y = sawtooth.sawtooth(wide, *parameters, domain)
    else:
        slopes, *blocks = parameters
        blocks = relu_network.ReluBlocks(*blocks)
        y = relu_network.relu_network(wide, blocks, slopes, domain)
    return y.to(z.dtype)


def of_parameters(z, parameters, name, domain):
    """Result of a layer, with its values and its gradients from one operator each.

    Args:
        z: tensor `(..., channels)`.
        parameters: those of the function that `hot_path.py` makes for this name,
            tensors `(..., channels)`; `can_fuse` is true of them and `z`.
        name: `"sawtooth"` or `"relu_network"`.
        domain: pair of floats.

    Returns:
        Tensor like `z`.
    """
    if name == "sawtooth":
        _, scales, slopes = parameters
        depth = len(scales)
    else:
        slopes, *blocks = parameters
        depth = len(relu_network.ReluBlocks(*blocks).kernel) + 1
    rows = torch.cat([p.reshape(-1, p.shape[-1]) for p in parameters])
    return value(z, rows, name, [depth, len(slopes)], list(domain))
