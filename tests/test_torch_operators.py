"""Values and derivatives as operators of torch, against the plain formulas.

On GPUs they are kernels, which are interpreted without a GPU; on CPUs that is what is
used without a compiler.
"""

import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("operators of torch", allow_module_level=True)
import torch

GPU = torch.cuda.is_available()
if not GPU:
    # Read when Triton is imported. Nothing else runs Triton without a GPU.
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton")

from models import losses_of_a_layer
from test_hot_path import example

import keras_sawtooth as ks
from keras_sawtooth import hot_path
from keras_sawtooth import relu_network
from keras_sawtooth.backend import torch_eager
from keras_sawtooth.backend import torch_gpu_kernels

# Raised inside of torch 2.13, at the first forward-mode derivative.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
# Where the tensors of a test are.
DEVICE = {"type": "cpu"}
KINDS = [("constrained", 3), ("released", 1), ("released", 3)]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda k: f"{k[0]}{k[1]}")
SHAPE = (6, 5)


@pytest.fixture(autouse=True, params=["kernels", "eager"])
def used(request, monkeypatch):
    """Names of the functions that were used, values and derivatives."""
    # The tests compile one function again and again, and the compiler counts.
    torch.compiler.reset()
    names = []
    for module in (torch_gpu_kernels, torch_eager):
        for operator in ("value", "derivative"):
            recorded = recorded_operator(getattr(module, operator), names)
            monkeypatch.setattr(module, operator, recorded)
    kernels = request.param == "kernels"
    monkeypatch.setattr(torch_gpu_kernels, "INTERPRETED", kernels and not GPU)
    monkeypatch.setitem(DEVICE, "type", "cuda" if kernels and GPU else "cpu")
    if kernels:
        device = torch.device("cuda", 0) if GPU else torch.device("cpu")
        assert torch_gpu_kernels.can_compile(device)
    names.clear()
    return names


def recorded_operator(function, names):
    def recorded(*tensors_and_constants):
        *_, name, _, _ = tensors_and_constants
        names.append(name if function.__name__ == "value" else f"{name}_derivative")
        return function(*tensors_and_constants)

    return recorded


kernels_alone = pytest.mark.parametrize("used", ["kernels"], indirect=True)
eager_alone = pytest.mark.parametrize("used", ["eager"], indirect=True)


def example_tensors(kind, shape=SHAPE, dtype=torch.float32):
    """`(fast, plain)`, and arguments for both."""
    (z, *parameters), *functions = example(*kind, shape)
    return functions, [tensor(z, dtype), *map(tensor, parameters)]


def tensor(array, dtype=torch.float32):
    array = np.asarray(array)
    return torch.tensor(array, dtype=dtype, device=DEVICE["type"]).requires_grad_()


def scalar(y):
    return (torch.cos(torch.arange(y.numel(), device=y.device)) * y.flatten()).sum()


def gradients(y, arguments, **keywords):
    # Depth 1 has a kernel without elements, which nothing uses.
    return torch.autograd.grad(
        y, arguments, allow_unused=True, materialize_grads=True, **keywords
    )


def values_and_gradients(function, arguments):
    y = function(*arguments)
    return [y, *gradients(scalar(y), arguments)]


