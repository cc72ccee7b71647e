"""Convolutions: values against loops and scipy, padding, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

import distgrad as tf
from distgrad.ops import convolve as blocks
from distgrad.testing.gradients import check_gradients


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def padded_by(padding, shape, size, strides, dilations):
    """TensorFlow's own formula, from its documentation."""
    if padding == "VALID":
        return [(0, 0)] * len(shape)
    pairs = []
    for n, k, s, d in zip(shape, size, strides, dilations, strict=True):
        reach = (k - 1) * d + 1
        total = max(reach - s, 0) if n % s == 0 else max(reach - n % s, 0)
        pairs.append((total // 2, total - total // 2))
    return pairs


def loops(x, w, strides, padding, dilations):
    """2-D convolution, one output element at a time."""
    pairs = padding if isinstance(padding, list) else None
    pairs = pairs or padded_by(padding, x.shape[1:3], w.shape[:2], strides, dilations)
    x = np.pad(x, [(0, 0), *pairs, (0, 0)])
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[:2], dilations, strict=True)]
    starts = [range(0, n - r + 1, s) for n, r, s in zip(x.shape[1:3], reach, strides, strict=True)]
    out = np.zeros((len(x), len(starts[0]), len(starts[1]), w.shape[3]))
    for n, i, j, o in np.ndindex(*out.shape):
        y, z = starts[0][i], starts[1][j]
        part = x[n, y : y + reach[0] : dilations[0], z : z + reach[1] : dilations[1]]
        out[n, i, j, o] = np.sum(part * w[..., o])
    return out


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 2), (0, 1)]])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("dilations", [(1, 1), (1, 2), (2, 2)])
def test_conv2d(padding, strides, dilations):
    x, w = normal(2, 6, 7, 3), normal(3, 2, 3, 4)
    given = padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
    found = tf.nn.conv2d(x, w, strides, given, dilations=dilations)
    expected = loops(x, w, strides, padding, dilations)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_conv2d_is_a_correlation():
    x, w = normal(1, 6, 7, 1), normal(3, 2, 1, 1)
    found = tf.nn.conv2d(x, w, 1, "VALID")[0, ..., 0]
    expected = scipy.signal.correlate2d(x[0, ..., 0], w[..., 0, 0], mode="valid")
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_gradient_with_dilation_and_stride():
    x, w = normal(1, 6, 6, 2), normal(2, 2, 2, 2)
    for options in ({"strides": 1, "dilations": 2}, {"strides": 2, "dilations": 1}):
        check_gradients(
            lambda x, w, o=options: tf.nn.conv2d(x, w, padding="SAME", **o), [x, w], order=3
        )


