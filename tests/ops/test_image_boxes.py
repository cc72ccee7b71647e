"""Boxes in images: the best of many classes, fixed numbers of them, and boxes drawn."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

IAE = tf.errors.InvalidArgumentError
# Two that overlap, one apart, one that leaves the image.
BOXES = np.array([[0, 0, 1, 1], [0, 0, 0.9, 1], [2, 2, 3, 3], [-1, -1, 0.1, 0.1]], np.float32)
SCORES = np.array([0.9, 0.8, 0.3, 0.7], np.float32)


def test_as_many_indices_as_asked_for():
    found, count = tf.image.non_max_suppression_padded(BOXES, SCORES, 3)
    assert found.numpy().tolist() == [0, 3, 2] and int(count) == 3
    found, count = tf.image.non_max_suppression_padded(
        BOXES[None], SCORES[None], 5, score_threshold=0.5, pad_to_max_output_size=True
    )
    assert found.numpy().tolist() == [[0, 3, 0, 0, 0]] and count.numpy().tolist() == [2]
    with pytest.raises(ValueError, match="pad_to_max_output_size"):
        tf.image.non_max_suppression_padded(BOXES[None], SCORES[None], 3)
    with pytest.raises(IAE):
        tf.image.non_max_suppression_padded(BOXES, SCORES[:2], 3)


def test_the_best_of_all_classes_of_each_image():
    scores = np.stack([SCORES, SCORES[::-1]], -1)[None]
    found = tf.image.combined_non_max_suppression(
        BOXES[None, :, None], scores, 2, 5, score_threshold=0.35
    )
    assert found.valid_detections.numpy().tolist() == [4]
    np.testing.assert_array_equal(found.nmsed_scores, np.float32([[0.9, 0.9, 0.8, 0.7, 0]]))
    np.testing.assert_array_equal(found.nmsed_classes, [[0, 1, 1, 0, 0]])
    expected = [BOXES[0], [0, 0, 0.1, 0.1], [1, 1, 1, 1], [0, 0, 0.1, 0.1], [0] * 4]
    np.testing.assert_array_equal(found.nmsed_boxes[0], np.float32(expected))
    short = tf.image.combined_non_max_suppression(
        BOXES[None, :, None], scores, 1, 5, pad_per_class=True, clip_boxes=False
    )
    np.testing.assert_array_equal(short.nmsed_boxes, BOXES[None, [0, 3]])


def test_boxes_of_each_class_are_its_own():
    boxes = np.stack([BOXES, BOXES + 5], axis=1)[None]
    scores = np.stack([SCORES * 0, SCORES], -1)[None]
    found = tf.image.combined_non_max_suppression(boxes, scores, 1, 1, clip_boxes=False)
    np.testing.assert_array_equal(found.nmsed_boxes[0, 0], BOXES[0] + 5)
    for wrong in (boxes[0], boxes[:, :2], np.concatenate([boxes, boxes], 2)):
        with pytest.raises(IAE):
            tf.image.combined_non_max_suppression(wrong, scores, 1, 1)


def test_edges_of_boxes_are_drawn():
    image = np.zeros((1, 4, 5, 3), np.float32)
    boxes = [[[0.4, 0.3, 1.0, 0.8], [-0.5, 0.5, 0.0, 2.0], [0.9, 0.9, 0.1, 0.1]]]
    drawn = tf.image.draw_bounding_boxes(image, boxes, [[1.0, 0, 0], [0, 1.0, 0]]).numpy()[0]
    red, green = drawn[..., 0], drawn[..., 1]
    np.testing.assert_array_equal(
        red, [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0]]
    )
    np.testing.assert_array_equal(green, [[0, 0, 1, 1, 1]] + [[0] * 5] * 3)
    yellow = tf.image.draw_bounding_boxes(image, [[[0.0, 0.0, 0.0, 0.0]]], None)
    assert yellow[0, 0, 0].numpy().tolist() == [1, 1, 0]
    for wrong in (image[0], image.astype(int), image[..., :2]):
        with pytest.raises(IAE):
            tf.image.draw_bounding_boxes(wrong, boxes, None)


BOX = np.array([[[0.2, 0.3, 0.6, 0.8]]], np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_a_part_of_an_image_shows_enough_of_a_box(seed):
    begin, size, box = tf.image.stateless_sample_distorted_bounding_box(
        tf.constant([60, 80, 3]), BOX, seed=(seed, 1), min_object_covered=0.5, area_range=(0.2, 0.9)
    )
    (top, left, first), (tall, wide, rest) = begin.numpy(), size.numpy()
    assert (first, rest) == (0, -1) and begin.dtype == size.dtype == tf.int32
    assert 0 <= top <= 60 - tall and 0 <= left <= 80 - wide
    assert 0.7 < wide / tall < 1.4 and 0.2 <= tall * wide / 4800 <= 0.9
    inside = (min(top + tall, 36) - max(top, 12)) * (min(left + wide, 64) - max(left, 24))
    assert inside >= 0.5 * 24 * 40
    expected = [top / 60, left / 80, (top + tall) / 60, (left + wide) / 80]
    np.testing.assert_allclose(box, np.float32([[expected]]))
    assert tf.slice(tf.zeros((60, 80, 3)), begin, size).shape == (tall, wide, 3)


def test_parts_of_images_differ_unless_a_seed_says_otherwise():
    def tops(draw):
        return [tuple(draw(n)[2].numpy().ravel().tolist()) for n in range(8)]

    size = [60, 80, 3]
    free = tops(lambda n: tf.image.sample_distorted_bounding_box(size, BOX))
    fixed = [
        tops(lambda n: tf.image.stateless_sample_distorted_bounding_box(size, BOX, (n, 0)))
    ] * 2
    assert len(set(free)) > 4 and len(set(fixed[0])) > 4 and fixed[0] == fixed[1]


def test_without_a_box_the_whole_image_is_shown_or_any_part():
    none = np.zeros((1, 0, 4), np.float32)
    with pytest.raises(IAE, match="use_image_if_no_bounding_boxes"):
        tf.image.sample_distorted_bounding_box([6, 8, 3], none)
    part = tf.image.sample_distorted_bounding_box(
        [6, 8, 3], none, use_image_if_no_bounding_boxes=True, area_range=(0.3, 0.5)
    )
    assert 0.3 <= np.prod(part[1].numpy()[:2]) / 48 <= 0.5
    # No part of so much of a far box with so little area.
    begin, size, box = tf.image.sample_distorted_bounding_box(
        [60, 80, 3], BOX, min_object_covered=1.0, area_range=(0.05, 0.1), max_attempts=3
    )
    assert begin.numpy().tolist() == [0, 0, 0] and size.numpy().tolist() == [60, 80, -1]
    np.testing.assert_array_equal(box, [[[0, 0, 1, 1]]])
    for wrong in ({"area_range": (0.5, 0.1)}, {"aspect_ratio_range": (0.0, 1.0)}):
        with pytest.raises(IAE, match="_range"):
            tf.image.sample_distorted_bounding_box([6, 8, 3], BOX, **wrong)
