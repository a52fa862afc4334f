"""Small compiled models in either phase, for tests of what Keras does around `fit`."""

import keras
import numpy as np
from backend import to_numpy
from keras import layers

import keras_sawtooth as ks
from keras_sawtooth.nested_layers import region_layers

PHASES = ["constrained", "released"]
# On TensorFlow, tracing takes longer than all the steps of these tests; on JAX, the
# steps do if they are not compiled.
EAGERLY = keras.backend.backend() == "tensorflow"


def data(rows=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5)).astype("float32")
    return x, np.sin(2 * x[:, :1]) * x[:, 1:2]


# Every further level of depth makes programs that take longer to compile.
DEPTH = 2


def plain(depth=DEPTH, **arguments):
    x = keras.Input((5,))
    hidden = ks.SawtoothDense(6, depth, **arguments)(x)
    hidden = ks.SawtoothDense(4, depth=1, **arguments)(hidden)
    return keras.Model(x, layers.Dense(1)(hidden))


def nested(depth=DEPTH, **arguments):
    inner = keras.Sequential(
        [keras.Input((5,)), ks.SawtoothDense(6, depth, **arguments)]
    )
    x = keras.Input((5,))
    return keras.Model(x, layers.Dense(1)(inner(x)))


def shared(depth=DEPTH, **arguments):
    x = keras.Input((5,))
    layer = ks.SawtoothDense(5, depth, scales="free", **arguments)
    return keras.Model(x, layers.Dense(1)(layer(layer(x))))


def behind_dense(depth=DEPTH, **arguments):
    x = keras.Input((5,))
    hidden = ks.RegionConstraint(depth, **arguments)(layers.Dense(6)(x))
    hidden = layers.BatchNormalization()(hidden)
    return keras.Model(x, layers.Dense(1)(hidden))


MODELS = [plain, nested, shared, behind_dense]


def compiled(model, optimizer="adam", **arguments):
    model.compile(optimizer, "mse", run_eagerly=EAGERLY, **arguments)
    return model


def trained(build, phase, keep=True, optimizer="adam"):
    """A model with a history in its phase, so that no number is that of a new one.

    It stays compiled with `keep`.
    """
    model = compiled(build(), optimizer)
    move(model)
    if phase == "released":
        ks.release(model)
        move(model)
    if keep:
        return model
    weights = model.get_weights()
    model = build(constrained=phase == "constrained")
    model.set_weights(weights)
    return model


def move(model):
    """Changes every number as four steps of training do, but compiles nothing."""
    rng = np.random.default_rng(0)
    model.optimizer.build(model.trainable_variables)
    for variable in [*model.variables, *model.optimizer.variables]:
        value = to_numpy(variable.value)
        if variable.dtype.startswith("float"):
            # Second moments and variances stay positive.
            noise = rng.normal(size=value.shape)
            variable.assign(value * (1 + 0.1 * noise) + 1e-3 * np.abs(noise))
        elif variable.path.endswith("iteration"):
            variable.assign(value + 4)


def continue_training(model, epochs=1, batch_size=16, **arguments):
    x, y = data()
    return model.fit(
        x, y, batch_size, epochs=epochs, shuffle=False, verbose=0, **arguments
    )


def state(model):
    """Every number that training depends on, by name."""
    metrics = {id(v) for v in model.metrics_variables}
    variables = [(v.path, v) for v in model.variables if id(v) not in metrics]
    if model.compiled:
        variables += [(f"optimizer/{v.path}", v) for v in model.optimizer.variables]
    return [(name, to_numpy(v.value)) for name, v in variables]


def assert_same_state(a, b, atol=1e-6):
    a = state(a) if isinstance(a, keras.Model) else a
    b = state(b) if isinstance(b, keras.Model) else b
    assert len(a) == len(b)
    for (name, x), (other, y) in zip(a, b, strict=True):
        assert x.shape == y.shape, (name, other)
        np.testing.assert_allclose(x, y, atol=atol, rtol=1e-6, err_msg=name)


def phases(model):
    return [
        "constrained" if layer.constrained else "released"
        for layer in region_layers(model)
    ]


def losses_of_a_layer(rows, channels, batch_size, released):
    """Losses of three epochs of a `RegionConstraint` alone, in either phase."""
    x = np.random.default_rng(0).normal(size=(rows, channels)).astype("float32")
    keras.utils.set_random_seed(0)
    layer = ks.RegionConstraint(2)
    layer.build((None, channels))
    if released:
        layer.release()
        # No neuron at zero up to rounding.
        for variable in layer.trainable_variables:
            variable.assign(variable * 1.01 + 0.003)
    model = keras.Sequential([keras.Input((channels,)), layer])
    model.compile("sgd", "mse")
    return model.fit(x, np.abs(x), batch_size, 3, verbose=0).history["loss"]
