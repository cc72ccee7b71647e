"""Cosine transforms of whole signals and of frames that overlap."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

import distgrad as tf
from distgrad.testing.gradients import check_gradients

X = np.random.default_rng(0).normal(size=(2, 24))


@pytest.mark.parametrize(
    "window", [tf.signal.vorbis_window, tf.signal.kaiser_bessel_derived_window]
)
@pytest.mark.parametrize("norm", [None, "ortho"])
def test_an_mdct_is_undone_where_frames_overlap(window, norm):
    frames = tf.signal.mdct(X, 8, window_fn=window, norm=norm)
    assert frames.shape == (2, 5, 4) and frames.dtype == tf.float64
    back = tf.signal.inverse_mdct(frames, window_fn=window, norm=norm)
    np.testing.assert_allclose(back[:, 4:-4], X[:, 4:-4], rtol=1e-9)


def test_an_mdct_is_its_formula():
    n, k = np.arange(8), np.arange(4)[:, None]
    basis = np.cos(np.pi / 4 * (n + 0.5 + 2) * (k + 0.5)) * 2
    expected = [[basis @ x[i : i + 8] * np.sqrt(0.5) for i in range(0, 17, 4)] for x in X]
    np.testing.assert_allclose(tf.signal.mdct(X, 8, window_fn=None), expected, rtol=1e-9)
    assert tf.signal.mdct(X, 8, pad_end=True).shape == (2, 6, 4)
    check_gradients(lambda x: tf.signal.inverse_mdct(tf.signal.mdct(x, 4)), [X[:, :8]], order=1)
    with pytest.raises(ValueError, match="multiple of 4"):
        tf.signal.mdct(X, 6)


def test_a_cosine_transform_of_type_1_has_a_length_as_well():
    for n in (5, 30):
        found = tf.signal.dct(X, type=1, n=n)
        np.testing.assert_allclose(found, scipy.fft.dct(X, type=1, n=n), rtol=1e-9, atol=1e-12)
