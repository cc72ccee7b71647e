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
