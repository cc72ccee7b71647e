"""What TensorFlow's functions take besides tensors: their keywords, arrays, lists and numbers."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras


@pytest.mark.parametrize("name", ["relu", "relu6", "softplus", "softsign"])
def test_activations_have_the_keywords_of_tensorflow_and_of_keras(name):
    x = tf.constant([-2.0, 3.0])
    expected = getattr(tf.nn, name)(x).numpy()
    np.testing.assert_array_equal(getattr(tf.nn, name)(features=x), expected)
    np.testing.assert_array_equal(getattr(keras.activations, name)(x=x), expected)
    for wrong in ({"feature": x}, {"features": x, "alpha": 1}):
        with pytest.raises(TypeError):
            getattr(tf.nn, name)(**wrong)
    with pytest.raises(TypeError, match="features"):
        getattr(tf.nn, name)(x, features=x)


def test_copies_are_asked_for_by_input():
    assert float(tf.identity(input=2.0)) == float(tf.stop_gradient(input=2.0)) == 2


def test_a_dtype_hint_is_for_what_is_no_tensor_and_fits():
    assert tf.convert_to_tensor(np.array([1.5]), dtype_hint=tf.float32).dtype == tf.float32
    assert tf.convert_to_tensor([1, 2], dtype_hint=tf.float64).dtype == tf.float64
    assert tf.convert_to_tensor([1.5, 2], dtype_hint=tf.int32).dtype == tf.float32
    assert tf.convert_to_tensor(tf.constant([1.5]), dtype_hint=tf.int32).dtype == tf.float32
    assert tf.convert_to_tensor([1], tf.float32, tf.int32, "name").dtype == tf.float32


def test_a_python_number_of_a_wider_kind_sets_the_dtype_beside_an_array():
    found = tf.multiply(2.5, np.array([1, 2]))
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, [2.5, 5.0])
    assert tf.add(1, np.array([True, False])).dtype == tf.int32
    assert tf.multiply(2, np.array([1.5])).dtype == tf.float64


def test_quotients_of_integers_that_are_no_tensors_are_floats():
    for quotient in (tf.truediv, tf.divide, tf.math.divide_no_nan):
        for found in (quotient(1, [1, 2]), quotient(np.array([1, 1]), np.array([1, 2]))):
            assert found.dtype == tf.float64
            np.testing.assert_array_equal(found, [1.0, 0.5])
    assert tf.truediv(np.array([1], np.uint8), 2).dtype == tf.float32


def test_arrays_of_numbers_hold_where_they_are_not_zero():
    numbers, bools = np.array([2.0, 0.0]), tf.constant([True, True])
    np.testing.assert_array_equal(tf.logical_and(numbers, bools), [True, False])
    np.testing.assert_array_equal(tf.logical_not(numbers), [False, True])
    assert tf.reduce_any(numbers) and not tf.reduce_all(numbers)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.logical_and(tf.constant(numbers), bools)  # a tensor is to be compared first
    np.testing.assert_array_equal(tf.boolean_mask([1, 2, 3], [1, 0, 2]), [1, 3])


def test_shapes_that_do_not_broadcast_are_unequal_as_tensors():
    a, b = tf.constant([1, 2]), tf.constant([1, 2, 3])
    assert (a == b).dtype == tf.bool and not (a == b).numpy() and (a != b).numpy()


def test_an_axis_or_a_dtype_may_be_none():
    assert tf.one_hot([1], 3, axis=None).shape == (1, 3)
    assert tf.shape([1], None).dtype == tf.size([1], out_type=None).dtype == tf.int32
    assert tf.expand_dims([1, 2], [-1]).shape == (2, 1)


def test_a_dtype_is_shown_as_in_tensorflow():
    assert repr([tf.float32, tf.bool]) == "[tf.float32, tf.bool]"


def test_results_of_several_parts_have_their_names():
    x = tf.constant([[2.0, 1.0], [0.0, 3.0]])
    assert tf.linalg.slogdet(x)._fields == ("sign", "log_abs_determinant")
    assert tf.linalg.lu(x)._fields == ("lu", "p")
    assert tf.linalg.qr(x)._fields == ("q", "r")
    pooled = tf.nn.max_pool_with_argmax(tf.reshape(x, (1, 2, 2, 1)), 2, 2, "SAME")
    assert pooled.output.numpy().item() == 3 and pooled.argmax.numpy().item() == 3


def test_fourier_transforms_take_reals_and_arrays_of_any_precision():
    for signal in ([1.0, 2.0], [1, 2], np.array([1.0, 2.0])):
        found = tf.signal.fft(signal), tf.signal.rfft(signal)
        assert {t.dtype for t in found} == {tf.complex64}
        np.testing.assert_array_equal(found, [[3, -1], [3, -1]])
    assert tf.signal.rfft(tf.constant([1.0], tf.float64)).dtype == tf.complex128
    for transform, wrong in ((tf.signal.fft, tf.constant([1.0])), (tf.signal.rfft, [1j])):
        with pytest.raises(tf.errors.InvalidArgumentError):
            transform(wrong)


def test_bounds_of_uniform_numbers_may_be_lists():
    drawn = tf.random.uniform([100, 2], [0.0, 5.0], [1.0, 6.0], seed=1).numpy()
    assert (drawn >= [0, 5]).all() and (drawn < [1, 6]).all()
    assert int(tf.random.shuffle(3)) == 3


def test_images_are_standardized_to_float32():
    image = np.random.default_rng(0).uniform(size=(4, 4, 3))
    found = tf.image.per_image_standardization(image)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, (image - image.mean()) / image.std(), rtol=1e-5)


def test_a_variable_of_no_say_is_trainable():
    assert tf.Variable(1.0, trainable=None).trainable


def test_integers_are_not_near_each_other():
    with pytest.raises(ValueError, match="assert_equal"):
        tf.debugging.assert_near(1, 1)


def test_a_product_of_small_integers_may_be_wider():
    a = tf.constant([[100, 1]], tf.int8)
    found = tf.matmul(a, a, transpose_b=True, output_type=tf.int32, b_is_sparse=True)
    assert found.dtype == tf.int32 and int(found[0, 0]) == 10001
    assert float(tf.linalg.matvec([[1.0, 2.0]], [3.0, 4.0], a_is_sparse=True)[0]) == 11


def test_dtypes_are_compared_with_types_of_python():
    assert [tf.float32, tf.bool] == [float, bool] and [tf.float64, tf.int32] != [float, int]
    assert tf.float64 == "double" and tf.float32 != "foo" and tf.float32 != None  # noqa: E711


def test_ensure_shape_takes_shapes_that_are_not_known():
    for shape in (None, [None, 2], tf.TensorShape([3, None])):
        assert tf.ensure_shape(tf.ones((3, 2)), shape).shape == (3, 2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.ensure_shape(tf.ones((3, 2)), [3])


def test_classes_in_one_column_are_a_vector():
    expected = [[0, 0, 0], [0, 0, 1], [0, 0, 1]]
    for labels, guesses in (([[1], [2]], [2, 2]), ([1, 2], [[2], [2]])):
        np.testing.assert_array_equal(tf.math.confusion_matrix(labels, guesses), expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one length"):
        tf.math.confusion_matrix([[1, 2]], [1, 2])


def test_lists_beside_matrices_take_their_dtype():
    found = tf.linalg.set_diag(tf.zeros((2, 2), tf.float64), [9, 8.5])
    assert found.dtype == tf.float64
    np.testing.assert_array_equal(found, [[9, 0], [0, 8.5]])


def test_small_lengths_have_long_masks():
    for dtype in (tf.uint8, tf.int8, tf.float16):
        assert tf.reduce_sum(tf.sequence_mask(tf.constant([3], dtype), 300, tf.int32)) == 3
    with pytest.raises(tf.errors.InvalidArgumentError, match="one number"):
        tf.sequence_mask([1, 2], [3, 4])


def test_a_slice_refuses_another_shape():
    v = tf.Variable(tf.ones((2, 3)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="slice"):
        v[:].assign([1.0, 2.0])
    np.testing.assert_array_equal(v, np.ones((2, 3)))


def test_a_depth_under_0_is_refused():
    assert tf.one_hot([1], 0).shape == (1, 0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="-1"):
        tf.one_hot([1], -1)


def test_print_shows_what_is_no_tensor_as_python_does(capsys):
    tf.print("a", {"b": "c", "d": tf.constant(1.5)}, np.array([1.5]), tf.TensorShape([2]), sep="|")
    tf.print(tf.constant(1.1, tf.float16), [np.float64(0.5)])
    shown = "a|{'b': 'c', 'd': 1.5}|array([1.5])|TensorShape([2])\n1.09960938 [np.float64(0.5)]\n"
    assert capsys.readouterr().err == shown


def test_print_shows_texts_as_tensorflow_does(capsys):
    texts = tf.constant(["a", "b"])
    tf.print(tf.constant("abc"))
    tf.print("a:", tf.constant("abc"), texts, {"k": texts, "l": "c"})
    tf.print(tf.constant(list("abcdefghi")), [tf.constant("q"), "z"])
    for text in tf.data.Dataset.from_tensor_slices(["u", "v"]).take(1):
        tf.print(text, [text])
    assert capsys.readouterr().err.splitlines() == [
        "abc",
        'a: "abc" ["a" "b"] {\'k\': ["a" "b"], \'l\': \'c\'}',
        '["a" "b" "c" ... "g" "h" "i"] ["q", \'z\']',
        '"u" ["u"]',
    ]


def test_a_number_is_shown_in_full():
    assert repr(tf.constant(0.1)).endswith("numpy=0.10000000149011612>")
    assert repr(tf.Variable(0.1)).endswith("numpy=0.10000000149011612>")
    assert str(tf.constant(0.1)) == "tf.Tensor(0.1, shape=(), dtype=float32)"


def test_names_by_position_and_older_and_newer_arguments():
    x = tf.constant([3.0, 4.0])
    np.testing.assert_array_equal(tf.add(x, x, "sum"), [6, 8])
    np.testing.assert_array_equal(tf.abs(x, None), [3, 4])
    with pytest.raises(TypeError, match="takes"):
        tf.add(x, x, 1.0)
    np.testing.assert_allclose(tf.nn.l2_normalize(x, dim=0), [0.6, 0.8], rtol=1e-6)
    with pytest.raises(ValueError, match="same argument"):
        tf.nn.l2_normalize(x, 0, dim=0)
    assert tf.as_dtype(type_value="float32") == tf.float32
    assert tf.TensorSpec([2]).is_compatible_with(spec_or_tensor=x)
    assert tf.random.Generator.from_seed(1).normal([2], name="n").shape == (2,)
    assert len(tf.data.Dataset.range(3).map(lambda n: n, synchronous=True)) == 3
