"""TensorShape, DType and the tree of errors, as scripts for TensorFlow use them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence

import numpy as np
import pytest

import distgrad as tf

SHAPE = tf.TensorShape([2, None, 3])


def test_shapes_meet_where_their_sizes_do():
    assert SHAPE.is_compatible_with([None, 4, 3]) and not SHAPE.is_compatible_with([2, 4])
    assert not SHAPE.is_compatible_with([2, 4, 5])
    assert SHAPE.merge_with([None, 4, 3]) == [2, 4, 3]
    assert SHAPE.most_specific_compatible_shape([2, 4, 5]) == [2, None, None]
    assert tf.TensorShape([2, 4, 3]).is_subtype_of(SHAPE) and not SHAPE.is_subtype_of([2, 4, 3])
    with pytest.raises(ValueError, match=r"\(2, 4, 5\)"):
        SHAPE.merge_with([2, 4, 5])


def test_shapes_add_up_to_shapes():
    five, tail = [5], (5,)
    for joined in (
        SHAPE.concatenate(five),
        SHAPE + five,
        SHAPE + tail,
        SHAPE + tf.TensorShape(five),
    ):
        assert type(joined) is tf.TensorShape and joined == [2, None, 3, 5]
    before = five + SHAPE
    assert type(before) is tf.TensorShape and before == [5, 2, None, 3]


def test_assertions_of_shapes():
    assert SHAPE.with_rank(3) is SHAPE is SHAPE.with_rank_at_least(2) is SHAPE.with_rank_at_most(3)
    for wrong in (
        lambda: SHAPE.with_rank(2),
        lambda: SHAPE.with_rank_at_least(4),
        lambda: SHAPE.with_rank_at_most(2),
        lambda: SHAPE.assert_has_rank(4),
        lambda: SHAPE.assert_same_rank([1]),
        lambda: SHAPE.assert_is_compatible_with([3, 1, 3]),
        lambda: SHAPE.assert_is_fully_defined(),
    ):
        with pytest.raises(ValueError, match=r"\(2, None, 3\)"):
            wrong()


def test_a_shape_of_unknown_rank():
    any_rank, two = tf.TensorShape(None), tf.TensorShape([2, None])
    assert any_rank.rank is any_rank.ndims is any_rank.dims is any_rank.num_elements() is None
    assert any_rank == tf.TensorShape(any_rank) == None and any_rank != [] and any_rank != []  # noqa: E711
    assert (repr(any_rank), str(any_rank)) == ("TensorShape(None)", "<unknown>")
    assert not any_rank and not any_rank.is_fully_defined() and any_rank[1] is None
    assert isinstance(any_rank, tf.TensorShape) and pickle.loads(pickle.dumps(any_rank)) is any_rank
    assert any_rank.is_compatible_with([3]) and two.is_compatible_with(None)
    assert two.is_subtype_of(any_rank) and not any_rank.is_subtype_of(two)
    assert any_rank.merge_with(two) == two == two.merge_with(any_rank)
    assert two.most_specific_compatible_shape([2]) == any_rank
    five = [5]
    assert any_rank + five == any_rank == five + any_rank == any_rank[1:] == two + any_rank
    assert any_rank.with_rank(2) == [None, None] and any_rank.with_rank_at_least(1) == any_rank
    any_rank.assert_same_rank(two)
    two.assert_same_rank(any_rank)
    for wrong in (any_rank.as_list, any_rank.assert_is_fully_defined):
        with pytest.raises(ValueError, match="unknown"):
            wrong()
    for wrong in (len, list):
        with pytest.raises(ValueError, match="unknown"):
            wrong(any_rank)


def test_shapes_of_one_size_and_of_open_ones():
    assert tf.TensorShape(3) == [3] and tf.TensorShape([]).rank == 0
    assert SHAPE.num_elements() is None and tf.TensorShape([2, 3]).num_elements() == 6


def test_properties_of_dtypes():
    assert tf.uint8.is_unsigned and not tf.int8.is_unsigned and not tf.float32.is_unsigned
    assert tf.complex64.real_dtype is tf.float32 and tf.float64.real_dtype is tf.float64
    assert tf.uint8.limits == (0, 255) and tf.int16.limits == (0, 32767)
    assert tf.float32.limits == (0, 1) and tf.float32.base_dtype is tf.float32
    assert tf.float32.is_compatible_with("float32") and not tf.float32.is_compatible_with(tf.int32)
    assert tf.bool.min is False and tf.bool.max is True
    with pytest.raises(TypeError, match="complex64"):
        tf.complex64.max  # noqa: B018
    assert tf.bool.is_numeric is False and tf.int32.is_numeric is True
    assert tf.dtypes.as_dtype("half") is tf.float16 and tf.dtypes.cast(1.7, tf.int32) == 1


CODES = {
    **{"CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4},
    **{"NOT_FOUND": 5, "ALREADY_EXISTS": 6, "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8},
    **{"FAILED_PRECONDITION": 9, "ABORTED": 10, "OUT_OF_RANGE": 11, "UNIMPLEMENTED": 12},
    **{"INTERNAL": 13, "UNAVAILABLE": 14, "DATA_LOSS": 15, "UNAUTHENTICATED": 16},
}


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_its_class(code):
    name = "".join(part.capitalize() for part in code.split("_")) + "Error"
    kind = getattr(tf.errors, name)
    assert kind.error_code == getattr(tf.errors, code) == CODES[code]
    with pytest.raises(tf.errors.OpError) as caught:
        raise kind(None, None, "said by a script")
    assert caught.value.message == str(caught.value) == "said by a script"
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is kind and again.message == "said by a script"


def test_our_own_errors_are_those_of_the_tree():
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.reshape([1.0, 2.0], [3])
    assert isinstance(caught.value, ValueError) and caught.value.error_code == 3
    assert issubclass(tf.errors.NotFoundError, FileNotFoundError)


def test_nothing_is_no_element_type():
    with pytest.raises(TypeError, match="None"):
        tf.as_dtype(None)
    with pytest.raises(TypeError, match="None"):
        tf.cast([1.0], None)


def test_sizes_of_shapes_are_whole_numbers():
    assert tf.TensorShape([tf.constant(2), 3, None]).as_list() == [2, 3, None]
    for wrong in ([1.5], ["a"], "ab"):
        with pytest.raises(TypeError, match="whole number"):
            tf.TensorShape(wrong)
    with pytest.raises(ValueError, match="-1"):
        tf.TensorShape([-1, 2])


def test_names_of_python_are_those_of_tensorflow():
    assert tf.as_dtype("float") is tf.float32 and tf.constant(1, "float").dtype is tf.float32
    assert [tf.float32, tf.float64] == [float, tf.float64] and tf.int32 not in (int,)
    assert repr(tf.float32) == "tf.float32"


def test_numbers_of_dtypes_are_those_of_tensorflow():
    assert tf.as_dtype(3) is tf.int32 and tf.as_dtype(19) is tf.float16
    assert tf.zeros(1, 1).dtype is tf.float32
    with pytest.raises(TypeError, match="99 is not an element type"):
        tf.as_dtype(99)


@pytest.mark.parametrize(
    ("sizes", "error"), [([-1], ValueError), ([1.5], TypeError), ("a", TypeError)]
)
def test_sizes_that_are_none(sizes, error):
    with pytest.raises(error):
        tf.TensorShape(sizes)


def test_part_of_a_shape_of_any_rank():
    assert tf.TensorShape(None)[1:3].as_list() == [None, None]
    assert tf.TensorShape(None)[1:].rank is None


def test_a_spec_from_another():
    spec = tf.TensorSpec([None], tf.int32, "a")
    assert tf.TensorSpec.from_spec(spec) == spec
    assert tf.TensorSpec.from_spec(spec, "b").name == "b"


def test_arrays_of_the_other_byte_order():
    values = np.array([1.5, -2.0], ">f4")
    assert tf.constant(values).dtype is tf.float32
    assert tf.convert_to_tensor(values).numpy().tolist() == [1.5, -2.0]


def test_a_hint_of_a_dtype():
    assert tf.convert_to_tensor(1, dtype_hint=tf.float64).dtype is tf.float64
    assert tf.convert_to_tensor(1.5, dtype_hint=tf.int32).dtype is tf.float32
    assert tf.convert_to_tensor(tf.constant(1), dtype_hint=tf.float32).dtype is tf.int32


def test_digits_of_a_number():
    shown = "<tf.Tensor: shape=(), dtype=float32, numpy=0.3333333432674408>"
    assert repr(tf.constant(1 / 3)) == shown
    assert str(tf.constant(1 / 3)) == "tf.Tensor(0.33333334, shape=(), dtype=float32)"


def test_specs_within_others():
    """TensorFlow 2.21's answers."""
    spec = tf.TensorSpec
    one, named = spec([1, 2]), spec([1, 2], name="a")
    assert one.is_subtype_of(spec([None, 2])) and one.is_subtype_of(spec(None))
    assert not spec(None).is_subtype_of(one) and not one.is_subtype_of(spec([1, 2], tf.int32))
    assert one.is_subtype_of(named) and not named.is_subtype_of(one)
    assert one.most_specific_common_supertype([spec([1, 3])]) == spec([1, None])
    assert one.most_specific_common_supertype([spec([1])]) == spec(None)
    assert named.most_specific_common_supertype([]) == named
    for other in (named, spec([1, 2], tf.int32)):
        assert one.most_specific_common_supertype([other]) is None


def test_a_shape_is_no_tuple():
    """Or old ways of formatting would take it for their arguments."""
    shape, scalar = tf.zeros((2, 3)).shape, tf.zeros(()).shape
    assert "%s" % shape == "(2, 3)" and "%r of %s" % (shape, 1) == "TensorShape([2, 3]) of 1"  # noqa: UP031
    assert "%s, %s" % (scalar, tf.TensorShape(None)) == "(), <unknown>"  # noqa: UP031
    assert not isinstance(shape, tuple) and isinstance(shape, Sequence)
    plain = (2, 3)
    assert plain == shape and shape in {plain: 1} and shape != (2, 4)
    assert pickle.loads(pickle.dumps(shape)) == copy.deepcopy(shape) == shape
    assert np.zeros(shape).shape == (*shape,) == tuple(np.ones(shape).shape)
