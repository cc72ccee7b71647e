"""keras.preprocessing.image.ImageDataGenerator: what it does to images, and batches of arrays."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import distgrad as tf
from distgrad.data.loader import BatchLoader

image = tf.keras.preprocessing.image
Generator = image.ImageDataGenerator
RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0, 255, (7, 4, 4, 3)).astype("f"), np.arange(7)


def test_parameters_are_drawn_in_the_order_of_keras():
    generator = Generator(
        rotation_range=30, width_shift_range=0.5, height_shift_range=[1, 3], shear_range=2,
        zoom_range=0.25, horizontal_flip=True, channel_shift_range=4, brightness_range=(1, 2),
    )  # fmt: skip
    found, rng = generator.get_random_transform((4, 6, 3), seed=5), np.random.RandomState(5)
    expected = {"theta": rng.uniform(-30, 30)}
    expected["tx"] = rng.choice([1, 3]) * rng.choice([-1, 1])
    expected["ty"] = 6 * rng.uniform(-0.5, 0.5)
    expected["shear"] = rng.uniform(-2, 2)
    expected["zx"], expected["zy"] = rng.uniform(0.75, 1.25, 2)
    expected["flip_horizontal"] = rng.random_sample() < 0.5
    expected["flip_vertical"] = (rng.random_sample() < 0.5) * 0
    expected["channel_shift_intensity"] = rng.uniform(-4, 4)
    expected["brightness"] = rng.uniform(1, 2)
    assert found == expected
    still = Generator().get_random_transform((4, 6, 3))
    assert still == {
        "theta": 0, "tx": 0, "ty": 0, "shear": 0, "zx": 1, "zy": 1, "flip_horizontal": 0,
        "flip_vertical": 0, "channel_shift_intensity": None, "brightness": None,
    }  # fmt: skip
    pixels = Generator(width_shift_range=3).get_random_transform((4, 6, 3), seed=1)["ty"]
    assert pixels in (-2, -1, 0, 1, 2)


def test_given_changes():
    generator, x = Generator(fill_mode="constant", cval=1.0), X[0]
    flipped = generator.apply_transform(x, {"flip_horizontal": True, "flip_vertical": True})
    np.testing.assert_array_equal(flipped, x[::-1, ::-1])
    moved = generator.apply_transform(x, {"ty": 1, "channel_shift_intensity": 500.0})
    assert moved[:3].min() == moved.max() == x.max() and moved.shape == x.shape
    first = Generator(data_format="channels_first")
    np.testing.assert_array_equal(
        first.apply_transform(x, {"flip_horizontal": True, "tx": 0}), x[:, :, ::-1]
    )
    turned = Generator(rotation_range=50)
    np.testing.assert_array_equal(
        turned.random_transform(x, seed=2),
        turned.apply_transform(x, turned.get_random_transform(x.shape, seed=2)),
    )


def test_scale_of_one_image():
    x = X[0].copy()
    generator = Generator(rescale=0.5, preprocessing_function=lambda each: each + 2)
    np.testing.assert_allclose(generator.standardize(x.copy()), (x + 2) / 2, rtol=1e-6)
    with pytest.warns(UserWarning, match="overrides setting of `samplewise_center`"):
        generator = Generator(samplewise_std_normalization=True)
    found = generator.standardize(x.copy())
    np.testing.assert_allclose(found, (x - x.mean()) / (x.std() + 1e-6), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_statistics_of_features(data_format):
    axes = (0, 1, 2) if data_format == "channels_last" else (0, 2, 3)
    x = X if data_format == "channels_last" else X.transpose(0, 3, 1, 2)
    generator = Generator(True, featurewise_std_normalization=True, data_format=data_format)
    with pytest.warns(UserWarning, match="hasn't been fit") as said:
        generator.standardize(x[0].copy())
    assert len(said) == 2
    generator.fit(x)
    np.testing.assert_allclose(generator.mean.ravel(), x.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(generator.std.ravel(), x.std(axes), rtol=1e-5)
    (batch,) = BatchLoader(generator.flow(x, batch_size=7), 1, range(1)).epoch(0)
    found = batch.shards[0][1][0]
    np.testing.assert_allclose(found.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axes), 1, rtol=1e-5)


def test_statistics_are_of_rescaled_and_changed_images():
    generator = Generator(featurewise_center=True, rescale=0.5, rotation_range=90)
    generator.fit(X, augment=True, rounds=2, seed=3)
    np.random.seed(3)
    changed = [generator.random_transform(x) for _ in range(2) for x in X / 2]
    np.testing.assert_allclose(generator.mean[0, 0], np.mean(changed, (0, 1, 2)), rtol=1e-5)


def test_whitening_leaves_no_correlation():
    x = RNG.normal(size=(40, 2, 2, 1)) @ np.full((1, 1), 3.0) + RNG.normal(size=(40, 1, 1, 1))
    with pytest.warns(UserWarning, match="`zca_whitening`, which overrides"):
        generator = Generator(zca_whitening=True, featurewise_std_normalization=True)
    assert generator.featurewise_center and not generator.featurewise_std_normalization
    generator.fit(x)
    white = np.stack([generator.standardize(each.astype("f")) for each in x]).reshape(40, -1)
    np.testing.assert_allclose(white.T @ white / 40, np.eye(4), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"zoom_range": (1, 2, 3)}, "zoom_range"),
        ({"brightness_range": 0.5}, "brightness_range"),
        ({"validation_split": 1.5}, "strictly between 0 and 1. Received: 1.5"),
        ({"data_format": "middle"}, "data_format"),
    ],
)
def test_wrong_ranges(settings, words):
    with pytest.raises(ValueError, match=words):
        Generator(**settings)


def test_next_gives_epochs_without_end():
    batches = Generator().flow(X, Y, batch_size=3, seed=4)
    assert isinstance(batches, image.NumpyArrayIterator) and isinstance(batches, image.Iterator)
    assert len(batches) == 3 and batches.n == 7 and iter(batches) is batches
    state = np.random.get_state()[1]
    for epoch in range(2):
        order = np.random.RandomState(4 + 3 * epoch).permutation(7)  # the numbers of Keras
        for part in (order[:3], order[3:6], order[6:]):
            x, y = next(batches)
            np.testing.assert_array_equal(y, part)
            np.testing.assert_array_equal(x, X[part])
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # those of others go on
    next(batches)
    batches.reset()
    np.testing.assert_array_equal(next(batches)[1], np.random.RandomState(11).permutation(7)[:3])


def test_batches_by_number():
    batches = Generator(rotation_range=90).flow(X, Y, batch_size=3, shuffle=False)
    np.random.seed(0)
    x, y = batches[0]
    assert y.tolist() == [0, 1, 2] and batches[-1][1].tolist() == [6]
    assert (batches[0][0] != x).any()  # changed anew
    np.random.seed(0)
    np.testing.assert_array_equal(batches[0][0], x)
    with pytest.raises(ValueError, match="element 3, but the Sequence has length 3"):
        batches[3]
    shuffled = Generator().flow(X, Y, batch_size=7, seed=1)
    before = shuffled[0][1]
    np.testing.assert_array_equal(shuffled[0][1], before)
    shuffled.on_epoch_end()
    assert (shuffled[0][1] != before).any()


def test_two_flows_of_a_seed_go_together():
    images = Generator(rotation_range=90).flow(X, batch_size=3, seed=1)
    masks = Generator(rotation_range=90).flow(X[..., :1], batch_size=3, seed=1)
    for _ in range(5):
        np.testing.assert_array_equal(next(images)[..., :1], next(masks))


def seen(batches, epochs, shards=range(2), seed=0):
    """The samples that one worker sees of two shards."""
    loader = BatchLoader(batches, 2, shards, seed)
    return [[part for batch in loader.epoch(epoch) for _, part in batch.shards] for epoch in epochs]


@pytest.mark.parametrize("seed", [None, 3])
def test_all_workers_see_the_same_batches(seed):
    """Also one that begins with a later epoch, and one that was read before."""

    def flow():
        return Generator(rotation_range=90).flow(X, Y, batch_size=3, seed=seed)

    first, second = seen(flow(), [0, 1], seed=5)
    assert sorted(np.concatenate([y for _, y in first])) == list(range(7))
    read = flow()
    next(read), read[1]
    later = seen(read, [1], range(1, 2), seed=5)[0]
    expected = [second[1], second[3], second[4]]  # the last batch has one sample
    for (x, y), (own, target) in zip(later, expected, strict=True):
        np.testing.assert_array_equal(x, own)
        np.testing.assert_array_equal(y, target)
    assert any((a != b).any() for (_, a), (_, b) in zip(first, second, strict=True))
    other = seen(flow(), [0], seed=6)[0]
    same = all((a == b).all() for (a, _), (b, _) in zip(first, other, strict=True))
    assert same == (seed is not None)


def test_parts_of_a_batch():
    weights = np.arange(7) / 2
    held = {"shuffle": False, "batch_size": 2, "ignore_class_split": True}
    generator = Generator(validation_split=0.3)
    x, y, w = generator.flow((X, [Y, Y * 2]), Y, sample_weight=weights, subset="training", **held)[
        0
    ]
    assert (x[1].tolist(), x[2].tolist(), y.tolist()) == ([2, 3], [4, 6], [2, 3])
    np.testing.assert_array_equal(w, [1, 1.5])
    np.testing.assert_array_equal(x[0], X[2:4])
    assert generator.flow(X, Y, subset="validation", **held)[0][1].tolist() == [0, 1]
    with pytest.raises(ValueError, match="different number of classes"):
        generator.flow(X, Y, subset="validation")
    with pytest.raises(ValueError, match="Invalid subset name: some"):
        generator.flow(X, Y, subset="some")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((X, Y[1:]), r"same length. Found: x.shape = \(7, 4, 4, 3\), y.shape = \(6,\)"),
        (((X, Y[1:]), Y), "len\\(x\\[0\\]\\) = 7"),
        (([X, Y, Y], Y), "not 3 things"),
        ((X[0],), "rank 4"),
    ],
)
def test_arrays_that_do_not_fit(given, words):
    with pytest.raises(ValueError, match=words):
        Generator().flow(*given)


def test_other_numbers_of_channels_are_warned_of():
    with pytest.warns(UserWarning, match=r"channels on axis 3.*\(2 channels\)"):
        Generator().flow(X[..., :2])
    with pytest.raises(ValueError, match="rank 4"):
        Generator(featurewise_center=True).fit(X[0])


def test_images_are_saved(tmp_path):
    pytest.importorskip("PIL")
    flow = Generator().flow(X, batch_size=2, shuffle=False, save_to_dir=tmp_path, save_prefix="a")
    next(flow)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name[:4] for name in names] == ["a_0_", "a_1_"] and names[0].endswith(".png")


def test_a_model_takes_batches():
    model = tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(7)])
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(True), run_eagerly=True)
    flow = Generator(rescale=1 / 255, horizontal_flip=True).flow(X, Y, batch_size=3)
    plain = Generator(rescale=1 / 255).flow(X, Y, batch_size=3, shuffle=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = model.fit(flow, epochs=2, validation_data=plain, verbose=0).history
    assert len(history["val_loss"]) == 2
    scaled = X.astype(np.float32) * np.float32(1 / 255)
    same = {"batch_size": 3, "verbose": 0}
    assert model.evaluate(plain, verbose=0) == model.evaluate(scaled, Y, **same)
    np.testing.assert_array_equal(model.predict(plain, verbose=0), model.predict(scaled, **same))
