"""Shapes: NumPy's values, and TensorFlow's errors at the call."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

IAE = tf.errors.InvalidArgumentError
X = np.random.default_rng(0).normal(size=(2, 3, 4))


@pytest.mark.parametrize(
    "found, expected",
    [
        (lambda x: tf.reshape(x, [4, -1]), X.reshape(4, -1)),
        (lambda x: tf.reshape(x, -1), X.reshape(-1)),
        (lambda x: tf.reshape(x, tf.constant([6, 4])), X.reshape(6, 4)),
        (lambda x: tf.transpose(x), X.T),
        (lambda x: tf.transpose(x, [1, 0, 2]), X.transpose(1, 0, 2)),
        (lambda x: tf.expand_dims(x, -2), X[:, :, None]),
        (lambda x: tf.squeeze(x[:1]), X[0]),
        (lambda x: tf.squeeze(x[:1, :, :1], [-1]), X[:1, :, 0]),
        (lambda x: tf.squeeze(x[:1, :, :1], []), X[0, :, 0]),
        (lambda x: tf.meshgrid(x[0], [0.0])[0], X[:1].reshape(1, -1)),
        (
            lambda x: tf.gather(x[0], [[1], [0], [2]], batch_dims=-1),
            X[0][range(3), [1, 0, 2], None],
        ),
        (lambda x: tf.concat([x, x[:, :1]], 1), np.concatenate([X, X[:, :1]], 1)),
        (lambda x: tf.stack([x, -x], -1), np.stack([X, -X], -1)),
        (lambda x: tf.stack(tf.unstack(x, axis=1), 0), X.transpose(1, 0, 2)),
        (lambda x: tf.split(x, 2, -1)[1], X[..., 2:]),
        (lambda x: tf.split(x, [1, -1, 1], 2)[1], X[..., 1:3]),
        (lambda x: tf.tile(x, [2, 1, 3]), np.tile(X, [2, 1, 3])),
        (lambda x: tf.tile(x, [0, 1, 1]), X[:0]),
        (lambda x: tf.repeat(x, 3, 1), np.repeat(X, 3, 1)),
        (lambda x: tf.repeat(x, [2, 0, 1], 1), np.repeat(X, [2, 0, 1], 1)),
        (lambda x: tf.repeat(x, 2), np.repeat(X, 2)),
        (lambda x: tf.reverse(x, [0, -1]), X[::-1, :, ::-1]),
        (lambda x: tf.roll(x, 5, 2), np.roll(X, 5, 2)),
        (lambda x: tf.roll(x, [1, -1], [0, 1]), np.roll(X, [1, -1], [0, 1])),
        (
            lambda x: tf.broadcast_to(x[:, :1], [5, 2, 3, 4]),
            X[None, :, :1] + np.zeros((5, 2, 3, 4)),
        ),
        (lambda x: tf.slice(x, [0, 1, 1], [-1, 2, 1]), X[:, 1:3, 1:2]),
        (
            lambda x: tf.strided_slice(x, [0, 2, -1], [2, 0, -4], [1, -1, -2]),
            X[0:2, 2:0:-1, -1:-4:-2],
        ),
        (
            lambda x: tf.strided_slice(
                x, [0, 0, 9, 1], [9, 0, 9, 9], ellipsis_mask=1, new_axis_mask=4, end_mask=8
            ),
            X[..., 0:0, None, 1:],
        ),
        (
            lambda x: tf.strided_slice(x, [1, 5], [0, 2], begin_mask=2, shrink_axis_mask=1),
            X[1, :2],
        ),
        (lambda x: tf.pad(x, [[0, 0], [1, 2], [2, 0]]), np.pad(X, [[0, 0], [1, 2], [2, 0]])),
        (
            lambda x: tf.pad(x, [[1, 1], [2, 1], [3, 2]], "REFLECT"),
            np.pad(X, [[1, 1], [2, 1], [3, 2]], "reflect"),
        ),
        (
            lambda x: tf.pad(x, [[2, 1], [3, 0], [0, 4]], "symmetric"),
            np.pad(X, [[2, 1], [3, 0], [0, 4]], "symmetric"),
        ),
        (lambda x: tf.meshgrid(x[0, 0], x[0, :, 0])[0], np.meshgrid(X[0, 0], X[0, :, 0])[0]),
        (
            lambda x: tf.meshgrid(x[0, 0], x[1, 1, 1], indexing="ij")[1],
            np.meshgrid(X[0, 0], X[1, 1, 1], indexing="ij")[1],
        ),
        (lambda x: tf.linalg.diag(x), X[..., None] * np.eye(4)),
        (lambda x: tf.linalg.diag_part(x), np.diagonal(X, 0, -2, -1)),
        (lambda x: tf.linalg.diag_part(x, k=-1), np.diagonal(X, -1, -2, -1)),
        (lambda x: tf.linalg.set_diag(x, -x[..., 0]), np.where(np.eye(3, 4) > 0, -X[..., :1], X)),
        (lambda x: tf.linalg.band_part(x, 0, -1), np.triu(X)),
        (lambda x: tf.linalg.band_part(x, -1, 1), np.tril(X, 1)),
        (lambda x: tf.linalg.tensor_diag_part(tf.linalg.tensor_diag(x[0])), X[0]),
        (lambda x: tf.identity_n([x, x])[1], X),
        (lambda x: tf.ensure_shape(x, [2, None, 4]), X),
    ],
)
def test_values_and_derivatives(found, expected):
    np.testing.assert_array_equal(found(tf.constant(X)), expected)
    assert found(tf.constant(X, tf.float64)).dtype == tf.float64
    check_gradients(found, [X], order=2)
    kept = found(tf.cast(X, tf.float32))
    assert kept.dtype == tf.float32


def test_linspace_is_differentiable_and_meets_its_ends():
    found = tf.linspace(0.1, 0.7, 7)
    np.testing.assert_allclose(found, np.linspace(0.1, 0.7, 7), rtol=1e-6)
    assert found.dtype == tf.float32 and float(found[-1]) == np.float32(0.7)
    assert tf.linspace(0, 10, 5).dtype == tf.float64
    assert float(tf.linspace(3.0, 9.0, 1)[0]) == 3
    a, b = np.array([1.0, 2.0]), np.array([3.0, 8.0])
    np.testing.assert_allclose(tf.linspace(a, b, 3, axis=-1), np.linspace(a, b, 3, axis=-1))
    check_gradients(lambda x, y: tf.linspace(x, y, 4), [a, b], order=1)
    assert tf.linspace(0.0, 1.0, 0).shape == (0,)
    with pytest.raises(IAE):
        tf.linspace(0.0, 1.0, -1)


@pytest.mark.parametrize(
    "args, values, dtype",
    [
        ((3,), [0, 1, 2], tf.int32),
        ((1, 4), [1, 2, 3], tf.int32),
        ((5, 0, -2), [5, 3, 1], tf.int32),
        ((0.0, 1.0, 0.25), [0, 0.25, 0.5, 0.75], tf.float32),
        ((0, 1, 0.5), [0, 0.5], tf.float32),
        ((3, 3), [], tf.int32),
    ],
)
def test_range(args, values, dtype):
    found = tf.range(*args)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == dtype
    assert tf.range(*args, dtype=tf.float64).dtype == tf.float64


def test_eye():
    np.testing.assert_array_equal(tf.eye(2, 3), np.eye(2, 3))
    assert tf.eye(2, batch_shape=[4, 1], dtype=tf.int32).shape == (4, 1, 2, 2)
    assert tf.linalg.eye is tf.eye


def test_shapes_of_tensors():
    assert tf.shape(X).dtype == tf.int32
    np.testing.assert_array_equal(tf.shape(X), [2, 3, 4])
    assert [s.numpy().tolist() for s in tf.shape_n([X, 1.0])] == [[2, 3, 4], []]
    assert int(tf.size(X)) == 24 and int(tf.rank(X)) == 3


def test_sequence_mask():
    np.testing.assert_array_equal(tf.sequence_mask([1, 3, 0]), [[1, 0, 0], [1, 1, 1], [0, 0, 0]])
    assert tf.sequence_mask([[1], [2]], maxlen=4, dtype=tf.float32).shape == (2, 1, 4)
    np.testing.assert_array_equal(tf.sequence_mask([1.5, 0.0]), [[1], [0]])  # the first below 1.5
    assert tf.sequence_mask([]).shape == (0, 0)
    with pytest.raises(IAE):
        tf.sequence_mask([True])


def test_pad_with_a_constant():
    np.testing.assert_array_equal(tf.pad([1, 2], [[1, 1]], constant_values=7), [7, 1, 2, 7])
    assert tf.pad([True], [[0, 1]], constant_values=False).dtype == tf.bool
    half = tf.pad(tf.constant([1.0]), [[0, 1]], constant_values=tf.constant(0.5))
    np.testing.assert_array_equal(half, [1.0, 0.5])
    assert float(tf.pad(2.0, tf.zeros([0, 2], tf.int32))) == 2


def test_pad_of_bools_and_transpose_of_complex_numbers():
    np.testing.assert_array_equal(tf.pad([True], [[1, 0]]), [False, True])
    z = tf.constant([[1 + 2j, 3 - 1j]])
    np.testing.assert_array_equal(tf.transpose(z, conjugate=True), [[1 - 2j], [3 + 1j]])


def test_diag_on_other_diagonals():
    np.testing.assert_array_equal(tf.linalg.diag([1.0, 2.0], k=1), np.diag([1.0, 2.0], 1))
    np.testing.assert_array_equal(tf.linalg.diag([1.0, 2.0], k=-1), np.diag([1.0, 2.0], -1))
    filled = tf.linalg.diag([1.0], num_cols=2, padding_value=9.0)
    np.testing.assert_array_equal(filled, [[1.0, 9.0]])
    changed = tf.linalg.set_diag(tf.fill([2, 2], np.inf), [5.0], k=1)
    np.testing.assert_array_equal(changed, [[np.inf, 5], [np.inf, np.inf]])


def test_reshape_and_transpose_of_a_variable_do_not_follow_it():
    v = tf.Variable([[1.0, 2.0]])
    flat, turned = tf.reshape(v, [2]), tf.transpose(v)
    v.assign([[5.0, 6.0]])
    np.testing.assert_array_equal(flat, [1, 2])
    np.testing.assert_array_equal(turned, [[1], [2]])


def test_nests_of_tensors_are_tensors_that_pass_gradients():
    """A rotation, losses in a list, a nest beside a tensor: as in TensorFlow, which packs them."""
    angle, v = tf.Variable(0.3), tf.Variable([1.0, 2.0])
    with tf.GradientTape(persistent=True) as tape:
        cos, sin = tf.cos(angle), tf.sin(angle)
        turned = tf.linalg.matvec([[cos, -sin], [sin, cos]], v)
        total = tf.reduce_sum([angle, 2.0, angle * angle])
        beside = v * [angle, 3.0]
        both = tf.add([angle, 1.0], [[2.0, angle]])
    by_angle = [tf.reduce_sum(tape.jacobian(y, angle)) for y in (turned, total, beside, both)]
    c, s = np.cos(0.3), np.sin(0.3)
    np.testing.assert_allclose(by_angle, [-s - 2 * c + c - 2 * s, 1.6, 1, 2], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(turned, v), [c + s, c - s], rtol=1e-6)


def test_nests_of_tensors_take_one_dtype():
    """That of the tensors in them, or of the tensor beside them; tensors of two do not mix."""
    one = tf.constant(1.0)
    assert tf.convert_to_tensor([2.0, one]).dtype == tf.float32
    assert tf.convert_to_tensor([[2, 3.0], [one, 4]]).dtype == tf.float32
    assert tf.convert_to_tensor([one], dtype="float64").dtype == tf.float64
    assert (tf.constant([2.0], tf.float64) * [one]).dtype == tf.float64
    with pytest.raises(IAE, match="do not mix"):
        tf.convert_to_tensor([[one, 1.0], [tf.constant(2.0, tf.float64), 1.0]])
    with pytest.raises(IAE, match="shapes differ"):
        tf.convert_to_tensor([one, tf.constant([1.0])])


def test_unused_outputs_of_split_have_a_zero_gradient():
    x = tf.constant([1.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.split(x, 3)[1] * 2.0
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 2, 0])


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: tf.reshape(X, [5, 5]), id="reshape count"),
        pytest.param(lambda: tf.reshape(X, [-1, 7]), id="reshape count with -1"),
        pytest.param(lambda: tf.reshape(X, [-1, -1]), id="two -1"),
        pytest.param(lambda: tf.reshape(X, [-2, 12]), id="negative size"),
        pytest.param(lambda: tf.reshape(tf.zeros([0]), [0, -1]), id="-1 beside 0"),
        pytest.param(lambda: tf.concat([X, X[0]], 0), id="concat ranks"),
        pytest.param(lambda: tf.concat([X, X[:, :1]], 0), id="concat shapes"),
        pytest.param(lambda: tf.concat([X, X], 3), id="concat axis"),
        pytest.param(lambda: tf.concat([1.0, 2.0], 0), id="concat scalars"),
        pytest.param(lambda: tf.concat([], 0), id="empty concat"),
        pytest.param(
            lambda: tf.concat([tf.constant(X), tf.cast(X, tf.float32)], 0), id="concat dtypes"
        ),
        pytest.param(lambda: tf.stack([X, X[0]]), id="stack shapes"),
        pytest.param(lambda: tf.stack([X[:1], X]), id="stack shapes that broadcast"),
        pytest.param(lambda: tf.stack([]), id="empty stack"),
        pytest.param(lambda: tf.stack([X], 5), id="stack axis"),
        pytest.param(lambda: tf.split(X, 2, 1), id="split uneven"),
        pytest.param(lambda: tf.split(X, [1, 1], 1), id="split sizes"),
        pytest.param(lambda: tf.split(X, 0), id="split into none"),
        pytest.param(lambda: tf.split(X, [-1, -1]), id="split two -1"),
        pytest.param(lambda: tf.split(X, 2, 3), id="split axis"),
        pytest.param(lambda: tf.unstack(X, num=3), id="unstack number"),
        pytest.param(lambda: tf.unstack(1.0), id="unstack scalar"),
        pytest.param(lambda: tf.squeeze(X, 0), id="squeeze size"),
        pytest.param(lambda: tf.squeeze(X, 3), id="squeeze axis"),
        pytest.param(lambda: tf.expand_dims(X, 4), id="expand_dims axis"),
        pytest.param(lambda: tf.transpose(X, [0, 1]), id="transpose rank"),
        pytest.param(lambda: tf.transpose(X, [0, 1, 1]), id="transpose twice"),
        pytest.param(lambda: tf.transpose(X, [0, 1, 3]), id="transpose axis"),
        pytest.param(lambda: tf.tile(X, [2]), id="tile rank"),
        pytest.param(lambda: tf.tile(X, [1, 1, -1]), id="tile negative"),
        pytest.param(lambda: tf.repeat(X, [1, 2], 1), id="repeat number"),
        pytest.param(lambda: tf.repeat(X, -1), id="repeat negative"),
        pytest.param(lambda: tf.pad(X, [[1, 1]]), id="pad rank"),
        pytest.param(lambda: tf.pad(X, [[0, 0], [0, 0], [0, -1]]), id="pad negative"),
        pytest.param(lambda: tf.pad([1.0, 2.0], [[2, 0]], "REFLECT"), id="pad reflect too wide"),
        pytest.param(
            lambda: tf.pad([1.0, 2.0], [[3, 0]], "SYMMETRIC"), id="pad symmetric too wide"
        ),
        pytest.param(lambda: tf.pad([1], [[1, 0]], constant_values=0.5), id="pad value dtype"),
        pytest.param(lambda: tf.broadcast_to(X, [2, 4]), id="broadcast_to rank"),
        pytest.param(lambda: tf.broadcast_to(X, [2, 3, 5]), id="broadcast_to size"),
        pytest.param(lambda: tf.reverse(X, [3]), id="reverse axis"),
        pytest.param(lambda: tf.reverse(X, [1, 1]), id="reverse twice"),
        pytest.param(lambda: tf.roll(X, 1, 3), id="roll axis"),
        pytest.param(lambda: tf.roll(X, [1, 2], [0]), id="roll number"),
        pytest.param(lambda: tf.slice(X, [0, 0, 0], [3, 1, 1]), id="slice size"),
        pytest.param(lambda: tf.slice(X, [0, 0], [1, 1]), id="slice rank"),
        pytest.param(lambda: tf.strided_slice(X, [0], [1, 2]), id="strided_slice length"),
        pytest.param(lambda: tf.strided_slice(X, [0], [1], [0]), id="strided_slice step 0"),
        pytest.param(lambda: tf.ensure_shape(X, [2, 3]), id="ensure_shape rank"),
        pytest.param(lambda: tf.ensure_shape(X, [2, 3, None, 1]), id="ensure_shape more"),
        pytest.param(lambda: tf.ensure_shape(X, [2, 3, 5]), id="ensure_shape size"),
        pytest.param(lambda: tf.range(0, 3, 0), id="range delta 0"),
        pytest.param(lambda: tf.range(3, 0), id="range direction"),
        pytest.param(lambda: tf.eye(-1), id="eye negative"),
        pytest.param(lambda: tf.linalg.diag(1.0), id="diag scalar"),
        pytest.param(lambda: tf.linalg.diag_part([1.0]), id="diag_part rank"),
        pytest.param(lambda: tf.linalg.diag_part(X, k=4), id="diag_part outside"),
        pytest.param(lambda: tf.linalg.set_diag(X, X[..., 0, :]), id="set_diag shape"),
        pytest.param(lambda: tf.linalg.band_part([1.0], 0, 0), id="band_part rank"),
        pytest.param(lambda: tf.linalg.tensor_diag_part(X), id="tensor_diag_part shape"),
    ],
)
def test_spec_6_misuse_is_an_invalid_argument_at_the_call(call):
    with pytest.raises(IAE):
        call()


def test_spec_6_messages_hold_both_shapes():
    with pytest.raises(IAE, match=r"2, 3, 4.*5, 5"):
        tf.reshape(X, [5, 5])
    with pytest.raises(IAE, match=r"2, 3, 4.*2, 3, 5"):
        tf.broadcast_to(X, [2, 3, 5])
    with pytest.raises(IAE, match=r"\(1, 3, 4\).*\(2, 3, 4\)"):
        tf.stack([X[:1], X])
    with pytest.raises(IAE, match=r"2, 3, 4.*2, 1, 4"):
        tf.concat([X, X[:, :1]], 0)


def test_wrong_words():
    with pytest.raises(ValueError, match="mode"):
        tf.pad(X, [[0, 0]] * 3, "WRAP")
    with pytest.raises(ValueError, match="indexing"):
        tf.meshgrid([1.0], indexing="zz")


def test_empty_and_scalar_tensors():
    assert tf.reshape(tf.zeros([0, 3]), [3, 0]).shape == (3, 0)
    assert tf.reshape(tf.zeros([0, 3]), [-1, 3]).shape == (0, 3)
    assert tf.transpose(2.0).shape == ()
    assert tf.concat([tf.zeros([0, 2]), tf.ones([1, 2])], 0).shape == (1, 2)
    assert tf.split(tf.zeros([0, 2]), 2, 0)[1].shape == (0, 2)
    assert tf.unstack(tf.zeros([0, 2])) == []
    assert tf.tile(2.0, tf.zeros([0], tf.int32)).shape == ()
    assert tf.roll(tf.zeros([0]), 1, 0).shape == (0,)
    assert tf.reverse(2.0, []).shape == ()
    assert tf.repeat(2.0, 3).shape == (3,)
    assert tf.pad(tf.zeros([0]), [[0, 0]], "REFLECT").shape == (0,)
    assert tf.linalg.diag(tf.zeros([0])).shape == (0, 0)


def test_a_stack_of_arrays_has_the_dtype_of_a_constant():
    """TensorFlow 2.21: integers that fit are int32, and join tensors that are."""
    rows = np.array([1, 2])
    assert tf.stack([rows, rows]).dtype == tf.constant([rows, rows]).dtype == tf.int32
    assert tf.stack([np.uint8(3), np.uint8(4)]).dtype == tf.int32
    assert tf.stack([rows, rows], axis=1).dtype == tf.stack([rows + 2**40]).dtype == tf.int64
    assert tf.stack([rows * 0.5, rows * 0.5]).dtype == tf.float64


def test_whole_sizes_that_were_computed_in_floats_are_taken_in_a_list():
    size = tf.math.ceil(15 / 8)
    assert tf.reshape(tf.zeros(8), [size * size, 2]).shape == (4, 2)
    assert tf.tile([[1.0]], [size, 3]).shape == (2, 3)
    for of in ([size / 4, 2], size, [2.0, 2]):
        with pytest.raises(TypeError, match="a shape is made of ints"):
            tf.ones(of)
