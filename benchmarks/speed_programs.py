"""Programs that `speed.py` times: a layer's forward pass and its training step.

A training step here is the output and its gradients, for a given gradient of the
output, with respect to every trainable variable and the input; no optimizer. A
program is a pair: a function without arguments, and a dict of what the compiler
says that it costs (empty where it says nothing).
"""

import functools
import os
import re
import shutil
import statistics
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np

MODES = {"jax": ("jit",), "tensorflow": ("jit",), "torch": ("eager", "compiled")}


def of_compute_dtype(array):
    dtype = keras.config.dtype_policy().compute_dtype
    return keras.ops.convert_to_tensor(array, dtype)


def stateless(layer):
    """`function(parameters, x, state)` of a layer of Keras or flax, and its values.

    State goes in as an argument: XLA would compute with constants beforehand.
    """
    if isinstance(layer, keras.layers.Layer):
        trainable, others = layer.trainable_variables, layer.non_trainable_variables

        def forward(parameters, x, state):
            # `stateless_call` of a layer that is no model does not cast weights.
            values = zip([*trainable, *others], [*parameters, *state], strict=True)
            with keras.StatelessScope(state_mapping=values):
                return layer(x)

        return forward, [v.value for v in trainable], [v.value for v in others]
    from flax import nnx

    graph, parameters, state = nnx.split(layer, nnx.Param, ...)
    return lambda p, x, s: nnx.merge(graph, p, s)(x), parameters, state


def jax_programs(layer, x, dy, mode):
    import jax

    x, dy = map(of_compute_dtype, (x, dy))
    layer(x)
    forward, parameters, state = stateless(layer)

    def step(parameters, x, state, dy):
        y, pull_back = jax.vjp(lambda p, x: forward(p, x, state), parameters, x)
        return y, pull_back(dy)

    programs = {}
    for name, function, arguments in (
        ("forward", forward, (parameters, x, state)),
        ("step", step, (parameters, x, state, dy)),
    ):
        compiled = jax.jit(function).lower(*arguments).compile()
        cost = compiled.cost_analysis()
        programs[name] = (
            partial(compiled, *arguments),
            {
                "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
                "flops": cost["flops"],
                "bytes_accessed": cost["bytes accessed"],
            },
        )
    return programs


def tensorflow_programs(layer, x, dy, mode):
    import tensorflow as tf

    # It warns of retracing: many functions here have the same name.
    tf.get_logger().setLevel("ERROR")
    x, dy = map(of_compute_dtype, (x, dy))
    layer(x)
    variables = [v.value for v in layer.trainable_variables]

    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, tape.gradient(y, [*variables, x], output_gradients=dy)

    programs = {}
    for name, function, arguments in (
        ("forward", lambda x: layer(x), (x,)),
        ("step", step, (x, dy)),
    ):
        compiled = tf.function(function, jit_compile=True)
        shutil.rmtree(dump_folder(), ignore_errors=True)
        compiled(*arguments)
        programs[name] = (
            partial(compiled, *arguments),
            {"temp_bytes": dumped_temp_bytes()},
        )
    return programs


def torch_programs(layer, x, dy, mode):
    import torch

    x, dy = map(of_compute_dtype, (x, dy))
    x.requires_grad_()
    layer(x)
    inputs = [*(v.value for v in layer.trainable_variables), x]
    forward_layer, step_layer = (compile_torch(layer, mode) for _ in range(2))

    def forward():
        with torch.no_grad():
            return forward_layer(x)

    def step():
        y = step_layer(x)
        return y, torch.autograd.grad(y, inputs, dy)

    # Compiled at the first call.
    return {
        name: (program, torch_memory(program))
        for name, program in (("forward", forward), ("step", step))
    }


def torch_memory(program):
    """What a second call takes; torch counts on GPUs alone."""
    import torch

    program()
    if not on_gpu():
        return {}
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    program()
    return {"temp_bytes": torch.cuda.max_memory_allocated() - before}


