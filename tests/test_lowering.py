"""What XLA makes of the layers, from the text and the memory of its programs."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import programs
import pytest

import keras_sawtooth as ks
from keras_sawtooth import hot_path
from keras_sawtooth.backend import common

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="reads programs of XLA"
)


@pytest.mark.parametrize("depth", [1, 3, 12])
@pytest.mark.parametrize("constrained", [True, False])
def test_forward_is_one_fused_loop_behind_the_product(depth, constrained):
    dense = keras.layers.Dense(programs.UNITS, activation="relu")
    layer = ks.SawtoothDense(programs.UNITS, depth=depth, constrained=constrained)
    for candidate in (dense, layer):
        candidate.build((None, programs.UNITS))
        steps = programs.full_size_steps(programs.forward_text(candidate))
        assert steps == ["product", "loop"]


@pytest.fixture(scope="module")
def temporaries():
    """By kind of layer: temporaries of models of 1 and 3 layers, in tensors."""
    run = subprocess.run(
        [sys.executable, Path(programs.__file__)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.mark.parametrize("kind, tensors", [("constrained", 3), ("released", 0)])
def test_a_step_needs_few_tensors_more_than_relu(temporaries, kind, tensors):
    # And the sums, which are small.
    assert temporaries[kind][0] <= temporaries["dense"][0] + tensors + 0.25


@pytest.mark.parametrize("kind", ["constrained", "released"])
def test_the_gradient_keeps_the_pre_activation_alone(temporaries, kind):
    """`relu` keeps its output, from which it knows its sign; here both are kept."""

    def a_layer(kind):
        return (temporaries[kind][1] - temporaries[kind][0]) / 2

    assert a_layer(kind) <= a_layer("dense") + 1.1


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="reads a JAX program")
@pytest.mark.parametrize("depth", [3, 8])
def test_on_many_cores_a_released_layer_sums_in_one_loop(depth, monkeypatch):
    monkeypatch.setattr(common, "FEW_CORES", 0)
    layer = ks.SawtoothDense(64, depth=depth, constrained=False)
    layer.build((None, 64))
    text = programs.gradient_text(layer, (1024, 64))
    loops = [line for line in text.splitlines() if "kind=kLoop" in line]
    of_many = [line for line in loops if re.search(r" = \(.*\) fusion\(", line)]
    assert len(of_many) == 1
    # And one for the gradient of the input: nothing else is of its size.
    shapes = [re.search(r" = f32\[([\d,]+)\]", line) for line in loops]
    sizes = [math.prod(map(int, shape[1].split(","))) for shape in shapes if shape]
    assert sizes.count(1024 * 64) == 1 and max(sizes) == 1024 * 64


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="reads a JAX program")
@pytest.mark.parametrize("depth", [3, 8])
def test_on_few_cores_a_released_layer_keeps_two_tensors_per_layer(depth, monkeypatch):
    """Neurons and their gradients: what XLA computes again makes the loops longer."""
    monkeypatch.setattr(common, "FEW_CORES", float("inf"))
    layer = ks.SawtoothDense(256, depth=depth, constrained=False)
    layer.build((None, 64))
    text = programs.gradient_text(layer, (1024, 64))
    kept = re.findall(r" = f32\[4,8,256\]\S* fusion\(", text)
    assert len(kept) == 2 * depth


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="for JAX only")
def test_no_variable_is_weakly_typed():
    """Such a variable is strongly typed after a step, and JAX compiles it again."""
    layer = ks.SawtoothDense(4)
    layer.build((None, 4))
    variables = layer.weights
    layer.release()
    assert not any(v.value.weak_type for v in [*variables, *layer.weights])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for TensorFlow")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_released_layers_of_the_same_shapes_are_traced_once(monkeypatch, jit_compile):
    """Tracing takes longer than compiling, and most models repeat a layer."""
    traced = []

    def counted(function):
        return lambda *args: traced.append(args) or function(*args)

    network = hot_path.plain_relu_network
    monkeypatch.setattr(network, "relu_network", counted(network.relu_network))
    by_hand = counted(hot_path.gradients_in_blocks)
    monkeypatch.setattr(hot_path, "gradients_in_blocks", by_hand)
    # Nothing else in these tests has this domain.
    arguments = {"domain": (-1, 1.5 + jit_compile), "constrained": False}
    layers = [ks.SawtoothDense(4, **arguments) for _ in range(3)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    traced.clear()
    model.train_on_batch(np.ones((2, 4)), np.ones((2, 4)))
    # The values, and the gradients.
    assert len(traced) == 2
