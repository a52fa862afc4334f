"""Presets that nobody should trust: a clear error, before anything is built."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from test_hostile_files import flipped
from test_hostile_files import positions

import keras_sawtooth as ks

# A file that would be there if code had run.
RAN = os.path.join(tempfile.gettempdir(), f"ran-{os.getpid()}")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("presets") / "good"
    model = keras.Sequential(
        [keras.Input((3,)), ks.SawtoothDense(4), layers.Dense(2, name="head")]
    )
    ks.save_to_preset(model, path)
    return path


@pytest.fixture
def preset(good, tmp_path):
    return pathlib.Path(shutil.copytree(good, tmp_path / "preset"))


def refused(preset, message, error=ValueError):
    with pytest.raises(error, match=message) as caught:
        ks.from_preset(preset)
    assert str(preset) in str(caught.value)
    return str(caught.value)


def change_config(preset, change):
    config = json.loads((preset / "config.json").read_text())
    config = change(config) or config
    (preset / "config.json").write_text(json.dumps(config))


def layer(config, index):
    return config["config"]["layers"][index]["config"]


# Files


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
@pytest.mark.parametrize("kind", ["missing", "link", "directory", "fifo", "empty"])
def test_a_file_that_is_none(kind, name, preset, tmp_path):
    path = preset / name
    path.rename(tmp_path / "moved")
    message, error = "is (a symbolic link to|not a (regular file|valid))", ValueError
    if kind == "missing":
        message, error = "no file", FileNotFoundError
    elif kind == "link":
        path.symlink_to(tmp_path / "moved")
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
    assert name in refused(preset, message, error)


def test_a_link_to_the_directory_is_the_users_own(preset, tmp_path):
    (tmp_path / "link").symlink_to(preset)
    assert ks.from_preset(tmp_path / "link").built


BAD_JSON = {
    "truncated": ('{"class_name": "Seq', "not a valid JSON"),
    "list": ("[1, 2]", "must hold a JSON object"),
    "number": ("3", "must hold a JSON object"),
    "text": ("weights", "not a valid JSON"),
    "bytes": (b"\xff\xfe\x00", "not a valid JSON"),
    "twice": ('{"class_name": "A", "class_name": "B"}', "'class_name' occurs twice"),
    "deep": ('{"a":' * 99999 + "1" + "}" * 99999, "not a valid JSON|nested"),
    "nested": ('{"a":' * 150 + "1" + "}" * 150, "nested more than 100"),
    "digits": ('{"a": ' + "1" * 99999 + "}", "not a valid JSON"),
    "large": ('{"a": "' + "b" * 2**24 + '"}', "bytes"),
}


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
@pytest.mark.parametrize("kind", BAD_JSON)
def test_malformed_json(kind, name, preset):
    content, message = BAD_JSON[kind]
    content = content if isinstance(content, bytes) else content.encode()
    (preset / name).write_bytes(content)
    assert name in refused(preset, message)


@pytest.mark.parametrize("content", ["{}", '{"class_name": 3}', '{"config": {}}'])
def test_a_config_of_nothing(content, preset):
    (preset / "config.json").write_text(content)
    refused(preset, "describes no object")


def test_truncated_and_flipped_files(preset, good):
    """An error, or the model that was saved."""
    wanted = [np.asarray(w) for w in ks.from_preset(good).get_weights()]
    loaded = 0
    for name in ("config.json", "model.weights.h5"):
        content = (good / name).read_bytes()
        cases = [content[: int(len(content) * s)] for s in (0.1, 0.5, 0.9, 0.99)]
        # The layers of Keras have no checksums.
        flips = 6 if name == "config.json" else 0
        cases += [flipped(content, p, b) for p, b in positions(content, flips, 0)]
        for case in cases:
            (preset / name).write_bytes(case)
            try:
                model = ks.from_preset(preset)
            except ValueError as error:
                assert str(preset) in str(error)
                continue
            loaded += 1
            assert len(model.get_weights()) == len(wanted)
        (preset / name).write_bytes(content)
    assert loaded < 10


# Objects


def code(config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer(config, 1)["peak_initializer"] = keras.saving.serialize_keras_object(
            lambda shape, dtype=None: __import__("pathlib").Path(RAN).touch()
        )


def test_code_in_a_lambda(preset):
    change_config(preset, code)
    refused(preset, "holds Python code, a lambda")


def of(module, name, config=None, **entries):
    return {
        "module": module,
        "class_name": name,
        "config": config or {},
        "registered_name": None,
        **entries,
    }


def function(module, name):
    return of(module, "function", name, registered_name=name)


OBJECTS = {
    "lambda layer": (of("keras.layers", "Lambda"), "`Lambda` layer"),
    "its private path": (
        of("keras.src.layers.core.lambda_layer", "Lambda"),
        "`Lambda` layer",
    ),
    "without a module": ({"class_name": "Lambda", "config": {}}, "`Lambda` layer"),
    "under another name": (
        of("keras.layers", "Dense", registered_name="Lambda"),
        "`Lambda` layer",
    ),
    "saved model": (of("keras.layers", "TFSMLayer"), "`TFSMLayer`"),
    "pickled module": (of("keras.layers", "TorchModuleWrapper"), "`TorchModuleW"),
    "jax": (of("keras.layers", "JaxLayer"), "`JaxLayer`"),
    "os": (of("os", "system", {"command": f"touch {RAN}"}), "'system' of .*'os'"),
    "builtins": (of("builtins", "eval", {"source": "1"}), "'eval' of"),
    "function of os": (function("os", "system"), "'system' of the module 'os'"),
    "file access": (function("keras.utils", "get_file"), "'get_file' of"),
    "settings": (
        function("keras.config", "enable_unsafe_deserialization"),
        "'enable_unsafe_deserialization' of",
    ),
    "function as a class": (of("keras.utils", "get_file"), "'get_file' of"),
    "callback": (of("keras.callbacks", "CSVLogger"), "'CSVLogger' of"),
    "private": (of("keras.src.backend.openvino.core", "Variable"), "'Variable' of"),
    "unknown": (of("thesis.models", "Mine"), "'Mine' of .* `custom_objects`"),
    "registered": (of(None, "A", registered_name="thesis>A"), "[Cc]ould not|A"),
    "typespec": (of("tensorflow", "__typespec__"), "'__typespec__' of"),
    "no name": (of("keras.layers", ["Dense"]), "by no name|no object"),
    "no name of a function": (of("builtins", "function", 3), "by no name"),
    "letters": (
        of(None, "__numpy__", {"value": ["a"], "dtype": "U1000000000"}),
        "array of dtype 'U1000000000'",
    ),
    "vocabulary": (
        of("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        "the file '/etc/passwd'",
    ),
    "stateful": (
        of("keras.layers", "SimpleRNN", {"units": 10**12, "stateful": True}),
        "stateful",
    ),
    "stateful by a number": (
        of("keras.layers", "GRU", {"units": 10**12, "stateful": 1}),
        "stateful",
    ),
    "no model": (None, "does not describe a model"),
}
PLACES = {
    "layer": lambda config, o: config["config"]["layers"].__setitem__(2, o),
    "initializer": lambda config, o: layer(config, 1).update(peak_initializer=o),
    "model": lambda config, o: o,
    "somewhere": lambda config, o: layer(config, 2).update(name=[{"a": [o]}]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_that_is_not_allowed(kind, place, preset):
    bad, message = OBJECTS[kind]
    if kind == "no model":
        bad, place = of("keras.layers", "Dense", {"units": 2}), "model"
    modules = set(sys.modules)
    change_config(preset, lambda config: PLACES[place](config, bad))
    refused(preset, message)
    assert not os.path.exists(RAN)
    if "os" not in kind:
        added = set(sys.modules) - modules
        assert not {m for m in added if "thesis" in m or "openvino" in m}


def test_what_a_model_was_compiled_with_is_left_out(preset):
    def change(config):
        config["compile_config"] = of("os", "system")
        config["config"]["layers"][1]["compile_config"] = {"loss": "mse"}

    change_config(preset, change)
    assert not ks.from_preset(preset).compiled


# Sizes


def without_builds(config):
    config.pop("build_config", None)
    for item in config["config"]["layers"]:
        item.pop("build_config", None)


def huge_units(config):
    without_builds(config)
    layer(config, 1)["units"] = 10**12


def huge_input(config):
    without_builds(config)
    layer(config, 0)["batch_shape"] = [None, 10**12]


def huge_build(config):
    config["config"]["layers"][1]["build_config"] = {"input_shape": [None, 10**12]}


def huge_together(config):
    without_builds(config)
    layer(config, 1)["units"] = 10**6
    layer(config, 2)["units"] = 10**6


def huge_embedding(config):
    config["config"]["layers"][2] = of(
        "keras.layers", "Embedding", {"input_dim": 10**13, "output_dim": 8}
    )


def huge_normalization(config):
    huge_input(config)
    # It reads its variables while it is built.
    config["config"]["layers"][1] = of("keras.layers", "Normalization")


def huge_recurrent(config):
    without_builds(config)
    layer(config, 0)["batch_shape"] = [None, 3, 3]
    cell = {"units": 10**6, "activation": "relu"}
    config["config"]["layers"][1] = of("keras.layers", "LSTM", cell)


def huge_depth(config):
    layer(config, 1)["depth"] = 10**9


def huge_state(config):
    cell = {"units": 10**9, "stateful": 1}
    config["config"]["layers"][1] = of("keras.layers", "GRU", cell)


def on_constants(operation):
    def change(config):
        constant = of(None, "__tensor__", {"value": [[[1.0]]], "dtype": "float32"})
        node = {"args": [constant], "kwargs": {}}
        called = {**operation, "name": "pad", "inbound_nodes": [node]}
        x = {**config["config"]["layers"][0], "name": "x", "inbound_nodes": []}
        x["config"]["name"] = "x"
        ends = {"input_layers": [["x", 0, 0]], "output_layers": [["x", 0, 0]]}
        content = {"name": "model", "trainable": True, "layers": [x, called], **ends}
        return of("keras.models", "Model", content)

    change.__name__ = operation["class_name"]
    return change


def spread(config):
    layer(config, 0)["batch_shape"] = [None, 10**9]
    given = of("keras.layers", "Normalization", {"mean": 0.0, "variance": 1.0})
    config["config"]["layers"][1] = given


def spread_by_its_build(config):
    spread(config)
    build = {"input_shape": [None, 10**9]}
    config["config"]["layers"][1]["build_config"] = build


def wide(config):
    """20 million weights, 80 MB, for the files of `dense` and `sparse`."""
    without_builds(config)
    layer(config, 2)["units"] = 5 * 10**6
    del config["config"]["layers"][1]


HUGE = {
    huge_units: "describes a model with",
    huge_input: "describes a model with",
    huge_build: "describes a model with|expected axis",
    huge_together: "describes a model with",
    huge_embedding: "describes a model with",
    huge_normalization: r"describes the variable .* \(1000000000000,\)",
    huge_recurrent: "describes a model with",
    huge_depth: "depth=1000000000",
    huge_state: "stateful",
    on_constants(
        of("keras.layers", "ZeroPadding1D", {"padding": [0, 10**9]})
    ): "calls a layer on constants",
    on_constants(
        of("keras.src.ops.numpy", "Pad", {"pad_width": [[0, 0], [0, 0], [0, 10**9]]})
    ): "calls a layer on constants",
    spread: "`Normalization` with a given mean",
    spread_by_its_build: "`Normalization` with a given mean",
    code: "a lambda",
}
LIMITED = """
import resource, sys
import keras
import keras_sawtooth as ks
ks.from_preset(sys.argv[1])
keras.config.enable_unsafe_deserialization()
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        ks.from_preset(path)
    except ValueError as error:
        print(*str(error).splitlines())
    else:
        print("It loaded.")
