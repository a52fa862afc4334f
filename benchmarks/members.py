"""Many small networks as one model: axis 1 of every tensor counts the members.

A member is one seed, one split of the data, or both. Members share nothing: the
loss is their sum, and Adam moves every weight by its own gradient, so that each is
trained as if it were alone, while one compiled step trains all of them.
"""

import keras
from keras import ops

import keras_sawtooth as ks


class PerMember(keras.initializers.Initializer):
    """A fresh draw for every member; its fans are those of one member."""

    def __init__(self, initializer):
        self.initializer = initializer

    def __call__(self, shape, dtype=None):
        # An initializer repeats itself; only a new one draws other numbers.
        return ops.stack(
            [
                keras.initializers.get(self.initializer)(shape[1:], dtype=dtype)
                for _ in range(shape[0])
            ]
        )


def dense(members, units, kernel_initializer="glorot_uniform", use_bias=True):
    """`Dense(units)` for every member: `(batch, members, inputs | units)`."""
    return keras.layers.EinsumDense(
        "bmi,mio->bmo",
        output_shape=(members, units),
        bias_axes="mo" if use_bias else None,
        kernel_initializer=PerMember(kernel_initializer),
    )


def pointwise(layer, members, units):
    """`layer`, whose channels are the last axis, on all units of all members."""
    return keras.Sequential(
        [
            keras.layers.Reshape((members * units,)),
            layer,
            keras.layers.Reshape((members, units)),
        ]
    )


def activation(model, **arguments):
    """The activation with this name in the tables; `arguments` are of the sawtooth."""
    if model.startswith("sawtooth"):
        return ks.RegionConstraint(**arguments)
    if model == "prelu":
        return keras.layers.PReLU()
    return keras.layers.Activation(model)


def hidden(model, members, units, kernel_initializer=None, **arguments):
    """A hidden layer of `model`, its name in the tables. Returns layers."""
    if model == "kan":
        return [Copies(members, units)]
    # `SawtoothDense`, taken apart for the members' axis. An initializer repeats itself:
    # every layer gets a copy.
    for name, value in arguments.items():
        if isinstance(value, keras.initializers.Initializer):
            arguments[name] = value.clone()
    default = "lecun_normal" if model.startswith("sawtooth") else "glorot_uniform"
    return [
        dense(members, units, kernel_initializer or default),
        pointwise(activation(model, **arguments), members, units),
    ]


class Copies(keras.layers.Layer):
    """A `KANLinear` for every member: it has no members' axis of its own."""

    def __init__(self, members, units):
        super().__init__()
        from keras_efficient_kan import KANLinear

        # Its normalization over the features loses how large they are.
        self.copies = [KANLinear(units, use_layernorm=False) for _ in range(members)]

    def build(self, input_shape):
        for copy in self.copies:
            copy.build((input_shape[0], input_shape[-1]))

    def call(self, inputs):
        outputs = [copy(inputs[:, m]) for m, copy in enumerate(self.copies)]
        return ops.stack(outputs, axis=1)


def squared_error(y, outputs):
    """Squared error of `(batch, members, outputs)`, summed over the members."""
    return ops.sum(ops.mean(ops.square(y - outputs), axis=-1), axis=-1)


def mean_squared_errors(model, x, y):
    """Mean squared error of every member, in float64: an array `(members,)`."""
    outputs = model.predict(x, batch_size=len(x), verbose=0).astype("float64")
    return ((outputs - y) ** 2).mean(axis=(0, 2))
