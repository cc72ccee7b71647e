"""``tf.test.TestCase``: unittest's, with TensorFlow's assertions about tensors in nests."""

from __future__ import annotations

import random
import shutil
import tempfile
import unittest
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype, kind_of
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.variable import Variable
from distgrad.ops.streams import set_seed


def _numbers(value: Any) -> np.ndarray:
    """What can be subtracted and compared: bfloat16 as float32."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


class TestCase(unittest.TestCase):
    """A test case that begins with the same seeds each time, and compares tensors.

    Each assertion raises AssertionError where it does not hold.
    """

    def setUp(self) -> None:
        super().setUp()
        random.seed(87654321)
        np.random.seed(87654321)
        set_seed(87654321)

    def get_temp_dir(self) -> str:
        """A folder that is removed after the test."""
        if not hasattr(self, "_folder"):
            self._folder = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    def evaluate(self, tensors: Any) -> Any:
        """A nest of tensors as one of NumPy arrays."""
        if isinstance(tensors, dict):
            return {key: self.evaluate(value) for key, value in tensors.items()}
        if isinstance(tensors, (list, tuple)):
            values = [self.evaluate(value) for value in tensors]
            return type(tensors)(*values) if hasattr(tensors, "_fields") else type(tensors)(values)
        return tensors.numpy() if isinstance(tensors, (Tensor, Variable)) else tensors

    def assertAllClose(
        self, a: Any, b: Any, rtol: float = 1e-6, atol: float = 1e-6, msg: str | None = None
    ) -> None:
        """Nests of one structure, whose numbers differ by no more than ``atol + rtol * |b|``."""

        def check(x: Any, y: Any, where: str) -> None:
            self.assertEqual(np.shape(x), np.shape(y), f"{msg or ''}{where}: shapes")
            np.testing.assert_allclose(
                _numbers(x), _numbers(y), rtol, atol, err_msg=f"{msg or ''}{where}"
            )

        self._each(check, a, b)

    def assertAllCloseAccordingToType(
        self,
        a: Any,
        b: Any,
        rtol: float = 1e-6,
        atol: float = 1e-6,
        float_rtol: float = 1e-6,
        float_atol: float = 1e-6,
        half_rtol: float = 1e-3,
        half_atol: float = 1e-3,
        bfloat16_rtol: float = 1e-2,
        bfloat16_atol: float = 1e-2,
        msg: str | None = None,
    ) -> None:
        """``assertAllClose``, less exactly where one of the two has fewer bits."""
        for names, wider, further in (
            (("float32", "complex64"), float_rtol, float_atol),
            (("float16",), half_rtol, half_atol),
            (("bfloat16",), bfloat16_rtol, bfloat16_atol),
        ):
            if np.asarray(a).dtype.name in names or np.asarray(b).dtype.name in names:
                rtol, atol = max(rtol, wider), max(atol, further)
        self.assertAllClose(a, b, rtol, atol, msg)

    def assertNotAllClose(
        self, a: Any, b: Any, rtol: float = 1e-6, atol: float = 1e-6, msg: str | None = None
    ) -> None:
        """Some numbers differ by more than ``assertAllClose`` allows."""
        self._not(lambda: self.assertAllClose(a, b, rtol, atol), msg or "all values are close")

    def assertAllEqual(self, a: Any, b: Any, msg: str | None = None) -> None:
        """Nests of one structure and of equal values; nan equals nan."""

        def check(x: Any, y: Any, where: str) -> None:
            self.assertEqual(
                np.asarray(x).shape, np.asarray(y).shape, f"{msg or ''}{where}: shapes"
            )
            np.testing.assert_array_equal(_numbers(x), _numbers(y), f"{msg or ''}{where}")

        self._each(check, a, b)

    def assertNotAllEqual(self, a: Any, b: Any, msg: str | None = None) -> None:
        """Some values differ."""
        self._not(lambda: self.assertAllEqual(a, b), msg or "all values are equal")

    def assertAllGreater(self, a: Any, comparison_target: Any) -> None:
        """All values are greater."""
        self._all(_numbers(a) > comparison_target, a, f"> {comparison_target}")

    def assertAllLess(self, a: Any, comparison_target: Any) -> None:
        """All values are less."""
        self._all(_numbers(a) < comparison_target, a, f"< {comparison_target}")

    def assertAllGreaterEqual(self, a: Any, comparison_target: Any) -> None:
        """No value is less."""
        self._all(_numbers(a) >= comparison_target, a, f">= {comparison_target}")

    def assertAllLessEqual(self, a: Any, comparison_target: Any) -> None:
        """No value is greater."""
        self._all(_numbers(a) <= comparison_target, a, f"<= {comparison_target}")

    def assertAllInRange(
        self,
        target: Any,
        lower_bound: Any,
        upper_bound: Any,
        open_lower_bound: bool = False,
        open_upper_bound: bool = False,
    ) -> None:
        """All values lie between the bounds, which belong to the range unless they are open."""
        values = _numbers(target)
        above = values > lower_bound if open_lower_bound else values >= lower_bound
        below = values < upper_bound if open_upper_bound else values <= upper_bound
        self._all(above & below, target, f"between {lower_bound} and {upper_bound}")

    def assertAllInSet(self, target: Any, expected_set: Any) -> None:
        """All values are among those expected."""
        self._all(np.isin(_numbers(target), list(expected_set)), target, f"in {expected_set}")

    def assertNear(self, f1: Any, f2: Any, err: Any, msg: str | None = None) -> None:
        """Two numbers differ by no more than ``err``."""
        near = f1 == f2 or abs(f1 - f2) <= err
        self.assertTrue(near, f"{f1} != {f2} +/- {err}{f' ({msg})' if msg else ''}")

    def assertArrayNear(self, farray1: Any, farray2: Any, err: Any, msg: Any = None) -> None:
        """The numbers of two lists differ by no more than ``err``."""
        self.assertEqual(len(farray1), len(farray2), msg)
        for f1, f2 in zip(farray1, farray2, strict=True):
            self.assertNear(float(f1), float(f2), err, msg)

    def assertNDArrayNear(
        self, ndarray1: Any, ndarray2: Any, err: Any, msg: str | None = None
    ) -> None:
        """The Euclidean distance of two arrays is less than ``err``."""
        distance = np.linalg.norm(_numbers(ndarray1) - _numbers(ndarray2))
        self.assertTrue(distance < err, msg or f"arrays differ by {distance}, not less than {err}")

    def assertShapeEqual(self, input_a: Any, input_b: Any, msg: str | None = None) -> None:
        """Two arrays or tensors have one shape."""
        self.assertEqual(tuple(np.shape(input_a)), tuple(np.shape(input_b)), msg)

    def assertDTypeEqual(self, target: Any, expected_dtype: Any) -> None:
        """An array or a tensor has a dtype."""
        self.assertEqual(as_dtype(np.asarray(target).dtype), as_dtype(expected_dtype))

    def assertLen(self, container: Any, expected_len: int, msg: str | None = None) -> None:
        """A container holds so many."""
        self.assertEqual(len(container), expected_len, msg)

    def assertEmpty(self, container: Any, msg: str | None = None) -> None:
        """A container holds nothing."""
        self.assertEqual(len(container), 0, msg)

    def assertNotEmpty(self, container: Any, msg: str | None = None) -> None:
        """A container holds something."""
        self.assertNotEqual(len(container), 0, msg)

    def assertBetween(self, value: Any, minv: Any, maxv: Any, msg: str | None = None) -> None:
        """A value lies in a range, to which its ends belong."""
        self.assertTrue(minv <= value <= maxv, msg or f"{value} is not in [{minv}, {maxv}]")

    def assertSameElements(
        self, expected_seq: Any, actual_seq: Any, msg: str | None = None
    ) -> None:
        """Two containers hold the same, in whatever order and number."""
        self.assertEqual(set(expected_seq), set(actual_seq), msg)

    def _each(
        self, check: Callable[[Any, Any, str], None], a: Any, b: Any, where: str = ""
    ) -> None:
        if isinstance(a, dict) or isinstance(b, dict):
            self.assertTrue(
                isinstance(a, dict) and isinstance(b, dict), f"{where}: a dict beside none"
            )
            self.assertEqual(set(a), set(b), f"{where}: keys")
            for key in a:
                self._each(check, a[key], b[key], f"{where}[{key!r}]")
        elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and _is_nest(a, b):
            self.assertEqual(len(a), len(b), f"{where}: lengths")
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                self._each(check, x, y, f"{where}[{i}]")
        else:
            check(a, b, where)

    def _not(self, holds: Callable[[], None], message: str) -> None:
        try:
            holds()
        except AssertionError:
            return
        self.fail(message)

    def _all(self, holds: Any, values: Any, wanted: str) -> None:
        self.assertTrue(np.all(holds), f"not all are {wanted}: {np.asarray(values)}")


def _is_nest(*parts: Any) -> bool:
    """Whether a list is no array itself: a tensor, a dict or rows of several lengths lie in it."""
    for part in parts:
        try:
            if kind_of(np.asarray(part).dtype) == "O":
                return True
        except ValueError:
            return True
    return any(isinstance(v, (dict, list, tuple, np.ndarray, Operand)) for p in parts for v in p)
