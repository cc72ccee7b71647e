"""tf.test.TestCase: what it lets pass, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

CASE = tf.test.TestCase()


@pytest.mark.parametrize("check", [
    lambda: CASE.assertAllEqual(tf.constant([1, 2]), [1, 2]),
    lambda: CASE.assertAllEqual({"a": tf.constant([1, 2]), "b": 3}, {"b": 3, "a": [1, 2]}),
    lambda: CASE.assertAllEqual([tf.ones(2), tf.ones(3)], [np.ones(2), np.ones(3)]),
    lambda: CASE.assertAllClose(tf.Variable([1.0, 2.0]), [1.0, 2.000001]),
    lambda: CASE.assertNotAllClose([1.0], [1.1]),
    lambda: CASE.assertNotAllEqual([1.0], [1.1]),
    lambda: CASE.assertNear(tf.constant(1.0), 1.05, 0.1),
    lambda: CASE.assertAllInRange(tf.constant([1.0, 2.0]), 1, 2),
    lambda: CASE.assertAllGreater(tf.constant([1.0, 2.0]), 0),
    lambda: CASE.assertAllLess(tf.constant([1.0, 2.0]), 3),
    lambda: CASE.assertShapeEqual(np.ones((2, 3)), tf.ones((2, 3))),
    lambda: CASE.assertDTypeEqual(tf.ones(2), "float32"),
    lambda: (CASE.assertLen([1], 1), CASE.assertEmpty([]), CASE.assertNotEmpty([1])),
])  # fmt: skip
def test_what_holds(check):
    check()


@pytest.mark.parametrize("check", [
    lambda: CASE.assertAllEqual(tf.constant([1, 2]), [1, 3]),
    lambda: CASE.assertAllEqual({"a": 1}, {"b": 1}),
    lambda: CASE.assertAllEqual([tf.ones(2), tf.ones(3)], [np.ones(2)]),
    lambda: CASE.assertAllClose([1.0, 1.0], 1.0),
    lambda: CASE.assertAllClose([1.0], [1.1]),
    lambda: CASE.assertNotAllClose([1.0], [1.0]),
    lambda: CASE.assertNotAllEqual([1.0], [1.0]),
    lambda: CASE.assertNear(1.0, 2.0, 0.1),
    lambda: CASE.assertAllInRange([1.0, 2.0], 1, 1.5),
    lambda: CASE.assertAllGreater([1.0, 2.0], 1),
    lambda: CASE.assertShapeEqual(np.ones(2), tf.ones(3)),
    lambda: CASE.assertDTypeEqual(tf.ones(2), tf.float64),
])  # fmt: skip
def test_what_does_not(check):
    with pytest.raises(AssertionError):
        check()


def test_a_case_that_runs():
    class Case(tf.test.TestCase):
        def test_folder(self):
            with tf.io.gfile.GFile(self.get_temp_dir() + "/x", "w") as file:
                file.write("x")
            self.assertEqual(self.evaluate({"a": tf.constant(1)}), {"a": 1})

        def test_numbers(self):
            numbers.append(float(tf.random.normal(())))

    numbers: list[float] = []
    for name in ("test_folder", "test_numbers", "test_numbers"):
        assert Case(name).run().wasSuccessful()
    assert numbers[0] == numbers[1]


def test_what_it_says_of_the_machine():
    assert not tf.test.is_built_with_rocm() and not tf.test.is_built_with_xla()
    assert tf.test.is_built_with_gpu_support() == tf.test.is_built_with_cuda()
