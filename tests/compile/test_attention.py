"""Attention that the pass finds: as one operation it gives what its parts give, to rounding."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.numpy_exec import Executor
from distgrad.compile.passes import attentive, constants, simplify
from distgrad.compile.program import Program, Value

RNG = np.random.default_rng(0)
CAUSAL = np.tri(5, 6, dtype=bool)
BAND = CAUSAL & ~np.tri(5, 6, -3, dtype=bool)


def floats(*shape):
    return RNG.normal(size=shape)


Q, K, V = floats(2, 3, 5, 4), floats(2, 3, 6, 4), floats(2, 3, 6, 7)


def found_in(fn, *arrays, wanted=True) -> tuple[Program, list]:
    """The program after the pass, whose results are compared; and what it asked for."""
    asked = []

    def takes(q, k, v, bias, *, scale, causal, trained):
        shapes = q.shape, k.shape, v.shape, bias.shape if type(bias) is Value else bias
        asked.append((*shapes, scale, causal, trained))
        return wanted

    before = simplify(trace(fn, arrays).program)
    after = attentive(before, takes)
    results = [Executor(program, arrays)(arrays) for program in (before, after)]
    for a, b in zip(*results, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    return after, asked


def count(program: Program, name: str) -> int:
    return sum(i.name == name for i in program.instructions)


def with_gradients(fn):
    """``fn`` of tensors, and the gradients of all of them."""

    def both(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = fn(*tensors)
            loss = tf.reduce_sum(tf.sin(y))
        return [y, *tape.gradient(loss, tensors)]

    return both


def attend(q, k, v, mask=None, low=-1e9, scale=0.5):
    scores = tf.matmul(q, k, transpose_b=True) * scale
    if mask is not None:
        scores = tf.where(mask, scores, low)
    return tf.matmul(tf.nn.softmax(scores), v)


MASKS = [  # and whether it is causal, and whether it becomes a bias
    (None, False, False),
    (CAUSAL, True, False),
    (CAUSAL[None, None], True, False),
    (BAND, False, True),
    (np.ones((5, 6), bool), False, False),
]


@pytest.mark.parametrize("mask, causal, biased", MASKS)
@pytest.mark.parametrize("trained", [False, True])
def test_masks(mask, causal, biased, trained):
    def fn(q, k, v):
        return attend(q, k, v, mask)

    program, asked = found_in(with_gradients(fn) if trained else fn, Q, K, V)
    bias = (5, 6) if biased else 0.0
    assert asked == [(Q.shape, K.shape, V.shape, bias, 0.5, causal, trained)]
    assert (count(program, "attention"), count(program, "attention_grad")) == (1, trained)
    assert not count(program, "softmax_along") and not count(program, "dot")


def transposed_keys(q, k, v):
    scores = tf.matmul(k, q, transpose_b=True) / 4.0
    return tf.matmul(tf.nn.softmax(tf.transpose(scores, (0, 1, 3, 2))), v)


def scaled_before(q, k, v):
    return tf.einsum("bhqk,bhkd->bqhd", tf.nn.softmax(tf.einsum("bhkd,bhqd->bhqk", k, 0.5 * q)), v)


def transposed_values(q, k, v):
    weights = tf.nn.softmax(0.5 * tf.matmul(q, k, transpose_b=True))
    return tf.matmul(v, weights, transpose_a=True, transpose_b=True)


def of_rank_3(q, k, v):
    return attend(q[0], k[0], v[0])


def masked_again(q, k, v):
    scores = tf.where(CAUSAL, tf.matmul(q, k, transpose_b=True), -3e4)
    return tf.matmul(tf.where(CAUSAL, tf.nn.softmax(scores), 0.0), v)


FORMS = [transposed_keys, scaled_before, transposed_values, of_rank_3, masked_again]


@pytest.mark.parametrize("fn", FORMS, ids=lambda fn: fn.__name__)
def test_other_ways_to_write_it(fn):
    for form in (fn, with_gradients(fn)):
        program, asked = found_in(form, Q, K, V)
        assert len(asked) == count(program, "attention") == 1
        assert count(program, "attention_grad") == (form is not fn)
        assert not count(program, "softmax_along") and not count(program, "softmax_grad")


def test_a_bias_without_a_gradient():
    def fn(q, k, v, bias):
        return tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 0.3 + bias), v)

    bias = floats(3, 5, 6)
    program, asked = found_in(fn, Q, K, V, bias)
    assert count(program, "attention") == 1 and asked[0][3] == (3, 5, 6)
    constant = lambda q, k, v: fn(q, k, v, tf.constant(bias))  # noqa: E731
    program, _ = found_in(with_gradients(constant), Q, K, V)
    assert count(program, "attention_grad") == 1
    program, _ = found_in(with_gradients(fn), Q, K, V, bias)  # its gradient is wanted
    assert count(program, "attention") == 0


def test_a_mask_that_is_too_large_to_be_kept(monkeypatch):
    monkeypatch.setattr(constants, "_LARGEST", 8)

    def fn(q, k, v):
        mask = tf.cast(tf.linalg.band_part(tf.ones((5, 6)), -1, 0), tf.bool)
        return attend(q, k, v, mask)

    program, asked = found_in(with_gradients(fn), Q, K, V)
    assert count(program, "attention_grad") == 1 and asked[0][4:] == (0.5, True, True)
    assert not count(program, "cast_discrete")


def test_two_layers():
    def fn(q, k, v):
        return attend(attend(q, k, k, CAUSAL), k, v)

    program, asked = found_in(with_gradients(fn), Q, K, V)
    assert count(program, "attention") == count(program, "attention_grad") == 2
    assert [a[5] for a in asked] == [True, False]


def test_keras_layers_are_found():
    layer = tf.keras.layers.MultiHeadAttention(2, 4, dtype="float64")
    x = floats(2, 5, 8)
    layer(x, x)
    for causal in (False, True):
        run = lambda x, c=causal: layer(x, x, use_causal_mask=c)  # noqa: E731
        program, asked = found_in(with_gradients(run), x)
        assert count(program, "attention_grad") == 1 and asked[0][4:] == (1.0, causal, True)


def weights_too(q, k, v):
    weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True))
    return tf.matmul(weights, v), weights


def scores_too(q, k, v):
    scores = tf.matmul(q, k, transpose_b=True)
    return tf.matmul(tf.nn.softmax(scores), v), tf.reduce_sum(scores)


def mask_of_the_data(q, k, v):
    return attend(q, k, v, k[:, :, None, :, 0] > 0)


def a_row_without_keys(q, k, v):
    return attend(q, k, v, np.arange(5)[:, None] > np.zeros(6))


def other_axis(q, k, v):
    return tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True), axis=-2), v)


def dropped_out(q, k, v):
    weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True))
    return tf.matmul(weights * tf.cast(weights > 0.1, weights.dtype), v)


def soft_masked(q, k, v):
    return attend(q, k, v, CAUSAL, low=-2.0)


def one_matrix_for_all(q, k, v):
    return tf.matmul(tf.nn.softmax(tf.matmul(q, k[0, 0], transpose_b=True)), v)


LEFT = [
    *(weights_too, scores_too, mask_of_the_data, a_row_without_keys, other_axis, dropped_out),
    *(soft_masked, one_matrix_for_all),
]


@pytest.mark.parametrize("fn", LEFT, ids=lambda fn: fn.__name__)
def test_what_is_no_attention_is_left_alone(fn):
    program, asked = found_in(fn, Q, K, V)
    assert not asked and count(program, "softmax_along") == 1


def test_what_nobody_takes_is_left_alone():
    program, asked = found_in(with_gradients(attend), Q, K, V, wanted=False)
    assert len(asked) == 1 and count(program, "softmax_along") == 1
    assert not count(program, "attention")


def test_a_gradient_of_some_arguments_is_left_alone():
    def fn(q, k, v):
        with tf.GradientTape() as tape:
            tape.watch(q)
            loss = tf.reduce_sum(tf.sin(attend(q, k, v)))
        return tape.gradient(loss, q)

    program, _ = found_in(fn, Q, K, V)
    assert count(program, "softmax_along") == 1