def test_samples_in_several_blocks_give_the_same(monkeypatch):
    x, w = normal(5, 6, 6, 2), normal(3, 3, 2, 4)

    def both():
        tensors = tf.constant(x), tf.constant(w)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = tf.nn.conv2d(*tensors, 1, "SAME")
        return [y.numpy(), *(g.numpy() for g in tape.gradient(y, tensors))]

    whole = both()
    monkeypatch.setattr(blocks, "BLOCK", 2 * 36 * 18)
    for found, expected in zip(both(), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("strides", [1, 2, [1, 2, 3, 1], [2, 3], [2]])
def test_channels_first_is_the_same_transposed(strides):
    x, w = normal(2, 6, 7, 3), normal(3, 2, 3, 4)
    expected = tf.nn.conv2d(x, w, strides, "SAME").numpy().transpose(0, 3, 1, 2)
    moved = [strides[0], strides[3], *strides[1:3]] if np.size(strides) == 4 else strides
    turned = x.transpose(0, 3, 1, 2)
    found = tf.nn.conv2d(turned, w, moved, "SAME", data_format="NCHW")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    explicit = tf.nn.conv2d(turned, w, moved, [[0, 0], [0, 0], [1, 2], [0, 1]], data_format="NCHW")
    last = tf.nn.conv2d(x, w, strides, [[0, 0], [1, 2], [0, 1], [0, 0]])
    np.testing.assert_allclose(explicit, last.numpy().transpose(0, 3, 1, 2), rtol=1e-12)


def test_conv1d_and_conv3d_are_conv2d_with_other_axes():
    x, w = normal(2, 7, 3), normal(3, 3, 4)
    wide = tf.nn.conv2d(x[:, None], w[None], [1, 2], "SAME")[:, 0]
    np.testing.assert_allclose(tf.nn.conv1d(x, w, 2, "SAME"), wide, rtol=1e-12)
    np.testing.assert_allclose(tf.nn.convolution(x, w, 2, "SAME"), wide, rtol=1e-12)
    x, w = normal(2, 5, 4, 4, 2), normal(1, 2, 3, 2, 3)
    found = tf.nn.conv3d(x, w, [1, 1, 2, 1, 1], "VALID")
    for i in range(5):
        expected = tf.nn.conv2d(x[:, i], w[0], [2, 1], "VALID")
        np.testing.assert_allclose(found[:, i], expected, rtol=1e-10)


def test_more_batch_axes():
    x, w = normal(2, 3, 5, 5, 2), normal(2, 2, 2, 3)
    found = tf.nn.conv2d(x, w, 1, "VALID")
    assert found.shape == (2, 3, 4, 4, 3)
    expected = tf.nn.conv2d(x.reshape(6, 5, 5, 2), w, 1, "VALID").numpy()
    assert np.array_equal(found.numpy().reshape(expected.shape), expected)


@pytest.mark.parametrize("depth, outputs", [(2, 6), (1, 8), (4, 3)])
def test_groups(depth, outputs):
    x, w = normal(2, 5, 5, 4), normal(2, 2, depth, outputs)
    groups = 4 // depth
    each = outputs // groups
    parts = [
        loops(x[..., i * depth : (i + 1) * depth], w[..., i * each : (i + 1) * each],
              (1, 1), "SAME", (1, 1))
        for i in range(groups)
    ]  # fmt: skip
    found = tf.nn.conv2d(x, w, 1, "SAME")
    np.testing.assert_allclose(found, np.concatenate(parts, -1), rtol=1e-10, atol=1e-12)
    check_gradients(lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"), [x, w])


def test_depthwise_and_separable():
    x, w, p = normal(2, 6, 7, 3), normal(3, 2, 3, 2), normal(1, 1, 6, 5)
    found = tf.nn.depthwise_conv2d(x, w, [1, 2, 2, 1], "SAME")
    for channel in range(3):
        one = loops(x[..., [channel]], w[:, :, [channel]], (2, 2), "SAME", (1, 1))
        np.testing.assert_allclose(
            found[..., 2 * channel : 2 * channel + 2], one, rtol=1e-10, atol=1e-12
        )
    both = tf.nn.separable_conv2d(x, w, p, [1, 2, 2, 1], "SAME")
    np.testing.assert_allclose(both, found.numpy() @ p[0, 0], rtol=1e-10)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transpose_is_the_gradient(padding, stride):
    w, size = normal(3, 3, 4, 2), 6 * stride if padding == "SAME" else 5 * stride + 3
    y = normal(2, 6, 6, 2)
    x = tf.zeros((2, size, size, 4), dtype=tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = tf.nn.conv2d(x, w, stride, padding)
    expected = tape.gradient(z, x, output_gradients=tf.constant(y))
    found = tf.nn.conv2d_transpose(y, w, [2, size, size, 4], stride, padding)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    general = tf.nn.conv_transpose(y, w, tf.constant([2, size, size, 4]), stride, padding)
    assert np.array_equal(general.numpy(), found.numpy())
    first = tf.nn.conv2d_transpose(
        y.transpose(0, 3, 1, 2), w, [2, 4, size, size], stride, padding, data_format="NCHW"
    )
    np.testing.assert_allclose(first, found.numpy().transpose(0, 3, 1, 2), rtol=1e-12)


def test_conv1d_transpose_spreads_each_element():
    found = tf.nn.conv1d_transpose(
        tf.constant([[[1.0], [10.0]]]),
        tf.constant([[[1.0]], [[2.0]], [[3.0]]]),
        [1, 5, 1],
        2,
        "VALID",
    )
    assert found.numpy().ravel().tolist() == [1.0, 2.0, 13.0, 20.0, 30.0]


def test_empty_batches_and_windows_that_do_not_fit():
    w = tf.ones((3, 3, 2, 4))
    assert tf.nn.conv2d(tf.ones((0, 5, 5, 2)), w, 1, "SAME").shape == (0, 5, 5, 4)
    assert tf.nn.conv2d(tf.ones((1, 2, 5, 2)), w, 1, "VALID").shape == (1, 0, 3, 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not fit"):
        tf.nn.conv2d(tf.ones((1, 1, 5, 2)), w, 1, "VALID")


def test_float32_stays_float32():
    assert tf.nn.conv2d(tf.ones((1, 4, 4, 1)), tf.ones((2, 2, 1, 1)), 1, "SAME").dtype == tf.float32


@pytest.mark.parametrize(
    "x, w",
    [((1, 4, 4, 3), (2, 2, 2, 4)), ((1, 4, 4, 4), (2, 2, 2, 3)), ((4, 4, 3), (2, 2, 3, 4)),
     ((1, 4, 4, 3), (2, 3, 4))],
)  # fmt: skip
def test_channels_and_ranks_that_do_not_fit_name_both_shapes(x, w):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.nn.conv2d(tf.ones(x), tf.ones(w), 1, "SAME")
    assert str(x) in str(caught.value) and str(w) in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "FULL"},
        {"padding": [[0, 0], [1, 1]]},
        {"padding": [[1, 1], [0, 0], [0, 0], [0, 0]]},
        {"padding": [[0, 0], [-1, 0], [0, 0], [0, 0]]},
        {"strides": 0},
        {"strides": [1, 2, 3]},
        {"strides": [2, 1, 1, 1]},
        {"dilations": 0},
        {"data_format": "HWCN"},
    ],
)
def test_options_that_make_no_sense_are_invalid_arguments(options):
    call = {"strides": 1, "padding": "SAME", **options}
    with pytest.raises(tf.errors.InvalidArgumentError, match="conv2d"):
        tf.nn.conv2d(tf.ones((1, 4, 4, 3)), tf.ones((2, 2, 3, 4)), **call)


def test_more_errors():
    x, w = tf.ones((1, 4, 4, 3)), tf.ones((2, 2, 3, 4))
    for call in (
        lambda: tf.nn.conv2d(x, tf.cast(w, tf.float64), 1, "SAME"),
        lambda: tf.nn.conv2d(tf.cast(x, tf.int32), tf.cast(w, tf.int32), 1, "SAME"),
        lambda: tf.nn.depthwise_conv2d(x, tf.ones((2, 2, 2, 1)), [1, 1, 1, 1], "SAME"),
        lambda: tf.nn.conv2d_transpose(x, w, [1, 8, 8, 3], 2),
        lambda: tf.nn.conv2d_transpose(x, tf.ones((2, 2, 5, 3)), [1, 3, 3, 5], 2),
        lambda: tf.nn.conv2d_transpose(x, tf.ones((2, 2, 5, 3)), [2, 8, 8, 5], 2),
        lambda: tf.nn.conv2d_transpose(x, tf.ones((2, 2, 5, 3)), [8, 8, 5], 2),
        lambda: tf.nn.convolution(tf.ones((2, 3)), tf.ones((3, 4))),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            call()


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_atrous_convolution_is_a_dilated_one(padding):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 7, 8, 3)), rng.normal(size=(3, 2, 3, 4))
    expected = tf.nn.conv2d(x, w, 1, padding, dilations=2)
    np.testing.assert_array_equal(tf.nn.atrous_conv2d(x, w, 2, padding), expected)
