"""The layers stand in for `Dense` wherever Keras takes a layer."""

import keras
import numpy as np
import pytest
from keras import layers
from models import compiled

import keras_sawtooth as ks

UNITS = 6
# The default, 3, makes programs that take longer to compile.
DEPTH = 2


def sequential():
    model = keras.Sequential([ks.SawtoothDense(UNITS), layers.Dense(1)])
    return model, [(5,)]


def functional_with_two_inputs():
    a, b = keras.Input((5,)), keras.Input((3,))
    shared = ks.SawtoothDense(UNITS, DEPTH)
    merged = layers.Add()([shared(layers.Dense(4)(a)), shared(layers.Dense(4)(b))])
    return keras.Model([a, b], layers.Dense(1)(merged)), [(5,), (3,)]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = [ks.SawtoothDense(UNITS, DEPTH), ks.SawtoothDense(UNITS, DEPTH)]
        self.head = layers.Dense(1)

    def call(self, x):
        for layer in self.hidden:
            x = x + layer(x) if x.shape[-1] == UNITS else layer(x)
        return self.head(x)


def subclassed():
    return Subclassed(), [(5,)]


def nested():
    inner = keras.Sequential([keras.Input((5,)), ks.SawtoothDense(UNITS, DEPTH)])
    x = keras.Input((5,))
    return keras.Model(x, layers.Dense(1)(inner(x))), [(5,)]


def time_distributed():
    x = keras.Input((7, 5))
    y = layers.TimeDistributed(ks.SawtoothDense(UNITS, DEPTH))(x)
    return keras.Model(x, layers.Dense(1)(layers.Flatten()(y))), [(7, 5)]


@keras.saving.register_keras_serializable(package="tests")
class SawtoothCell(layers.Layer):
    """A recurrent cell with a sawtooth state update."""

    def __init__(self, units, constrained=True, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.update = ks.SawtoothDense(units, DEPTH, constrained=constrained)

    def build(self, input_shape):
        self.update.build((input_shape[0], input_shape[-1] + self.units))

    def call(self, inputs, states):
        state = self.update(keras.ops.concatenate([inputs, states[0]], axis=-1))
        return state, [state]

    def get_config(self):
        config = {"units": self.units, "constrained": self.update.constrained}
        return {**super().get_config(), **config}


def recurrent():
    x = keras.Input((7, 5))
    y = layers.Bidirectional(layers.RNN(SawtoothCell(UNITS)))(x)
    return keras.Model(x, layers.Dense(1)(y)), [(7, 5)]


def spectral_normalization():
    x = keras.Input((5,))
    y = layers.SpectralNormalization(ks.SawtoothDense(UNITS, DEPTH))(x)
    return keras.Model(x, layers.Dense(1)(y)), [(5,)]


def transformer_block():
    x = keras.Input((7, 8))
    attended = layers.MultiHeadAttention(2, 4)(x, x)
    y = layers.LayerNormalization()(x + attended)
    y = y + layers.Dense(8)(ks.SawtoothDense(16, DEPTH)(y))
    y = layers.LayerNormalization()(y)
    y = layers.GlobalAveragePooling1D()(y)
    return keras.Model(x, layers.Dense(1)(y)), [(7, 8)]


def convolution():
    x = keras.Input((8, 8, 2))
    y = ks.RegionConstraint(DEPTH)(layers.Conv2D(UNITS, 3)(x))
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, layers.Dense(1)(y)), [(8, 8, 2)]


def einsum_dense():
    x = keras.Input((7, 5))
    y = layers.EinsumDense("abc,cd->abd", (7, UNITS), bias_axes="d")(x)
    y = layers.Flatten()(ks.RegionConstraint(DEPTH)(y))
    return keras.Model(x, layers.Dense(1)(y)), [(7, 5)]


def input_features():
    x = keras.Input((5,))
    return keras.Model(x, layers.Dense(1)(ks.RegionConstraint(DEPTH)(x))), [(5,)]


MODELS = [
    sequential,
    functional_with_two_inputs,
    subclassed,
    nested,
    time_distributed,
    recurrent,
    spectral_normalization,
    transformer_block,
    convolution,
    einsum_dense,
    input_features,
]


def data(shapes, rows=32):
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(rows, *shape)).astype("float32") for shape in shapes]
    return x if len(x) > 1 else x[0], rng.normal(size=(rows, 1)).astype("float32")


# What is in these, others have, too.
LONG = (sequential, nested, einsum_dense, input_features)


@pytest.mark.parametrize(
    "build",
    [pytest.param(m, marks=[pytest.mark.long] * (m in LONG)) for m in MODELS],
    ids=lambda build: build.__name__,
)
def test_trains_releases_trains_on_and_saves(build, tmp_path):
    model, shapes = build()
    compiled(model)
    x, y = data(shapes)
    model.fit(x, y, batch_size=16, verbose=0)
    before = model.predict(x, verbose=0)
    trainable = len(model.trainable_variables)

    released = ks.release(model)
    assert released and not any(layer.constrained for layer in released)
    assert len(model.trainable_variables) == trainable + 3 * len(released)
    after = model.predict(x, verbose=0)
    np.testing.assert_allclose(after, before, atol=1e-5 * max(1, np.ptp(before)))

    model.fit(x, y, batch_size=16, verbose=0)
    prediction = model.predict(x, verbose=0)
    assert np.isfinite(prediction).all() and np.abs(prediction - after).max() > 1e-5
    if isinstance(model, Subclassed):
        path = tmp_path / "model.weights.h5"
        model.save_weights(path)
        model.load_weights(path)
        loaded = model
    else:
        path = tmp_path / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), prediction, atol=1e-6)


def test_a_model_that_was_never_built_starts_released():
    """The release happens while Keras builds the model symbolically."""
    model = keras.Sequential(
        [ks.SawtoothDense(UNITS, constrained=False, scales="free"), layers.Dense(1)]
    )
    model.compile("adam", "mse")
    x, y = data([(5,)])
    model.fit(x, y, epochs=1, verbose=0)
    assert not model.layers[0].constrained
    counts = ks.count_linear_regions(model.layers[0])
    assert counts.shape == (UNITS,) and np.all(counts > 2)
