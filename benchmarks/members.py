"""Many small networks as one model: axis 1 of every tensor counts the members.

A member is one seed, one split of the data, or both. Members share nothing: the
loss is their sum, and Adam moves every weight by its own gradient, so that each is
trained as if it were alone, while one compiled step trains all of them.
"""

import keras
from keras import ops


class PerMember(keras.initializers.Initializer):
    """A fresh draw for every member; its fans are those of one member."""

    def __init__(self, initializer):
        self.initializer = initializer

    def __call__(self, shape, dtype=None):
        # An initialiser repeats itself; only a new one draws other numbers.
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


def squared_error(y, outputs):
    """Squared error of `(batch, members, outputs)`, summed over the members."""
    return ops.sum(ops.mean(ops.square(y - outputs), axis=-1), axis=-1)


def mean_squared_errors(model, x, y):
    """Mean squared error of every member, in float64: an array `(members,)`."""
    outputs = model.predict(x, batch_size=len(x), verbose=0).astype("float64")
    return ((outputs - y) ** 2).mean(axis=(0, 2))
