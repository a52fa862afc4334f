"""Which format Keras exports on which backend: what the tests expect, and a table.

    python tests/exports.py --write

writes the table, and runs `tests/test_export.py` on every backend, which checks that
all of it is so.
"""

import argparse
import os
import pathlib
import subprocess
import sys
from collections import namedtuple

import keras

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "deploy.md"
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
    ("tensorflow", "torch"): Pair(["torch"], "requires PyTorch", NOT_IN_KERAS),
    ("jax", "tf_saved_model"): Pair(["tensorflow"]),
    ("jax", "onnx"): Pair(["jax2onnx", "onnxruntime"]),
    # `jax2tf` of today makes nothing else any more, and Keras asks it to.
    ("jax", "openvino"): Pair(
        ["tensorflow", "openvino"],
        "No conversion rule found for operations: XlaCallModule",
        "OpenVINO cannot read `jax2tf`",
    ),
    ("jax", "litert"): Pair([], "requires TensorFlow or PyTorch", NOT_IN_KERAS),
    ("jax", "torch"): Pair(["torch"], "requires PyTorch", NOT_IN_KERAS),
    # Functional models of unknown batch size end before that, in the first error.
    ("torch", "tf_saved_model"): Pair(
        ["tensorflow"],
        "mismatch between the structure of `inputs`|requires the torch_xla module",
        "needs torch-xla",
    ),
    ("torch", "onnx"): Pair(["onnx", "onnxruntime"]),
    ("torch", "openvino"): Pair(["openvino"]),
    ("torch", "litert"): Pair(["litert_torch", "ai_edge_litert"]),
    ("torch", "torch"): Pair(),
}


def code_by_heading(page):
    """The Python blocks of a page, by pairs (heading, heading of the third level)."""
    code, heading, inside = {}, ("", ""), False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            inside = line == "```python"
        elif inside:
            code[heading] = code.get(heading, "") + line + "\n"
        elif line.startswith("### "):
            heading = (heading[0], line[4:])
        elif line.startswith(("# ", "## ")):
            heading = (line.split(" ", 1)[1], "")
    return code


def export_and_run(model, file_format, x):
    """Outputs of the exported model at `x`: the code of the page, run here."""
    code, heading = code_by_heading(PAGE), ("Export", FORMATS[file_format])
    of_torch = ("Export", f"{FORMATS[file_format]} from PyTorch")
    if keras.backend.backend() == "torch" and of_torch in code:
        heading = of_torch
    names = {"keras": keras, "model": model, "x": x}
    exec(compile(code[heading], f"{PAGE.name}, {heading}", "exec"), names)
    return names["outputs"]


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
    parser.add_argument("--write", action="store_true", help="into docs/deploy.md")
    options = parser.parse_args()
    print(table())
    if options.write:
        page = PAGE.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(before + BEGIN + table() + END + after)
    sys.exit(max(run(backend) for backend in BACKENDS))


if __name__ == "__main__":
    main()
