"""Rescaling and Normalization."""

import contextlib

import numpy as np
import pytest

import distgrad as tf
from distgrad.data.dataset import Dataset

layers = tf.keras.layers
DATA = (np.random.default_rng(0).normal(size=(50, 3)) * [1, 5, 0] + [1000, 2, 4]).astype("float32")


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        DATA.astype(np.float64),
        tf.constant(DATA),
        Dataset.from_tensor_slices(DATA).batch(7),
        Dataset.from_tensor_slices((DATA, np.arange(50))).batch(8),
        Dataset.from_tensor_slices(DATA),
        [DATA[:1], DATA[1:30], DATA[30:]],
    ],
    ids=["array", "float64", "tensor", "batches", "pairs", "rows", "list"],
)
def test_adapt(data):
    layer = layers.Normalization()
    layer.adapt(data)
    exact = DATA.astype(np.float64)
    np.testing.assert_allclose(layer.mean.numpy(), exact.mean(axis=0)[None], rtol=1e-7)
    np.testing.assert_allclose(layer.variance.numpy(), exact.var(axis=0)[None], rtol=1e-6)
    y = layer(DATA).numpy()
    # 1000 with a deviation of 1: its third decimal is the last that float32 has.
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(axis=0), [1, 1, 0], atol=1e-6)
    assert [w.name for w in layer.weights] == ["mean", "variance", "count"]
    assert not layer.trainable_variables


def test_adapt_to_one_feature_of_rank_1():
    layer = layers.Normalization(axis=None)
    layer.adapt(DATA[:, 1])
    assert float(layer.mean[0]) == np.float32(DATA[:, 1].astype(np.float64).mean())


def test_adapt_again_forgets_the_first():
    layer = layers.Normalization()
    layer.adapt(DATA + 7)
    layer.adapt(DATA)
    other = layers.Normalization()
    other.adapt(DATA)
    np.testing.assert_array_equal(layer.mean.numpy(), other.mean.numpy())


def test_normalization_in_a_model_that_trains():
    layer = layers.Normalization()
    layer.adapt(DATA)
    model = tf.keras.Sequential([layer, layers.Dense(1)])
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    before = layer.get_weights()
    losses = model.fit(DATA, DATA[:, 1], epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.05 * losses[0]
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def given(**settings):
    return layers.Normalization(**settings)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: given(mean=1.0), "variance None"),
        (lambda: given(mean=[1.0, 2.0], variance=[1.0]), r"\(2,\) and \(1,\)"),
        (lambda: given(axis=None, mean=[1.0], variance=[1.0]), "axis"),
        (lambda: given(axis=2).build((None, 3)), r"axis \(2,\)"),
        (lambda: given().build((None, None)), "known"),
        (lambda: given(mean=1.0, variance=1.0).adapt(DATA), "does not adapt"),
        (lambda: given().adapt([]), "no data"),
        (lambda: given().adapt([DATA[:2], DATA[:2, :1]]), r"\(2, 1\)"),
        (lambda: given().adapt(3), "3"),
        (lambda: given(scale=2), "scale"),
    ],
)
def test_wrong_use_is_a_value_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_images_in_bytes_become_floats():
    images = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(layers.Rescaling(1 / 255)(images).numpy(), [[0, 0.2, 1]], rtol=1e-6)


def test_a_scale_for_each_channel_where_channels_come_first():
    images = np.ones((1, 3, 2, 2), np.float32)
    tf.keras.config.set_image_data_format("channels_first")
    try:
        scaled = layers.Rescaling([1.0, 2.0, 3.0], offset=1.0)(images).numpy()
    finally:
        tf.keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(scaled[0, :, 0, 0], [2, 3, 4])


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_resizing(interpolation):
    images = np.random.default_rng(0).integers(0, 255, (2, 6, 8, 3)).astype(np.uint8)
    layer = layers.Resizing(3, 4, interpolation=interpolation)
    resized = tf.image.resize(images.astype(np.float32), (3, 4), interpolation)
    np.testing.assert_array_equal(layer(images.astype(np.float32)), resized)
    np.testing.assert_array_equal(layer(images), np.round(resized))
    assert layer(images).dtype == "uint8"
    assert layers.Resizing(3, 4)(tf.keras.Input((None, None, 1))).shape == (None, 3, 4, 1)
    twin = layers.Resizing.from_config(layer.get_config())
    np.testing.assert_array_equal(twin(images), layer(images))


