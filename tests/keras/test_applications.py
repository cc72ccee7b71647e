"""keras.applications: the networks are those of Keras 3.15.1, layer by layer."""

from __future__ import annotations

import inspect
import json
import pickle
import zlib

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.tensor import Tensor
from distgrad.keras import initializers
from distgrad.keras.applications import building, imagenet_utils

keras = tf.keras
layers = keras.layers
applications = keras.applications

SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}  # where 64 is too small

# Of each network with 10 classes: its parameters and layers, and the CRC of the names of the
# layers, the shapes of their outputs and of their weights. From Keras.
STRUCTURES = {
    "ConvNeXtSmall": (49462378, 261, 3326036128),
    "ConvNeXtTiny": (27827818, 135, 1645554571),
    "DenseNet121": (7047754, 429, 2014846294),
    "DenseNet201": (18341194, 709, 3565126387),
    "EfficientNetB0": (4062381, 240, 2765978953),
    "EfficientNetB1": (6588049, 342, 1990610955),
    "EfficientNetB2": (7782659, 342, 3233267746),
    "EfficientNetB4": (17691753, 477, 3202692212),
    "EfficientNetB7": (64123297, 816, 3434988915),
    "EfficientNetV2B0": (5932122, 273, 516011324),
    "EfficientNetV2B3": (12945992, 412, 3678952260),
    "EfficientNetV2M": (53163198, 743, 1889834001),
    "EfficientNetV2S": (20344170, 516, 2769683077),
    "InceptionResNetV2": (54352106, 782, 816995406),
    "InceptionV3": (21823274, 313, 3142787941),
    "MobileNet": (3239114, 91, 298726029),
    "MobileNetV2": (2270794, 156, 3582686725),
    "MobileNetV3Large": (4239242, 194, 2882483748),
    "MobileNetV3Small": (1540218, 164, 3625997948),
    "NASNetLarge": (84957148, 1041, 1406230626),
    "NASNetMobile": (4280286, 771, 2606274646),
    "ResNet101": (42678666, 347, 3134497172),
    "ResNet152V2": (58352138, 566, 763275651),
    "ResNet50": (23608202, 177, 3944710792),
    "ResNet50V2": (23585290, 192, 361779998),
    "VGG16": (39929674, 23, 2845482212),
    "VGG19": (45239370, 26, 3090702048),
    "Xception": (20881970, 134, 1281357220),
}

# Of each network without classes, for images of 32 x 32 (or of the least size), with the weights of
# `formula`: the mean size of the outputs, and a product with cosines. From Keras.
OUTPUTS = {
    "MobileNet": (0.05184128, 0.0597755),
    "MobileNetV2": (0.07125492, -0.0113353),
    "MobileNetV3Small": (0.08890533, -0.0798924),
    "EfficientNetB0": (0.0608874, 0.0284998),
    "EfficientNetV2B0": (0.1414475, -0.113787),
    "DenseNet121": (0.05488585, -0.019624),
    "ResNet50": (0.4892794, -0.0211687),
    "Xception": (0.04281566, -0.0374027),
}


@pytest.fixture
def unset(monkeypatch):
    """Weights begin as zeros: drawing them would take most of the time."""

    def zeros(self, shape, dtype=np.float32):
        return Tensor(np.zeros(tuple(shape), dtype))

    monkeypatch.setattr(initializers.VarianceScaling, "__call__", zeros)


def formula(model):
    for i, weight in enumerate(model.weights):
        name, shape = weight.path.rsplit("/", 1)[-1], tuple(weight.shape)
        if name in ("mean", "variance", "count"):
            continue
        wave = np.resize(np.sin((np.arange(10007) + i) ** 2.0), shape)
        if name in ("gamma", "moving_variance"):
            wave = 1 + wave / 3
        elif wave.ndim > 1:
            wave = wave * (2 * shape[-1] / wave.size) ** 0.5
        else:
            wave = wave / 10
        weight.assign(wave.astype(np.float32))


