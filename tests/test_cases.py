"""``tf.test``: test cases of users, and gradients that they compare."""

from __future__ import annotations

import os

import numpy as np
import pytest

import distgrad as tf


class Case(tf.test.TestCase):
    def runTest(self):
        pass


@pytest.fixture
def case():
    made = Case()
    made.setUp()
    yield made
    made.doCleanups()


C = tf.constant
HOLD = [
    ("assertAllClose", C([1.0, 2.0]), [1.0, 2.0 + 1e-7]),
    ("assertAllClose", {"a": C(1.0), "b": [C([1.0]), C([2.0, 3.0])]}, {"a": 1, "b": [[1], [2, 3]]}),
    ("assertAllClose", np.nan, np.nan),
    ("assertNotAllClose", C([1.0, 2.0]), [1.0, 2.1]),
    ("assertAllCloseAccordingToType", C(1.001, tf.float16), 1.0),
    ("assertAllEqual", C([1.0, np.nan]), [1.0, np.nan]),
    ("assertAllEqual", ["a", "b"], ["a", "b"]),
    ("assertNotAllEqual", C([1, 2]), [1, 3]),
    ("assertAllGreater", C([1.0, 2.0]), 0),
    ("assertAllLessEqual", C([1.0, 2.0]), 2),
    ("assertAllInRange", C([1, 2]), 1, 2),
    ("assertAllInSet", C([1, 2]), {1, 2, 3}),
    ("assertNear", 1.0, 1.1, 0.2),
    ("assertArrayNear", [1.0, 2.0], [1.0, 2.05], 0.1),
    ("assertNDArrayNear", np.ones(2), np.ones(2) + 0.01, 0.1),
    ("assertShapeEqual", np.ones((2, 3)), tf.ones((2, 3))),
    ("assertDTypeEqual", tf.ones(2), np.float32),
    ("assertLen", [1, 2], 2),
    ("assertBetween", 1, 1, 2),
    ("assertSameElements", [1, 2, 1], (2, 1)),
    ("assertEmpty", []),
]
FAIL = [
    ("assertAllClose", C([1.0, 2.0]), [1.0, 2.1]),
    ("assertAllClose", 1.0, [1.0, 1.0]),
    ("assertAllClose", {"a": 1.0}, {"b": 1.0}),
    ("assertAllClose", {"a": [1.0, {"b": 2.0}]}, {"a": [1.0, {"b": 3.0}]}),
    ("assertNotAllClose", 1.0, 1.0),
    ("assertAllCloseAccordingToType", C(1.001), 1.0),
    ("assertAllEqual", C([1, 2]), [1, 3]),
    ("assertAllEqual", [[1]], [1]),
    ("assertNotAllEqual", C([1]), [1]),
    ("assertAllLess", C([1.0, 2.0]), 2),
    ("assertAllGreaterEqual", C([1.0, 2.0]), 2),
    ("assertAllInRange", C([1, 2]), 1, 2, True),
    ("assertAllInSet", C([1, 5]), {1, 2, 3}),
    ("assertNear", 1.0, 1.5, 0.2),
    ("assertArrayNear", [1.0], [1.0, 2.05], 0.1),
    ("assertShapeEqual", np.ones((2, 3)), tf.ones((3, 2))),
    ("assertDTypeEqual", tf.ones(2), "int32"),
    ("assertNotEmpty", []),
]


@pytest.mark.parametrize("check", HOLD, ids=lambda c: c[0])
def test_what_holds(case, check):
    getattr(case, check[0])(*check[1:])


@pytest.mark.parametrize("check", FAIL, ids=lambda c: c[0])
def test_what_does_not(case, check):
    with pytest.raises(AssertionError):
        getattr(case, check[0])(*check[1:])


def test_a_case_has_values_seeds_and_a_folder(case):
    assert case.evaluate({"a": C(1.5), "b": [C([1, 2])]})["b"][0].tolist() == [1, 2]
    first = float(tf.random.normal([]))
    case.setUp()
    assert float(tf.random.normal([])) == first
    folder = case.get_temp_dir()
    assert os.path.isdir(folder) and case.get_temp_dir() == folder
    case.doCleanups()
    assert not os.path.exists(folder)


def test_jacobians_by_tape_and_by_differences():
    x = np.array([0.5, 1.0])
    exact, numeric = tf.test.compute_gradient(lambda a, b: a * tf.sin(b), [x, x])
    np.testing.assert_allclose(exact[0], np.diag(np.sin(x)))
    np.testing.assert_allclose(exact[1], np.diag(x * np.cos(x)))
    np.testing.assert_allclose(numeric, exact, atol=1e-6)
    with pytest.raises(ValueError, match="list"):
        tf.test.compute_gradient(tf.sin, C(1.0))


def test_a_script_of_tests(monkeypatch):
    asked = []
    monkeypatch.setattr("unittest.main", lambda argv=None: asked.append(argv))
    tf.test.main()
    tf.test.main(["script.py", "Case"])
    assert asked == [None, ["script.py", "Case"]]
