"""MixUp, CutMix and RandAugment: what is mixed with what, and how much of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
N = 60
IMAGES = np.random.default_rng(0).uniform(0, 255, (N, 8, 9, 3)).astype(np.float32)
LABELS = np.eye(N, dtype=np.int64)
both_layers = pytest.mark.parametrize("kind", [layers.MixUp, layers.CutMix])


def drawn(layer, images=IMAGES, labels=LABELS):
    tf.random.set_seed(1)
    made = layer({"images": images, "labels": labels}, training=True)
    return made["images"].numpy(), made["labels"].numpy()


def partners(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With which image each one was mixed, and what share of the label it keeps."""
    assert labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-5)
    own = labels[np.arange(N), np.arange(N)]
    others = labels * (1 - np.eye(N))
    assert ((others > 0).sum(axis=1) <= 1).all()
    return others.argmax(axis=1), own


def test_mix_up():
    images, labels = drawn(layers.MixUp(0.8))
    other, own = partners(labels)
    share = own[:, None, None, None]
    expected = share * IMAGES + (1 - share) * IMAGES[other]
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-4)
    assert len(np.unique(own)) > 50


def test_cut_mix():
    images, labels = drawn(layers.CutMix((0.9, 0.9)))
    other, own = partners(labels)
    kept = (images == IMAGES).all(axis=-1)
    taken = (images == IMAGES[other]).all(axis=-1)
    assert (kept | taken).all()
    area = (~kept).mean(axis=(1, 2))
    assert np.abs(area - (1 - own))[other != np.arange(N)].max() < 0.25  # whole pixels
    assert np.corrcoef(area, 1 - own)[0, 1] > 0.9
    for left in kept:
        rows, columns = (~left.all(axis=1)).sum(), (~left.all(axis=0)).sum()
        assert rows * columns == (~left).sum()


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 3.0])
def test_shares_are_beta_distributed(alpha):
    tf.random.set_seed(1)
    share = layers.MixUp()._beta((4000,), alpha).numpy()
    assert abs(share.mean() - 0.5) < 0.03
    assert abs(share.var() - 0.25 / (2 * alpha + 1)) < 0.01
    assert share.min() >= 0 and share.max() <= 1


@both_layers
def test_one_image_inference_formats_and_seeds(kind):
    layer = kind(0.8, seed=3)
    still = layer({"images": IMAGES, "labels": LABELS}, training=False)
    np.testing.assert_array_equal(still["images"], IMAGES)
    np.testing.assert_array_equal(still["labels"], LABELS)
    one = layer({"images": IMAGES[0], "labels": LABELS[0]})
    np.testing.assert_allclose(one["images"], IMAGES[0], rtol=1e-5)
    np.testing.assert_allclose(one["labels"], LABELS[0], rtol=1e-5)
    assert layer(IMAGES.astype(np.uint8)).dtype == tf.float32
    images, labels = drawn(kind(0.8, seed=3))
    first = kind(0.8, seed=3, data_format="channels_first")
    again, same = drawn(first, IMAGES.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(again.transpose(0, 2, 3, 1), images, rtol=1e-6)
    np.testing.assert_array_equal(same, labels)
    config = json.loads(json.dumps(layer.get_config()))
    assert json.loads(json.dumps(kind.from_config(config).get_config())) == config
    np.testing.assert_array_equal(drawn(kind.from_config(config))[0], images)
    with pytest.raises(ValueError, match="make class numbers one-hot"):
        layer({"images": IMAGES, "labels": np.arange(N)})


def test_in_a_dataset():
    data = tf.data.Dataset.from_tensor_slices({"images": IMAGES, "labels": LABELS}).batch(20)
    for kind in (layers.MixUp, layers.CutMix):
        element = next(iter(data.map(kind(0.5))))
        assert element["images"].shape == (20, 8, 9, 3) and element["labels"].shape == (20, N)


def test_rand_augment_applies_one_of_its_layers_to_each_image():
    tf.random.set_seed(1)
    layer = layers.RandAugment(num_ops=1, factor=(0.4, 0.4))
    images = np.broadcast_to(IMAGES[:1], (N, 8, 9, 3))
    made = layer(images).numpy()
    stretched = layers.AutoContrast()(IMAGES[:1]).numpy()
    share = layers.RandomColorDegeneration((0.4, 0.4))(IMAGES[:1]).numpy()
    for expected in (stretched, share):
        assert np.isclose(made, expected).all(axis=(1, 2, 3)).any()
    assert len(np.unique(made.reshape(N, -1), axis=0)) > 8


def test_aug_mix_lies_between_an_image_and_its_changes():
    tf.random.set_seed(1)
    images = np.broadcast_to(IMAGES[:1], (N, 8, 9, 3))
    same = layers.AugMix(factor=0.0, all_ops=False, num_chains=2, chain_depth=1)
    kinds = [type(part).__name__ for part in same._parts]
    assert len(kinds) == 7 and "RandomContrast" not in kinds and "AutoContrast" in kinds
    made = layers.AugMix(factor=0.5, num_chains=2, chain_depth=1)(images).numpy()
    assert made.min() >= 0 and made.max() <= 255
    assert len(np.unique(made.reshape(N, -1), axis=0)) > 8
    # Of a small alpha one chain has nearly all of the share, or the image itself has.
    sharp = layers.AugMix(factor=0.0, num_chains=3, chain_depth=1, alpha=0.01)(images).numpy()
    assert np.isclose(sharp, images, atol=1).all(axis=(1, 2, 3)).any()


def test_wrong_arguments():
    for call, words in (
        (lambda: layers.MixUp(0), "alpha must be a positive number"),
        (lambda: layers.CutMix(1.5), "between 0.0 and 1.0"),
        (lambda: layers.RandAugment(num_ops=-1), "num_ops must be an int of 0 or more"),
        (lambda: layers.AugMix(num_chains=0), "num_chains must be a positive int"),
        (lambda: layers.AugMix(alpha=0.0), "alpha must be positive"),
        (lambda: layers.RandAugment(factor=2), "between 0.0 and 1.0"),
        (lambda: layers.RandAugment(interpolation="cubic"), "interpolation must be"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
