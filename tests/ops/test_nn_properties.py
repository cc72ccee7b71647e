"""Laws of convolution, pooling, softmax and normalisation over random shapes and geometries."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import distgrad as tf
from distgrad.ops.normalization import layer_norm

properties = settings(max_examples=30)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@st.composite
def geometries(draw):
    """Options of a convolution over one or two axes, with an input long enough for a window."""
    count = draw(st.integers(1, 2))
    axes = {
        "size": draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)),
        "strides": draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)),
        "dilations": draw(st.lists(st.integers(1, 2), min_size=count, max_size=count)),
    }
    space = [
        (k - 1) * d + draw(st.integers(1, 4))
        for k, d in zip(axes["size"], axes["dilations"], strict=True)
    ]
    pairs = [[draw(st.integers(0, 2)), draw(st.integers(0, 2))] for _ in range(count)]
    padding = draw(st.sampled_from(["SAME", "VALID", [[0, 0], *pairs, [0, 0]]]))
    return axes, space, padding


def brute(x, w, axes, padding):
    """Every product of a filter element with an input element, looked up in a padded copy."""
    size, strides, dilations = axes["size"], axes["strides"], axes["dilations"]
    space = x.shape[1:-1]
    if padding == "SAME":
        counts = [-(-n // s) for n, s in zip(space, strides, strict=True)]
        totals = [
            max((c - 1) * s + (k - 1) * d + 1 - n, 0)
            for c, s, k, d, n in zip(counts, strides, size, dilations, space, strict=True)
        ]
        pairs = [(t // 2, t - t // 2) for t in totals]
    else:
        pairs = [(0, 0)] * len(space) if padding == "VALID" else [tuple(p) for p in padding[1:-1]]
    x = np.pad(x, [(0, 0), *pairs, (0, 0)])
    counts = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:-1], size, strides, dilations, strict=True)
    ]
    out = np.zeros((x.shape[0], *counts, w.shape[-1]))
    for to in np.ndindex(*counts):
        for at in np.ndindex(*size):
            place = tuple(
                i * s + j * d for i, s, j, d in zip(to, strides, at, dilations, strict=True)
            )
            out[(slice(None), *to)] += x[(slice(None), *place)] @ w[at]
    return out


@properties
@given(geometries(), st.integers(0, 2), st.integers(1, 3), st.integers(1, 3))
def test_convolution_and_its_gradients(geometry, batch, channels, outputs):
    axes, space, padding = geometry
    x, w = normal(0, batch, *space, channels), normal(1, *axes["size"], channels, outputs)
    expected = brute(x, w, axes, padding)
    tx, tw = tf.constant(x), tf.constant(w)
    options = {"strides": axes["strides"], "dilations": axes["dilations"], "padding": padding}
    with tf.GradientTape() as tape:
        tape.watch([tx, tw])
        y = tf.nn.convolution(tx, tw, **options)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-9, atol=1e-10)
    upstream = normal(2, *expected.shape)
    gx, gw = tape.gradient(y, [tx, tw], output_gradients=tf.constant(upstream))
    # The form is linear in each factor: all three products with the cotangent are one number.
    total = np.sum(upstream * expected)
    np.testing.assert_allclose(np.sum(gx.numpy() * x), total, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(np.sum(gw.numpy() * w), total, rtol=1e-8, atol=1e-8)
    direction = normal(3, *x.shape)
    np.testing.assert_allclose(
        np.sum(gx.numpy() * direction), np.sum(upstream * brute(direction, w, axes, padding)),
        rtol=1e-8, atol=1e-8,
    )  # fmt: skip


@properties
@given(geometries(), st.integers(1, 3))
def test_depthwise_is_a_convolution_per_channel(geometry, channels):
    axes, space, padding = geometry
    assume(len(space) == 2)
    x, w = normal(0, 2, *space, channels), normal(1, *axes["size"], channels, 2)
    found = tf.nn.depthwise_conv2d(
        x, w, [1, *axes["strides"], 1], padding, dilations=axes["dilations"]
    ).numpy()
    for c in range(channels):
        expected = brute(x[..., [c]], w[..., [c], :], axes, padding)
        np.testing.assert_allclose(found[..., 2 * c : 2 * c + 2], expected, rtol=1e-9, atol=1e-10)


@properties
@given(geometries())
def test_pooling_of_permuted_elements(geometry):
    axes, space, padding = geometry
    assume(isinstance(padding, str))
    size, strides = axes["size"], axes["strides"]
    x = normal(0, 2, *space, 3)
    largest = tf.nn.max_pool(x, size, strides, padding)
    assert np.isin(largest.numpy(), x).all()
    smallest = -tf.nn.max_pool(-x, size, strides, padding)
    mean = tf.nn.avg_pool(x, size, strides, padding).numpy()
    assert np.all(mean <= largest.numpy() + 1e-12) and np.all(mean >= smallest.numpy() - 1e-12)
    tensor = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tensor)
        top = tf.nn.max_pool(tensor, size, strides, padding)
        middle = tf.nn.avg_pool(tensor, size, strides, padding)
    for y in (top, middle):
        # Each window hands on exactly its own cotangent.
        g = tape.gradient(y, tensor).numpy()
        np.testing.assert_allclose(g.sum(), np.size(y.numpy()), rtol=1e-9)
        np.testing.assert_allclose(np.sum(g * x), np.sum(y.numpy()), rtol=1e-8, atol=1e-8)


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@properties
@given(shapes, st.integers(-3, 2), st.floats(-50, 50))
def test_softmax_sums_to_one_and_does_not_see_a_shift(shape, axis, shift):
    axis = axis % len(shape)
    x = 3 * normal(0, *shape)
    p = tf.nn.softmax(x, axis=axis).numpy()
    np.testing.assert_allclose(p.sum(axis=axis), np.ones(np.delete(shape, axis)), rtol=1e-12)
    np.testing.assert_allclose(tf.nn.softmax(x + shift, axis=axis), p, rtol=1e-9)
    np.testing.assert_allclose(tf.exp(tf.nn.log_softmax(x, axis=axis)), p, rtol=1e-12)
    loss = tf.nn.softmax_cross_entropy_with_logits(p, x, axis=axis)
    entropy = -np.sum(p * np.log(p), axis=axis)
    np.testing.assert_allclose(loss, entropy, rtol=1e-9, atol=1e-12)


@properties
@given(shapes, st.sets(st.integers(0, 2), min_size=1))
def test_normalised_has_no_mean_and_its_gradient_neither(shape, axes):
    axes = tuple(sorted({a % len(shape) for a in axes}))
    x = tf.constant(5 + 3 * normal(0, *shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer_norm(x, axis=axes, epsilon=1e-6)
    np.testing.assert_allclose(np.mean(y.numpy(), axis=axes), 0, atol=1e-9)
    assert np.all(np.var(y.numpy(), axis=axes) <= 1 + 1e-9)
    g = tape.gradient(y, x, output_gradients=tf.constant(normal(1, *shape)))
    np.testing.assert_allclose(np.mean(g.numpy(), axis=axes), 0, atol=1e-6)


@properties
@given(shapes, st.integers(0, 2))
def test_unit_length(shape, axis):
    axis = axis % len(shape)
    y = tf.nn.l2_normalize(normal(0, *shape), axis=axis).numpy()
    np.testing.assert_allclose(np.sum(y * y, axis=axis), np.ones(np.delete(shape, axis)), rtol=1e-9)