# Would initialize variables that were left over.
with keras.StatelessScope():
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) // 1024)
"""


def test_memory_is_bounded(good, tmp_path):
    """In a process of its own, which trusts everything, and may not grow by 300 MB."""
    paths = []
    for change in HUGE:
        path = shutil.copytree(good, tmp_path / change.__name__)
        change_config(path, change)
        paths.append(path)
    messages = [*HUGE.values()]
    # Of 44 MB at most.
    arrays = {dense: "describes a model with weights of 80,"}
    if hasattr(os, "SEEK_HOLE"):
        arrays[sparse] = "a sparse file"
    for change, message in arrays.items():
        path = shutil.copytree(good, tmp_path / change.__name__)
        change_config(path, wide)
        edit(path, change)
        paths.append(path)
        messages.append(message)
    output = subprocess.run(
        [sys.executable, "-c", LIMITED, good, *paths],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    *errors, grown = output.splitlines()
    for error, path, message in zip(errors, paths, messages, strict=True):
        assert str(path) in error
        assert re.search(message, error), error
    assert int(grown) < 300
    assert not os.path.exists(RAN)


def edit(preset, change):
    with h5py.File(preset / "model.weights.h5", "r+") as file:
        change(file)


HEAD = "layers/dense/vars"


def bomb(file):
    del file[HEAD]["0"]
    file[HEAD].create_dataset("0", (10**12, 2), "f4", chunks=(1024, 2))


def sparse(file):
    """No damage that h5py sees: 300 MB of zeros, and 20 kB on the disk."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    del file[HEAD]["0"]
    space = h5py.h5s.create_simple((3 * 10**8,))
    kind = h5py.h5t.NATIVE_INT8
    h5py.h5d.create(file[HEAD].id, b"0", kind, space, creation)


