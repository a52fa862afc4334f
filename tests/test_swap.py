"""`replace_dense`: which layers are replaced, and what the copy keeps."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_sawtooth as ks

RNG = np.random.default_rng(0)


def small(*hidden):
    return keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def test_replacement_keeps_the_layer():
    regularizer = keras.regularizers.L2(1e-3)
    old = layers.Dense(5, "gelu", name="first", kernel_regularizer=regularizer)
    model = small(old, layers.BatchNormalization())
    model.layers[1].moving_mean.assign(np.arange(5.0))
    copy = ks.replace_dense(model, depth=2, domain=(-1, 1))
    new = copy.layers[0]
    assert kinds(copy) == ["SawtoothDense", "BatchNormalization", "Dense"]
    assert (new.name, new.units, new.depth, new.activation) == (
        "first",
        5,
        2,
        keras.activations.linear,
    )
    assert new.kernel_regularizer.l2 == regularizer.l2
    for a, b in zip(old.get_weights(), new.get_weights()[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    for old, new in zip(model.layers[1:], copy.layers[1:], strict=True):
        for a, b in zip(old.get_weights(), new.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_functional_with_shared_nested_and_wrapped_layers(tmp_path):
    shared = layers.Dense(4, "relu", name="shared")
    a, b = keras.Input((2, 3), name="a"), keras.Input((2, 3), name="b")
    inner = keras.Sequential(
        [keras.Input((2, 4)), layers.Dense(4, "tanh")], name="inner"
    )
    wrapped = layers.TimeDistributed(layers.Dense(6, "silu"), name="wrapped")
    joined = layers.Add()([shared(a), shared(b)])
    head = layers.Dense(2, "softmax")(wrapped(inner(joined)))
    model = keras.Model([a, b], [head, joined])
    copy = ks.replace_dense(model)
    assert isinstance(copy.get_layer("shared"), ks.SawtoothDense)
    assert isinstance(copy.get_layer("inner").layers[0], ks.SawtoothDense)
    assert isinstance(copy.get_layer("wrapped").layer, ks.SawtoothDense)
    np.testing.assert_array_equal(
        copy.get_layer("wrapped").layer.kernel, wrapped.layer.kernel
    )
    assert type(copy.layers[-1]) is layers.Dense
    copy.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = [RNG.normal(size=(4, 2, 3)).astype("float32") for _ in range(2)]
    for wanted, found in zip(copy.predict(x), loaded.predict(x), strict=True):
        np.testing.assert_array_equal(wanted, found)


@pytest.mark.parametrize("convert", [ks.replace_dense, ks.to_standard_layers])
def test_inputs_keep_their_names(convert):
    inputs = [keras.Input((3,)), keras.Input((3,), name="b", optional=True)]
    hidden = layers.Dense(2, "relu")(inputs[0])
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    copy = convert(model)
    for old, new in zip(model.layers, copy.layers, strict=True):
        if not isinstance(old, layers.InputLayer):
            continue
        assert (old.name, old.batch_shape) == (new.name, new.batch_shape)
    x = np.ones((2, 3), "float32")
    assert copy([x, None]).shape == (2, 2)


def test_outputs_keep_their_range(capsys):
    inputs = keras.Input((2, 3))
    bounded = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(1, "tanh")])
    hidden = layers.Dense(4, "relu", name="hidden")(inputs)
    each = layers.TimeDistributed(layers.Dense(2, "relu", name="each"), name="out")
    model = keras.Model(inputs, {"a": bounded(hidden), "b": each(hidden)})
    copy = ks.replace_dense(model, verbose=1)
    x = 100 * RNG.normal(size=(50, 2, 3)).astype("float32")
    outputs = {k: keras.ops.convert_to_numpy(v) for k, v in copy(x).items()}
    assert np.abs(outputs["a"]).max() <= 1 and outputs["b"].min() == 0
    assert capsys.readouterr().out.count("SawtoothDense") == 2
    last = layers.Dense(1, "relu", name="last")
    with pytest.raises(ValueError, match="'last' is left alone: an output of the mod"):
        ks.replace_dense(keras.Sequential([inputs, last]))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 2.0 * x,
        lambda x: -x / 3,
        lambda x: x[:, 0],
        lambda x: keras.ops.squeeze(x, -1),
        lambda x: keras.ops.cast(x, "float16"),
        lambda x: keras.ops.stack([x, x + 1]),
        lambda x: keras.ops.exp(x),
        lambda x: layers.Dropout(0.5)(layers.Identity()(x)),
        lambda x: layers.Concatenate()([layers.Rescaling(2.0)(x), layers.Flatten()(x)]),
        lambda x: layers.GlobalAveragePooling1D()(layers.RepeatVector(2)(x)),
        lambda x: layers.Normalization(mean=1.0, variance=2.0, invert=True)(x),
        lambda x: keras.Sequential([layers.Reshape((1, 1)), layers.Flatten()])(x),
    ],
)
def test_changes_of_outputs_keep_their_range(change):
    inputs = keras.Input((3,))
    hidden = layers.Dense(2, "relu")(inputs)
    last = layers.Dense(1, "tanh", name="last")(hidden)
    copy = ks.replace_dense(keras.Model(inputs, change(last)))
    assert type(copy.get_layer("last")) is layers.Dense
    # Behind weights, the range of the layer in front does not decide.
    copy = ks.replace_dense(keras.Model(inputs, change(layers.Dense(1)(last))))
    assert type(copy.get_layer("last")) is ks.SawtoothDense


@pytest.mark.parametrize(
    "wrap", [lambda x: x, layers.TimeDistributed, lambda x: keras.Sequential([x])]
)
def test_activation_layers_of_outputs_keep_their_range(wrap):
    inputs = keras.Input((4, 3))
    hidden = layers.Dense(5, "relu", name="hidden")(inputs)
    last = layers.TimeDistributed(layers.Dense(2))(hidden)
    outputs = keras.ops.squeeze(2.0 * wrap(layers.ReLU())(last)[:, :1], 1)
    copy = ks.replace_dense(keras.Model(inputs, outputs))
    assert len(ks.release(copy)) == 1
    x = 100 * RNG.normal(size=(50, 4, 3)).astype("float32")
    assert keras.ops.convert_to_numpy(copy(x)).min() == 0


@pytest.mark.parametrize(
    "name, value",
    [("units", 3), ("activation", "relu"), ("kernel_initializer", "ones")],
)
def test_arguments_that_are_the_layers(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        ks.replace_dense(small(layers.Dense(4, "relu")), **{name: value})


@pytest.mark.parametrize("name", ["Normalization", "Discretization"])
def test_adapted_preprocessing(name):
    layer = layers.Normalization()
    if name == "Discretization":
        # Its `adapt` runs on tf.data.
        pytest.importorskip("tensorflow")
        layer = layers.Discretization(num_bins=3)
    x = RNG.normal(3, 2, size=(9, 3)).astype("float32")
    layer.adapt(x)
    found = ks.replace_dense(small(layer, layers.Dense(4, "relu"))).layers[0]
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(network(x)) for network in (layer, found))
    )


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="strings are TensorFlow's"
)
def test_vocabulary():
    words = layers.StringLookup(output_mode="multi_hot")
    words.adapt(np.array(["a", "b", "b"]))
    inputs = keras.Input((2,), dtype="string")
    hidden = layers.Dense(4, "relu")(words(inputs))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    found = ks.replace_dense(model).layers[1]
    x = np.array([["a", "c"]])
    np.testing.assert_array_equal(words(x), found(x))


def test_operations_and_other_wrappers_are_copied(capsys):
    inputs = keras.Input((3,))
    wrapped = layers.SpectralNormalization(layers.Dense(4, "tanh"), name="wrapped")
    hidden = layers.Dense(4, "relu")(wrapped(inputs))
    model = keras.Model(inputs, layers.Dense(1)(keras.ops.sin(hidden) + hidden * 2))
    copy = ks.replace_dense(model, verbose=1)
    assert "Dense tanh  left alone: inside of a wrapper" in capsys.readouterr().out
    x = RNG.normal(size=(4, 3)).astype("float32")
    for a, b in zip(
        wrapped.get_weights(), copy.get_layer("wrapped").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert copy.predict(x, verbose=0).shape == (4, 1)


def test_released_layers_are_copied():
    model = small(ks.SawtoothDense(4), layers.Dense(4, "relu"))
    ks.release(model)
    copy = ks.replace_dense(model)
    x = RNG.normal(size=(4, 3)).astype("float32")
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(network.layers[0](x)) for network in (model, copy))
    )


def test_where_and_what_is_printed(capsys):
    model = small(layers.Dense(4, "relu", name="a"), layers.Dense(4, "elu", name="b"))
    copy = ks.replace_dense(model, where=lambda x: x is model.layers[1], verbose=1)
    assert kinds(copy) == ["Dense", "SawtoothDense", "Dense"]
    printed = capsys.readouterr().out
    # 4 units: 4 peaks, an amplitude and 3 slopes each.
    assert [line.split() for line in printed.splitlines()] == [
        ["layer", "was", "is", "parameters"],
        [model.layers[1].path, *"Dense elu SawtoothDense depth=3 20 -> 52".split()],
    ]
    assert len({len(line) for line in printed.splitlines()}) == 1


def test_a_model_compiled_with_functions_of_ones_own():
    def loss(y, outputs):
        return keras.ops.mean((y - outputs) ** 2)

    model = small(layers.Dense(4, "relu"))
    model.compile("adam", loss)
    with pytest.warns(UserWarning, match="not compiled: .* Call `compile`"):
        copy = ks.replace_dense(model)
    assert kinds(copy) == ["SawtoothDense", "Dense"]
    assert model.compiled and not copy.compiled


def test_compiled_model_trains_through_the_release():
    model = small(layers.Dense(4, "relu"), layers.Dense(2, "sigmoid"))
    model.compile("adam", "mse")
    copy = ks.replace_dense(model)
    assert kinds(copy) == ["SawtoothDense", "Dense", "Dense"]
    assert copy.optimizer is not model.optimizer
    before = model.get_weights()
    x, y = RNG.normal(size=(16, 3)), RNG.normal(size=(16, 1))
    released = ks.ReleaseConstraints(epoch=1)
    copy.fit(x, y, epochs=2, verbose=0, callbacks=[released])
    assert not copy.layers[0].constrained
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("by", ["var_names", "var_list"])
def test_exclusions_from_weight_decay_stay(by):
    model = small(layers.Dense(4, "relu"), layers.Dense(2, "sigmoid"))
    optimizer = keras.optimizers.AdamW(weight_decay=0.1)
    if by == "var_names":
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    else:
        biases = [layer.bias for layer in model.layers]
        optimizer.exclude_from_weight_decay(var_list=biases)
    model.compile(optimizer, "mse")
    copy = ks.replace_dense(model)
    decays = copy.optimizer._use_weight_decay
    assert not any(decays(layer.bias) for layer in copy.layers)
    assert all(decays(layer.kernel) for layer in copy.layers)
    assert all(decays(v) for v in copy.layers[0].region_constraint.weights)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="strategies of TensorFlow"
)
def test_a_copy_is_distributed_as_the_model_is():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = small(layers.Dense(4, "relu"))
        model.compile("adam", "mse")
    copy = ks.replace_dense(model)
    assert copy.distribute_strategy is strategy
    x, y = np.zeros((8, 3), "float32"), np.ones((8, 1), "float32")
    copy.fit(x, y, epochs=2, verbose=0, callbacks=[ks.ReleaseConstraints(epoch=1)])


def test_nothing_to_replace():
    with pytest.raises(ValueError, match=r"no layer to replace.*dense"):
        ks.replace_dense(small())


def test_unbuilt_model():
    with pytest.raises(ValueError, match="not built"):
        ks.replace_dense(keras.Sequential([layers.Dense(2, "relu")]))


def test_no_model():
    with pytest.raises(TypeError, match=r"takes a `keras.Model`.*dense"):
        ks.replace_dense(layers.Dense(2, "relu", name="dense"))


def test_lora():
    model = small(layers.Dense(4, "relu", name="a"))
    model.layers[0].enable_lora(2)
    with pytest.raises(ValueError, match="'a' has LoRA enabled"):
        ks.replace_dense(model)


def test_quantized():
    model = small(layers.Dense(4, "relu", name="a"))
    model.layers[0].quantize("int8")
    with pytest.raises(ValueError, match="'a' is quantized"):
        ks.replace_dense(model)


def test_bad_arguments():
    model = small(layers.Dense(4, "relu"))
    for name, value in [("name", "h"), ("trainable", False), ("use_bias", False)]:
        with pytest.raises(ValueError, match=f"no argument here.*{name}={value!r}"):
            ks.replace_dense(model, **{name: value})
    with pytest.raises(ValueError, match="depth=0"):
        ks.replace_dense(model, depth=0)
    with pytest.raises(TypeError, match="where='dense'"):
        ks.replace_dense(model, where="dense")
