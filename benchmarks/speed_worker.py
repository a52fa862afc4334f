"""Measures one section of `speed.py` on one backend, in a process of its own."""

import datetime
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import unittest.mock
from functools import partial
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import speed_programs
from speed_layers import constrained
from speed_layers import gelu
from speed_layers import other_packages
from speed_layers import prelu
from speed_layers import released
from speed_layers import relu
from speed_layers import sawtooth_layers
from speed_layers import table

import keras_sawtooth as ks
from keras_sawtooth import hot_path

# (units, batch); as many inputs as units.
SIZES = ((256, 1024), (1024, 512), (4096, 128))
GPU_SIZES = ((256, 1024), (1024, 8192), (4096, 8192))
PEER_SIZES = ((256, 1024), (1024, 512))
DEPTHS = (3, 5)
GROWTH = {
    "depth": range(1, 13),
    "units": [2**i for i in range(6, 13)],
    "batch": [2**i for i in range(5, 14)],
}
QUICK_SIZES = ((16, 16),)
QUICK_DEPTHS = (3,)
QUICK_GROWTH = {"depth": (1, 2), "units": (16,), "batch": (16,)}
# At depth 8 the released layer has 150 weights a unit, and its program is long.
RELEASED_DEPTH = 8
# VGG-16: channels of its 3x3 convolutions, "M" for pooling; width of the image.
VGG_CONVOLUTIONS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M")
VGG_CONVOLUTIONS += (512, 512, 512, "M", 512, 512, 512, "M")
VGG_IMAGE, VGG_HIDDEN, VGG_CLASSES, VGG_BATCH = 224, 4096, 1000, 8


def progress(*words):
    print("speed:", *words, file=sys.stderr, flush=True)


