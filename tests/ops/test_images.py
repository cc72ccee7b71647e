"""tf.image: what is drawn at random, what is refused, and what a captured function does."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.ops.streams import stream


def pictures(*shape):
    return tf.constant(np.random.default_rng(5).uniform(0.1, 0.9, shape).astype(np.float32))


ONE, MANY = pictures(5, 4, 3), pictures(64, 5, 4, 3)
RANDOM = {
    "flip_left_right": (),
    "flip_up_down": (),
    "brightness": (0.3,),
    "contrast": (0.5, 1.5),
    "hue": (0.2,),
    "saturation": (0.5, 1.5),
    "crop": ((3, 2, 3),),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_changes_depend_on_their_seed_alone(name):
    stateless = getattr(tf.image, f"stateless_random_{name}")
    first = stateless(ONE, *RANDOM[name], seed=(1, 2)).numpy()
    np.testing.assert_array_equal(first, stateless(ONE, *RANDOM[name], seed=(1, 2)).numpy())
    others = [stateless(ONE, *RANDOM[name], seed=(1, n)).numpy() for n in range(3, 9)]
    assert any(not np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("name", RANDOM)
def test_random_changes_come_from_the_stream_of_the_shard(name):
    """What a virtual shard draws does not depend on who runs it."""
    change = getattr(tf.image, f"random_{name}")

    def drawn(shard):
        with stream(seed=3, step=7, shard=shard):
            return np.stack([change(ONE, *RANDOM[name]).numpy() for _ in range(4)])

    np.testing.assert_array_equal(drawn(2), drawn(2))
    assert any(not np.array_equal(drawn(2), drawn(other)) for other in range(3, 8))


@pytest.mark.parametrize("name", ["flip_left_right", "brightness", "hue", "crop"])
def test_a_captured_function_draws_anew_at_each_call(name):
    change = getattr(tf.image, f"random_{name}")

    @tf.function(jit_compile="strict")  # which raises where it would run eagerly
    def step(image):
        return change(image, *RANDOM[name])

    found = [step(ONE).numpy() for _ in range(8)]
    assert len({each.tobytes() for each in found}) > 1


def test_flips_are_each_images_own_and_take_half_of_them():
    flipped = tf.image.random_flip_left_right(MANY, seed=4).numpy()
    same = np.array([np.array_equal(a, b) for a, b in zip(flipped, MANY.numpy(), strict=True)])
    turned = np.array(
        [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, MANY.numpy(), strict=True)]
    )
    assert (same ^ turned).all() and 16 < same.sum() < 48


def test_random_crops_reach_every_corner_and_lie_inside():
    x = tf.constant(np.arange(12).reshape(3, 4))
    found = {tuple(tf.image.random_crop(x, (2, 3)).numpy().ravel()) for _ in range(200)}
    expected = {tuple(x.numpy()[i : i + 2, j : j + 3].ravel()) for i in range(2) for j in range(2)}
    assert found == expected


def test_brightness_keeps_to_its_range_in_any_dtype():
    for dtype in (tf.float16, tf.float64, tf.uint8):
        image = tf.image.convert_image_dtype(ONE, dtype)
        changed = tf.image.random_brightness(image, 0.1)
        assert changed.dtype == dtype
        wide = tf.image.convert_image_dtype(changed, tf.float32) - ONE
        assert abs(wide.numpy()).max() < 0.11


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: tf.image.random_contrast(ONE, 1.0, 0.5),
        lambda: tf.image.random_hue(ONE, 0.6),
        lambda: tf.image.random_crop(ONE, (9, 1, 3)),
        lambda: tf.image.central_crop(ONE, 0.0),
        lambda: tf.image.crop_to_bounding_box(ONE, 3, 0, 3, 1),
        lambda: tf.image.pad_to_bounding_box(ONE, 0, 0, 4, 9),
        lambda: tf.image.rgb_to_hsv(ONE[..., :2]),
        lambda: tf.image.adjust_gamma(ONE, -1),
        lambda: tf.image.ssim(ONE, ONE, 1.0),  # smaller than the filter
        lambda: tf.image.psnr(ONE, ONE[:3], 1.0),
        lambda: tf.image.extract_patches(MANY, [1, 2, 2, 2], [1] * 4, [1] * 4, "VALID"),
        lambda: tf.image.crop_and_resize(MANY, [[0.0, 0, 1, 1]], [64], (2, 2)),
        lambda: tf.image.non_max_suppression([[0.0, 0, 1, 1]], [0.5, 0.1], 3),
        lambda: tf.image.image_gradients(ONE),
        lambda: tf.image.resize_with_pad(ONE, 0, 2),
    ],
)
def test_what_does_not_fit_is_a_value_error(wrong):
    with pytest.raises(ValueError, match=r"\d"):
        wrong()


def test_hue_and_back_is_the_same_image():
    around = tf.image.hsv_to_rgb(tf.image.rgb_to_hsv(ONE))
    np.testing.assert_allclose(around.numpy(), ONE.numpy(), atol=1e-6)
    gray = tf.constant(np.full((2, 2, 3), 0.4, np.float32))
    with tf.GradientTape() as tape:
        tape.watch(gray)
        hsv = tf.image.rgb_to_hsv(gray)
    assert hsv.numpy()[0, 0].tolist() == pytest.approx([0, 0, 0.4])
    assert np.isfinite(tape.gradient(hsv, gray).numpy()).all()


def test_patches_of_whole_blocks_are_the_image_rearranged():
    """As vision transformers cut them."""
    patches = tf.image.extract_patches(MANY[:, :4], [1, 2, 2, 1], [1, 2, 2, 1], [1] * 4, "VALID")
    expected = MANY.numpy()[:, :4].reshape(64, 2, 2, 2, 2, 3).swapaxes(2, 3).reshape(64, 2, 2, 12)
    np.testing.assert_array_equal(patches.numpy(), expected)


def test_captured_functions_give_what_eager_ones_do():
    def both(image):
        standard = tf.image.per_image_standardization(image)
        edges = tf.image.sobel_edges(tf.image.adjust_saturation(image, 1.5))
        return standard, edges, tf.image.resize_with_crop_or_pad(image, 7, 2)

    for ours, theirs in zip(tf.function(both, jit_compile="strict")(MANY), both(MANY), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_crops_of_boxes_of_another_dtype():
    image = np.arange(0, 18, 2).astype("float32").reshape(1, 3, 3, 1)
    found = tf.image.crop_and_resize(image, np.asarray([[0.5, 0.5, 1, 1]]), [0], [3, 3])
    assert found[0, :, :, 0].numpy().tolist() == [[8, 9, 10], [11, 12, 13], [14, 15, 16]]
