"""debugging: assertions about values, shapes and dtypes, and the check of every operation."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import distgrad as tf
from distgrad.core import recording

D, IAE, c = tf.debugging, tf.errors.InvalidArgumentError, tf.constant
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "check, good, bad",
    [
        ("assert_equal", [(1, 1), ([], []), ([1, 2], 1 + np.arange(2))], [([1, 3], [1, 2])]),
        ("assert_none_equal", [(1, 2), ([NAN], [NAN])], [([1, 2], [3, 2])]),
        ("assert_less", [(1, 2), ([1.0, 2.0], 3.0)], [(2, 2), ([NAN], [1.0])]),
        ("assert_less_equal", [(2, 2)], [([1, 3], 2)]),
        ("assert_greater", [(3, 2)], [(2, 2)]),
        ("assert_greater_equal", [(2, 2)], [([1, 3], 2)]),
    ],
)
def test_comparisons(check, good, bad):
    check = getattr(D, check)
    for x, y in good:
        assert check(x, y) is None
    for x, y in bad:
        with pytest.raises(IAE, match="^lead .*x is .*, y is "):
            check(x, y, message="lead")


def test_comparisons_name_the_place():
    with pytest.raises(IAE, match=r"1 of 4 elements, first at \(1, 0\): x is 3, y is 7"):
        D.assert_equal([[1, 2], [3, 4]], [[1, 2], [7, 4]])
    with pytest.raises(IAE, match=r"\(2,\) and \(3,\)"):
        D.assert_equal([1, 2], [1, 2, 3])
    with pytest.raises(IAE, match=r"int32.*float32"):
        D.assert_equal(c(1), c(1.0))


def test_near():
    D.assert_near(1.0, 1.0 + 5e-7)
    D.assert_near(1.0, 1.1, atol=0.2)
    D.assert_near(c(1.0, tf.float64), c(1.1, tf.float64), rtol=0.2)
    for x, y in ((1.0, 1.1), (c(1.0, tf.float64), c(1.0 + 1e-7, tf.float64)), ([NAN], [NAN])):
        with pytest.raises(IAE):
            D.assert_near(x, y)


@pytest.mark.parametrize(
    "check, good, bad",
    [
        ("assert_positive", [1, 2], 0),
        ("assert_negative", [-1, -2], 0),
        ("assert_non_negative", [0, 1], -3),
        ("assert_non_positive", [0, -1], 3),
    ],
)
def test_signs(check, good, bad):
    check = getattr(D, check)
    check(good)
    check([])
    with pytest.raises(IAE, match=f"lead .*for {bad}"):
        check([*good, bad], message="lead")
    with pytest.raises(IAE):
        check(NAN)


def test_assert():
    for assertion in (D.Assert, tf.Assert):
        assertion(c(True), [1])
        for condition in (c(False), 1 > 2, [True, False]):
            with pytest.raises(IAE, match="seen"):
                assertion(condition, ["seen"])


def test_ranks():
    x = c([1.0])
    D.assert_rank(x, 1), D.assert_rank(x, c(1)), D.assert_rank_in(x, [0, 1])
    D.assert_rank_at_least(x, 1), D.assert_scalar(c(1.0))
    for wrong in (
        lambda: D.assert_rank(x, 2, message="lead"),
        lambda: D.assert_rank_at_least(x, 2, message="lead"),
        lambda: D.assert_rank_in(x, [0, 2], message="lead"),
        lambda: D.assert_scalar(x, message="lead"),
    ):
        with pytest.raises(ValueError, match=r"lead .*\(1,\)"):
            wrong()
    for rank in ("a", 1.5, [1]):
        with pytest.raises(TypeError):
            D.assert_rank(x, rank)


def test_shapes():
    x, y, z = tf.ones((2, 3)), tf.ones((3,)), tf.ones((5, 2, 3))
    D.assert_shapes([(x, ("N", "D")), (y, ("D",)), (z, (..., "N", "D")), (tf.ones(()), ())])
    D.assert_shapes([(x, "ND"), (y, "D"), (x, (None, 3)), (x, ".D")])
    D.assert_shapes([(x, ("*", 3)), (y, (...,)), (y, 3)])
    for bad in (
        [(x, ("N", "D")), (y, ("N",))],
        [(x, (2, 4))],
        [(x, (2,))],
        [(z, (..., 2, 2))],
        [(y, (..., 2, 3))],
        [(x, ("N", ...))],
    ):
        with pytest.raises(ValueError, match="lead "):
            D.assert_shapes(bad, message="lead")


def test_dtypes():
    D.assert_type(c(1.0), tf.float32), D.assert_integer(c(1))
    for wrong in (
        lambda: D.assert_type(c(1.0), tf.int32, message="lead"),
        lambda: D.assert_integer(c(1.0), message="lead"),
        lambda: D.assert_integer(c(True), message="lead"),
    ):
        with pytest.raises(TypeError, match="lead dtype is (float32|bool)"):
            wrong()
    assert D.is_numeric_tensor(c(1)) and not D.is_numeric_tensor(c(True))
    assert not D.is_numeric_tensor(1) and not D.is_numeric_tensor(np.ones(2))
    same = D.assert_same_float_dtype
    assert same() == same([c(1.0), tf.Variable(1.0)]) == tf.float32
    assert same([c(1.0, tf.float64)], tf.float64) == tf.float64
    for args in (([c(1.0), c(1.0, tf.float64)],), ([c(1)],), ([c(1.0)], tf.float64), ((), "int32")):
        with pytest.raises(ValueError, match=r"float64, not|float32, not|not int32"):
            same(*args)


def test_iterables():
    for good in ([1], (), {1: 2}, iter([1])):
        D.assert_proper_iterable(good)
    for bad in (c([1]), 1, "abc", np.ones(2), None):
        with pytest.raises(TypeError, match="proper iterable"):
            D.assert_proper_iterable(bad)


def test_check_numerics_of_a_tensor():
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(D.check_numerics(x, "no") * D.assert_all_finite(x, "no"))
    np.testing.assert_array_equal(tape.gradient(y, x), [2.0, 4.0])
    for values, found in (([1.0, NAN], "NaN"), ([-INF], "Inf"), ([NAN, INF], "NaN and Inf")):
        with pytest.raises(IAE, match=f"here : Tensor had {found} values"):
            D.check_numerics(values, "here")


@pytest.fixture
def checking():
    D.enable_check_numerics()
    D.enable_check_numerics()  # twice is once
    yield
    D.disable_check_numerics()
    D.disable_check_numerics()
    assert recording.stack() == [] and recording.active == 0


def test_every_operation_is_checked(checking):
    """The error names the operation and what it was given; integers and constants pass."""
    with pytest.raises(IAE, match=r"log gave NaN and Inf.*output 0 of shape \(3,\).*float32\[3\]"):
        tf.math.log(c([-1.0, 0.0, 1.0]))
    bad = c([NAN])
    with pytest.raises(IAE, match=r"add gave NaN.*float32\[1\] with NaN"):
        bad + c([1.0])
    assert int(c(3) + 4) == 7 and bool(tf.math.is_nan(bad)[0])


def test_the_backward_pass_is_checked(checking):
    x = tf.Variable(0.0)
    with tf.GradientTape() as tape:
        y = tf.sqrt(x)
    with pytest.raises(IAE, match="gave Inf"):
        tape.gradient(y, x)


def test_other_threads_are_not_checked(checking):
    found = []
    thread = threading.Thread(target=lambda: found.append(tf.math.log(c(-1.0)).numpy()))
    thread.start()
    thread.join()
    assert np.isnan(found).all()


def test_nothing_is_checked_afterwards():
    assert np.isnan(tf.math.log(c(-1.0)))
