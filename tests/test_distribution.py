"""Layouts, and training through the release on several devices and processes."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_sawtooth as ks

ROOT = Path(__file__).parents[1]
BACKEND = keras.backend.backend()
TIMEOUT = 400
# Keras' matmul on torch takes float64 down to float32.
TOLERANCE = 1e-5 if BACKEND == "torch" else 1e-7


# Layouts


def mesh(axes=("batch", "model")):
    return keras.distribution.DeviceMesh((1, 1), axes, ["cpu:0"])


def variables(constrained, **arguments):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            ks.SawtoothDense(4, constrained=constrained, **arguments),
            layer := ks.SawtoothDense(4, constrained=constrained, **arguments),
            keras.layers.Dense(4),
            ks.RegionConstraint(constrained=constrained, name="own", **arguments),
        ]
    )
    layer.enable_lora(1)
    return model.variables


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("scales", ["tied", "free"])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_channels_of_every_variable_are_split(constrained, scales, depth):
    layouts = ks.layout_map(mesh(), scales=scales)
    for variable in variables(constrained, scales=scales, depth=depth):
        layout = layouts[variable.path]
        if "/dense" in variable.path or variable.name == "lora_kernel_a":
            assert layout is None
        else:
            rank = len(variable.shape)
            assert layout.axes == (None,) * (rank - 1) + ("model",), variable.path


def test_other_axes_and_names():
    layouts = ks.layout_map(mesh(("data", "units")), "units", dense="first|second")
    assert layouts["model/second/kernel"].axes == (None, "units")
    assert layouts["model/sawtooth_dense/kernel"] is None
    assert layouts["model/dense/slope_of_another"] is None


def test_a_full_path_goes_before_a_pattern():
    layouts = ks.layout_map(mesh())
    layouts["model/free/amplitude"] = (None, "model")
    assert layouts["model/free/amplitude"].axes == (None, "model")
    assert layouts["model/tied/amplitude"].axes == ("model",)


@pytest.mark.parametrize(
    "arguments, message",
    [({"axis": "units"}, "axis='units'"), ({"scales": "loose"}, "scales='loose'")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ks.layout_map(mesh(), **arguments)
    with pytest.raises(TypeError, match="device_mesh='mesh'"):
        ks.layout_map("mesh")


# Training: backend, workflow, processes, devices of each, parts of the channels.
# `distributed.py` holds the workflows.
WORKFLOWS = {
    "DataParallel, 8 devices": ("jax", "data_parallel", 1, 8, 1),
    "ModelParallel, 2 x 4 devices": ("jax", "model_parallel", 1, 8, 4),
    "DataParallel, 2 processes": ("jax", "data_parallel_processes", 2, 1, 1),
    "ModelParallel, 2 processes": ("jax", "model_parallel_processes", 2, 1, 2),
    "MirroredStrategy, 2 devices": ("tensorflow", "mirrored", 1, 2, 1),
    "DistributedDataParallel, 2 processes": ("torch", "ddp", 2, 1, 1),
}


def backend_only(name):
    return pytest.mark.skipif(BACKEND != name, reason=f"on the {name} backend only")


def cases():
    for name, (backend, *case) in WORKFLOWS.items():
        marks = [pytest.mark.workflow(f"distribution: {name}"), backend_only(backend)]
        yield pytest.param(*case, marks=marks, id=name)


def run(workflow, folder, processes=1):
    """What the processes of a workflow wrote, one dictionary of arrays for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # JAX' files of compiled programs are for one process at a time.
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    script = [sys.executable, "-W", "error::UserWarning", ROOT / "tests/distributed.py"]
    files = [folder / f"{workflow}-{process}.npz" for process in range(processes)]
    logs = [file.with_suffix(".log").open("w+") for file in files]
    children = [
        subprocess.Popen(
            [*map(str, [*script, f"{BACKEND}_{workflow}", file, process, port])],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        for process, (file, log) in enumerate(zip(files, logs, strict=True))
    ]
    # One that fails leaves the others waiting for it.
    end = time.monotonic() + TIMEOUT
    try:
        while None in (codes := [child.poll() for child in children]):
            if any(codes):
                break
            assert time.monotonic() < end, f"{workflow} took more than {TIMEOUT} s"
            time.sleep(0.1)
    finally:
        for child in children:
            child.kill()
            child.wait()
    for child, log in zip(children, logs, strict=True):
        log.seek(0)
        text = log.read()
        log.close()
        assert child.returncode == 0, text[-5000:]
    return [dict(np.load(file)) for file in files]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Results of the same training on one device."""
    return run("single", tmp_path_factory.mktemp("single"))[0]


@pytest.mark.long
@pytest.mark.parametrize("workflow, processes, devices, parts", list(cases()))
def test_training_equals_that_on_one_device(
    workflow, processes, devices, parts, single, tmp_path
):
    for process, results in enumerate(run(workflow, tmp_path, processes)):
        assert results.keys() == single.keys()
        assert any("relu_kernel" in name for name in results)
        assert not any("peak_logits" in name for name in results)
        for name, value in results.items():
            if name.endswith(":shards"):
                continue
            np.testing.assert_allclose(
                value, single[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
            )
            if name.endswith(":value"):
                shards = results[name.removesuffix("value") + "shards"]
                assert len(shards) == devices
                for device, shard in enumerate(shards, process * devices):
                    if parts > 1 and "sawtooth_dense" in name:
                        part = np.split(value, parts, axis=-1)[device % parts]
                    else:
                        part = value
                    np.testing.assert_array_equal(shard, part, err_msg=name)


@pytest.mark.long
@backend_only("jax")
def test_channels_that_the_devices_cannot_share(tmp_path):
    (result,) = run("indivisible", tmp_path)
    message = str(result["error"])
    assert "(3, 6)" in message and ("divide" in message or "divisible" in message)
