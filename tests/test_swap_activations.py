"""`replace_dense` where the activation of a dense layer is a layer of its own."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_sawtooth as ks
from keras_sawtooth.swap.choice import choose_layers

RNG = np.random.default_rng(0)
# A function of `RegionConstraint` that leaves everything as it is.
IDENTITY = {"amplitude_initializer": "zeros", "slope_initializer": "ones"}
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)


def call(model, x):
    return keras.ops.convert_to_numpy(model(x))


def replaced(model):
    return [x.name for x in model.layers if type(x) is ks.RegionConstraint]


BETWEEN = [
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.UnitNormalization,
    layers.Identity,
    lambda: layers.GroupNormalization(2),
    lambda: layers.Dropout(0.1),
    lambda: layers.GaussianNoise(0.1),
]


@pytest.mark.parametrize("activation", [layers.ReLU, lambda: layers.Activation("gelu")])
@pytest.mark.parametrize("between", [None, *BETWEEN])
def test_a_layer_and_its_activation(between, activation):
    def make(last):
        middle = [] if between is None else [between()]
        hidden = [layers.Dense(4, name="hidden"), *middle, last]
        return keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])

    model = make(activation())
    copy = ks.replace_dense(model, depth=2, **IDENTITY)
    assert replaced(copy) == [model.layers[-2].name]
    assert copy.layers[-2].peaks.shape == (3, 4)
    linear = make(layers.Identity())
    linear.set_weights(model.get_weights())
    x = RNG.normal(size=(5, 3)).astype("float32")
    np.testing.assert_allclose(call(copy, x), call(linear, x), atol=1e-6)


@pytest.mark.parametrize("given", [False, True])
def test_learned_slopes_are_dropped(given):
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(5, 3, name="conv")(inputs)
    x = layers.Flatten()(layers.PReLU(shared_axes=(1, 2), name="bend")(x))
    slopes = layers.PReLU()
    hidden = [layers.Dense(4, slopes)] if given else [layers.Dense(4), slopes]
    for layer in hidden:
        x = layer(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile(keras.optimizers.AdamW(), "mse")
    images = RNG.normal(size=(2, 4, 4, 3)).astype("float32")
    # Keras builds the activation of a layer when that is called on data.
    call(model, images)
    kinds = (layers.Dense, layers.Conv2D)
    copy = ks.replace_dense(model, depth=2, kinds=kinds, **IDENTITY)
    assert len(copy.weights) == len(model.weights) - 2 + 2 * 4
    assert not [v.path for v in copy.weights if "alpha" in v.path]
    # With slopes of 1 it is linear, as the copy is.
    for layer in (model.get_layer("bend"), slopes):
        layer.set_weights([np.ones_like(w) for w in layer.get_weights()])
    np.testing.assert_allclose(call(copy, images), call(model, images), atol=1e-6)
    copy.fit(images, np.ones((2, 1)), verbose=0)


def test_learned_slopes_that_another_layer_uses_stay():
    slopes = layers.PReLU()
    hidden = [layers.Dense(4, slopes, name=name) for name in "ab"]
    model = keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])
    call(model, np.ones((1, 3), "float32"))
    slopes.set_weights([np.full(4, 0.25)])
    copy = ks.replace_dense(model, where=lambda layer: layer.name == "a")
    assert type(copy.get_layer("a")) is ks.SawtoothDense
    (alpha,) = copy.get_layer("b").activation.get_weights()
    np.testing.assert_array_equal(alpha, 0.25)


def test_no_variable_inherits_that_a_slope_does_not_decay():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.PReLU()])
    model.add(layers.Dense(1))
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_list=model.layers[1].trainable_variables)
    model.compile(optimizer, "mse")
    copy = ks.replace_dense(model)
    assert all(copy.optimizer._use_weight_decay(v) for v in copy.trainable_variables)


@pytest.mark.parametrize("activation", [layers.PReLU, layers.ReLU])
def test_a_layer_in_the_configuration_of_a_class(activation):
    hidden = [Holder(activation()), layers.Dense(4, "relu")]
    model = keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])
    call(model, np.ones((1, 3), "float32"))
    copy = ks.replace_dense(model, depth=2)
    assert type(copy.layers[0].hidden.activation) is ks.RegionConstraint
    assert type(copy.layers[1]) is ks.SawtoothDense
    assert len(copy.weights) == 6 + 2 * 4


@keras.saving.register_keras_serializable(package="test_swap_activations")
class Holder(layers.Layer):
    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.hidden = layers.Dense(4, self.activation)

    def build(self, input_shape):
        self.hidden.build(input_shape)

    def call(self, inputs):
        return self.hidden(inputs)

    def get_config(self):
        activation = keras.saving.serialize_keras_object(self.activation)
        return {**super().get_config(), "activation": activation}


def test_functions_of_tensors_are_named(capsys):
    inputs = keras.Input((3,))
    x = keras.ops.tanh(keras.activations.relu(layers.Dense(4)(inputs)))
    model = keras.Model(inputs, layers.Dense(1)(x))
    reason = "left alone: a function of a tensor, not a layer"
    with pytest.raises(ValueError, match=f"'re_lu.*' is {reason}") as error:
        ks.replace_dense(model)
    # It is behind the other one, not behind the dense layer.
    assert "tanh" not in str(error.value)
    x = layers.Dense(5, "relu")(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    ks.replace_dense(model, verbose=1)
    assert re.search(f"re_lu.* ReLU +{reason} +0", capsys.readouterr().out)


def test_model_that_was_made_layer_by_layer():
    # Keras calls the first layers again with every layer that is added.
    model = keras.Sequential([keras.Input((3,))])
    for width in (4, 5):
        model.add(layers.Dense(width))
        model.add(layers.ReLU())
    model.add(layers.Dense(1))
    assert len(replaced(ks.replace_dense(model))) == 2


def residual():
    inputs = keras.Input((6, 6, 3), name="images")
    x = layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    x = layers.BatchNormalization()(x)
    x = start = layers.ReLU(name="after_first")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="second")(x)
    x = layers.Add()([start, layers.BatchNormalization()(x)])
    x = layers.Activation("silu", name="after_sum")(x)
    x = layers.Concatenate()([x, layers.Conv2D(2, 1)(start)])
    x = layers.ReLU(name="after_both")(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Activation("tanh", name="after_pooling")(x)
    x = layers.Dense(5, name="dense")(x)
    x = layers.LeakyReLU(name="after_dense")(x)
    return keras.Model(inputs, layers.Dense(1)(x))


def test_convolutions_with_normalization_and_sums(tmp_path, capsys):
    model = residual()
    assert replaced(ks.replace_dense(model)) == ["after_dense"]
    kinds = (layers.Dense, *CONVOLUTIONS)
    copy = ks.replace_dense(model, depth=2, kinds=kinds, verbose=1)
    names = ["after_first", "after_sum", "after_both", "after_dense"]
    assert replaced(copy) == names
    table = capsys.readouterr().out
    assert re.search("after_first +ReLU +RegionConstraint depth=2 +0 -> 28", table)
    reason = "left alone: an activation without a linear `Dense` or `Conv2D` or"
    assert re.search(f"after_pooling +Activation tanh +{reason}", table)
    x = RNG.normal(size=(2, 6, 6, 3)).astype("float32")
    before = call(copy, x)
    assert len(ks.release(copy)) == 4
    np.testing.assert_allclose(call(copy, x), before, atol=1e-5)
    copy.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(loaded, x), call(copy, x))


def test_training_through_the_release():
    hidden = [layers.Dense(4), layers.BatchNormalization(), layers.ReLU()]
    model = keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])
    model.compile("adam", "mse")
    copy = ks.replace_dense(model, depth=1)
    x, y = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 1))
    copy.fit(x, y, epochs=2, verbose=0, callbacks=[ks.ReleaseConstraints(epoch=1)])
    assert not copy.layers[2].constrained


def test_where_is_asked_about_the_activation():
    copy = ks.replace_dense(
        residual(), kinds=CONVOLUTIONS, where=lambda layer: layer.name != "after_sum"
    )
    assert replaced(copy) == ["after_first", "after_both"]


def test_nested_models(tmp_path):
    part = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.ReLU()])
    inputs = keras.Input((2, 3))
    x = layers.TimeDistributed(part, name="each")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(x))
    copy = ks.replace_dense(model, depth=2)
    kinds = [type(x).__name__ for x in copy.get_layer("each").layer.layers]
    assert kinds == ["Dense", "RegionConstraint"]
    x = RNG.normal(size=(5, 2, 3)).astype("float32")
    before = call(copy, x)
    assert len(ks.release(copy)) == 1
    np.testing.assert_allclose(call(copy, x), before, atol=1e-5)
    copy.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(loaded, x), call(copy, x))


def test_frozen_layers_stay_frozen():
    part = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.ReLU()])
    part.trainable = False
    model = keras.Sequential([part, layers.Dense(1)])
    copy = ks.replace_dense(model)
    assert len(copy.trainable_variables) == 2
    ks.release(copy)
    assert len(copy.trainable_variables) == 2


@keras.saving.register_keras_serializable(package="test_swap_activations")
class Code(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(4)
        self.bend = layers.ReLU(name="bend")

    def call(self, inputs):
        return self.bend(self.hidden(inputs))


LEFT = {
    "without a linear `Dense`": lambda: [layers.ReLU(name="bend"), layers.Dense(4)],
    # The function of the dense layer is the one in front.
    "without a linear": lambda: [
        *(layers.Dense(4, "sigmoid"), layers.ReLU(name="bend"), layers.Dense(4)),
    ],
    "an output of the model": lambda: [layers.Dense(4), layers.ReLU(name="bend")],
    "an output of": lambda: [
        layers.Dense(4),
        layers.ReLU(name="bend"),
        layers.Reshape((2, 2)),
        layers.Rescaling(2.0),
        layers.Activation("linear", dtype="float32"),
    ],
    "outside of the graph": lambda: [Code(), layers.Dense(4)],
}


@pytest.mark.parametrize("reason", LEFT)
def test_left_alone(reason):
    model = keras.Sequential([keras.Input((3,)), *LEFT[reason]()])
    with pytest.raises(ValueError, match=f"'bend' is left alone: [^.]*{reason}"):
        ks.replace_dense(model)


@keras.saving.register_keras_serializable(package="test_swap_activations")
class Block(layers.Layer):
    """Makes a model in its code; its configuration has the activation at most."""

    def __init__(self, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        last = layers.Activation(self.activation, name="bend")
        self.part = keras.Sequential([layers.Dense(4, name="inner"), last])
        # No functional model, whatever its attributes are called.
        self.operations, self.outputs = ["a"], [3]

    def build(self, input_shape):
        self.part.build(input_shape)

    def call(self, inputs):
        return self.part(inputs)

    def get_config(self):
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": activation}


def test_models_in_the_code_of_a_class_are_left_alone(capsys):
    outer = layers.Dense(5, "relu", name="outer")
    model = keras.Sequential([keras.Input((3,)), Block(), outer, layers.Dense(1)])
    copy = ks.replace_dense(model, verbose=1)
    assert [type(x).__name__ for x in copy.layers[:2]] == ["Block", "SawtoothDense"]
    table = capsys.readouterr().out
    assert re.search("bend +Activation relu +left alone: .*outside of the graph", table)


def test_wrapped_layers():
    inputs = keras.Input((2, 3))
    x = layers.TimeDistributed(layers.Dense(4))(inputs)
    x = layers.ReLU(name="bend")(x)
    x = layers.TimeDistributed(layers.Dense(4))(x)
    x = layers.TimeDistributed(layers.ReLU(), name="each")(x)
    copy = ks.replace_dense(keras.Model(inputs, layers.Dense(1)(x)))
    assert replaced(copy) == ["bend"]
    assert type(copy.get_layer("each").layer) is ks.RegionConstraint


def test_a_tower_in_several_models():
    hidden = [layers.Dense(8), layers.ReLU(name="bend"), layers.Dense(4)]
    tower = keras.Sequential([keras.Input((3,)), *hidden], name="tower")
    # More and more models hold the last one twice: 2 ** 20 ways to the tower.
    for _ in range(20):
        inputs = keras.Input((3,))
        x = layers.Dense(3)(layers.Add()([tower(inputs), tower(inputs)]))
        tower = keras.Model(inputs, x)
    inputs = keras.Input((3,))
    branches = []
    for _ in range(2):
        part = keras.Input((3,))
        branches.append(keras.Model(part, layers.Dense(2)(tower(part)))(inputs))
    model = keras.Model(inputs, layers.Add()(branches))
    _, left = choose_layers(model, (layers.Dense,), None)
    assert left == []


def test_regularizers_of_activities_stay():
    bend = layers.ReLU(activity_regularizer=keras.regularizers.L2(0.5))
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), bend])
    model.add(layers.Dense(1))
    copy = ks.replace_dense(model)
    assert copy.layers[1].activity_regularizer.l2 == 0.5
    copy(np.ones((2, 3), "float32"))
    assert len(copy.losses) == 1


@pytest.mark.parametrize("phase", ["constrained", "released"])
def test_standard_layers(phase):
    hidden = [layers.Dense(4), layers.LayerNormalization(), layers.ReLU()]
    model = keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])
    copy = ks.replace_dense(model)
    if phase == "released":
        ks.release(copy)
    x = RNG.normal(size=(5, 3)).astype("float32")
    standard = ks.to_standard_layers(copy)
    np.testing.assert_allclose(call(standard, x), call(copy, x), atol=1e-5)


def test_mixed_precision():
    hidden = [layers.Dense(4), layers.ReLU(dtype="mixed_bfloat16")]
    model = keras.Sequential([keras.Input((3,)), *hidden, layers.Dense(1)])
    region = ks.replace_dense(model).layers[1]
    assert region.dtype_policy.name == "mixed_bfloat16"


def test_one_activation_in_several_places():
    inputs = keras.Input((3,))
    bend = layers.ReLU(name="bend")
    hidden = bend(layers.Dense(4)(bend(layers.Dense(5)(inputs))))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    with pytest.raises(ValueError, match=r"'bend' is left alone: .*in several places"):
        ks.replace_dense(model)


def test_one_layer_in_several_places():
    inputs = keras.Input((3,))
    shared = layers.Dense(3)
    hidden = layers.ReLU(name="a")(shared(inputs))
    hidden = layers.ReLU(name="b")(shared(hidden))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    assert replaced(ks.replace_dense(model)) == ["a", "b"]


def test_part_of_a_larger_model():
    inputs = keras.Input((3,))
    hidden = layers.ReLU(name="bend")(layers.Dense(4)(inputs))
    keras.Model(inputs, layers.Dense(1)(hidden))
    # The layers are called once more, in a graph that is not that of the part.
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    assert replaced(ks.replace_dense(model)) == ["bend"]


def test_activations_of_layers_are_not_counted_twice():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, activation=layers.ReLU()),
            layers.Dense(4),
            layers.Activation(layers.ReLU()),
            layers.Dense(1),
        ]
    )
    found = [type(x).__name__ for x in ks.replace_dense(model).layers]
    assert found == ["SawtoothDense", "Dense", "RegionConstraint", "Dense"]


def test_channels_first():
    inputs = keras.Input((3, 4, 4))
    conv = layers.Conv2D(2, 2, data_format="channels_first", name="conv")
    hidden = layers.Flatten()(layers.ReLU()(conv(inputs)))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    with pytest.raises(ValueError, match="'conv' computes is not an axis of channels"):
        ks.replace_dense(model, kinds=CONVOLUTIONS)


def test_arguments_of_dense_alone():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.ReLU()])
    model.add(layers.Dense(1))
    with pytest.raises(ValueError, match=r"(?s)no arguments \['kernel_regularizer'\]"):
        ks.replace_dense(model, kernel_regularizer="l2")


def test_deep_sums_are_walked_once():
    # Every sum is read twice by the next one: 2 ** 60 ways back.
    inputs = keras.Input((3,))
    x = layers.Dense(3)(inputs)
    for _ in range(60):
        x = layers.Add()([x, x])
    x = layers.ReLU(name="bend")(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    assert replaced(ks.replace_dense(model)) == ["bend"]
