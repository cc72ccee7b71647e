"""Files and images in them: tf.io, tf.image's decoders, and datasets of names of files."""

from __future__ import annotations

import io

import numpy as np
import pytest

import distgrad as tf

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)


def saved(image, kind, **settings):
    file = io.BytesIO()
    image.save(file, format=kind, **settings)
    return file.getvalue()


PNG = saved(Image.fromarray(PIXELS), "png")


def test_files(tmp_path):
    path = tmp_path / "new" / "file"
    tf.io.write_file(str(path), b"ab\0")
    assert tf.io.read_file(path).numpy() == b"ab\0"
    assert tf.io.read_file(np.array(str(path))).numpy() == b"ab\0"
    tf.io.write_file(path, "\u00e9")
    assert path.read_bytes() == b"\xc3\xa9"
    with pytest.raises(tf.errors.NotFoundError, match="none; No such file"):
        tf.io.read_file(tmp_path / "none")


@pytest.mark.parametrize("compression", [-1, 9])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_of_an_image_is_the_image(channels, compression):
    pixels = np.concatenate([PIXELS, 255 - PIXELS[..., :1]], axis=2)[..., :channels]
    found = tf.io.decode_png(tf.io.encode_png(tf.constant(pixels), compression))
    assert found.dtype == tf.uint8
    np.testing.assert_array_equal(found, pixels)


def test_a_jpeg_of_an_image_is_nearly_the_image():
    smooth = np.add.outer(np.arange(16), np.arange(24))[..., None].astype(np.uint8) * 3
    found = tf.image.decode_jpeg(tf.image.encode_jpeg(smooth, quality=100), channels=1)
    assert found.shape == (16, 24, 1) and np.abs(found.numpy() - 1.0 * smooth).max() < 5


@pytest.mark.parametrize("decode", [tf.io.decode_image, tf.io.decode_png, tf.io.decode_jpeg])
def test_every_decoder_knows_the_formats_and_turns_channels(decode):
    weighed = PIXELS.astype(int) @ [9797, 19234, 3737] / 2**15
    gray = np.floor(weighed)[..., None]  # rounded down, as libpng does
    for kind in ("png", "bmp"):
        content = saved(Image.fromarray(PIXELS), kind)
        np.testing.assert_array_equal(decode(content), PIXELS)
        np.testing.assert_array_equal(decode(content, channels=1), gray)
        assert decode(content, channels=4).numpy()[..., 3].min() == 255


