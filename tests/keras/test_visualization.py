"""Boxes and masks on images, and galleries of them."""

import numpy as np
import pytest

import distgrad as tf

visualization = tf.keras.visualization
IMAGES = np.full((2, 6, 8, 3), 100, np.uint8)
BOXES = {"boxes": np.array([[[1, 1, 5, 4]], [[0, 0, 2, 2]]]), "labels": np.array([[3], [-1]])}
MASKS = np.zeros((2, 6, 8, 1), np.int32)
MASKS[0, 2:4, 3:5] = 1
MASKS[1, 0, 0] = -1


@pytest.fixture
def matplotlib():
    found = pytest.importorskip("matplotlib")
    found.use("Agg")
    return found


def test_a_frame_around_each_box():
    drawn = visualization.draw_bounding_boxes(
        IMAGES, BOXES, "xyxy", color=(9, 8, 7), line_thickness=1
    )
    expected = IMAGES[0].copy()
    expected[1:5, [1, 5]] = expected[[1, 4], 1:6] = (9, 8, 7)
    np.testing.assert_array_equal(drawn[0], expected)
    np.testing.assert_array_equal(drawn[1], IMAGES[1])
    assert drawn.dtype == np.uint8 and (IMAGES == 100).all()


def test_shares_and_floats_are_spread_out():
    shares = {"boxes": BOXES["boxes"] / [8, 6, 8, 6], "labels": BOXES["labels"]}
    drawn = visualization.draw_bounding_boxes(IMAGES / 255, shares, "rel_xyxy")
    assert (drawn[1] == 100).all() and (drawn[0, 1, 1] == 128).all()


def test_names_of_classes_stand_beside():
    pytest.importorskip("PIL")
    image = np.zeros((1, 70, 60, 3), np.uint8)
    boxes = {"boxes": [[[5, 50, 20, 60]]], "labels": [[3]], "confidences": [[0.5]]}
    plain = visualization.draw_bounding_boxes(image, boxes, "xyxy")
    named = visualization.draw_bounding_boxes(image, boxes, "xyxy", class_mapping={3: "cat"})
    assert (named != plain).any() and (named[:, 46:] == plain[:, 46:]).all()


def test_masks_blend_with_the_image():
    drawn = visualization.draw_segmentation_masks(
        IMAGES, MASKS, 2, {0: (0, 0, 0), 1: (200, 0, 50)}, 0.5
    )
    assert drawn[0, 2, 3].tolist() == [150, 50, 75] and drawn[0, 0, 0].tolist() == [50] * 3
    assert drawn[1, 0, 0].tolist() == [100] * 3  # of the class that is left out
    bare = visualization.draw_segmentation_masks(IMAGES, MASKS, 2, blend=False)
    assert bare[0, 2, 3].tolist() == [(2**n - 1) % 255 for n in (25, 15, 21)]


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda: visualization.draw_segmentation_masks(IMAGES[0], MASKS), ValueError),
        (lambda: visualization.draw_segmentation_masks(IMAGES, MASKS / 2), TypeError),
        (lambda: visualization.draw_bounding_boxes(IMAGES, BOXES["boxes"], "xyxy"), TypeError),
        (lambda: visualization.draw_bounding_boxes(IMAGES, {"boxes": []}, "xyxy"), ValueError),
    ],
)
def test_errors(call, error):
    with pytest.raises(error):
        call()


def test_galleries_are_files(tmp_path, matplotlib):
    path = tmp_path / "a.png"
    visualization.plot_image_gallery(IMAGES, [3, 4], label_map={3: "cat"}, path=path)
    assert path.read_bytes()[1:4] == b"PNG"
    boxes = tmp_path / "b.png"
    visualization.plot_bounding_box_gallery(IMAGES, "xyxy", BOXES, BOXES, legend=True, path=boxes)
    masks = tmp_path / "c.png"
    visualization.plot_segmentation_mask_gallery(IMAGES, 2, y_true=MASKS, y_pred=MASKS, path=masks)
    assert boxes.exists() and masks.exists()


def test_what_galleries_refuse(matplotlib):
    with pytest.raises(ValueError, match="label_map"):
        visualization.plot_image_gallery(IMAGES, y_true=[1, 2], show=False)
    with pytest.raises(ValueError, match="path"):
        visualization.plot_image_gallery(IMAGES, path="a.png", show=True)
    with pytest.raises(ValueError, match="legend"):
        visualization.plot_bounding_box_gallery(
            IMAGES, "xyxy", legend=True, legend_handles=[1], show=False
        )
