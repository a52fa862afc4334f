"""Values and derivatives of a layer on CPUs, where torch has no compiler.

Operation by operation, the plain formulas spend most of their time in `where`, which
torch does not vectorize on CPUs and which takes 30 times as long as a product. Here
masks are floats, and blocks of rows stay in the cache from the first operation to the
last. As in a kernel for GPUs, a derivative computes waves and neurons again, and
nothing but its inputs is kept for it.

Shapes: blocks are `(rows, channels)`, parameters `(..., channels)`. Sums over the rows
of a block are added to those of the blocks before.
"""

import math

import torch

# Elements of a block, for every thread: torch gives a thread 2 ** 15 at least. There
# are four neurons where there is one wave.
BLOCK = {"sawtooth": 2**16, "relu_network": 2**15}


def fits(z, parameters):
    """Whether torch goes through `z` operation by operation, on a CPU."""
    # The sums for parameters are most of a derivative. If all are frozen, automatic
    # differentiation leaves them out.
    trained = any(p.requires_grad for p in parameters)
    return (
        z.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and (trained or not z.requires_grad or not torch.is_grad_enabled())
    )


def value(z, rows, name, sizes, domain):
    """The operator `value` of `torch_operators.py`."""
    of_block = _VALUES[name]
    y = torch.empty_like(z, memory_format=torch.contiguous_format)
    parameters = split_rows(rows, name, sizes)
    for zs, ys in _blocks(name, z, y):
        ys.copy_(of_block(zs.to(rows.dtype), parameters, domain))
    return y


def derivative(z, dy, rows, name, sizes, domain):
    """The operator `derivative` of `torch_operators.py`."""
    of_block = _DERIVATIVES[name]
    dz = torch.empty_like(z, memory_format=torch.contiguous_format)
    sums = torch.zeros_like(rows)
    parameters, sums_of = split_rows(rows, name, sizes), split_rows(sums, name, sizes)
    for zs, dys, dzs in _blocks(name, z, dy, dz):
        zs, dys = zs.to(rows.dtype), dys.to(rows.dtype)
        dzs.copy_(of_block(zs, dys, parameters, domain, sums_of))
    return dz, sums


