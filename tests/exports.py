"""Which format Keras exports on which backend: what the tests expect, and a table.

    python tests/exports.py --write docs/deploy.md

runs `tests/test_export.py` on every backend, and writes the table if all of it is so.
"""

import argparse
import os
import pathlib
import subprocess
import sys
from collections import namedtuple

import keras
import numpy as np

TESTS = pathlib.Path(__file__).parent
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
FORMATS = {
    "tf_saved_model": "SavedModel",
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
    "torch": "`torch.export`",
}
Pair = namedtuple("Pair", ["packages", "error", "why"], defaults=[(), None, None])
Pair.__doc__ = """What is needed beside the backend, to export and to run; the error
where Keras cannot do it, and what the table says then."""
NOT_IN_KERAS = "not in Keras"
EXPECTED = {
    ("tensorflow", "tf_saved_model"): Pair(),
    ("tensorflow", "onnx"): Pair(["tf2onnx", "onnxruntime"]),
    ("tensorflow", "openvino"): Pair(["openvino"]),
    ("tensorflow", "litert"): Pair(["ai_edge_litert"]),
    ("tensorflow", "torch"): Pair([], "requires PyTorch", NOT_IN_KERAS),
    ("jax", "tf_saved_model"): Pair(["tensorflow"]),
    ("jax", "onnx"): Pair(["jax2onnx", "onnxruntime"]),
    # `jax2tf` of today makes nothing else any more, and Keras asks it to.
    ("jax", "openvino"): Pair(
        ["tensorflow", "openvino"],
        "No conversion rule found for operations: XlaCallModule",
        "OpenVINO cannot read `jax2tf`",
    ),
    ("jax", "litert"): Pair([], "requires TensorFlow or PyTorch", NOT_IN_KERAS),
    ("jax", "torch"): Pair([], "requires PyTorch", NOT_IN_KERAS),
    ("torch", "tf_saved_model"): Pair(
        ["tensorflow"], "requires the torch_xla module", "needs torch-xla"
    ),
    ("torch", "onnx"): Pair(["onnx", "onnxruntime"]),
    ("torch", "openvino"): Pair(["openvino"]),
    ("torch", "litert"): Pair(["litert_torch", "ai_edge_litert"]),
    ("torch", "torch"): Pair(),
}


def export_and_run(model, file_format, folder, x):
    """Outputs of the exported model at `x`, in the runtime of the format."""
    return globals()[f"_{file_format}"](model, str(folder / "model"), x)


def _fixed_size(x):
    """Arguments for where torch fixes the batch size."""
    if keras.backend.backend() != "torch":
        return {}
    return {"input_signature": [keras.layers.InputSpec(x.dtype, x.shape)]}


def _tf_saved_model(model, path, x):
    model.export(path, verbose=False, **_fixed_size(x))
    import tensorflow as tf

    served = tf.saved_model.load(path)
    return served.serve(x).numpy()


def _onnx(model, path, x):
    model.export(f"{path}.onnx", format="onnx", verbose=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(f"{path}.onnx")
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def _openvino(model, path, x):
    model.export(f"{path}.xml", format="openvino", verbose=False)
    import openvino

    # Processors with bfloat16 would use it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(f"{path}.xml", "CPU", exact)
    return compiled(x)[0]


def _litert(model, path, x):
    model.export(f"{path}.tflite", format="litert", verbose=False, **_fixed_size(x))
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(f"{path}.tflite")
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(outputs[0]["index"])


def _torch(model, path, x):
    # Keras fixes the batch size to 1 without it.
    import torch

    batch = {0: torch.export.Dim("batch", min=1)}
    model.export(f"{path}.pt2", format="torch", verbose=False, dynamic_shapes=batch)
    program = torch.export.load(f"{path}.pt2")
    return np.asarray(program.module()(torch.tensor(x)).detach())


def table():
    lines = ["| format | " + " | ".join(BACKENDS.values()) + " |"]
    lines.append("|---|" + "---|" * len(BACKENDS))
    for file_format, name in FORMATS.items():
        cells = []
        for backend in BACKENDS:
            pair = EXPECTED[backend, file_format]
            packages = ", ".join(p.replace("_", "-") for p in pair.packages)
            works = f"yes ({packages})" if packages else "yes"
            cells.append(f"no: {pair.why}" if pair.error else works)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def run(backend):
    command = [sys.executable, "-m", "pytest", "-q", str(TESTS / "test_export.py")]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    return subprocess.run(command, env=environment).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=pathlib.Path, help="page with the table")
    options = parser.parse_args()
    print(table())
    code = max(run(backend) for backend in BACKENDS)
    if options.write and code == 0:
        page = options.write.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        options.write.write_text(before + BEGIN + table() + END + after)
    sys.exit(code)


if __name__ == "__main__":
    main()
