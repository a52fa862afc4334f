"""Predictions in threads while another model trains through its release."""

import threading
from concurrent import futures

import keras
import numpy as np
import pytest
from backend import to_numpy

import keras_sawtooth as ks

pytestmark = pytest.mark.workflow("threads")

# Seconds; nothing here takes more than a few, so more is a deadlock.
PATIENCE = 120


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype("float32")
    return x, np.sin(2 * x[:, :1])


def build(seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((3,)), ks.SawtoothDense(4, depth=2), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def predictions_of(model):
    # On JAX, Keras 3.15 takes the values out of a model while `predict` runs, so that
    # a second `predict` of the same model fails, of plain `Dense` layers as well.
    x, _ = data()
    if keras.backend.backend() == "jax":
        return to_numpy(model(x))
    return model.predict(x, verbose=0)


def train(model):
    x, y = data()
    history = model.fit(
        x,
        y,
        batch_size=16,
        epochs=6,
        shuffle=False,
        verbose=0,
        callbacks=[ks.ReleaseConstraints(epoch=3)],
    ).history
    return history["constrained"], model.get_weights()


@pytest.mark.parametrize("phase", ["constrained", "released"])
def test_predictions_beside_a_training_model(phase):
    serving = build(seed=1)
    if phase == "released":
        ks.release(serving)
    expected = predictions_of(serving)
    _, alone = train(build(seed=2))

    training = build(seed=2)
    done = threading.Event()

    def predict():
        predictions = []
        while not predictions or not done.is_set():
            predictions.append(predictions_of(serving))
        return predictions

    # Daemons, as a thread that hangs must not keep the process alive.
    results = {}

    def in_thread(name, function, *arguments):
        future = futures.Future()

        def run():
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        results[name] = future
        threading.Thread(target=run, daemon=True).start()

    for number in range(4):
        in_thread(number, predict)
    in_thread("training", train, training)
    try:
        constrained, beside = results["training"].result(PATIENCE)
    finally:
        done.set()
    assert constrained == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    for a, b in zip(beside, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for number in range(4):
        predictions = results[number].result(PATIENCE)
        for prediction in predictions:
            np.testing.assert_allclose(prediction, expected, atol=1e-6)
    assert serving.layers[0].constrained is (phase == "constrained")


def test_two_models_released_at_the_same_time():
    """Each gets the weights that it gets alone."""
    expected = [train(build(seed))[1] for seed in (1, 2)]
    models = [build(seed) for seed in (1, 2)]
    weights, start = {}, threading.Barrier(2, timeout=PATIENCE)

    def run(number):
        start.wait()
        weights[number] = train(models[number])[1]

    threads = [
        threading.Thread(target=run, args=(number,), daemon=True) for number in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for number, thread in enumerate(threads):
        thread.join(PATIENCE)
        assert not thread.is_alive()
        for a, b in zip(weights[number], expected[number], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
