"""Bounding boxes: formats, moves, overlaps, offsets of anchors, and batches of one shape."""

import itertools

import numpy as np
import pytest

import distgrad as tf

boxes_of = tf.keras.utils.bounding_boxes
layers = tf.keras.layers

RNG = np.random.default_rng(0)
BOXES = np.array([[10, 20, 30, 60], [0, 5, 40, 10]], np.float32)  # of an image of 50 by 80
IN = {
    "xyxy": BOXES,
    "yxyx": [[20, 10, 60, 30], [5, 0, 10, 40]],
    "xywh": [[10, 20, 20, 40], [0, 5, 40, 5]],
    "center_xywh": [[20, 40, 20, 40], [20, 7.5, 40, 5]],
    "center_yxhw": [[40, 20, 40, 20], [7.5, 20, 5, 40]],
    "rel_xyxy": [[0.125, 0.4, 0.375, 1.2], [0, 0.1, 0.5, 0.2]],
    "rel_yxyx": [[0.4, 0.125, 1.2, 0.375], [0.1, 0, 0.2, 0.5]],
    "rel_xywh": [[0.125, 0.4, 0.25, 0.8], [0, 0.1, 0.5, 0.1]],
    "rel_center_xywh": [[0.25, 0.8, 0.25, 0.8], [0.25, 0.15, 0.5, 0.1]],
}


@pytest.mark.parametrize("source, target", list(itertools.product(IN, IN)))
def test_any_format_becomes_any_other(source, target):
    given = np.array(IN[source], np.float32)
    found = boxes_of.convert_format(given, source, target, height=50, width=80)
    np.testing.assert_allclose(found, IN[target], rtol=1e-6)


def test_labels_stay_beside_their_boxes():
    found = boxes_of.convert_format({"boxes": BOXES, "labels": [1, 2]}, "xyxy", "XYWH")
    np.testing.assert_array_equal(found["boxes"], IN["xywh"])
    assert found["labels"] == [1, 2]


def test_boxes_move_with_the_image():
    np.testing.assert_array_equal(boxes_of.pad(BOXES, 2, 1)[0], [11, 22, 31, 62])
    np.testing.assert_array_equal(boxes_of.crop(BOXES, 30, 15, 20, 10)[0], [0, 0, 10, 20])
    given = {"boxes": BOXES - 20, "labels": np.array([3, 4])}
    clipped = boxes_of.clip_to_image_size(given, height=50, width=80)
    np.testing.assert_array_equal(clipped["boxes"], [[0, 0, 10, 40], [0, 0, 20, 0]])
    np.testing.assert_array_equal(clipped["labels"], [3, -1])


def test_a_quarter_turn_and_a_move():
    one = np.ones(1, np.float32)
    turned = boxes_of.affine_transform(
        BOXES[None, :1], 90 * one, 0 * one, 0 * one, one, 0 * one, 0 * one, height=101, width=101
    )
    np.testing.assert_allclose(turned[0, 0], [20, 70, 60, 90], atol=1e-4)
    moved = boxes_of.affine_transform(
        BOXES[None], 0 * one, 0.1 * one, 0 * one, one, 0 * one, 0 * one, height=101, width=101
    )
    np.testing.assert_allclose(moved[0], BOXES + np.array([10, 0, 10, 0]), atol=1e-4)


def test_how_much_boxes_share():
    one, other = (
        np.array([[0, 0, 4, 2]], np.float32),
        np.array([[2, 0, 6, 2], [-1] * 4], np.float32),
    )
    np.testing.assert_allclose(boxes_of.compute_iou(one, other, "xyxy"), [[4 / 12, 0]], rtol=1e-6)
    masked = boxes_of.compute_iou(one, other, "xyxy", use_masking=True, mask_val=-2)
    np.testing.assert_allclose(masked, [[4 / 12, -2]], rtol=1e-6)
    many = boxes_of.compute_iou(np.stack([one, one]), other, "xyxy")
    assert many.shape == (2, 1, 2)
    # One centre is 2 from the other, the box around both has 6 and 2, and the forms are the same.
    ciou = boxes_of.compute_ciou(one, other[:1], "xyxy")
    np.testing.assert_allclose(ciou, [4 / 12 - 4 / 40], rtol=1e-5)


@pytest.mark.parametrize("encoding", ["center_xywh", "center_yxhw"])
def test_offsets_lead_back_to_the_boxes(encoding):
    anchors = np.array([[0, 0, 10, 20], [5, 5, 25, 15]], np.float32)
    options = ("xyxy", "xyxy", encoding, [0.1, 0.1, 0.2, 0.2])
    deltas = boxes_of.encode_box_to_deltas(anchors, BOXES, *options)
    np.testing.assert_allclose(
        boxes_of.decode_deltas_to_boxes(anchors, deltas, *options), BOXES, rtol=1e-5, atol=1e-4
    )
    plain = boxes_of.encode_box_to_deltas(anchors, BOXES, "xyxy", "xyxy", "center_xywh")
    np.testing.assert_allclose(plain[0], [1.5, 1.5, np.log(2), np.log(2)], rtol=1e-6)
    levels = boxes_of.decode_deltas_to_boxes(
        {3: anchors}, {3: plain}, "xyxy", "xyxy", "center_xywh"
    )
    np.testing.assert_allclose(levels[3], BOXES, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda: boxes_of.convert_format(BOXES, "xyxy", "x"), ValueError),
        (lambda: boxes_of.convert_format(BOXES, "xyxy", "rel_xyxy"), ValueError),
        (lambda: boxes_of.convert_format(BOXES[:, :3], "xyxy", "xywh"), ValueError),
        (lambda: boxes_of.crop(BOXES, 0, 0, 1, 1, "xywh"), NotImplementedError),
        (lambda: boxes_of.clip_to_image_size({"boxes": BOXES}), ValueError),
        (lambda: boxes_of.encode_box_to_deltas(BOXES, BOXES, "xyxy", "xyxy", "xyxy"), ValueError),
        (lambda: boxes_of.compute_iou(BOXES, BOXES, "rel_xyxy"), ValueError),
        (lambda: boxes_of.compute_ciou(BOXES, BOXES, "rel_xyxy"), ValueError),
    ],
)
def test_errors(call, error):
    with pytest.raises(error):
        call()


@pytest.mark.parametrize("count", [1, 4])
def test_as_many_boxes_for_each_image(count):
    images, labels = RNG.uniform(size=(2, 3, 3, 1)), np.array([[1, 2], [3, 4]])
    given = {"boxes": np.stack([BOXES, BOXES]), "labels": labels}
    layer = layers.MaxNumBoundingBoxes(count, fill_value=9, bounding_box_format="xyxy")
    found = layer({"images": images, "bounding_boxes": given})["bounding_boxes"]
    kept = min(count, 2)
    assert found["boxes"].shape == (2, count, 4) and found["labels"].shape == (2, count)
    np.testing.assert_array_equal(found["boxes"][:, :kept], given["boxes"][:, :kept])
    np.testing.assert_array_equal(found["labels"][:, :kept], labels[:, :kept])
    assert (found["labels"].numpy()[:, 2:] == 9).all()
    assert (found["boxes"].numpy()[:, 2:] == 9).all()
    one = {"boxes": BOXES, "labels": labels[0]}
    alone = layer({"images": images[0], "bounding_boxes": one})["bounding_boxes"]
    np.testing.assert_array_equal(alone["boxes"], found["boxes"][0])
    with pytest.raises(ValueError, match="bounding_box_format"):
        layers.MaxNumBoundingBoxes(2)({"images": images, "bounding_boxes": given})
