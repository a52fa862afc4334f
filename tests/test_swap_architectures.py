"""`replace_dense` on the models that people have: `keras.applications`, KerasHub."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_sawtooth as ks

RNG = np.random.default_rng(0)
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)

# The smallest of every family, the size of the images, how many dense layers have a
# nonlinear activation, and how many convolutions. Most have theirs in layers of their
# own, behind normalizations, sums or concatenations.
FAMILIES = {
    "convnext": ("ConvNeXtTiny", 32, 18, 0),
    "densenet": ("DenseNet121", 32, 0, 117),
    "efficientnet": ("EfficientNetB0", 32, 0, 49),
    "efficientnet_v2": ("EfficientNetV2B0", 32, 0, 55),
    "inception_resnet_v2": ("InceptionResNetV2", 75, 0, 204),
    "inception_v3": ("InceptionV3", 75, 0, 94),
    "mobilenet": ("MobileNet", 32, 0, 27),
    "mobilenet_v2": ("MobileNetV2", 32, 0, 35),
    "mobilenet_v3": ("MobileNetV3Small", 32, 0, 33),
    "nasnet": ("NASNetMobile", 32, 0, 192),
    "resnet": ("ResNet50", 32, 0, 49),
    "resnet_v2": ("ResNet50V2", 32, 0, 48),
    "vgg16": ("VGG16", 32, 2, 13),
    "vgg19": ("VGG19", 32, 2, 16),
    "xception": ("Xception", 71, 0, 35),
}


def test_families_are_all_there():
    names = {
        name
        for name, module in vars(keras.applications).items()
        if hasattr(module, "decode_predictions")
    }
    # Old names, of `resnet` and of what they share.
    assert names - {"imagenet_utils", "resnet50"} == set(FAMILIES)


def check(family, kinds, count):
    name, size, *_ = FAMILIES[family]
    if name.startswith("NASNet") and keras.backend.backend() == "torch":
        pytest.skip("Keras has no NASNet on torch")
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=2
    )
    if count == 0:
        with pytest.raises(ValueError, match="has no layer to replace"):
            ks.replace_dense(model, kinds=kinds)
        return
    copy = ks.replace_dense(model, kinds=kinds)
    images = RNG.normal(size=(1, size, size, 3)).astype("float32")
    before = copy.predict(images, verbose=0)
    assert before.shape == (1, 2)
    assert len(ks.release(copy)) == count
    np.testing.assert_allclose(copy.predict(images, verbose=0), before, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_dense_layers(family):
    check(family, (layers.Dense,), FAMILIES[family][2])


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_convolutions(family):
    check(family, CONVOLUTIONS, FAMILIES[family][3])


def test_classifier_of_vgg16():
    # As in the paper: the two hidden layers of the classifier.
    model = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=2)
    copy = ks.replace_dense(model)
    replaced = {x.name: x.units for x in copy.layers if type(x) is ks.SawtoothDense}
    assert replaced == {"fc1": 4096, "fc2": 4096}
    assert copy.get_layer("predictions").activation is keras.activations.softmax
    for layer in model.layers:
        weights = copy.get_layer(layer.name).get_weights()
        for a, b in zip(layer.get_weights(), weights, strict=False):
            np.testing.assert_array_equal(a, b)


TOKENS = {"vocabulary_size": 10, "num_layers": 2, "hidden_dim": 8}
HEADS = {**TOKENS, "num_heads": 2, "intermediate_dim": 16}
LENGTH = {**HEADS, "max_sequence_length": 6}
GROUPS = {**TOKENS, "num_query_heads": 2, "num_key_value_heads": 2}

# Class of KerasHub, arguments, and the number of functions, or words of the error.
BACKBONES = {
    "Albert": ({**LENGTH, "embedding_dim": 4}, 1),
    "Bart": (LENGTH, 4),
    "Bert": (LENGTH, 2),
    "Bloom": (HEADS, "no layer to replace"),
    "DistilBert": (LENGTH, 2),
    "Electra": (
        {**LENGTH, "vocab_size": 10, "embedding_dim": 4, "vocabulary_size": None},
        2,
    ),
    "ESM": (HEADS, 2),
    "Falcon": (
        {**TOKENS, "num_attention_heads": 2, "intermediate_dim": 16},
        "activations stand in the code of what holds them",
    ),
    "FNet": ({**LENGTH, "num_heads": None}, 2),
    "Gemma": (
        {**GROUPS, "intermediate_dim": 16, "head_dim": 4},
        "no layer to replace",
    ),
    "GPT2": (LENGTH, 2),
    "Llama": ({**GROUPS, "intermediate_dim": 16}, "no layer to replace"),
    "OPT": (LENGTH, 2),
    "Roberta": (LENGTH, 2),
    "RoformerV2": ({**HEADS, "head_size": 4, "max_wavelength": 100}, 2),
    "T5": (HEADS, 4),
    "XLMRoberta": (LENGTH, 2),
}


def make_backbone(name):
    hub = pytest.importorskip("keras_hub")
    arguments, expected = BACKBONES[name]
    arguments = {k: v for k, v in arguments.items() if v is not None}
    return getattr(hub.models, f"{name}Backbone")(**arguments), expected


def tokens(model):
    # No padding, and a length that every model takes.
    return keras.tree.map_structure(
        lambda x: np.ones([4 if n is None else n for n in x.shape], "int32"),
        model.input,
    )


def outputs(model):
    found = keras.tree.flatten(model(tokens(model)))
    return [keras.ops.convert_to_numpy(x) for x in found]


def check_equal(found, expected, atol=1e-5):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


# T5 passes a mask to layers that ignore it, RoFormer indexes with lists.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=[] if x == "Roberta" else [pytest.mark.long])
        for x in BACKBONES
    ],
)
def test_text_backbone(name, tmp_path):
    model, expected = make_backbone(name)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            ks.replace_dense(model)
        return
    # Functions that leave everything as it is, beside a model without activations. The
    # pooled output keeps its own.
    identity = {"amplitude_initializer": "zeros", "slope_initializer": "ones"}
    copy = ks.replace_dense(model, depth=2, **identity)
    check_equal(outputs(copy), outputs(without_activations(model)))
    copy = ks.replace_dense(make_backbone(name)[0], depth=2)
    before = outputs(copy)
    copy.save(tmp_path / "model.keras")
    check_equal(outputs(keras.saving.load_model(tmp_path / "model.keras")), before)
    assert len(ks.release(copy)) == expected
    check_equal(outputs(copy), before, atol=1e-4)


def without_activations(layer):
    for inner in getattr(layer, "_layers", []):
        if type(inner) is layers.Dense and inner.name != "pooled_dense":
            inner.activation = keras.activations.linear
        without_activations(inner)
    return layer


@pytest.mark.long
def test_text_classifier_trains_through_the_release():
    backbone, _ = make_backbone("Bert")
    features = backbone(backbone.input)["pooled_output"]
    model = keras.Model(backbone.input, layers.Dense(2, "softmax")(features))
    model.compile("adam", "sparse_categorical_crossentropy")
    copy = ks.replace_dense(model, depth=2)
    callback = ks.ReleaseConstraints(epoch=1)
    copy.fit(
        tokens(model), np.ones(4, "int32"), epochs=2, verbose=0, callbacks=[callback]
    )
    assert [
        layer.activation.constrained
        for layer in copy.get_layer(backbone.name).layers
        if layer.name.startswith("transformer_layer")
    ] == [False, False]