def images(*shape):
    return np.sin(np.arange(np.prod(shape)) ** 2.0).reshape(shape).astype(np.float32)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_layers_are_those_of_keras(name, unset):
    size = SIZES.get(name, 64)
    model = getattr(applications, name)(weights=None, classes=10, input_shape=(size, size, 3))
    each = (
        f"{layer.name}{layer.output.shape}{[tuple(w.shape) for w in layer.weights]}"
        for layer in model.layers
    )
    found = model.count_params(), len(model.layers), zlib.crc32("".join(each).encode())
    assert found == STRUCTURES[name]


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_outputs_are_those_of_keras(name, unset):
    size, alpha = SIZES.get(name, 32), {"MobileNet": 0.25, "MobileNetV2": 0.35}.get(name)
    options = {} if alpha is None else {"alpha": alpha}
    shape = (size, size, 3)
    model = getattr(applications, name)(
        include_top=False, weights=None, pooling="avg", input_shape=shape, **options
    )
    formula(model)
    y = model(images(1, *shape)).numpy()[0].astype(np.float64)
    total = np.abs(y).sum()
    found = total / len(y), y @ np.cos(np.arange(len(y))) / total
    np.testing.assert_allclose(found, OUTPUTS[name], rtol=1e-4, atol=1e-6)


def test_every_network_has_its_place_and_its_arguments():
    usual = (
        "include_top=True, weights='imagenet', input_tensor=None, input_shape=None, pooling=None, "
        "classes=1000, classifier_activation='softmax'"
    )

    def arguments(network):
        parameters = inspect.signature(network).parameters.values()
        return ", ".join(f"{p.name}={p.default!r}" for p in parameters)

    assert arguments(applications.ResNet50) == f"{usual}, name='resnet50'"
    assert arguments(applications.VGG19) == f"{usual}, name='vgg19'"
    wanted = f"{usual}, include_preprocessing=True, name='efficientnetv2-s'"
    assert arguments(applications.EfficientNetV2S) == wanted
    wanted = "input_shape=None, alpha=1.0, depth_multiplier=1, dropout=0.001, include_top=True"
    assert arguments(applications.MobileNet).startswith(wanted)
    assert arguments(applications.MobileNetV3Small).endswith("name='MobileNetV3Small'")
    for name in dir(applications):
        if name[0].isupper():
            network = getattr(applications, name)
            assert network.__name__ == name and network.__doc__
            assert pickle.loads(pickle.dumps(network)) is network
    assert applications.resnet50.ResNet50 is applications.resnet.ResNet50 is applications.ResNet50
    with pytest.raises(AttributeError, match="ResNet51"):
        applications.ResNet51  # noqa: B018


def small(**options):
    return applications.MobileNetV2(
        **{"alpha": 0.35, "input_shape": (32, 32, 3), "weights": None, **options}
    )


def test_what_is_given_goes_in_and_what_is_asked_for_comes_out(unset):
    assert small(classes=3).output_shape == (None, 3)
    assert small(include_top=False).output_shape == (None, 1, 1, 1280)
    assert small(include_top=False, pooling="max").output_shape == (None, 1280)
    assert small(name="mine").name == "mine" and small().name == "mobilenetv2_0.35_32"
    anywhere = small(include_top=False, input_shape=None)
    assert anywhere.input_shape == (None, None, None, 3)
    assert anywhere.name == "mobilenetv2_0.35_None"
    assert anywhere.input is anywhere.inputs[0]
    assert keras.Sequential([anywhere, layers.GlobalMaxPooling2D()]).output_shape == (None, 1280)
    logits = small(classes=2, classifier_activation=None)
    assert logits.layers[-1].activation is keras.activations.linear
    pixels = keras.Input((40, 40, 3), name="pixels")
    scaled = layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    model = small(input_tensor=scaled, input_shape=None, include_top=False)
    assert model.layers[0].name == "pixels" and model.output_shape == (None, 2, 2, 1280)


def test_images_whose_channels_come_first(unset):
    expected = small(classes=3)
    keras.config.set_image_data_format("channels_first")
    try:
        model = small(classes=3, input_shape=(3, 32, 32))
        with pytest.raises(ValueError, match="DenseNet does not support"):
            applications.DenseNet121(weights=None)
    finally:
        keras.config.set_image_data_format("channels_last")
    for each in (model, expected):
        formula(each)
    x = images(2, 32, 32, 3)
    y = model(np.moveaxis(x, -1, 1))
    np.testing.assert_allclose(y, expected(x), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "nothing.h5"}, "Received: weights=nothing.h5"),
        ({"weights": "imagenet", "classes": 3}, "classes=3"),
        ({"weights": "imagenet", "alpha": 0.3, "include_top": False}, "alpha=0.3"),
        ({"weights": "imagenet", "classifier_activation": "relu"}, "=relu"),
        ({"weights": "imagenet"}, r"should be \(224, 224, 3\). Received: input_shape=\(32, 32, 3"),
        ({"input_shape": (31, 32, 3)}, "at least 32x32"),
        ({"input_shape": (32, 3)}, "three integers"),
        ({"input_shape": (None, None, 3)}, "static"),
        ({"input_tensor": np.zeros((1, 32, 32, 3))}, "ndarray"),
        ({"input_tensor": keras.Input((40, 40, 3))}, "unlike width"),
    ],
)
def test_wrong_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        small(**options)