def compare(section, layers, units, batch, rounds, mode, queue, policy):
    """Times of layers, dict of functions of `units`; see `speed_programs.measure`."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    x, dy = np.random.default_rng(0).normal(size=(2, batch, units)).astype("float32")
    result = speed_programs.measure(
        {name: partial(layer, units) for name, layer in layers.items()},
        x,
        dy,
        mode,
        rounds,
        queue,
        partial(progress, f"{section}, {mode}, units {units}, batch {batch}:"),
    )
    # Layers and programs hold each other in cycles, and some are large. The policy is
    # forgotten, too.
    keras.backend.clear_session()
    return result


def compare_sizes(
    section, layers, sizes, rounds, queue=False, largest=None, policy="float32"
):
    """`compare` for every mode of the backend and every size.

    Args:
        largest: dict, units beyond which a layer is left out.
    """
    result = {}
    for mode in speed_programs.MODES[keras.backend.backend()]:
        result[mode] = {}
        for units, batch in sizes:
            fitting = {
                name: layer
                for name, layer in layers.items()
                if units <= (largest or {}).get(name, units)
            }
            times = compare(section, fitting, units, batch, rounds, mode, queue, policy)
            result[mode][f"{units} {batch}"] = times
    return result


def layer_section(rounds, quick):
    depths, sizes = (QUICK_DEPTHS, QUICK_SIZES) if quick else (DEPTHS, SIZES)
    layers = {"relu": relu, "prelu": prelu, "gelu": gelu, **sawtooth_layers(depths)}
    return compare_sizes("layer", layers, sizes, rounds)


def growth_section(rounds, quick):
    growth = QUICK_GROWTH if quick else GROWTH
    units, batch, fixed = (16, 16, 16) if quick else (256, 1024, 256)
    depths = growth["depth"]
    layers = {"relu": relu}
    for name, layer, last in (
        ("constrained", constrained, max(depths)),
        ("released", released, RELEASED_DEPTH),
        ("table", table, max(depths)),
    ):
        for depth in depths:
            if depth <= last:
                layers[f"{name} {depth}"] = partial(layer, depth=depth)
    default = {"relu": relu, **sawtooth_layers([3])}
    axes = {
        "depth": (layers, [(units, batch)]),
        "units": (default, [(n, fixed) for n in growth["units"]]),
        "batch": (default, [(fixed, n) for n in growth["batch"]]),
    }
    return {
        axis: compare_sizes(f"growth, {axis}", layers, sizes, rounds)["jit"]
        for axis, (layers, sizes) in axes.items()
    }


def peers_section(rounds, quick):
    missing = {}
    layers = {"relu": relu, "prelu": prelu, "gelu": gelu, **sawtooth_layers([3])}
    for name, package, install, layer in other_packages():
        if importlib.util.find_spec(package):
            layers[name] = layer
        else:
            missing[name] = f"not installed: {install}"
            progress("peers", name, missing[name])
    # DenseKAN makes tensors (batch, inputs, units): 2 GB each at 1024 units.
    times = compare_sizes(
        "peers",
        layers,
        QUICK_SIZES if quick else PEER_SIZES,
        rounds,
        largest={"tfkan DenseKAN": 256},
    )
    return {"missing": missing, "times": times}


def vgg_multiply_adds():
    """Of VGG-16 a picture: its convolutions and its classifier."""
    width, channels, convolutions = VGG_IMAGE, 3, 0
    for new in VGG_CONVOLUTIONS:
        if new == "M":
            width //= 2
        else:
            convolutions += width**2 * 9 * channels * new
            channels = new
    widths = (width**2 * channels, VGG_HIDDEN, VGG_HIDDEN, VGG_CLASSES)
    classifier = sum(a * b for a, b in itertools.pairwise(widths))
    return {"convolutions": convolutions, "classifier": classifier}


def sawtooth_multiply_adds(depth):
    """Of `sawtooth.sawtooth` a value: normalizing, the bent line, and for every wave
    its two sides and adding it.

    What depends on the channel alone is computed once a batch and not counted,
    nor are comparisons.
    """
    return 6 + 3 * depth


def classifier(layer, features, hidden):
    return keras.Sequential(
        [
            keras.Input((7, 7, features // 49)),
            keras.layers.Flatten(),
            layer(hidden),
            layer(hidden),
            keras.layers.Dense(VGG_CLASSES, activation="softmax"),
        ]
    )


def vgg_section(rounds, quick):
    divisor = 16 if quick else 1
    hidden, features = VGG_HIDDEN // divisor, 25088 // divisor
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(VGG_BATCH, 7, 7, features // 49)).astype("float32")
    dy = rng.normal(size=(VGG_BATCH, VGG_CLASSES)).astype("float32")
    layers = {"relu": relu}
    depths = QUICK_DEPTHS if quick else DEPTHS
    for depth in depths:
        layers[f"constrained {depth}"] = partial(constrained, depth=depth)
    times = speed_programs.measure(
        {name: partial(classifier, f, features, hidden) for name, f in layers.items()},
        x,
        dy,
        "jit",
        rounds,
        progress=partial(progress, "vgg:"),
    )
    return {
        "multiply_adds": vgg_multiply_adds(),
        "sawtooth_multiply_adds": {
            str(depth): 2 * VGG_HIDDEN * sawtooth_multiply_adds(depth)
            for depth in depths
        },
        "times": times,
    }


def output_of(*command):
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def startup_section(rounds, quick):
    imports = {"keras": [], "keras_sawtooth": []}
    for _ in range(1 if quick else 5):
        for package in imports:
            progress("startup: import", package)
            program = (
                "import time; start = time.perf_counter(); "
                f"import keras, {package}; print(time.perf_counter() - start)"
            )
            imports[package].append(output_of(sys.executable, "-c", program))
    script = str(Path(__file__).with_name("speed_first_steps.py"))
    size = ("16", "2") if quick else ("256", "12")
    steps = {"relu": [], "constrained": [], "released": []}
    for _ in range(1 if quick else 3):
        for layer in steps:
            progress("startup: first steps,", layer)
            steps[layer].append(output_of(sys.executable, script, layer, *size))
    return {
        "import": {name: statistics.median(times) for name, times in imports.items()},
        "steps": {
            layer: {
                step: statistics.median(run[step] for run in runs)
                for step in ("first", "second")
            }
            for layer, runs in steps.items()
        },
    }


def gpu_section(rounds, quick):
    if not speed_programs.on_gpu():
        reason = f"{keras.backend.backend()} sees no GPU"
        progress("gpu: skipped,", reason)
        return {"skipped": reason}
    depths, sizes = (QUICK_DEPTHS, QUICK_SIZES) if quick else (DEPTHS, GPU_SIZES)
    if keras.backend.backend() == "torch":
        # It takes 20 s to compile a layer.
        depths, sizes = depths[:1], sizes if quick else GPU_SIZES[1:2]
    layers = {"relu": relu, **sawtooth_layers(depths)}
    compared = partial(compare_sizes, layers=layers, sizes=sizes, rounds=rounds)
    times = {
        policy: compared(f"gpu, {policy}", queue=True, policy=policy)
        for policy in ("mixed_bfloat16", "float32")
    }
    without_kernels = unittest.mock.patch.object(
        hot_path.backend, "can_fuse", lambda *arguments: False
    )
    with without_kernels:
        times["without kernels"] = compared("gpu, without kernels", queue=True)
    return {
        "times": times,
        "bandwidth": bandwidth((16, 8) if quick else (65536, 4096), depths[:1], rounds),
    }


def bandwidth(shape, depths, rounds):
    """Bytes a second of `RegionConstraint` alone, and of multiplying by a number.

    Counted once each: what a step has to read and to write, input and output and the
    gradients of both.
    """
    layers = {"scaling": partial(keras.layers.Lambda, lambda x: x * 2.0)}
    for depth in depths:
        alone = partial(ks.RegionConstraint, depth)
        layers[f"constrained {depth}"] = alone
        layers[f"released {depth}"] = partial(alone, constrained=False)
    x, dy = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    mode = speed_programs.MODES[keras.backend.backend()][-1]
    told = partial(progress, "gpu, bandwidth:")
    times = speed_programs.measure(layers, x, dy, mode, rounds, True, told)
    return {
        name: {
            program: tensors * x.nbytes / programs[program]["seconds"]
            for program, tensors in (("forward", 2), ("step", 4))
        }
        for name, programs in times.items()
    }


SECTIONS = {
    "layer": layer_section,
    "growth": growth_section,
    "peers": peers_section,
    "vgg": vgg_section,
    "startup": startup_section,
    "gpu": gpu_section,
}


def device(backend):
    if backend == "jax":
        import jax

        return jax.devices()[0].device_kind
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.config.list_logical_devices()[-1].device_type
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(": ")[1] for x in lines if x.startswith("model name")), "")


def environment(command):
    backend = keras.backend.backend()

    loaded = {"keras_efficient_kan", "jaxkan", "flax", "tfkan"} & set(sys.modules)
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": device(backend),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "keras": keras.version(),
            "keras_sawtooth": ks.__version__,
            backend: importlib.import_module(backend).__version__,
            **{name: metadata.version(name) for name in sorted(loaded)},
        },
    }


def main():
    """Arguments: section, rounds, "quick" or "full", the parent's command, output."""
    section, rounds, size, command, output = sys.argv[1:]
    start = time.perf_counter()
    result = SECTIONS[section](int(rounds), size == "quick")
    seconds = round(time.perf_counter() - start)
    entry = {
        "environment": {**environment(command), "seconds": seconds},
        "results": result,
    }
    Path(output).write_text(json.dumps(entry))


if __name__ == "__main__":
    main()
