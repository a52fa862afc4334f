"""`replace_dense` where layers and models of other classes hold the dense layers."""

from pathlib import Path

import keras
import numpy as np
import pytest
from exports import code_by_heading
from keras import layers

import keras_sawtooth as ks
from keras_sawtooth.nested_layers import region_layers

DOCS = Path(__file__).parents[1] / "docs"
RNG = np.random.default_rng(0)
# A function of `RegionConstraint` that leaves everything as it is.
IDENTITY = {"amplitude_initializer": "zeros", "slope_initializer": "ones"}


def call(model, x):
    return keras.ops.convert_to_numpy(model(x))


def data(*shape):
    return RNG.normal(size=shape).astype("float32")


register = keras.saving.register_keras_serializable(package="test_swap_composites")


@register
class Block(layers.Layer):
    """Its configuration has the activation of the dense layers that it makes."""

    def __init__(self, widths=(6,), activation="gelu", fixed=None, **kwargs):
        super().__init__(**kwargs)
        self.widths = tuple(widths)
        self.activation = keras.activations.get(activation)
        self.fixed = fixed
        self.hidden = [
            layers.Dense(width, self.activation, name=f"hidden_{i}")
            for i, width in enumerate(self.widths)
        ]
        self.out = layers.Dense(3, fixed, name="out")

    def build(self, input_shape):
        for layer in (*self.hidden, self.out):
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, inputs):
        x = inputs
        for layer in self.hidden:
            x = layer(x)
        return inputs + self.out(x)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "widths": self.widths,
            "activation": keras.activations.serialize(self.activation),
            "fixed": self.fixed,
        }


@register
class Holder(keras.Model):
    """Its configuration has the layers that it holds."""

    def __init__(self, parts, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def call(self, inputs):
        x = inputs
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {**super().get_config(), "parts": [serialize(x) for x in self.parts]}

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{**config, "parts": [deserialize(x) for x in config["parts"]]})


