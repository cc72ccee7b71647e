"""Random layers for images: what they draw, in training alone, and alike for any worker count."""

from __future__ import annotations

import json

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.tree import worker_shards
from distgrad.compile.llvm import engine
from distgrad.core import devices
from distgrad.data.loader import cut
from distgrad.ops.warp import FILL_MODES, INTERPOLATIONS, warp
from distgrad.testing.gradients import check_gradients
from distgrad.testing.thread_world import run_world
from distgrad.training.step import TrainStep

layers = tf.keras.layers
IMAGES = np.random.default_rng(0).uniform(0, 255, (6, 5, 8, 3)).astype(np.float32)
MAKE = {
    "flip": lambda **k: layers.RandomFlip(**k),
    "rotation": lambda **k: layers.RandomRotation(0.2, **k),
    "translation": lambda **k: layers.RandomTranslation(0.2, (-0.1, 0.3), **k),
    "zoom": lambda **k: layers.RandomZoom(0.3, (-0.2, 0.1), **k),
    "crop": lambda **k: layers.RandomCrop(3, 5, **k),
    "contrast": lambda **k: layers.RandomContrast(0.5, **k),
    "brightness": lambda **k: layers.RandomBrightness(0.5, **k),
    "hue": lambda **k: layers.RandomHue(0.5, **k),
    "saturation": lambda **k: layers.RandomSaturation(0.9, **k),
    "gray": lambda **k: layers.RandomGrayscale(0.5, **k),
    "degeneration": lambda **k: layers.RandomColorDegeneration(0.5, **k),
    "jitter": lambda **k: layers.RandomColorJitter((0, 255), 0.2, 0.2, 0.7, 0.1, **k),
    "shear": lambda **k: layers.RandomShear(0.3, (0.1, 0.2), **k),
    "erasing": lambda **k: layers.RandomErasing((1, 1), (0.2, 0.5), **k),
    "sharpness": lambda **k: layers.RandomSharpness(0.9, **k),
    "blur": lambda **k: layers.RandomGaussianBlur((1, 1), 3, (0.3, 1), **k),
    "elastic": lambda **k: layers.RandomElasticTransform((1, 1), (0.5, 1), **k),
    "perspective": lambda **k: layers.RandomPerspective((1, 1), 0.5, **k),
    "invert": lambda **k: layers.RandomInvert(**k),
    "posterization": lambda **k: layers.RandomPosterization(6, **k),
    "solarization": lambda **k: layers.Solarization(0.3, 0.9, **k),
    "rand_augment": lambda **k: layers.RandAugment(**k),
    "aug_mix": lambda **k: layers.AugMix(num_chains=2, chain_depth=2, **k),
}
every_layer = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


@every_layer
def test_random_in_training_only(make):
    tf.random.set_seed(4)
    layer = make()
    first, second, by_default = layer(IMAGES, training=True), layer(IMAGES, True), layer(IMAGES)
    assert (first.numpy() != second.numpy()).any() and (by_default.numpy() != first.numpy()).any()
    still = layer(IMAGES, training=False).numpy()
    np.testing.assert_array_equal(still, layer(IMAGES, training=False).numpy())
    assert still.shape == first.shape
    if still.shape == IMAGES.shape:
        np.testing.assert_array_equal(still, IMAGES)
    assert layer(IMAGES.astype(np.uint8)).dtype == tf.float32 and not layer.weights
    assert layer.compute_output_shape((None, 5, 8, 3))[1:] == tuple(still.shape[1:])


@every_layer
def test_one_image_channels_first_and_seeds(make):
    def drawn(images, **options):
        tf.random.set_seed(1)
        return make(seed=3, **options)(images)

    np.testing.assert_array_equal(drawn(IMAGES[0]), drawn(IMAGES[:1])[0])
    expected = drawn(IMAGES)
    first = drawn(IMAGES.transpose(0, 3, 1, 2), data_format="channels_first")
    np.testing.assert_allclose(first.numpy().transpose(0, 2, 3, 1), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="rank 3 or a batch of rank 4"):
        make()(IMAGES[0, 0])


@every_layer
def test_a_dict_of_images_and_labels(make):
    def drawn(data, training=True):
        tf.random.set_seed(1)
        return make()(data, training=training)

    labels = np.arange(6)
    for training in (True, False):
        made = drawn({"images": IMAGES, "labels": labels}, training)
        np.testing.assert_array_equal(made["images"], drawn(IMAGES, training))
        np.testing.assert_array_equal(made["labels"], labels)
        assert made["labels"].dtype == tf.int64 and list(drawn({"images": IMAGES})) == ["images"]
    for wrong, words in (
        ({"images": IMAGES, "bounding_boxes": labels}, "no bounding_boxes"),
        ({"images": IMAGES, "segmentation_masks": labels}, "no segmentation_masks"),
        ({"labels": labels}, "a dict with 'images'"),
    ):
        with pytest.raises(ValueError, match=words):
            make()(wrong)


@every_layer
def test_config(make):
    layer = make(seed=3, name="here")
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    tf.random.set_seed(1)
    expected = layer(IMAGES)
    tf.random.set_seed(1)
    np.testing.assert_array_equal(again(IMAGES), expected)