def _blocks(name, *tensors):
    channels = tensors[0].shape[-1]
    rows = max(1, BLOCK[name] * torch.get_num_threads() // channels)
    cut = (t.reshape(-1, channels).split(rows) for t in tensors)
    return zip(*cut, strict=True)


def split_rows(rows, name, sizes):
    """Views of the rows of all parameters, shaped like them."""
    depth, slopes = sizes
    if name == "sawtooth":
        return rows.split([depth + 1, depth, slopes])
    numbers = [slopes, 4, 4, 16 * (depth - 1), 4 * (depth - 1), 4]
    slopes, *first, kernel, bias, last = rows.split(numbers)
    channels = rows.shape[-1]
    kernel = kernel.view(depth - 1, 4, 4, channels)
    return slopes, *first, kernel, bias.view(depth - 1, 4, channels), last


def _line(z, slopes, domain):
    y = z * slopes[0]
    if len(slopes) > 1:
        y.addcmul_((domain[0] - z).relu_(), slopes[1])
        y.addcmul_((z - domain[1]).relu_(), slopes[2])
    return y


def _line_derivative(z, dy, slopes, domain, sums):
    sums[0] += (dy * z).sum(0)
    if len(slopes) == 1:
        return dy * slopes[0]
    low, high = domain
    for i, beyond in ((1, low - z), (2, z - high)):
        # NaN counts as inside of the domain.
        beyond.relu_().nan_to_num_(0, posinf=math.inf)
        sums[i] += beyond.mul_(dy).sum(0)
    # At the ends it is that of the outside.
    slope = slopes[0] - _mask(torch.le, z, low).mul_(slopes[1])
    return slope.addcmul_(_mask(torch.ge, z, high), slopes[2]).mul_(dy)


def _mask(compare, a, b):
    """1 where a comparison is true, and 0 elsewhere, in the dtype of `a`."""
    return compare(a, b, out=torch.empty_like(a))


def _normalized(z, domain):
    return (z - domain[0]).mul_(1 / (domain[1] - domain[0]))


def _waves(z, peaks, depth, domain):
    wave, waves = _normalized(z, domain), []
    for i in range(depth):
        falling = (1 - wave).mul_(1 / (1 - peaks[i]))
        wave = torch.minimum(wave * (1 / peaks[i]), falling, out=falling)
        waves.append(wave.relu_() if i == 0 else wave)
    return waves


def _sawtooth(z, parameters, domain):
    peaks, scales, slopes = parameters
    y = _line(z, slopes, domain)
    for scale, wave in zip(scales, _waves(z, peaks, len(scales), domain), strict=True):
        y.addcmul_(wave, scale)
    return y


def _sawtooth_derivative(z, dy, parameters, domain, sums):
    peaks, scales, slopes = parameters
    peak_sums, scale_sums, slope_sums = sums
    waves = _waves(z, peaks, len(scales), domain)
    d_wave = torch.zeros_like(z)
    for i in reversed(range(len(scales))):
        scale_sums[i] += (dy * waves[i]).sum(0)
        d_wave.addcmul_(dy, scales[i])
        # `dT = t * (dw - T * dpeak)`, where `t` is the slope of a side.
        before = waves[i - 1] if i else _normalized(z, domain)
        left, right = 1 / peaks[i], 1 / (peaks[i] - 1)
        # At 0 and 1 `lerp` has one of both, exactly.
        d_wave.mul_(torch.lerp(right, left, _mask(torch.le, before, peaks[i])))
        if i == 0:
            d_wave = torch.ops.aten.threshold_backward(d_wave, waves[0], 0)
        peak_sums[i] -= (d_wave * waves[i]).sum(0)
    return _through_domain(z, d_wave, dy, slopes, domain, slope_sums)


def _through_domain(z, du, dy, slopes, domain, slope_sums):
    """Derivative by `z`, of what reads the normalized input and of the line."""
    low, high = domain
    # At the ends it is that of the line alone.
    du.mul_(_mask(torch.ne, z, low)).mul_(_mask(torch.ne, z, high))
    dz = _line_derivative(z, dy, slopes, domain, slope_sums)
    return dz.add_(du, alpha=1 / (high - low))


def _neurons(z, input_kernel, input_bias, kernel, bias, domain):
    """The four neurons of all layers, tensors `(4, rows, channels)`."""
    u = _normalized(z, domain)
    # Not `addcmul`, which rounds once: at the peak its neuron must be 0.
    hidden = (input_kernel[:, None] * u).add_(input_bias[:, None])
    neurons = [hidden.relu_()]
    for weights, start in zip(kernel, bias, strict=True):
        hidden = torch.addcmul(start[:, None], weights[:, 0, None], neurons[-1][0])
        for k in range(1, 4):
            hidden.addcmul_(weights[:, k, None], neurons[-1][k])
        neurons.append(hidden.relu_())
    return neurons


def _relu_network(z, parameters, domain):
    slopes, *hidden, output_kernel = parameters
    y = _line(z, slopes, domain)
    neurons = _neurons(z, *hidden, domain)
    for weight, neuron in zip(output_kernel, neurons[-1], strict=True):
        y.addcmul_(neuron, weight)
    return y


def _relu_network_derivative(z, dy, parameters, domain, sums):
    slopes, input_kernel, input_bias, kernel, bias, output_kernel = parameters
    slope_sums, *input_sums, kernel_sums, bias_sums, output_sums = sums
    neurons = _neurons(z, input_kernel, input_bias, kernel, bias, domain)
    output_sums += (neurons[-1] * dy).sum(1)
    d_hidden = output_kernel[:, None] * dy
    for i in reversed(range(len(kernel))):
        d_sum = torch.ops.aten.threshold_backward(d_hidden, neurons[i + 1], 0)
        bias_sums[i] += d_sum.sum(1)
        for k in range(4):
            kernel_sums[i, :, k] += (d_sum * neurons[i][k]).sum(1)
        d_hidden = kernel[i, 0, :, None] * d_sum[0]
        for j in range(1, 4):
            d_hidden.addcmul_(kernel[i, j, :, None], d_sum[j])
    d_sum = torch.ops.aten.threshold_backward(d_hidden, neurons[0], 0)
    input_sums[0] += (d_sum * _normalized(z, domain)).sum(1)
    input_sums[1] += d_sum.sum(1)
    du = d_sum.mul_(input_kernel[:, None]).sum(0)
    return _through_domain(z, du, dy, slopes, domain, slope_sums)


_VALUES = {"sawtooth": _sawtooth, "relu_network": _relu_network}
_DERIVATIVES = {
    "sawtooth": _sawtooth_derivative,
    "relu_network": _relu_network_derivative,
}
