"""Ragged tensors as arguments and results of ``distgrad.function``: the values of an eager run."""

from __future__ import annotations

import copy
import pickle

import pytest

import distgrad as tf

A = tf.ragged.constant([[1.0, 2.0], [3.0], []])
B = tf.ragged.constant([[5.0, 6.0], [7.0], []])
OTHER = tf.ragged.constant([[1.0], [], [2.0, 3.0]])


def values(nest):
    leaves = tf.nest.flatten(nest)
    return [
        leaf.to_list() if isinstance(leaf, tf.RaggedTensor) else leaf.numpy().tolist()
        for leaf in leaves
    ]


def several(rt, factor=2.0):
    return rt * factor, tf.reduce_sum(rt, 1), {"both": tf.concat([rt, rt], 1)}


def test_it_is_captured_once_for_rows_of_the_same_lengths():
    function = tf.function(several)
    for rt in (A, B, A, OTHER, OTHER):
        assert values(function(rt)) == values(several(rt))
        assert values(function(rt=rt, factor=3.0)) == values(several(rt, 3.0))
    assert function.experimental_get_tracing_count() == len(function.executors) == 4


def test_rows_that_depend_on_values_run_eagerly():
    function = tf.function(tf.RaggedTensor.from_row_lengths)
    for lengths in ([1, 2], [2, 1]):
        made = function(tf.constant([1.0, 2.0, 3.0]), tf.constant(lengths))
        assert [len(row) for row in made.to_list()] == lengths
    assert function.executors == []


def test_rows_of_a_dense_tensor_are_captured():
    function = tf.function(lambda x: tf.RaggedTensor.from_row_lengths(x, [1, 2]))
    for numbers in ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]):
        assert function(tf.constant(numbers)).to_list() == [numbers[:1], numbers[1:]]
    assert len(function.executors) == 1


@pytest.mark.parametrize("jit_compile", [None, True])
def test_gradients_inside_and_outside(jit_compile):
    def slopes(rt):
        with tf.GradientTape() as tape:
            tape.watch(rt)
            y = tf.reduce_sum(tf.exp(rt) * tf.reduce_max(rt, 1, keepdims=True))
        return tape.gradient(y, rt)

    function = tf.function(slopes, jit_compile=jit_compile)
    for rt in (A, B):
        found, wanted = function(rt), slopes(rt)
        assert found.row_splits.numpy().tolist() == wanted.row_splits.numpy().tolist()
        tf.debugging.assert_near(found.flat_values, wanted.flat_values, rtol=1e-5)
    with tf.GradientTape() as tape:
        tape.watch(A)
        y = tf.function(lambda rt: rt * rt)(A)
    assert tape.gradient(y, A).to_list() == [[2.0, 4.0], [6.0], []]


def test_texts_run_eagerly():
    function = tf.function(tf.strings.length)
    assert function(tf.ragged.constant([["a"], ["b", "cc"]])).to_list() == [[1], [1, 2]]


def test_a_signature_names_what_fits():
    function = tf.function(
        lambda rt: tf.reduce_sum(rt), input_signature=[tf.RaggedTensorSpec([None, None])]
    )
    assert function(A).numpy() == 6.0 and function(OTHER).numpy() == 6.0
    with pytest.raises(TypeError, match="a float32 tensor of shape .* does not fit Ragged"):
        function(tf.constant([1.0]))
    with pytest.raises(ValueError, match="a int32 ragged tensor of shape .* does not fit Ragged"):
        function(tf.ragged.constant([[1]]))
    dense = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None])])
    with pytest.raises(TypeError, match="a float32 ragged tensor"):
        dense(A)


def test_it_is_shown_without_values_within_a_capture():
    shown = []
    tf.function(lambda rt: shown.append(str(rt)) or rt)(A)
    assert shown[0].startswith("tf.RaggedTensor(values=Tensor(") and "row_splits=" in shown[0]


def test_it_can_be_copied_and_sent():
    for made in (copy.deepcopy(A), pickle.loads(pickle.dumps(A)), copy.copy(A)):
        assert made.to_list() == A.to_list() and made.dtype == A.dtype
