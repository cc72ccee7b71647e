"""What ragged tensors are no arguments of, and how that is said; dense ones pay nothing for it."""

from __future__ import annotations

import io

import numpy as np
import pytest

import distgrad as tf

RT = tf.ragged.constant([[1.0, 2.0], [3.0], []])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tf.transpose(RT), "transpose takes no RaggedTensor: make a tensor of it by to_"),
        (lambda: tf.unstack(RT), "unstack takes no RaggedTensor"),
        (lambda: tf.convert_to_tensor(RT), "a RaggedTensor is no array.*to_tensor"),
        (lambda: tf.argmax(RT, 1), "no array"),
        (lambda: np.asarray(RT), "no array"),
        (lambda: tf.map_fn(lambda x: tf.linalg.norm(RT), tf.constant([1.0])), "no array"),
        (lambda: RT[:, 0], "Cannot index into an inner ragged dimension"),
        (lambda: tf.squeeze(RT), "must have an axis"),
        (lambda: tf.split(RT, 1, axis=1), "axis 1 is ragged"),
        (lambda: tf.tile(RT, [1]), "1 multiples for the rank 2"),
        (lambda: tf.nn.dropout(RT, 0.5, noise_shape=[3, 1]), "noise_shape is not supported"),
        (lambda: tf.one_hot(tf.ragged.constant([[1]]), 2, axis=0), "axis must be greater"),
        (lambda: tf.ragged.map_flat_values(tf.reduce_sum, RT), "same outer-dimension size"),
        (lambda: tf.ragged.constant([[1]], ragged_rank=-1), "must be nonnegative"),
        (lambda: tf.ragged.boolean_mask(RT, True), "mask cannot be scalar"),
        (lambda: tf.ragged.boolean_mask(RT, [True]), "1 bools for 3 rows"),
        (lambda: tf.ragged.boolean_mask(RT, [[True]] * 3), "data and mask have other rows"),
        (lambda: RT.to_tensor(shape=[3]), "has not the rank 2"),
        (lambda: RT.merge_dims(1, 0), "must be before inner_axis=0"),
        (lambda: RT.row_lengths(axis=2), "axis=2 is out of bounds"),
        (lambda: RT.with_values([1.0]), "1 values in rows of 3"),
        (lambda: tf.concat([RT, [1.0]], 0), r"of the ranks \[1, 2\] do not go together"),
        (lambda: tf.matmul(tf.ragged.constant([[1.0], [2.0, 3.0]]), RT), "innermost dimension"),
        (lambda: tf.RaggedTensorSpec([None], ragged_rank=1), "less than the rank 1"),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_names_that_do_not_exist():
    with pytest.raises(AttributeError, match="no attribute 'placeholder': to_tensor"):
        tf.ragged.placeholder  # noqa: B018


def test_it_prints_as_in_tensorflow():
    stream = io.StringIO()
    tf.print(RT, tf.ragged.constant([["a"], []]), [RT[:1]], output_stream=stream)
    assert (
        stream.getvalue()
        == "[[1.000000, 2.000000], [3.000000], []] [['a'], []] [[[1.000000, 2.000000]]]\n"
    )
    stream = io.StringIO()
    tf.print(tf.ragged.range([9, 2]), summarize=1, output_stream=stream)
    assert stream.getvalue() == "[[0, ..., 8], [0, 1]]\n"


def test_random_masks_keep_rows():
    kept = tf.nn.dropout(tf.ones_like(tf.ragged.range([50, 0, 50], dtype="float32")), 0.5, seed=1)
    assert kept.row_lengths().numpy().tolist() == [50, 0, 50]
    assert sorted(set(kept.flat_values.numpy().tolist())) == [0.0, 2.0]