def test_other_channels_are_warned_of(unset):
    with pytest.warns(UserWarning, match="with 5 input channels"):
        small(input_shape=(32, 32, 5), include_top=False)


# Weights

STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications/"
KERNELS = "weights_tf_dim_ordering_tf_kernels"


@pytest.mark.parametrize(
    ("network", "options", "file", "digest"),
    [
        ("MobileNet", {}, "mobilenet/mobilenet_1_0_224_tf.h5", None),
        (
            "MobileNetV2",
            {"alpha": 1, "include_top": False, "input_shape": (160, 160, 3)},
            f"mobilenet_v2/mobilenet_v2_{KERNELS}_1.0_160_no_top.h5",
            None,
        ),
        (
            "MobileNetV3Small",
            {"minimalistic": True, "include_top": False, "input_shape": (224, 224, 3)},
            "mobilenet_v3/weights_mobilenet_v3_small_minimalistic_224_1.0_float_no_top_v2.h5",
            "cde8136e733e811080d9fcd8a252f7e4",
        ),
        (
            "ResNet50",
            {"include_top": False, "name": "mine"},
            f"resnet/resnet50_{KERNELS}_notop.h5",
            "4d473c1dd8becc155b73f8504c6f6626",
        ),
    ],
)
def test_weights_of_imagenet_are_fetched(network, options, file, digest, unset, monkeypatch):
    asked = []

    def get_file(*arguments, **named):
        asked.append((arguments, named))
        raise tf.errors.NotFoundError("offline")

    monkeypatch.setattr(building, "get_file", get_file)
    with pytest.raises(tf.errors.NotFoundError):
        getattr(applications, network)(**options)
    name = file.rpartition("/")[2]
    assert asked == [((name, STORAGE + file), {"cache_subdir": "models", "file_hash": digest})]


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".h5"])
def test_weights_of_a_file(ending, tmp_path):
    pytest.importorskip("h5py")
    model = small(classes=3)
    formula(model)
    path = tmp_path / f"x{ending}"
    (model.save_weights if ending == ".weights.h5" else model.save)(path)
    again = small(classes=3, weights=path)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["convnext.LayerScale", "inception_resnet_v2.CustomScaleLayer"])
def test_layers_of_a_network_come_back_from_what_keras_writes(name):
    module, _, class_name = name.partition(".")
    made = getattr(getattr(applications, module), class_name)
    settings = {"init_values": 0.5, "projection_dim": 2} if module == "convnext" else {"scale": 3}
    written = {
        "module": f"keras.src.applications.{module}",
        "class_name": class_name,
        "config": {"name": "it", "trainable": True, "dtype": "float32", **settings},
        "registered_name": class_name,
    }
    layer = layers.deserialize(written)
    assert type(layer) is made and layer.name == "it"
    assert layers.serialize(layer)["module"] == written["module"]
    x = np.ones((1, 2), np.float32)
    y = layer(x) if module == "convnext" else layer([x, x])
    np.testing.assert_array_equal(y, [[0.5, 0.5]] if module == "convnext" else [[4, 4]])