@register
class Automatic(layers.Layer):
    """Keras makes its configuration from the arguments."""

    def __init__(self, width, activation, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(width, activation)
        self.out = layers.Dense(3)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.out.build(self.hidden.compute_output_shape(input_shape))

    def call(self, inputs):
        return self.out(self.hidden(inputs))


def functional(*blocks):
    inputs = keras.Input((3,))
    x = inputs
    for block in blocks:
        x = block(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def holder(*parts):
    model = Holder(list(parts))
    model(data(2, 3))
    return model


MODELS = {
    "block in a functional model": (lambda: functional(Block(), Block()), 2),
    "block in a nested model": (
        lambda: functional(functional(Block(name="a")), Block((2,), name="b")),
        2,
    ),
    "one function for two layers": (lambda: functional(Block((5, 5))), 1),
    "subclassed model": (
        lambda: holder(layers.Dense(4, "relu"), layers.Dense(2, "softmax")),
        1,
    ),
    "models and blocks in a subclassed model": (
        lambda: holder(
            keras.Sequential([layers.Dense(3, "relu"), layers.Dense(3, "silu")]),
            functional(Block(), layers.Dense(4, "elu")),
            layers.Dense(2, "sigmoid"),
        ),
        4,
    ),
    "subclassed model in a functional one": (
        lambda: functional(Holder([layers.Dense(3, "relu"), Block()])),
        2,
    ),
}


@pytest.mark.parametrize("make, count", MODELS.values(), ids=MODELS)
def test_only_the_activations_change(make, count):
    model = make()
    copy = ks.replace_dense(model, **IDENTITY)
    assert len(region_layers(copy)) == count
    assert type(copy) is type(model)
    x = data(4, 3)
    found = call(copy, x)
    linearize(model)
    np.testing.assert_allclose(found, call(model, x), atol=1e-5)


def linearize(layer):
    for x in getattr(layer, "_layers", []):
        if type(x) is layers.Dense and x.activation.__name__ not in (
            "softmax",
            "sigmoid",
        ):
            x.activation = keras.activations.linear
        linearize(x)


@pytest.mark.parametrize("make, count", MODELS.values(), ids=MODELS)
def test_files_and_release(make, count, tmp_path):
    copy = ks.replace_dense(make(), depth=2)
    x = data(8, 3)

    def check_file():
        copy.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(call(loaded, x), call(copy, x), atol=1e-6)

    check_file()
    before = call(copy, x)
    assert len(ks.release(copy)) == count
    np.testing.assert_allclose(call(copy, x), before, atol=1e-4)
    check_file()


@pytest.mark.parametrize(
    "make",
    [
        lambda: functional(Block((5, 5))),
        lambda: holder(layers.Dense(4, "relu"), layers.Dense(3)),
    ],
)
def test_training_through_the_release(make):
    model = make()
    model.compile("adam", "mse")
    copy = ks.replace_dense(model, depth=1)
    before = model.get_weights()
    x, y = data(8, 3), data(8, 3)
    copy.fit(x, y, epochs=2, verbose=0, callbacks=[ks.ReleaseConstraints(epoch=1)])
    assert not any(region.constrained for region in region_layers(copy))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_automatic_configuration(tmp_path):
    copy = ks.replace_dense(functional(Automatic(4, "tanh")))
    x = data(4, 3)
    copy.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(call(loaded, x), call(copy, x), atol=1e-6)
    ks.release(copy)
    copy.save(tmp_path / "model.keras")
    # Keras keeps the arguments that the layer was made with.
    with pytest.warns(UserWarning, match="was constrained and is released now"):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(call(loaded, x), call(copy, x), atol=1e-6)


def test_where_takes_the_inner_layers():
    model = functional(Block(name="a"), Block(name="b"))
    inner = model.get_layer("b").hidden[0]
    copy = ks.replace_dense(model, where=lambda layer: layer is inner)
    assert copy.get_layer("a").activation is keras.activations.gelu
    assert isinstance(copy.get_layer("b").hidden[0].activation, ks.RegionConstraint)


def test_frozen_inner_layers_stay_frozen():
    model = functional(Block(name="a"))
    model.get_layer("a").out.trainable = False
    model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    copy = ks.replace_dense(model)
    frozen = copy.get_layer("a").out
    assert frozen.trainable_variables == []
    assert len(copy.non_trainable_variables) == len(frozen.variables) == 2
    # Beside the step count and the learning rate, a momentum for what is trained.
    assert len(copy.optimizer.variables) == 2 + len(copy.trainable_variables)


def test_table(capsys):
    ks.replace_dense(functional(Block((5, 5), name="block")), verbose=1)
    lines = capsys.readouterr().out.splitlines()
    found = {line.split()[0] for line in lines[1:]}
    assert found == {"block/hidden_0", "block/hidden_1"}
    assert all("one for 2 layers" in line for line in lines[1:])


def test_one_function_for_different_widths():
    model = functional(Block((5, 6), name="block"))
    message = r"'activation' of layer 'block'.*'hidden_0': 5.*where="
    with pytest.raises(ValueError, match=message):
        ks.replace_dense(model)


def test_part_of_the_layers_behind_one_argument():
    model = functional(Block((5, 5)))
    with pytest.raises(ValueError, match=r"\['hidden_0'\] are.*all or none"):
        ks.replace_dense(model, where=lambda layer: layer.name == "hidden_0")


def test_twins_in_a_configuration():
    twins = [keras.Sequential([layers.Dense(3, "relu", name="x")]) for _ in range(2)]
    model = holder(*twins)
    first = twins[0].layers[0]
    with pytest.raises(ValueError, match=r"several layers of one name.*all or none"):
        ks.replace_dense(model, where=lambda layer: layer is first)
    twins[1].layers[0].trainable = False
    assert len(region_layers(ks.replace_dense(model, where=lambda x: x is first))) == 1


def test_activation_that_no_configuration_names():
    model = functional(Block(fixed="tanh", name="block"))
    copy = ks.replace_dense(model, where=lambda layer: layer.name != "out")
    assert copy.get_layer("block").out.activation is keras.activations.tanh
    # "tanh" is the argument `fixed`, which is not called an activation.
    with pytest.raises(ValueError, match=r"\['block/out'\] cannot be replaced"):
        ks.replace_dense(model)


def test_quantized_inner_layer():
    model = functional(Block(name="block"))
    model.get_layer("block").hidden[0].quantize("int8")
    with pytest.raises(ValueError, match="'hidden_0' is quantized"):
        ks.replace_dense(model)


def test_arguments_of_dense_alone():
    with pytest.raises(ValueError, match=r"'hidden_0'.*\['kernel_regularizer'\]"):
        ks.replace_dense(functional(Block()), kernel_regularizer="l2")


def test_model_without_configuration():
    class Own(keras.Model):
        def __init__(self, hidden):
            super().__init__()
            self.hidden = hidden

        def call(self, inputs):
            return self.hidden(inputs)

    model = Own(layers.Dense(3, "relu"))
    with pytest.raises(ValueError, match="not built"):
        ks.replace_dense(model)
    model(data(2, 3))
    with pytest.raises(TypeError, match=r"cannot be copied: no Own.*get_config"):
        ks.replace_dense(model)


def test_the_class_in_the_documentation(tmp_path):
    code = code_by_heading(DOCS / "swap.md")["Layers inside of other layers", ""]
    names = {"keras": keras}
    exec(code, names)
    surrogate = register(names["Surrogate"])
    model = surrogate()
    x = data(4, 3)
    call(model, x)
    copy = ks.replace_dense(model)
    (region,) = region_layers(copy)
    assert copy.hidden.activation is region
    copy.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(call(loaded, x), call(copy, x), atol=1e-6)


def test_functional_model_with_a_call_of_its_own():
    class Twice(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs)

    inputs = keras.Input((3,))
    model = Twice(inputs, layers.Dense(1)(layers.Dense(3, "relu")(inputs)))
    assert isinstance(ks.replace_dense(model), Twice)

    class Renamed(Twice):
        def __init__(self, width):
            inputs = keras.Input((3,))
            hidden = layers.Dense(width, "relu")(inputs)
            super().__init__(inputs, layers.Dense(1)(hidden))

    with pytest.raises(TypeError, match="Renamed has a `call` and an `__init__` of"):
        ks.replace_dense(Renamed(4))


@pytest.mark.parametrize("base", [keras.Model, keras.Sequential])
def test_models_with_a_loss_of_their_own(base):
    class Scaled(base):
        def compute_loss(self, x=None, y=None, y_pred=None, **kwargs):
            return 1000 * keras.ops.mean(keras.ops.abs(y - y_pred))

    class Renamed(Scaled):
        def __init__(self, *parts, scale=1):
            super().__init__(*parts)
            self.scale = scale

    inputs = keras.Input((3,))
    parts = [layers.Dense(3, "relu"), layers.Dense(1)]
    if base is keras.Model:
        graph = inputs, parts[1](parts[0](inputs))
        # Keras makes another of the same class.
        assert isinstance(ks.replace_dense(Scaled(*graph)), Scaled)
        model = Renamed(*graph)
    else:
        model = Renamed([inputs, *parts])
    with pytest.raises(TypeError, match=r"without the \['compute_loss'\] of Renamed"):
        ks.replace_dense(model)


@pytest.mark.parametrize("convert", [ks.replace_dense, ks.to_standard_layers])
def test_optional_inputs_of_inner_models(convert):
    class Sum(layers.Layer):
        def call(self, a, b=None):
            return a if b is None else a + b

        def compute_output_shape(self, a_shape, b_shape=None):
            return a_shape

    def graph(part, name):
        a, b = keras.Input((3,)), keras.Input((3,), name="b", optional=True)
        return keras.Model([a, b], part(a, b), name=name)

    hidden = layers.Dense(3, "relu") if convert is ks.replace_dense else None
    hidden = hidden or ks.SawtoothDense(3)
    inner = graph(lambda a, b: Sum()(hidden(a), b), "inner")
    model = graph(lambda a, b: layers.Dense(1)(inner([a, b])), "outer")
    copy = convert(model)
    assert copy.get_layer("inner") is not inner
    assert copy([np.ones((2, 3)), None]).shape == (2, 1)


def test_models_that_share_a_layer():
    shared = layers.Dense(3, "relu")
    parts = [keras.Sequential([keras.Input((3,)), shared]) for _ in range(2)]
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(1)(parts[1](parts[0](inputs))))
    copy = ks.replace_dense(model)
    assert len(copy.weights) == len(model.weights) + 4


@pytest.mark.parametrize("convert", [ks.replace_dense, ks.to_standard_layers])
def test_variables_that_were_frozen_one_by_one_stay_frozen(convert):
    hidden = layers.Dense(3, "relu")
    if convert is ks.to_standard_layers:
        hidden = ks.SawtoothDense(3)
    norm = layers.BatchNormalization()
    model = keras.Sequential([keras.Input((3,)), hidden, norm, layers.Dense(1)])
    hidden.kernel.trainable = model.layers[-1].bias.trainable = False
    norm.gamma.trainable = False
    copy = convert(model)
    trained = [(v.name, tuple(v.shape)) for v in copy.trainable_variables]
    assert trained[0] == ("bias", (3,)) and ("beta", (3,)) in trained
    assert not {("kernel", (3, 3)), ("gamma", (3,)), ("bias", (1,))} & {*trained}


@register
class Tied(layers.Layer):
    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def call(self, inputs):
        return inputs @ keras.ops.transpose(self.table.embeddings)

    def get_config(self):
        table = keras.saving.serialize_keras_object(self.table)
        return {**super().get_config(), "table": table}

    @classmethod
    def from_config(cls, config):
        table = keras.saving.deserialize_keras_object(config.pop("table"))
        return cls(table, **config)


def test_tied_weights():
    inputs = keras.Input((2,), dtype="int32")
    table = layers.Embedding(5, 3)
    model = keras.Model(inputs, Tied(table)(layers.Dense(3, "relu")(table(inputs))))
    with pytest.raises(ValueError, match=r"3 weights.*share"):
        ks.replace_dense(model)
