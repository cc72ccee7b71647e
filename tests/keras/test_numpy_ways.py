"""``keras.ops`` at the edges of NumPy's functions: axes, dtypes, orders and errors."""

from __future__ import annotations

import numpy as np
import pytest

from distgrad.keras import ops

X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ops.moveaxis(X, 0, 5), "axis 5"),
        (lambda: ops.moveaxis(X, -3, 0), "axis -3"),
        (lambda: ops.swapaxes(X, 0, 5), "axis 5"),
        (lambda: ops.rot90(X, axes=(0, -2)), "two different"),
        (lambda: ops.rot90(X[0]), "axis 1"),
        (lambda: ops.diag(np.ones((2, 2, 2))), "2, 2, 2"),
        (lambda: ops.pad(X, 1, mode="reflect", constant_values=1), "constant_values, 1"),
        (lambda: ops.norm(X, ord=0), "0 is not an order"),
        (lambda: ops.norm(X, ord=-3, axis=(0, 1)), "-3 is not an order"),
    ],
)
def test_what_does_not_fit_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize(
    ("call", "dtype", "values"),
    [
        (lambda a, b: ops.matmul(a.astype("int8"), b.astype("int8")), "int32", [300, 300]),
        (lambda a, b: ops.einsum("ij,jk->ik", *map(np.int8, (a, b))), "int32", [300, 300]),
        (lambda a, b: ops.matmul(a > 0, b > 0), "bool", [True, True]),
        (lambda a, b: ops.dot(a > 0, b > 0), "bool", [True, True]),
        (lambda a, b: ops.inner(a > 0, b[:, 0] > 0), "bool", [True, True]),
        (lambda a, b: ops.vdot(a[0] > 0, b > 0), "bool", True),
        (lambda a, b: ops.tensordot(a > 0, b < 0, axes=1), "bool", [False, False]),
        (lambda a, b: ops.trunc(a[0] > 0), "bool", [True] * 3),
        (lambda a, b: ops.nan_to_num(a[0] > 0), "bool", [True] * 3),
        (lambda a, b: ops.isreal(a[0] > 0), "bool", [True] * 3),
    ],
)
def test_small_integers_and_bools(call, dtype, values):
    a, b = np.full((2, 3), 10), np.full((3, 1), 10)
    found = call(a, b)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.squeeze(found), values)


def test_different_elements_in_the_order_in_which_they_come():
    given = np.array([3, 1, 2, 1, 3])
    found = ops.unique(given, False, True, True, True)
    expected = [3, 1, 2], [0, 1, 2], [0, 1, 2, 1, 0], [2, 2, 1]
    for part, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(part, wanted)
    np.testing.assert_array_equal(ops.unique(given, sorted=False, size=2), [3, 1])
    rows = np.array([[3, 1], [2, 1], [3, 1]])
    np.testing.assert_array_equal(ops.unique(rows, sorted=False, axis=0), rows[:2])


def test_axes_of_none_and_several():
    given = np.array([[3.0, 1.0], [2.0, 0.0]])
    np.testing.assert_array_equal(ops.argpartition(given, 1, axis=None), [3, 1, 2, 0])
    np.testing.assert_array_equal(ops.roll(given, 1, axis=(0, 1)), np.roll(given, 1, (0, 1)))