def test_a_new_head_is_trained_and_then_all():
    base = small(include_top=False, pooling="avg")
    base.trainable = False
    inputs = keras.Input((32, 32, 3))
    outputs = layers.Dense(1)(base(inputs, training=False))
    model = keras.Model(inputs, outputs)
    assert len(model.trainable_weights) == 2
    before = base.get_weights()
    x, y = images(8, 32, 32, 3), np.arange(8.0)
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(x, y, batch_size=4, epochs=1, verbose=0)
    for a, b in zip(before, base.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    base.trainable = True
    model.compile(keras.optimizers.Adam(1e-3), "mse", run_eagerly=True)
    model.fit(x, y, batch_size=4, epochs=1, verbose=0)
    named = {weight.path.rsplit("/", 1)[-1] for weight in base.non_trainable_weights}
    assert named == {"moving_mean", "moving_variance"}
    changed = [np.any(a != b.numpy()) for a, b in zip(before, base.weights, strict=True)]
    moving = [w.path.endswith(("moving_mean", "moving_variance")) for w in base.weights]
    assert not np.any(np.logical_and(changed, moving))  # training=False stays what it was
    assert np.mean(changed) > 0.5


# What goes in and comes out


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("tf", [-0.2156863, -0.9921569, 1.0]),
        ("caffe", [151.061, -115.779, -23.68]),
        ("torch", [-0.4054287, -2.0182073, 2.64]),
    ],
)
def test_pixels(mode, expected):
    scale, pixel = applications.imagenet_utils.preprocess_input, np.array([100, 1, 255])
    alone = np.tile(pixel, (2, 3, 1))
    batch = np.stack([alone, alone])
    symbol = keras.Input((2, 3, 3))
    model = keras.Model(symbol, scale(symbol, mode=mode))
    for found in (
        scale(alone, mode=mode),
        scale(batch, mode=mode),
        scale(tf.constant(batch, "float32"), mode=mode),
        model(batch.astype(np.float32)),
        np.moveaxis(scale(np.moveaxis(batch, 3, 1), "channels_first", mode), 1, 3),
    ):
        np.testing.assert_allclose(
            np.asarray(found)[..., 0, 0, :].reshape(-1, 3)[0], expected, 1e-5
        )
        assert found.dtype == np.float32
    given = batch.astype(np.float32)
    found = scale(given, mode=mode)
    assert np.shares_memory(found, given)


def test_other_channels_than_three():
    scale = imagenet_utils.preprocess_input
    found = scale(tf.constant([[[1.0, 2.0, 3.0, 4.0]]]))  # opacity goes
    np.testing.assert_allclose(found, [[[-100.939, -114.779, -122.68]]], rtol=1e-6)
    film = images(1, 3, 2, 4, 5)
    expected = np.moveaxis(scale(np.moveaxis(film, 1, -1).copy(), mode="torch"), -1, 1)
    np.testing.assert_allclose(scale(film, "channels_first", "torch"), expected, rtol=1e-5)
    with pytest.raises(IndexError):
        scale(np.zeros((2, 2, 1)))


def test_every_network_has_its_own_mode():
    modes = {"resnet50": "caffe", "vgg19": "caffe", "densenet": "torch", "nasnet": "tf"}
    for module, mode in modes.items():
        found = getattr(applications, module).preprocess_input(images(1, 2, 2, 3))
        wanted = imagenet_utils.preprocess_input(images(1, 2, 2, 3), mode=mode)
        np.testing.assert_array_equal(found, wanted)
    for module in ("convnext", "efficientnet", "efficientnet_v2", "mobilenet_v3"):
        x = images(1, 2, 2, 3)
        assert getattr(applications, module).preprocess_input(x) is x
    with pytest.raises(ValueError, match="'sepia'"):
        imagenet_utils.preprocess_input(images(2, 2, 3), mode="sepia")
    with pytest.raises(ValueError, match="'channels'"):
        applications.vgg16.preprocess_input(images(2, 2, 3), data_format="channels")


def test_predictions_are_named(tmp_path, monkeypatch):
    index = tmp_path / "index.json"
    index.write_text(json.dumps({str(i): [f"n{i}", f"thing {i}"] for i in range(1000)}))
    monkeypatch.setattr(imagenet_utils, "get_file", lambda *args, **options: str(index))
    imagenet_utils._class_names.cache_clear()
    rows = np.zeros((2, 1000), np.float32)
    rows[0, [7, 9]], rows[1, 3] = (0.25, 0.75), 1
    first, second = applications.resnet50.decode_predictions(tf.constant(rows), top=2)
    assert first == [("n9", "thing 9", 0.75), ("n7", "thing 7", 0.25)]
    assert second[0] == ("n3", "thing 3", 1.0) and len(second) == 2
    with pytest.raises(ValueError, match=r"not an array of shape \(2, 10\)"):
        imagenet_utils.decode_predictions(rows[:, :10])
    imagenet_utils._class_names.cache_clear()


def test_an_image_is_padded_for_a_stride_of_two_as_by_keras():
    pad = imagenet_utils.correct_pad
    assert pad(keras.Input((16, 9, 3)), 3) == ((0, 1), (1, 1))
    assert pad(keras.Input((16, 9, 3)), (5, 3)) == ((1, 2), (1, 1))
    assert pad(keras.Input((None, None, 3)), 5) == ((1, 2), (1, 2))
