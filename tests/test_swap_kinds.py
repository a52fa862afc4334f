"""`replace_dense(kinds=...)`: layers that keep their class and get a new activation."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_sawtooth as ks

RNG = np.random.default_rng(0)
# A function of `RegionConstraint` that leaves everything as it is.
IDENTITY = {"amplitude_initializer": "zeros", "slope_initializer": "ones"}

CASES = [
    (layers.EinsumDense, {"equation": "abc,cd->abd", "output_shape": (None, 5)}, 2, 5),
    (layers.Conv1D, {"filters": 5, "kernel_size": 2}, 2, 5),
    (layers.Conv2D, {"filters": 5, "kernel_size": 2}, 3, 5),
    (layers.Conv3D, {"filters": 5, "kernel_size": 2}, 4, 5),
    (layers.Conv1DTranspose, {"filters": 5, "kernel_size": 2}, 2, 5),
    (layers.Conv2DTranspose, {"filters": 5, "kernel_size": 2}, 3, 5),
    (layers.Conv3DTranspose, {"filters": 5, "kernel_size": 2}, 4, 5),
    (layers.DepthwiseConv1D, {"depth_multiplier": 2, "kernel_size": 2}, 2, 6),
    (layers.DepthwiseConv2D, {"depth_multiplier": 2, "kernel_size": 2}, 3, 6),
    (layers.SeparableConv1D, {"filters": 5, "kernel_size": 2}, 2, 5),
    (layers.SeparableConv2D, {"filters": 5, "kernel_size": 2}, 3, 5),
]


def images(*hidden):
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            *hidden,
            layers.GlobalAveragePooling2D(),
            layers.Dense(1),
        ]
    )


@pytest.mark.parametrize("kind, arguments, rank, channels", CASES)
def test_every_kind(kind, arguments, rank, channels):
    inputs = keras.Input((4,) * (rank - 1) + (3,))
    old = kind(**arguments, activation="relu", name="old")
    model = keras.Model(inputs, layers.Dense(1)(old(inputs)))
    new = ks.replace_dense(model, depth=2, kinds=(kind,), **IDENTITY).get_layer("old")
    assert type(new) is kind
    assert new.activation.peaks.shape == (3, channels)
    old.activation = keras.activations.linear
    x = RNG.normal(size=(2, *inputs.shape[1:])).astype("float32")
    np.testing.assert_allclose(*(call(layer, x) for layer in (old, new)), atol=1e-5)


def call(model, x):
    return keras.ops.convert_to_numpy(model(x))


def test_only_the_kinds_that_are_asked_for():
    model = images(layers.Conv2D(2, 2, activation="relu"), layers.Dense(3, "relu"))
    found = {
        kinds: [type(x.activation) is ks.RegionConstraint for x in copy.layers[:1]]
        + [type(copy.layers[1]) is ks.SawtoothDense]
        for kinds in [
            (layers.Dense,),
            (layers.Conv2D,),
            (layers.Dense, layers.Conv2D),
        ]
        for copy in [ks.replace_dense(model, kinds=kinds)]
    }
    assert list(found.values()) == [[False, True], [True, False], [True, True]]


def test_files_and_release(tmp_path):
    model = images(
        layers.Conv2D(2, 2, activation="relu", name="first"),
        layers.TimeDistributed(layers.Conv1D(3, 2, activation="gelu")),
    )
    copy = ks.replace_dense(model, depth=2, kinds=(layers.Conv1D, layers.Conv2D))
    x = RNG.normal(size=(8, 4, 4, 3)).astype("float32")

    def check_files():
        copy.save(tmp_path / "model.keras")
        copy.save_weights(tmp_path / "model.weights.h5")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        for network in (copy, loaded):
            paths = [weight.path for weight in network.weights]
            assert len(set(paths)) == len(paths)
        np.testing.assert_array_equal(call(loaded, x), call(copy, x))
        for weight in loaded.weights:
            weight.assign(np.zeros(weight.shape))
        loaded.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_array_equal(call(loaded, x), call(copy, x))

    # Before the first call, when an activation that is not built would have nothing
    # to be saved.
    check_files()
    before = call(copy, x)
    assert len(ks.release(copy)) == 2
    np.testing.assert_allclose(call(copy, x), before, atol=1e-5)
    check_files()


def test_training_through_the_release():
    model = images(layers.Conv2D(2, 2, activation="relu"))
    model.compile("sgd", "mse")
    copy = ks.replace_dense(model, depth=1, kinds=(layers.Conv2D,))
    x, y = RNG.normal(size=(8, 4, 4, 3)), RNG.normal(size=(8, 1))
    before = copy.layers[0].get_weights()[0]
    copy.fit(x, y, epochs=2, verbose=0, callbacks=[ks.ReleaseConstraints(epoch=1)])
    assert not copy.layers[0].activation.constrained
    assert np.any(copy.layers[0].get_weights()[0] != before)


def test_a_layer_that_has_the_name_of_an_activation(tmp_path):
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(2, 2, activation="relu", name="first")(inputs)
    x = layers.Conv2D(3, 2, activation="relu", name="first_activation")(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    copy = ks.replace_dense(model, kinds=(layers.Conv2D,))
    names = [layer.activation.name for layer in copy.layers[1:3]]
    assert names == ["first_activation_region", "first_activation_activation"]
    x = RNG.normal(size=(2, 4, 4, 3)).astype("float32")
    copy.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(loaded, x), call(copy, x))


def test_activation_layers_and_functions_of_others():
    hidden = [
        layers.Dense(2, activation=activation, name=name)
        for name, activation in {
            "layer": layers.ReLU(),
            "operation": keras.ops.silu,
            "approximate": approximate_gelu,
            "parametric": layers.PReLU(),
            "gate": keras.ops.sigmoid,
            "along_an_axis": keras.ops.softmax,
        }.items()
    ]
    model = keras.Sequential([keras.Input((3,)), *hidden])
    copy = ks.replace_dense(model)
    replaced = [x.name for x in copy.layers if type(x) is ks.SawtoothDense]
    assert replaced == ["layer", "operation", "approximate", "parametric"]


@keras.saving.register_keras_serializable(package="test_swap_kinds")
def approximate_gelu(x):
    return keras.activations.gelu(x, approximate=True)


def test_dtype_policy_and_frozen_layers():
    conv = layers.Conv2D(2, 2, activation="relu", dtype="mixed_bfloat16", name="conv")
    conv.trainable = False
    copy = ks.replace_dense(images(conv), kinds=(layers.Conv2D,)).get_layer("conv")
    assert copy.activation.dtype_policy.name == "mixed_bfloat16"
    assert copy.trainable_variables == []


def test_channels_first():
    inputs = keras.Input((3, 4, 4))
    conv = layers.Conv2D(
        2, 2, activation="relu", data_format="channels_first", name="conv"
    )
    model = keras.Model(inputs, layers.Dense(1)(conv(inputs)))
    with pytest.raises(ValueError, match=r"'conv'.*not an axis of channels.*where="):
        ks.replace_dense(model, kinds=(layers.Conv2D,))


def test_einsum_without_channels_last():
    inputs = keras.Input((4, 3))
    einsum = layers.EinsumDense("abc,cd->adb", (5, 4), activation="relu", name="last")
    model = keras.Model(inputs, layers.Dense(1)(einsum(inputs)))
    with pytest.raises(ValueError, match=r"'last'.*not an axis of channels"):
        ks.replace_dense(model, kinds=(layers.EinsumDense,))


@pytest.mark.parametrize("kinds", [(), (layers.LSTM,), ("Dense",), None])
def test_other_kinds(kinds):
    with pytest.raises(ValueError, match=r"`kinds` must be.*Received: kinds="):
        ks.replace_dense(images(layers.Dense(2, "relu")), kinds=kinds)


def test_arguments_of_dense_alone():
    model = images(layers.Conv2D(2, 2, activation="relu", name="conv"))
    with pytest.raises(
        ValueError, match=r"'conv'.*no arguments \['kernel_regularizer'\]"
    ):
        ks.replace_dense(
            model, kinds=(layers.Dense, layers.Conv2D), kernel_regularizer="l2"
        )


def test_lora():
    inputs = keras.Input((4, 3))
    einsum = layers.EinsumDense("abc,cd->abd", (None, 5), activation="relu", name="e")
    model = keras.Model(inputs, layers.Dense(1)(einsum(inputs)))
    einsum.enable_lora(2)
    with pytest.raises(ValueError, match="'e' has LoRA enabled"):
        ks.replace_dense(model, kinds=(layers.EinsumDense,))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", [layers.Dense, layers.EinsumDense])
def test_a_frozen_layer_has_no_function_to_train(kind, nested):
    arguments = {"activation": "relu", "trainable": nested}
    hidden = (
        layers.Dense(4, **arguments)
        if kind is layers.Dense
        else layers.EinsumDense("ab,bc->ac", output_shape=4, **arguments)
    )
    if nested:
        hidden = keras.Sequential([keras.Input((3,)), hidden])
        hidden.trainable = False
    model = keras.Sequential([keras.Input((3,)), hidden, layers.Dense(1)])
    copy = ks.replace_dense(model, kinds=kind)
    for phase in ("constrained", "released"):
        if phase == "released":
            ks.release(copy)
        assert len(copy.trainable_variables) == 2
