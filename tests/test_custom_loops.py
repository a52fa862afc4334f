"""The loops in `docs/custom_loops.md`, as they stand there, against `fit`."""

from pathlib import Path

import keras
import numpy as np
import pytest
from exports import code_by_heading

import keras_sawtooth as ks

pytestmark = pytest.mark.workflow("custom loops")

PAGE = Path(__file__).parents[1] / "docs" / "custom_loops.md"
MODEL = ("Loops of your own", "")
STEP = "A `train_step` of your own"
LOOP = "A loop by hand"
NAME = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}[
    keras.backend.backend()
]


CODE = code_by_heading(PAGE)
LOOPS = [below for heading, below in CODE if heading == LOOP and NAME in below]


def batches():
    rng = np.random.default_rng(0)
    # Inside the domain of the layer: at its ends a ReLU gets 0 and rounding errors,
    # and their signs decide on gradients.
    x = rng.uniform(-0.5, 0.5, size=(4, 16, 3)).astype("float32")
    return list(zip(x, np.sin(6 * x[..., :1]), strict=True))


def run(*headings):
    """Run the page's code under these headings; its names afterwards."""
    keras.utils.set_random_seed(0)
    names = {"batches": batches()}
    for heading in headings:
        exec(compile(CODE[heading], f"{PAGE.name}, {heading}", "exec"), names)
    return names


def fitted(optimizer):
    model = run(MODEL)["model"]
    model.compile(optimizer, "mse")
    x, y = (np.concatenate(part) for part in zip(*batches(), strict=True))
    model.fit(
        x,
        y,
        batch_size=16,
        epochs=4,
        shuffle=False,
        verbose=0,
        callbacks=[ks.ReleaseConstraints(epoch=2)],
    )
    return model


def assert_same_weights(model, expected):
    assert not model.layers[1].constrained
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        # ReLU weights, of up to 40, magnify the rounding errors of what they replace.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_page_has_every_backend():
    headings = {below for _, below in CODE}
    for name in ("TensorFlow", "JAX", "PyTorch"):
        assert (STEP, name) in CODE
        assert any(below.startswith(name) for below in headings)


@pytest.mark.parametrize("heading", LOOPS)
def test_loop_by_hand(heading):
    optimizer = "adam"
    if "of torch" in heading:
        # Adam of torch counts the steps of new parameters from 1.
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    assert_same_weights(run(MODEL, (LOOP, heading))["model"], fitted(optimizer))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function")
@pytest.mark.parametrize("decorated", ["call", "train_step"])
def test_methods_decorated_with_tf_function(decorated):
    import tensorflow as tf

    def trace_if(name):
        return tf.function if name == decorated else lambda method: method

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = ks.SawtoothDense(4), keras.layers.Dense(1)

        @trace_if("call")
        def call(self, inputs):
            return self.head(self.hidden(inputs))

        @trace_if("train_step")
        def train_step(self, batch):
            x, y = batch
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x))
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    model = Model()
    x = np.linspace(-1, 1, 32, dtype="float32")[:, None]
    model(x[:1])
    model.compile("adam", "mse")
    release = ks.ReleaseConstraints(epoch=2)
    model.fit(x, x**2, epochs=3, verbose=0, callbacks=[release])
    before = model.get_weights()
    model.fit(x, x**2, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        assert np.isfinite(b).all() and not np.array_equal(a, b)


def test_train_step_of_ones_own():
    names = run(MODEL, (STEP, NAME), (STEP, "Any backend"))
    assert_same_weights(names["model"], fitted("adam"))