def test_modes_of_files():
    two = Image.fromarray(PIXELS[..., 0] > 127)
    np.testing.assert_array_equal(
        tf.io.decode_png(saved(two, "png"))[..., 0], 255 * (PIXELS[..., 0] > 127)
    )
    few = Image.fromarray(PIXELS // 128 * 255).quantize(8)  # a palette
    np.testing.assert_array_equal(tf.io.decode_png(saved(few, "png")), PIXELS // 128 * 255)
    inks = Image.fromarray(PIXELS).convert("CMYK")
    assert tf.io.decode_jpeg(saved(inks, "jpeg")).shape == (5, 6, 3)
    deep = np.array([[0, 256, 65535]], np.uint16)
    content = saved(Image.fromarray(deep), "png")
    np.testing.assert_array_equal(tf.io.decode_png(content, dtype=tf.uint16)[..., 0], deep)
    np.testing.assert_array_equal(tf.io.decode_png(content)[..., 0], [[0, 1, 255]])
    np.testing.assert_array_equal(tf.io.decode_png(PNG, dtype=tf.uint16), PIXELS * np.uint16(257))


def test_images_as_floats_and_images_that_move():
    floats = tf.io.decode_image(PNG, dtype=tf.float32)
    np.testing.assert_allclose(floats, PIXELS / 255, rtol=1e-6)
    frames = [Image.fromarray(np.full((4, 5, 3), v, np.uint8)) for v in (0, 255)]
    gif = saved(frames[0], "gif", save_all=True, append_images=frames[1:])
    for found in (tf.io.decode_gif(gif), tf.image.decode_image(gif)):
        assert found.shape == (2, 4, 5, 3) and found.numpy()[:, 0, 0, 0].tolist() == [0, 255]
    first = tf.io.decode_image(gif, channels=3, expand_animations=False)
    assert first.shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: tf.io.decode_image(b""), tf.errors.InvalidArgumentError, "One of JPEG, PNG"),
        (lambda: tf.io.decode_png("a.png"), tf.errors.InvalidArgumentError, "read_file.*'a.png'"),
        (lambda: tf.io.decode_png(PNG, channels=2), ValueError, "channels are .*not 2"),
        (lambda: tf.io.decode_png(PNG, dtype=tf.int32), ValueError, "uint16, not int32"),
        (lambda: tf.io.decode_jpeg(PNG, color=1), TypeError, "unexpected keyword argument .color"),
        (lambda: tf.io.encode_jpeg(PIXELS / 255), ValueError, "not of float64"),
        (lambda: tf.io.encode_png(PIXELS[0]), ValueError, r"of shape \(6, 3\)"),
    ],
)
def test_wrong_use(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_a_dataset_of_the_images_in_files(tmp_path):
    for number in range(4):
        tf.io.write_file(tmp_path / f"{number}.png", tf.io.encode_png(PIXELS + np.uint8(number)))
    names = tf.data.Dataset.list_files(str(tmp_path / "*.png"), shuffle=False)
    images = names.map(tf.io.read_file).map(lambda content: tf.io.decode_png(content, channels=3))
    found = next(iter(images.batch(4)))
    np.testing.assert_array_equal(found[2], PIXELS + np.uint8(2))

    shuffled = tf.data.Dataset.list_files([tmp_path / "[01].png", str(tmp_path / "*")], seed=1)
    assert len(shuffled) == 4
    orders = {tuple(map(str, shuffled)) for _ in range(8)}
    assert len(orders) > 1 and {tuple(sorted(o)) for o in orders} == {tuple(map(str, names))}
    with pytest.raises(ValueError, match="No files matched pattern: .*none"):
        tf.data.Dataset.list_files(str(tmp_path / "none"))


JPEG = saved(Image.fromarray(PIXELS), "jpeg", quality=95)


def test_jpegs_are_known_measured_and_cropped():
    assert tf.io.is_jpeg(JPEG) and not tf.image.is_jpeg(PNG)
    assert tf.image.extract_jpeg_shape(JPEG).numpy().tolist() == [5, 6, 3]
    part = tf.io.decode_and_crop_jpeg(JPEG, [1, 2, 3, 4])
    np.testing.assert_array_equal(part, tf.io.decode_jpeg(JPEG)[1:4, 2:6])
    for wrong in (
        lambda: tf.image.extract_jpeg_shape(PNG),
        lambda: tf.image.decode_and_crop_jpeg(JPEG, [1, 2, 5, 4]),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            wrong()


def test_quality_is_lost_as_in_a_jpeg():
    expected = np.asarray(
        Image.open(io.BytesIO(saved(Image.fromarray(PIXELS), "jpeg", quality=30)))
    )
    np.testing.assert_array_equal(tf.image.adjust_jpeg_quality(PIXELS, 30), expected)
    floats = tf.image.adjust_jpeg_quality((PIXELS / 255).astype(np.float32), 30)
    np.testing.assert_allclose(floats, expected / 255, rtol=1e-6)
    drawn = tf.image.stateless_random_jpeg_quality(PIXELS, 20, 90, seed=(1, 2))
    again = tf.image.stateless_random_jpeg_quality(PIXELS, 20, 90, seed=(1, 2))
    np.testing.assert_array_equal(drawn, again)
    assert tf.image.random_jpeg_quality(PIXELS[..., :1], 20, 90).shape == (5, 6, 1)
    for low, high in ((90, 20), (-1, 50), (50, 101)):
        with pytest.raises(ValueError, match="quality"):
            tf.image.random_jpeg_quality(PIXELS, low, high)
    with pytest.raises(tf.errors.InvalidArgumentError, match="101"):
        tf.image.adjust_jpeg_quality(PIXELS, 101)


def test_damaged_images_raise_what_scripts_catch():
    for content in (PNG[:60], saved(Image.fromarray(PIXELS), "jpeg")[:200]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="damaged|Unknown image"):
            tf.io.decode_image(content)


def test_parts_and_sizes_of_a_jpeg():
    smooth = np.add.outer(np.arange(16), np.arange(24))[..., None].astype(np.uint8) * 3
    content = tf.io.encode_jpeg(smooth, format="grayscale", quality=100, optimize_size=True)
    whole = tf.io.decode_jpeg(content).numpy()
    part = tf.image.decode_and_crop_jpeg(content, [2, 3, 5, 6])
    np.testing.assert_array_equal(part, whole[2:7, 3:9])
    half = tf.io.decode_jpeg(content, ratio=2)
    assert half.shape == (8, 12, 1) and abs(half.numpy().mean() - smooth.mean()) < 2
    assert tf.io.extract_jpeg_shape(content).numpy().tolist() == [16, 24, 1]
    assert bool(tf.io.is_jpeg(content)) and not tf.io.is_jpeg(PNG)
    with pytest.raises(tf.errors.InvalidArgumentError, match="15"):
        tf.image.decode_and_crop_jpeg(content, [2, 3, 15, 6])
    with pytest.raises(tf.errors.InvalidArgumentError, match="PNG"):
        tf.io.extract_jpeg_shape(PNG)
    with pytest.raises(ValueError, match="ratio is 1, 2, 4 or 8, not 3"):
        tf.io.decode_jpeg(content, ratio=3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="format is"):
        tf.io.encode_jpeg(smooth, format="gray")


def test_numbers_in_bytes():
    assert tf.io.decode_raw(b"\1\0\2\0", tf.int16).numpy().tolist() == [1, 2]
    assert tf.io.decode_raw(b"\1\0", tf.int16, little_endian=False).numpy().tolist() == [256]
    assert tf.io.decode_raw(b"\1\2\3", tf.uint8, fixed_length=5).numpy().tolist() == [1, 2, 3, 0, 0]
    with pytest.raises(tf.errors.InvalidArgumentError, match="3 bytes"):
        tf.io.decode_raw(b"\1\2\3", tf.int16)


def test_settings_of_how_a_jpeg_is_decoded():
    whole = tf.io.decode_jpeg(JPEG).numpy()  # its colours lie in blocks of 2 x 2
    for method in ("", "INTEGER_FAST", "INTEGER_ACCURATE"):
        np.testing.assert_array_equal(tf.io.decode_jpeg(JPEG, dct_method=method), whole)
    with pytest.raises(tf.errors.InvalidArgumentError, match="dct_method"):
        tf.io.decode_jpeg(JPEG, dct_method="FLOAT")
    with pytest.raises(ValueError, match="fancy_upscaling=False"):
        tf.io.decode_jpeg(JPEG, fancy_upscaling=False)
    gray = tf.io.decode_jpeg(JPEG, channels=1, fancy_upscaling=False)
    np.testing.assert_array_equal(gray, tf.io.decode_jpeg(JPEG, channels=1))
    full = saved(Image.fromarray(PIXELS), "jpeg", subsampling=0)
    np.testing.assert_array_equal(
        tf.io.decode_jpeg(full, fancy_upscaling=False), tf.io.decode_jpeg(full)
    )