def test_sizes_of_one_image_alone():
    x = np.random.default_rng(0).normal(size=(5, 8, 2)).astype(np.float32)
    for layer in (layers.CenterCrop(3, 4), layers.CenterCrop(6, 2), layers.Resizing(4, 3)):
        np.testing.assert_array_equal(layer(x), layer(x[None])[0])
    np.testing.assert_array_equal(layers.CenterCrop(3, 4)(x), x[1:4, 2:6])


def test_resizing_pads_to_the_new_form():
    wide = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    layer = layers.Resizing(4, 4, "nearest", pad_to_aspect_ratio=True, fill_value=9)
    expected = np.concatenate([np.full((1, 4), 9), wide[..., 0], np.full((1, 4), 9)])
    np.testing.assert_array_equal(layer(wide)[..., 0], expected)
    np.testing.assert_array_equal(layer(wide[None])[0, ..., 0], expected)
    for options in ({"crop_to_aspect_ratio": True}, {"fill_mode": "reflect"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            layers.Resizing(4, 4, pad_to_aspect_ratio=True, **options)


def test_resizing_of_whole_numbers_rounds():
    row = np.array([0, 255, 1], np.uint8).reshape(1, 3, 1)
    y = layers.Resizing(1, 6)(row)  # a quarter of the neighbour, or three
    assert y.dtype == tf.uint8
    np.testing.assert_array_equal(y[0, :, 0], [0, 64, 191, 192, 64, 1])


def test_whole_numbers_become_floats_where_a_dataset_is_resized():
    row = np.array([[[0], [10]]], np.uint8)
    layer = layers.Resizing(1, 4)
    (mapped,) = tf.data.Dataset.from_tensors(row).map(layer)
    assert mapped.dtype == tf.float32 and mapped.numpy().ravel().tolist() == [0.0, 2.5, 7.5, 10.0]
    assert layer(row).numpy().ravel().tolist() == [0, 2, 8, 10] and layer(row).dtype == tf.uint8


def test_every_layer_that_takes_no_arguments_comes_back_from_its_config():
    layers = tf.keras.layers
    given = [getattr(layers, name) for name in dir(layers)]
    classes = {c for c in given if isinstance(c, type) and issubclass(c, layers.Layer)}
    made = []
    for each in classes:
        with contextlib.suppress(TypeError, ValueError, NotImplementedError):
            made.append(each())
    for layer in made:
        again = layers.deserialize(layers.serialize(layer))
        assert type(again) is type(layer)
    assert {"MelSpectrogram", "BatchNormalization", "GlobalMaxPooling2D"} <= {
        type(m).__name__ for m in made
    }


def test_bins_that_are_not_found_yet_have_a_shape():
    inputs = tf.keras.Input((3,))
    layer = tf.keras.layers.Discretization(num_bins=4, output_mode="one_hot")
    model = tf.keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, 3, 4)
    with pytest.raises(ValueError, match="no boundaries yet"):
        model(np.ones((2, 3), "f"))
    layer.adapt(np.arange(12.0))
    np.testing.assert_array_equal(np.argmax(model(np.array([[0.0, 4.5, 11.0]])), -1), [[0, 1, 3]])


def test_a_pipeline_hands_on_a_mask_to_layers_that_take_one():
    class Kept(tf.keras.layers.Layer):
        def call(self, x, mask=None):
            return x if mask is None else x * tf.cast(mask, x.dtype)

    pipeline = tf.keras.layers.Pipeline([Kept(), tf.keras.layers.Rescaling(2.0)])
    found = pipeline(np.ones((1, 2), "f"), mask=np.array([[True, False]]))
    np.testing.assert_array_equal(found, [[2, 0]])
    with pytest.raises(ValueError, match="layers"):
        tf.keras.layers.Pipeline.from_config({"name": "p"})


def test_no_operations_leave_an_image_as_it_is():
    image = np.ones((4, 4, 3), "f")
    found = tf.keras.layers.RandAugment(num_ops=0)(image, training=True)
    np.testing.assert_array_equal(found, image)
    with pytest.raises(ValueError, match="positive height"):
        tf.keras.ops.image.resize(image, (0, 3))
