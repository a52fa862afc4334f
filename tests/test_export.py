"""`model.export` to every format, run in the format's own runtime."""

import keras
import numpy as np
import pytest
from backend import to_numpy
from exports import BEGIN
from exports import END
from exports import EXPECTED
from exports import FORMATS
from exports import PAGE
from exports import code_by_heading
from exports import export_and_run
from exports import table
from keras import layers

import keras_sawtooth as ks

BACKEND = keras.backend.backend()
# The converters and runtimes, which warn of their own parts.
pytestmark = pytest.mark.filterwarnings("default")


def build(kind):
    inputs = keras.Input((4, 4, 2), name="image")
    hidden = layers.Conv2D(3, 2)(inputs)
    hidden = ks.RegionConstraint(2, scales="free")(hidden)
    hidden = ks.SawtoothDense(8)(layers.Flatten()(hidden))
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    if kind == "released":
        ks.release(model)
    elif kind == "standard":
        # Both phases are the same layers then.
        model.layers[-2].release()
        model = ks.to_standard_layers(model)
    return model


@pytest.mark.parametrize("kind", ["constrained", "released", "standard"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_export(file_format, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pair = EXPECTED[BACKEND, file_format]
    for package in pair.packages:
        pytest.importorskip(package)
    x = np.random.default_rng(0).normal(size=(1000, 4, 4, 2)).astype("float32")
    if pair.error:
        # The one of OpenVINO has a class of its own.
        with pytest.raises(Exception, match=pair.error):
            export_and_run(build(kind), file_format, x)
        return
    model = build(kind)
    wanted = to_numpy(model(x))
    found = export_and_run(model, file_format, x)
    atol = 1e-5 * (wanted.max() - wanted.min())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


def test_the_page_has_this_table():
    page = PAGE.read_text()
    assert page.split(BEGIN)[1].split(END)[0] == table()


def test_code_of_the_page_for_stock_layers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"ks": ks, "model": build("constrained")}
    exec(code_by_heading(PAGE)["Keras' own layers", ""], names)
    x = np.random.default_rng(0).normal(size=(10, 4, 4, 2)).astype("float32")
    wanted, found = to_numpy(names["model"](x)), to_numpy(names["standard"](x))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