def dense(file):
    """10 MB of them, which might be taken for 40 MB of float32."""
    del file[HEAD]["0"]
    file[HEAD]["0"] = np.ones(10**7, "int8")


def compressed(file):
    del file[HEAD]["0"]
    file[HEAD].create_dataset("0", (10**5, 2), "f4", compression="gzip")
    file[HEAD]["0"][:] = 0


def soft(file):
    del file[HEAD]["0"]
    file[HEAD]["0"] = h5py.SoftLink(f"/{HEAD}/1")


def external_link(file):
    del file[HEAD]["0"]
    file[HEAD]["0"] = h5py.ExternalLink("other.h5", "/0")


def external(file):
    del file[HEAD]["0"]
    file[HEAD].create_dataset("0", (4, 2), "f4", external=[("/etc/passwd", 0, 32)])


def virtual(file):
    del file[HEAD]["0"]
    layout = h5py.VirtualLayout((4, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "0", (4, 2))
    file[HEAD].create_virtual_dataset("0", layout)


def cycle(file):
    file[HEAD]["again"] = file["layers"]


def twice(file):
    file[HEAD]["2"] = file[HEAD]["1"]


def text(file):
    del file[HEAD]["0"]
    file[HEAD]["0"] = "kernel"


def nothing(file):
    del file[HEAD]["0"]
    file[HEAD]["0"] = h5py.Empty("f4")


def datatype(file):
    file[HEAD]["2"] = np.dtype("f4")


def nan(file):
    file[HEAD]["0"][0] = np.nan


def missing(file):
    del file[HEAD]


def transposed(file):
    value = file[HEAD]["0"][()]
    del file[HEAD]["0"]
    file[HEAD]["0"] = value.T.copy()


WEIGHTS = {
    bomb: "claims 8,000,000,000,000 bytes",
    sparse: "300,000,[0-9]* bytes of arrays.* a sparse file",
    compressed: "a damaged or a compressed file",
    soft: "SoftLink",
    external_link: "ExternalLink",
    external: "in another file",
    virtual: "in another file",
    cycle: "twice",
    twice: "twice",
    text: "holds no numbers",
    nothing: "holds no numbers",
    datatype: "holds no array",
    nan: "NaN",
    missing: "expected 2 variables",
    transposed: "shape",
}


@pytest.mark.parametrize("change", WEIGHTS)
def test_weights(change, preset):
    if change is sparse and not hasattr(os, "SEEK_HOLE"):
        pytest.skip("the operating system does not tell where the holes are")
    edit(preset, change)
    refused(preset, WEIGHTS[change])


def test_a_model_that_is_not_built(preset):
    def change(config):
        without_builds(config)
        del config["config"]["layers"][0]
        config["config"].pop("build_input_shape", None)

    change_config(preset, change)
    refused(preset, "not built")


def test_weights_of_another_model(preset, tmp_path):
    other = keras.Sequential([keras.Input((3,)), ks.SawtoothDense(7)])
    ks.save_to_preset(other, tmp_path / "other")
    shutil.copy(tmp_path / "other/model.weights.h5", preset)
    refused(preset, "could not be loaded")