def assert_same(found, expected, tolerance=3e-6):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = (t.detach().float().cpu().numpy() for t in (a, b))
        largest = np.abs(b).max(initial=1e-9, where=np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(
    "kind", [*KINDS, ("constrained", 1), ("released", 2), ("constrained", 5)]
)
def test_values_and_gradients(kind, used):
    (fast, plain), arguments = example_tensors(kind)
    assert_same(*(values_and_gradients(f, arguments) for f in (fast, plain)))
    name = "sawtooth" if kind[0] == "constrained" else "relu_network"
    assert used == [name, f"{name}_derivative"]


@each_kind
@pytest.mark.parametrize("shape", [(7, 40), (2, 3, 2, 33), (1, 1), (0, 3)])
def test_several_tiles_or_blocks(kind, shape, monkeypatch):
    """Of up to four rows and 32 channels, and not all of them full."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch_eager, "BLOCK", dict.fromkeys(torch_eager.BLOCK, 120))
    monkeypatch.setattr(torch_gpu_kernels, "MOST_ROWS", 4)
    monkeypatch.setattr(torch_gpu_kernels, "LEAST_ROWS", 4)
    monkeypatch.setattr(torch_gpu_kernels, "MOST_CHANNELS", 32)
    (fast, plain), arguments = example_tensors(kind, shape)
    assert_same(*(values_and_gradients(f, arguments) for f in (fast, plain)))


@kernels_alone
@pytest.mark.parametrize(
    "shape, tiles",
    [
        ((8192, 1024), (64, 8, 128, 128)),
        ((64, 50), (2, 1, 32, 64)),
        ((3, 1), (1, 1, 32, 32)),
        ((2, 5, 129), (1, 2, 32, 128)),
    ],
)
def test_tiles_cover_the_input(shape, tiles):
    assert torch_gpu_kernels.tiles(torch.empty(shape, device="meta")) == tiles


@each_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(kind, dtype, used):
    (fast, plain), arguments = example_tensors(kind, dtype=dtype)

    def rounded(z, *parameters):
        return plain(z.float(), *parameters).to(dtype)

    found, expected = (values_and_gradients(f, arguments) for f in (fast, rounded))
    assert len(used) == 2
    assert_same(found[:2], expected[:2], 0.01)
    # The sums are in float32.
    assert_same(found[2:], expected[2:])


@each_kind
def test_layouts_and_gradients_that_are_not_contiguous(kind):
    (fast, plain), (z, *parameters) = example_tensors(kind)
    results = []
    for function in (fast, plain):
        y = function(z.T.contiguous().T, *parameters)
        results.append([y, *gradients(y.sum(), [z, *parameters])])
    assert_same(*results)


@each_kind
def test_derivatives_of_derivatives(kind, used):
    (fast, plain), arguments = example_tensors(kind)

    def second(function):
        first = gradients(scalar(function(*arguments)), arguments, create_graph=True)
        return gradients(sum((g**2).sum() for g in first), arguments)

    found = second(fast)
    # For the values alone: what is differentiated again is of the plain formulas.
    assert len(used) == 1
    assert_same(found, second(plain), 1e-5)


@each_kind
def test_second_derivatives_in_checkpoints(kind):
    (fast, plain), (z, *parameters) = example_tensors(kind)

    def bend(z, function):
        first = gradients(scalar(function(z, *parameters)), [z], create_graph=True)
        return gradients((first[0] ** 2).sum(), [z, *parameters], create_graph=True)[-1]

    checkpoint = torch.utils.checkpoint.checkpoint
    found = checkpoint(bend, z, fast, use_reentrant=False)
    assert_same([found], [bend(z, plain)], 1e-5)


@each_kind
@pytest.mark.parametrize("vectorize", [False, True])
def test_jacobians(kind, vectorize):
    (fast, plain), arguments = example_tensors(kind)

    def jacobian(function):
        return torch.autograd.functional.jacobian(
            function, tuple(arguments), vectorize=vectorize
        )

    assert_same(jacobian(fast), jacobian(plain), 1e-5)


@each_kind
def test_frozen_layers(kind, used):
    (fast, plain), (z, *parameters) = example_tensors(kind)
    parameters = [p.detach() for p in parameters]
    results = []
    for function in (fast, plain):
        y = function(z, *parameters)
        results.append([y, *gradients(scalar(y), [z])])
    assert_same(*results)
    # Kernels make their sums beside the rest.
    assert len(used) == (2 if torch_gpu_kernels.serve(z) else 0)


TRANSFORMS = {
    "vmap": lambda f, z: torch.vmap(f)(torch.stack([z, -z])),
    "gradient": lambda f, z: torch.func.grad(lambda z: scalar(f(z)))(z),
    "forward": lambda f, z: torch.func.jvp(f, (z,), (torch.cos(z),))[1],
}


def dual(function, z):
    with torch.autograd.forward_ad.dual_level():
        y = function(torch.autograd.forward_ad.make_dual(z, torch.cos(z)))
        return torch.autograd.forward_ad.unpack_dual(y).tangent


@each_kind
@pytest.mark.parametrize(
    "transform, compiled",
    [*itertools.product(TRANSFORMS, [False, True]), ("dual numbers", False)],
)
def test_transforms_see_the_plain_formulas(kind, transform, compiled, used):
    (fast, plain), (z, *parameters) = example_tensors(kind)

    def result(function):
        def transformed(z):
            apply = TRANSFORMS.get(transform, dual)
            return apply(lambda z: function(z, *parameters), z)

        if compiled:
            transformed = torch.compile(transformed, backend="eager")
        return transformed(z.detach())

    assert_same([result(fast)], [result(plain)])
    assert not used


@each_kind
@pytest.mark.parametrize("dynamic", [False, True])
def test_in_compiled_programs(kind, dynamic, used):
    (fast, plain), (z, *parameters) = example_tensors(kind)
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for part in (z, z.detach()[:4].requires_grad_()):
        arguments = [part, *parameters]
        assert_same(*(values_and_gradients(f, arguments) for f in (compiled, plain)))
    # On CPUs, the compiler sees the plain formulas.
    assert len(used) == (4 if torch_gpu_kernels.serve(z) else 0)


@kernels_alone
def test_kernels_are_tried_while_torch_traces(used):
    (fast, plain), arguments = example_tensors(KINDS[0])
    torch_gpu_kernels._try_to_compile.cache_clear()
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    assert_same(*(values_and_gradients(f, arguments) for f in (compiled, plain)))
    assert used == ["relu_network_derivative", "sawtooth", "sawtooth_derivative"]


def test_exported_programs_are_for_machines_without_the_package(used):
    layer = ks.RegionConstraint(2)
    layer.build((None, 4))
    z = tensor(np.ones((2, 4))).detach()
    program = torch.export.export(layer, (z,), strict=False)
    assert "keras_sawtooth" not in str(program.graph) and not used
    layer(z)
    assert used == ["sawtooth"]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@each_kind
def test_inputs_that_are_no_numbers_spoil_nothing_else(kind):
    (fast, plain), (z, *parameters) = example_tensors(kind)
    values = z.detach().clone()
    values[1, 2] = np.nan
    arguments = [values.requires_grad_(), *parameters]
    assert_same(*(values_and_gradients(f, arguments) for f in (fast, plain)))
    values = values.detach()
    values[2, 1], values[3, 3] = np.inf, -np.inf
    found = fast(values, *parameters)
    assert torch.equal(torch.isfinite(found), torch.isfinite(values))
    assert_same([found], [plain(values, *parameters)])


@pytest.mark.parametrize("z", [-2.0, -1.0, 0.0, 1.0, 2.0])
def test_at_breakpoints_and_ends_the_derivative_is_that_of_the_plain_formula(z):
    peaks = np.full((3, 4), 0.5)
    for kind in (("constrained", 2), ("released", 2)):
        arrays, *functions = example(*kind, (3, 4), peaks=peaks)
        arguments = [tensor(np.full((3, 4), z)), *map(tensor, arrays[1:])]
        assert_same(*(values_and_gradients(f, arguments) for f in functions))


@eager_alone
def test_at_the_first_peaks_of_a_released_layer_it_is_that_of_the_left_side():
    peaks = np.random.default_rng(0).uniform(0.1, 0.9, (3, 200)).astype("float32")
    layer = ks.RegionConstraint(2, domain=(0.0, 1.0))
    layer.build((None, 200))
    layer.peak_logits.assign(np.log(peaks / (1 - peaks)))
    z = layer.peaks.detach()[:1].requires_grad_()
    layer.release()
    derivatives = []
    for function in (hot_path.relu_network, relu_network.relu_network):
        y = function(z, layer.relu_blocks, layer.slopes, layer.domain)
        derivatives.append(*gradients(y.sum(), [z]))
    far = torch.abs(derivatives[0] - derivatives[1]) > 1e-2
    assert int(far.sum()) == 0


@eager_alone
@pytest.mark.parametrize("margin", [1e-2, 1e-4])
def test_steep_sides_are_as_exact_as_others(margin):
    peaks = np.full((4, 3), 1 - margin)
    (z, _, scales, slopes), *functions = example(
        "constrained", 3, (200, 3), peaks=peaks
    )
    arguments = [tensor(a) for a in (z, peaks, scales, slopes)]
    assert_same(*(values_and_gradients(f, arguments) for f in functions), 1e-5)


@pytest.mark.parametrize(
    "change",
    {
        "float64": lambda z, p: (z.double(), [x.double() for x in p]),
        "half-precision parameters": lambda z, p: (z.half(), [x.half() for x in p]),
        "other channels": lambda z, p: (z[:, :1], p),
        "a subclass": lambda z, p: (
            z.as_subclass(type("Mine", (torch.Tensor,), {})),
            p,
        ),
    }.values(),
)
def test_other_inputs_go_without_operators(change):
    _, (z, *parameters) = example_tensors(KINDS[0])
    assert hot_path.backend.can_fuse(z, *parameters)
    z, parameters = change(z, parameters)
    assert not hot_path.backend.can_fuse(z, *parameters)


@kernels_alone
def test_kernels_have_so_many_parameters_at_most():
    _, (z, *parameters) = example_tensors(KINDS[0])
    more = [*parameters, z.new_zeros(96, z.shape[-1])]
    assert torch_gpu_kernels.fits(z, parameters)
    assert not torch_gpu_kernels.fits(z, more)


@pytest.mark.skipif(GPU, reason="there is a GPU")
@eager_alone
def test_without_a_gpu_there_are_no_kernels():
    _, (z, *_) = example_tensors(KINDS[0])
    assert not torch_gpu_kernels.serve(z)


@kernels_alone
def test_where_kernels_do_not_compile_torch_does_the_work(monkeypatch):
    def fail(*arguments):
        raise NotImplementedError("no compiler")

    monkeypatch.setattr(torch_gpu_kernels, "derivative", fail)
    torch_gpu_kernels._try_to_compile.cache_clear()
    (fast, plain), arguments = example_tensors(KINDS[0])
    with pytest.warns(UserWarning, match="no compiler"):
        assert not torch_gpu_kernels.fits(arguments[0], arguments[1:])
    assert_same(*(values_and_gradients(f, arguments) for f in (fast, plain)))
    torch_gpu_kernels._try_to_compile.cache_clear()


@pytest.mark.parametrize("released", [False, True])
def test_fit_as_without_operators(released, monkeypatch, used):
    found = losses_of_a_layer(12, 3, 4, released)
    assert len(used) >= 2 * 3 * 3
    monkeypatch.setattr(hot_path.backend, "can_fuse", lambda *tensors: False)
    expected = losses_of_a_layer(12, 3, 4, released)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from keras_sawtooth.backend import triton_functions, triton_kernels

for kernel in ("value", "derivative"):
    for name, number in (("sawtooth", 8), ("relu_network", 35)):
        function = name if kernel == "value" else f"{name}_derivative"
        constants = dict(DEPTH=2, SLOPES=3, NUMBER=number, CHANNELS=64)
        constants["FUNCTION"] = getattr(triton_functions, function)
        source = getattr(triton_kernels, f"{kernel}_kernel")
        types = {
            name: "constexpr" if name in constants
            else "*fp32" if name in ("sums_pointer", "parameters_pointer")
            else "*bf16" if name.endswith("_pointer")
            else "fp32" if name in ("low", "high")
            else "i32"
            for name in source.arg_names
        }
        program = triton.compile(
            ASTSource(source, types, constants),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": 2, "enable_fp_fusion": True},
        )
        assert program.asm["cubin"]
"""


@kernels_alone
def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True)