def test_ranges_of_what_is_drawn():
    tf.random.set_seed(4)
    many = np.broadcast_to(IMAGES[:1], (400, 5, 8, 3))
    flipped = layers.RandomFlip("horizontal")(many).numpy()
    mirrored = (flipped == many[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((flipped == many).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250
    both = layers.RandomFlip()(many).numpy()
    assert ((both == many[:, ::-1, ::-1]) | (both == many)).all()
    grey = np.full((400, 2, 2, 1), 100, np.float32)
    added = layers.RandomBrightness((-0.2, 0.1))(grey).numpy()[:, 0, 0, 0] - 100
    assert -51 <= added.min() < -45 and 20 < added.max() <= 25.6
    parts = {tuple(layers.RandomCrop(2, 3)(IMAGES).numpy()[0, 0, 0]) for _ in range(80)}
    corners = {tuple(IMAGES[0, i, j]) for i in range(4) for j in range(6)}
    assert parts <= corners and len(parts) > 12
    contrast = layers.RandomContrast((0.2, 0.3), (-1e9, 1e9))(many).numpy()
    times = contrast.std(axis=(1, 2)) / many.std(axis=(1, 2))
    assert 0.8 - 1e-3 < times.min() < 0.85 and 1.25 < times.max() < 1.3 + 1e-3


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("fill_mode", FILL_MODES)
def test_gradient_of_a_warp(fill_mode, interpolation):
    rng = np.random.default_rng(1)
    maps = (np.array([1, 0, 0, 0, 1, 0]) + rng.normal(size=(2, 6)) * ([0.3, 0.3, 3] * 2)).astype(
        "f"
    )
    images = rng.normal(size=(2, 4, 5, 2))
    check_gradients(lambda x: warp(x, tf.constant(maps), interpolation, fill_mode, 0.5), [images])


def network():
    model = tf.keras.Sequential(
        [
            layers.Rescaling(1 / 255),
            layers.RandomFlip(seed=1),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.2, fill_mode="constant"),
            layers.RandomTranslation(0.1, 0.1, "wrap"),
            layers.RandomCrop(5, 5),
            layers.RandomContrast(0.2, (0, 1)),
            layers.RandomBrightness(0.2, (0, 1)),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse")
    model.build((None, 6, 6, 1))
    model.layers[-1].kernel.assign(np.linspace(-1, 1, 50).reshape(25, 2))
    return model


def after_steps(world_size: int, executor: str) -> list[np.ndarray]:
    """The weights after steps of six virtual shards on so many workers."""
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 255, (13, 6, 6, 1)).astype("f"), rng.normal(size=(13, 2)).astype("f")
    networks = [network() for _ in range(world_size)]

    def work(communicator):
        model = networks[communicator.rank]
        step = TrainStep.of(model, communicator, 6, 7, executor=executor, strict=True)
        own = worker_shards(6, communicator.rank, world_size)
        for number in range(3):
            batch = cut(number, 13, 6, own, lambda first, last: (x[first:last], y[first:last]))
            step(number, batch)
        return model.get_weights()

    return run_world(world_size, work, time_limit=120)[-1]


ON_CPU = ["numpy", *(["generated"] if engine.available() else [])]
EXECUTORS = ["eager", *(["cuda"] if devices.on_gpu() else ON_CPU)]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_same_bits_for_any_number_of_workers(executor):
    alone = after_steps(1, executor)
    assert (alone[0] != network().get_weights()[0]).any()
    for world_size in (2, 3):
        for found, expected in zip(after_steps(world_size, executor), alone, strict=True):
            np.testing.assert_array_equal(found, expected)
    for found, expected in zip(alone, after_steps(1, "eager"), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_wrong_arguments():
    for call, words in (
        (lambda: layers.RandomFlip("sideways"), "mode must be 'horizontal'"),
        (lambda: layers.RandomRotation("a"), "factor must be a number"),
        (lambda: layers.RandomRotation(1.5), "between -1.0 and 1.0"),
        (lambda: layers.RandomContrast((-0.5, 0.5)), "between 0.0 and 1.0"),
        (lambda: layers.RandomZoom(-1.0), "height_factor must lie"),
        (lambda: layers.RandomZoom(0.1, fill_mode="mirror"), "fill_mode must be"),
        (lambda: layers.RandomZoom(0.1, interpolation="cubic"), "interpolation must be"),
        (lambda: layers.RandomCrop(0, 3), "height must be a positive int"),
        (lambda: layers.RandomBrightness(0.1, 255), "value_range must be"),
        (lambda: layers.CenterCrop(3, 2.5), "width must be a positive int"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_flips_take_a_seed_by_position():
    layer = layers.RandomFlip("vertical", 7, "channels_first")
    assert layer.seed == 7 and layer.data_format == "channels_first"
    images = np.moveaxis(IMAGES, -1, 1)
    for image, flipped in zip(images, layer(images, training=True).numpy(), strict=True):
        assert np.array_equal(flipped, image) or np.array_equal(flipped, image[:, ::-1])


def test_a_model_of_images_to_draw_changes_them_unless_it_is_told_otherwise():
    """As Keras's pages call ``data_augmentation(images)`` to show what it does."""
    x = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    layer, seen = tf.keras.layers.RandomRotation(0.3, seed=1), tf.keras.Input((8, 8, 3))
    for model in [tf.keras.Sequential([layer]), tf.keras.Model(seen, layer(seen))]:
        assert not np.allclose(model(x), x)
        assert np.array_equal(model(x, training=False), x)
        assert np.array_equal(model.predict(x, verbose=0), x)


def test_a_model_made_of_such_layers_draws_nothing_yet():
    seen = tf.keras.Input((8, 8, 3))
    tf.keras.utils.set_random_seed(1)
    expected = tf.random.normal((3,)).numpy()
    tf.keras.utils.set_random_seed(1)
    tf.keras.Sequential([tf.keras.layers.RandomRotation(0.3)])(seen)
    assert np.array_equal(tf.random.normal((3,)), expected)