def compile_torch(layer, mode):
    import torch

    def function(x):
        return layer(x)

    if mode == "eager":
        return function
    # Compiled programs are kept by code object: with a shared one, every call
    # would look through the programs of the other cases.
    function.__code__ = function.__code__.replace()
    torch._dynamo.config.recompile_limit = 10_000
    return torch.compile(function, dynamic=False)


def dump_folder():
    """Where XLA writes its buffers; `speed.py` sets it for TensorFlow."""
    return Path(re.search(r"--xla_dump_to=(\S+)", os.environ["XLA_FLAGS"])[1])


def dumped_temp_bytes():
    """The temporaries of the only program in the folder."""
    (path,) = dump_folder().glob("*buffer-assignment.txt")
    sizes = re.findall(
        r"allocation \d+: size (\d+), preallocated-temp", path.read_text()
    )
    return sum(map(int, sizes))


@functools.cache
def on_gpu():
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "gpu"
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU"))
    import torch

    return torch.cuda.is_available()


def wait(result):
    """Until it is there: JAX, and torch on a GPU, return before they have computed."""
    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready(result)
    if keras.backend.backend() == "torch" and on_gpu():
        import torch

        torch.cuda.synchronize()


def seconds_per_call(call, calls, queue):
    start = time.perf_counter()
    for _ in range(calls):
        result = call()
        if not queue:
            wait(result)
    wait(result)
    return (time.perf_counter() - start) / calls


def time_round_robin(calls, rounds, seconds=0.01, queue=False):
    """Times of every call, an array with a value a round.

    Rounds take turns, so that a slow moment of the machine hits all calls; the
    order changes, because a call is slower behind one that fills the caches.

    Args:
        calls: dict of functions without arguments.
        rounds: int.
        seconds: float. How long the first call is repeated a round; the others
            are repeated as often.
        queue: bool. Wait after the last repetition only. On a GPU, waiting for
            each would take longer than a short program; on a CPU, JAX would run
            them at the same time.
    """
    for call in calls.values():
        wait(call())
        wait(call())
    first = next(iter(calls.values()))
    once = statistics.median(seconds_per_call(first, 1, queue) for _ in range(3))
    repetitions = max(1, round(seconds / once))
    times = {name: [] for name in calls}
    order, rng = list(calls), np.random.default_rng(0)
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            times[name].append(seconds_per_call(calls[name], repetitions, queue))
    return {name: np.array(values) for name, values in times.items()}


def measure(layers, x, dy, mode, rounds, queue=False, progress=print):
    """Both programs of every layer, side by side; ratios are to the first layer.

    Args:
        layers: dict of functions without arguments that return a layer.
        x, dy: arrays, the input and the gradient of the output.
        mode: str, one of `MODES` of the backend.
        rounds, queue: see `time_round_robin`.
        progress: function that is told what happens.

    Returns:
        Dict `result[layer][program]` of dicts: `seconds` and `ratio` (medians),
        `quartiles` of the ratio, and what the compiler said.
    """
    make = {
        "jax": jax_programs,
        "tensorflow": tensorflow_programs,
        "torch": torch_programs,
    }[keras.backend.backend()]
    programs = {}
    for name, layer in layers.items():
        progress(f"compile {name}")
        programs[name] = make(layer(), x, dy, mode)
    result = {name: {} for name in layers}
    for program in ("forward", "step"):
        progress(f"time {program}")
        calls = {name: programs[name][program][0] for name in layers}
        times = time_round_robin(calls, rounds, queue=queue)
        reference = times[next(iter(layers))]
        for name in layers:
            low, ratio, high = np.quantile(times[name] / reference, [0.25, 0.5, 0.75])
            result[name][program] = {
                "seconds": float(np.median(times[name])),
                "ratio": float(ratio),
                "quartiles": [float(low), float(high)],
                **programs[name][program][1],
            }
        ratios = [f"{name} {result[name][program]['ratio']:.2f}" for name in layers]
        progress(f"{program}: {', '.join(ratios)}")
    return result
