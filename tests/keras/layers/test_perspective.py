"""RandomPerspective: the corners that it moves, and what it makes of a plane."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

layers = tf.keras.layers
DOWN, ACROSS = np.mgrid[:9.0, :12.0]


def test_a_plane_is_read_by_a_projective_map():
    tf.random.set_seed(3)
    plane = np.broadcast_to(np.stack([ACROSS, DOWN, 0 * DOWN + 1], -1), (7, 9, 12, 3)).astype("f")
    made = layers.RandomPerspective((1, 1), 0.3)(plane).numpy()
    for image in made:
        inner = image[..., 2] == 1  # nothing is read from outside
        assert inner.sum() > 40 and inner[0, 0]
        np.testing.assert_allclose(image[0, 0], [0, 0, 1], atol=1e-6)  # it stays
        # u (g x + h y + 1) = a x + b y + c, and v likewise: eight unknowns, many equations.
        x, y, u, v = (a[inner] for a in (ACROSS, DOWN, image[..., 0], image[..., 1]))
        one, none = np.ones_like(x), np.zeros_like(x)
        of_u = np.stack([x, y, one, none, none, none, -u * x, -u * y], -1)
        of_v = np.stack([none, none, none, x, y, one, -v * x, -v * y], -1)
        matrix, right = np.concatenate([of_u, of_v]), np.concatenate([u, v])
        found = np.linalg.lstsq(matrix, right, rcond=None)[0]
        np.testing.assert_allclose(matrix @ found, right, atol=1e-4)
        # The map takes the corners that were drawn to those of the image.
        forth = np.linalg.inv(np.append(found, 1).reshape(3, 3))
        for corner in ([11, 0], [0, 8], [11, 8]):
            end = forth @ [*corner, 1]
            times = (end[:2] / end[2])[np.array(corner) > 0] / np.array(corner)[
                np.array(corner) > 0
            ]
            assert (times > 0.85 - 1e-3).all() and (times < 1.15 + 1e-3).all()


def test_chances_and_values_from_outside():
    tf.random.set_seed(3)
    many = np.ones((200, 5, 6, 1), "f")
    changed = (layers.RandomPerspective(0.6, fill_value=7)(many).numpy() != 1).any(axis=(1, 2, 3))
    assert 30 < changed.sum() < 90  # a chance from 0 to 0.6
    np.testing.assert_array_equal(layers.RandomPerspective(scale=0.0)(many), many)


def test_wrong_arguments():
    for call, words in (
        (lambda: layers.RandomPerspective(1.5), "between 0.0 and 1.0"),
        (lambda: layers.RandomPerspective(scale=2), "scale must lie"),
        (lambda: layers.RandomPerspective(interpolation="cubic"), "interpolation must be"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
