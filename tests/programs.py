"""Compiled programs of layers, as XLA describes them: text, and temporary memory.

As a script: prints the temporaries of training steps as JSON, in a process of its
own, since TensorFlow tells them only in files that XLA writes on demand.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

BATCH, UNITS = 1024, 256


def forward_text(layer):
    """The optimized program of a layer's forward pass on `(BATCH, UNITS)`."""
    import keras
    import numpy as np

    x = np.zeros((BATCH, UNITS), "float32")
    if keras.backend.backend() == "jax":
        import jax

        variables = [w.value for w in layer.trainable_variables]
        forward = jax.jit(lambda v, x: layer.stateless_call(v, [], x)[0])
        return forward.lower(variables, x).compile().as_text()
    import tensorflow as tf

    forward = tf.function(lambda x: layer(x), jit_compile=True)
    ir = forward.experimental_get_compiler_ir(tf.constant(x))
    return ir(stage="optimized_hlo")


def gradient_text(layer, shape):
    """The optimized program of a layer's gradient in its variables, on JAX."""
    import jax
    import numpy as np

    variables = [w.value for w in layer.trainable_variables]
    gradient = jax.jit(
        jax.grad(lambda v, x: layer.stateless_call(v, [], x)[0].sum(), argnums=(0, 1))
    )
    return gradient.lower(variables, np.zeros(shape, "float32")).compile().as_text()


def full_size_steps(text):
    """What the program computes in the size of its output, in order."""
    entry = text[text.index("\nENTRY") :]
    shape = re.escape(f"f32[{BATCH},{UNITS}]")
    lines = re.findall(rf"= \(?{shape}\S* ([\w-]+)\((.*)", entry)
    kinds = []
    for operation, rest in lines:
        if operation == "dot" or "kind=kCustom" in rest:
            kinds.append("product")
        elif operation != "parameter":
            kinds.append("loop" if "kind=kLoop" in rest else operation)
    return kinds


def temporaries(build, count):
    """Temporary memory of a step of `count` layers, in tensors of the output's size."""
    import keras
    import numpy as np

    model = keras.Sequential([build() for _ in range(count)])
    model.build((BATCH, UNITS))
    x = np.zeros((BATCH, UNITS), "float32")
    if keras.backend.backend() == "jax":
        import jax

        trainable = [w.value for w in model.trainable_variables]
        others = [w.value for w in model.non_trainable_variables]

        def step(trainable, x, upstream):
            y, pull_back = jax.vjp(
                lambda *a: model.stateless_call(a[0], others, a[1])[0], trainable, x
            )
            return y, pull_back(upstream)

        program = jax.jit(step).lower(trainable, x, x).compile()
        size = program.memory_analysis().temp_size_in_bytes
    else:
        size = _tensorflow_temporaries(model, x)
    return size / (4 * BATCH * UNITS)


def _tensorflow_temporaries(model, x):
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x)
        sources = [x, *(w.value for w in model.trainable_variables)]
        return y, tape.gradient(y, sources, upstream)

    folder = Path(re.search(r"--xla_dump_to=(\S+)", os.environ["XLA_FLAGS"])[1])
    before = set(folder.glob("*buffer-assignment.txt"))
    step(tf.constant(x), tf.constant(x))
    (report,) = set(folder.glob("*buffer-assignment.txt")) - before
    sizes = re.findall(r"size (\d+), preallocated-temp", report.read_text())
    return sum(map(int, sizes))


def main():
    import keras

    import keras_sawtooth as ks

    def dense():
        return keras.layers.Dense(UNITS, activation="relu")

    def constrained():
        return ks.SawtoothDense(UNITS)

    def released():
        return ks.SawtoothDense(UNITS, constrained=False)

    result = {
        build.__name__: [temporaries(build, count) for count in (1, 3)]
        for build in (dense, constrained, released)
    }
    print(json.dumps(result))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XLA_FLAGS"] = (
            f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_pass_re=none"
        )
        sys.exit(main())
