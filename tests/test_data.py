"""`fit` through a release, on every kind of data that Keras takes."""

import functools

import keras
import numpy as np
import pytest

import keras_sawtooth as ks

pytestmark = pytest.mark.workflow("data")

BATCH = 16
EPOCHS = 3


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4 * BATCH, 3)).astype("float32")
    y = (np.sin(2 * x[:, :1]) > 0).astype("float32")
    weights = np.where(x[:, 0] > 0, 3.0, 0.5).astype("float32")
    return x, y, weights


def batches():
    return [
        tuple(part[start : start + BATCH] for part in data())
        for start in range(0, 4 * BATCH, BATCH)
    ]


def train(*args, steps_per_execution=1, release=1, fits=((0, EPOCHS),), **arguments):
    """Weights and histories after one `fit` or several, released at an epoch."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            ks.SawtoothDense(4, depth=2),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        "binary_crossentropy",
        steps_per_execution=steps_per_execution,
    )
    histories = [
        model.fit(
            *args,
            initial_epoch=start,
            epochs=end,
            shuffle=False,
            verbose=0,
            callbacks=[ks.ReleaseConstraints(epoch=release)],
            **arguments,
        ).history
        for start, end in fits
    ]
    assert not model.layers[0].constrained
    return model, histories


def train_on_arrays(rows=4 * BATCH, **arguments):
    x, y, weights = (part[:rows] for part in data())
    return train(x, y, sample_weight=weights, batch_size=BATCH, **arguments)


@functools.cache
def expected():
    return train_on_arrays()[0].get_weights()


def assert_same_weights(model, weights):
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def tf_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)


def torch_data_loader():
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(part) for part in data()]
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*tensors), batch_size=BATCH
    )


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return len(batches())

    def __getitem__(self, index):
        return batches()[index]


def generator(epochs=EPOCHS):
    for _ in range(epochs):
        yield from batches()


KINDS = {
    "tf.data": lambda: {"x": tf_dataset()},
    "repeated tf.data": lambda: {"x": tf_dataset().repeat(), "steps_per_epoch": 4},
    "torch DataLoader": lambda: {"x": torch_data_loader()},
    "PyDataset": lambda: {"x": Batches(workers=1)},
    "generator": lambda: {"x": generator(), "steps_per_epoch": 4},
}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_do_not_depend_on_the_kind_of_data(kind):
    model, (history,) = train(**KINDS[kind]())
    assert history["constrained"] == [1.0, 0.0, 0.0]
    assert_same_weights(model, expected())


class Repeated(Batches):
    """Keras 3.15 begins with the second batch if there are several workers."""

    def __getitem__(self, index):
        return batches()[0]


def test_two_workers():
    model, _ = train(Repeated(workers=2))
    x, y, weights = (np.concatenate(4 * [part]) for part in batches()[0])
    expected, _ = train(x, y, sample_weight=weights, batch_size=BATCH)
    assert_same_weights(model, expected.get_weights())


def test_the_release_falls_on_an_epoch_of_the_given_steps():
    """Half as many steps, twice as many epochs: the same step is the first free one."""
    model, (history,) = train(
        generator(), steps_per_epoch=2, release=2, fits=[(0, 2 * EPOCHS)]
    )
    assert history["constrained"] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert_same_weights(model, expected())


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras has no such steps on torch"
)
@pytest.mark.parametrize("steps", [2, 3])
def test_several_steps_an_execution(steps):
    assert_same_weights(train_on_arrays(steps_per_execution=steps)[0], expected())


@pytest.mark.parametrize("first", [1, 2])
def test_initial_epoch(first):
    """A `fit` that ends before the release or after it, and one that goes on."""
    model, histories = train_on_arrays(fits=[(0, first), (first, EPOCHS)])
    phases = [phase for h in histories for phase in h["constrained"]]
    assert phases == [1.0, 0.0, 0.0]
    assert_same_weights(model, expected())


def test_class_weights_are_sample_weights():
    x, y, _ = data()
    by_class, _ = train(x, y, batch_size=BATCH, class_weight={0: 0.5, 1: 3.0})
    weights = np.where(y[:, 0] == 1, 3.0, 0.5)
    by_sample, _ = train(x, y, batch_size=BATCH, sample_weight=weights)
    assert_same_weights(by_class, by_sample.get_weights())
    difference = by_class.get_weights()[0] - expected()[0]
    assert np.abs(difference).max() > 1e-3, "weights must matter"


def test_validation_data_and_split():
    """They leave the training alone, and see the phase that is in force."""
    held_out = tuple(part[3 * BATCH :] for part in data())
    split, (of_split,) = train_on_arrays(validation_split=0.25)
    given, (of_given,) = train_on_arrays(3 * BATCH, validation_data=held_out)
    assert_same_weights(split, given.get_weights())
    assert of_split["val_loss"] == pytest.approx(of_given["val_loss"], rel=1e-5)
    x, y, weights = held_out
    at_the_end = given.evaluate(x, y, sample_weight=weights, verbose=0)
    assert of_given["val_loss"][-1] == pytest.approx(at_the_end, rel=1e-5)
    assert len(set(of_given["val_loss"])) == EPOCHS
