"""Control flow: cond, case, switch_case, while_loop, map_fn, vectorized_map, scan, folds."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

IAE = tf.errors.InvalidArgumentError
c = tf.constant


def derivatives(f, x):
    """First and second derivative of the scalar ``f`` at ``x``, elementwise and as a Hessian."""
    x = tf.Variable(np.asarray(x, np.float64))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = f(x)
        g = inner.gradient(y, x)
    return g.numpy(), outer.jacobian(g, x).numpy()


# cond, case, switch_case


@pytest.mark.parametrize("pred", [True, c(True), tf.Variable(2.0) > 1.0, 1, c(1), np.bool_(True)])
def test_cond_runs_one_branch(pred):
    ran = []
    found = tf.cond(pred, lambda: ran.append("true") or (c(1.0), {"a": 2}), lambda: ran.append("n"))
    assert ran == ["true"] and float(found[0]) == 1.0 and found[1] == {"a": 2}
    assert tf.cond(tf.logical_not(tf.cast(pred, tf.bool)), lambda: "t", lambda: "f") == "f"


@pytest.mark.parametrize("x, first, second", [(3.0, 27.0, 18.0), (-3.0, np.exp(-3), np.exp(-3))])
def test_derivatives_of_cond(x, first, second):
    f = lambda x: tf.cond(x > 0.0, lambda: x**3, lambda: tf.exp(x))  # noqa: E731
    np.testing.assert_allclose(derivatives(f, x), (first, second), rtol=1e-12)


def test_wrong_inputs_of_cond():
    one = lambda: c(1)  # noqa: E731
    for branches in ((None, one), (one, None), (3, one)):
        with pytest.raises(TypeError, match="callable"):
            tf.cond(True, *branches)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        tf.cond(c([True, False]), one, one)
    with pytest.raises(ValueError):
        tf.cond(None, one, one)


def test_case_takes_the_first_that_holds():
    ran = []

    def branch(name):
        return lambda: ran.append(name) or name

    pairs = [(c(False), branch("a")), (c(True), branch("b")), (True, branch("c"))]
    assert tf.case(pairs, default=branch("d")) == "b" and ran == ["b"]
    assert tf.case(pairs[:1], default=branch("d")) == "d"
    assert tf.case(pairs[:2], exclusive=True) == "b"
    first, second = derivatives(
        lambda x: tf.case([(x < 0.0, lambda: -x), (x < 2.0, lambda: x * x)], lambda: x**3), 3.0
    )
    assert (first, second) == (27.0, 18.0)


def test_wrong_inputs_of_case():
    one = lambda: c(1)  # noqa: E731
    with pytest.raises(IAE, match="no predicate holds"):
        tf.case([(c(False), one)])
    with pytest.raises(ValueError):
        tf.case([])
    with pytest.raises(IAE, match=r"\[0, 2\]"):
        tf.case([(c(True), one), (c(False), one), (c(True), one)], exclusive=True)
    wrong = (3, [one], [(c(True), 3)], [(c(1), one)], [(c(True), one, one)])
    for pairs in wrong:
        with pytest.raises(TypeError):
            tf.case(pairs)
    with pytest.raises(TypeError, match="default must be callable, not 3"):
        tf.case([(c(True), one)], default=3)


@pytest.mark.parametrize(
    "index, found", [(0, "a"), (1, "b"), (2, "c"), (3, "c"), (-1, "c"), (c(1, tf.int64), "b")]
)
def test_switch_case(index, found):
    fns = [lambda: "a", lambda: "b", lambda: "c"]
    assert tf.switch_case(index, fns) == found
    assert tf.switch_case(c(index), dict(enumerate(fns))) == found
    assert tf.switch_case(c(index), list(enumerate(fns))[::-1]) == found
    outside = "d" if int(index) not in (0, 1, 2) else found
    assert tf.switch_case(c(index), fns, default=lambda: "d") == outside


def test_derivatives_of_switch_case():
    fns = lambda x: [lambda: x, lambda: x**3]  # noqa: E731
    assert derivatives(lambda x: tf.switch_case(c(1), fns(x)), 2.0) == (12.0, 12.0)


def test_wrong_inputs_of_switch_case():
    one = lambda: c(1)  # noqa: E731
    for fns in ([], [(1, one), (1, one)], {1: one, 3: one}, {-1: one, 0: one}):
        with pytest.raises(ValueError, match="numbered"):
            tf.switch_case(c(1), fns)
    for fns in ([3, 4], {"a": one}, [(0, 3)]):
        with pytest.raises(TypeError, match="not (3|'a')|'a' is not"):
            tf.switch_case(c(0), fns)
    for index in (c(1.0), c([1]), "a"):
        with pytest.raises((TypeError, ValueError)):
            tf.switch_case(index, [one])
    with pytest.raises(TypeError, match="default"):
        tf.switch_case(c(0), [one], default=3)


# while_loop


def test_while_loop_leaves_pythons_numbers_to_the_body_where_it_runs_at_once():
    """As in TensorFlow, where a count that starts as 0 may become a float in an eager loop."""

    def body(i, x, count):
        return i + 1, x * 2.0, count + tf.where(x > 3.0, 0.0, 1.0)

    loop = (lambda i, x, count: i < 4), body, (0, tf.constant(1.0), 0)
    i, x, count = tf.while_loop(*loop)
    assert (i.dtype, int(i), float(x), float(count)) == (tf.int32, 4, 16.0, 2.0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="int32 and float32 do not mix"):
        tf.function(lambda: tf.while_loop(*loop))()
    made = tf.function(lambda n: tf.while_loop(lambda i: i < n, lambda i: (i + n * 0 + 1,), (0,)))
    assert int(made(tf.constant(3))[0]) == 3


def test_while_loop_keeps_the_structure():
    found = tf.while_loop(
        lambda i, state: i < 3,
        lambda i, state: (i + 1, {"a": state["a"] * 2.0, "b": [state["b"][0] + 1.0]}),
        (c(0), {"a": 1.0, "b": [c(0.0)]}),
    )
    assert isinstance(found, tuple) and int(found[0]) == 3
    assert float(found[1]["a"]) == 8.0 and float(found[1]["b"][0]) == 3.0
    bare = tf.while_loop(lambda i: i < 3, lambda i: i + 1, [0])
    assert isinstance(bare, list) and int(bare[0]) == 3


def test_while_loop_over_what_is_no_dense_tensor():
    rows = tf.ragged.constant([[1.0], [2.0, 3.0]])

    def step(i, cube, text, part):
        return i + 1, cube * rows, tf.strings.join([text, "a"]), part * 2.0

    with tf.GradientTape() as tape:
        tape.watch(rows)
        start = [0, rows, "", tf.sparse.from_dense([0.0, 1.0])]
        _, cube, text, part = tf.while_loop(lambda i, *_: i < 2, step, start)
    assert cube.to_list() == [[1.0], [8.0, 27.0]] and text.numpy() == b"aa"
    assert tf.sparse.to_dense(part).numpy().tolist() == [0.0, 4.0]
    assert tape.gradient(cube, rows).to_list() == [[3.0], [12.0, 27.0]]


@pytest.mark.parametrize("limit, steps", [(None, 5), (3, 3), (0, 0), (-1, 0), (9, 5), (c(2), 2)])
def test_maximum_iterations(limit, steps):
    (found,) = tf.while_loop(lambda i: i < 5, lambda i: [i + 1], [0], maximum_iterations=limit)
    assert int(found) == steps


def test_derivatives_of_while_loop():
    """x**(2**3) from three squarings; the number of rounds depends on the values."""
    f = lambda x: tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * y), [0, x])[1]  # noqa: E731
    np.testing.assert_allclose(derivatives(f, 1.1), (8 * 1.1**7, 56 * 1.1**6), rtol=1e-12)
    f = lambda x: tf.while_loop(lambda y: y < 100.0, lambda y: [y * y], [x])[0]  # noqa: E731
    np.testing.assert_allclose(derivatives(f, 2.0), (8 * 2.0**7, 56 * 2.0**6), rtol=1e-12)


def test_wrong_inputs_of_while_loop():
    more, less = lambda i: i + 1, lambda i: i < 3
    for cond, body in ((3, more), (less, 3)):
        with pytest.raises(TypeError, match="callable, not 3"):
            tf.while_loop(cond, body, [0])
    with pytest.raises(ValueError):
        tf.while_loop(less, more, [])
    with pytest.raises(TypeError, match="loop_vars"):
        tf.while_loop(less, more, c(1))
    with pytest.raises(TypeError, match="not None"):
        tf.while_loop(less, lambda i: None, [0])
    with pytest.raises(ValueError, match="structures differ"):
        tf.while_loop(less, lambda i: (i + 1, i), [0])
    with pytest.raises(ValueError, match="structures differ"):
        tf.while_loop(lambda i, j: i < 3, lambda i, j: (i + 1,), [0, 0])
    with pytest.raises(ValueError, match=r"\(2,\)"):
        tf.while_loop(less, more, [c([0, 1])])


# map_fn, vectorized_map


@pytest.mark.parametrize("mapped", [tf.map_fn, tf.vectorized_map])
def test_maps_over_the_first_axis(mapped):
    x = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(mapped(lambda row: row[::-1] * 2.0, c(x)), x[:, ::-1] * 2)
    np.testing.assert_array_equal(mapped(tf.reduce_sum, x), x.sum(1))
    out = mapped(lambda e: {"s": e[0] + e[1]["n"], "p": (e[0],)}, (c(x), {"n": c(x[:, 0])}))
    np.testing.assert_array_equal(out["s"], x + x[:, :1])
    assert isinstance(out["p"], tuple)
    assert mapped(lambda row: c(3), c(x)).shape == (3,)


@pytest.mark.parametrize("mapped", [tf.map_fn, tf.vectorized_map])
def test_derivatives_of_maps(mapped):
    x = np.array([[1.0, 2.0], [3.0, 0.5]])
    first, second = derivatives(
        lambda x: tf.reduce_sum(mapped(lambda row: row[0] ** 2 * row[1] ** 3, x)), x
    )
    a, b = x.T
    np.testing.assert_allclose(first, np.stack([2 * a * b**3, 3 * a**2 * b**2], 1), rtol=1e-12)
    np.testing.assert_allclose(second[1, 0, 1, 1], 6 * a[1] * b[1] ** 2, rtol=1e-12)
    assert not second[0, :, 1].any()


@pytest.mark.parametrize("mapped", [tf.map_fn, tf.vectorized_map])
def test_maps_over_nothing(mapped):
    """No slice: the shapes and dtypes that the function would have given."""
    out = mapped(lambda row: {"a": row * 2.0, "b": tf.argmax(row)}, tf.zeros((0, 3)))
    assert out["a"].shape == (0, 3) and out["b"].shape == (0,) and out["b"].dtype == tf.int64


def test_the_signature_of_map_fn():
    pair = tf.map_fn(
        lambda x: (x, tf.cast(x, tf.int32)),
        c([1.5, 2.5]),
        fn_output_signature=(tf.float32, "int32"),
    )
    np.testing.assert_array_equal(pair[1], [1, 2])
    spec = tf.TensorSpec([], tf.float32)
    assert tf.map_fn(lambda x: 1, c([1.5]), fn_output_signature=spec).dtype == tf.float32
    assert tf.map_fn(lambda x: 1, c([1.5]), dtype=np.float64).dtype == tf.float64
    with pytest.raises(IAE, match="float32, not int32"):
        tf.map_fn(lambda x: x, c([1.5]), fn_output_signature=tf.int32)
    with pytest.raises(TypeError):
        tf.map_fn(lambda x: [x], c([1.5]), fn_output_signature=(tf.float32,))
    with pytest.raises(ValueError):
        tf.map_fn(lambda x: (x, x), c([1.5]), fn_output_signature=(tf.float32,))


def test_vectorized_map_repeats_a_first_dimension_of_one():
    out = tf.vectorized_map(lambda e: e[0] * e[1], (c([1.0, 2.0]), c([[3.0, 4.0]])))
    np.testing.assert_array_equal(out, [[3.0, 4.0], [6.0, 8.0]])
    x = tf.Variable([[3.0, 4.0]])
    with tf.GradientTape() as tape:
        y = tf.vectorized_map(lambda e: e[0] * e[1], (c([1.0, 2.0]), x))
    np.testing.assert_array_equal(tape.gradient(y, x), [[3.0, 3.0]])


@pytest.mark.parametrize("mapped", [tf.map_fn, tf.vectorized_map])
def test_wrong_inputs_of_maps(mapped):
    with pytest.raises(TypeError, match="callable, not 3"):
        mapped(3, c([1.0]))
    for elems in (c(1.0), [], (c(1.0), c([1.0]))):
        with pytest.raises(ValueError, match="first axis"):
            mapped(lambda x: x, elems)
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        mapped(lambda x: x[0], (c([1.0, 2.0]), c([1.0, 2.0, 3.0])))
    with pytest.raises(IAE, match=r"\(1,\) and \(2,\)"):
        mapped(lambda n: tf.range(n), c([1, 2]))


# scan, foldl, foldr


def test_scan():
    x = c([1, 2, 3])
    np.testing.assert_array_equal(tf.scan(lambda a, e: a + e, x), [1, 3, 6])
    np.testing.assert_array_equal(tf.scan(lambda a, e: a + e, x, initializer=10), [11, 13, 16])
    np.testing.assert_array_equal(tf.scan(lambda a, e: a - e, x, reverse=True), [0, 1, 3])
    pair = tf.scan(lambda a, e: (a[0] + e[0], a[1] * e[1]), (x, c([1.0, 2.0, 3.0])))
    np.testing.assert_array_equal(pair[1], [1.0, 2.0, 6.0])
    wide = tf.scan(lambda a, e: [a[0] + e, a[1] + 1], x, initializer=[c(0), c(0)])
    np.testing.assert_array_equal(wide[1], [1, 2, 3])
    empty = tf.scan(lambda a, e: a + e, tf.zeros((0,)), initializer=tf.zeros((2,)))
    assert empty.shape == (0, 2)


def test_folds():
    x = c([1, 2, 3])
    assert int(tf.foldl(lambda a, e: a - e, x)) == 1 - 2 - 3
    assert int(tf.foldr(lambda a, e: a - e, x)) == 3 - 2 - 1
    assert int(tf.foldl(lambda a, e: 2 * a + e, x, initializer=10)) == 91
    assert int(tf.foldr(lambda a, e: 2 * a + e, x, initializer=10)) == 97
    one, two = tf.foldl(lambda a, e: (a[0] + e[0], a[1] * e[1]), (x, x))
    assert (int(one), int(two)) == (6, 6)
    assert float(tf.foldl(lambda a, e: a, tf.zeros((0,)), initializer=4.0)) == 4.0


@pytest.mark.parametrize(
    "f",
    [
        lambda x: tf.scan(lambda a, e: a * e, x)[-1],
        lambda x: tf.scan(lambda a, e: a * e, x, reverse=True)[0],
        lambda x: tf.foldl(lambda a, e: a * e, x),
        lambda x: tf.foldr(lambda a, e: a * e, x, initializer=c(1.0, tf.float64)),
    ],
    ids=["scan", "scan reverse", "foldl", "foldr"],
)
def test_derivatives_of_folds(f):
    """The product of three numbers: first and second derivatives are products of the others."""
    a, b, d = 2.0, 3.0, 5.0
    first, second = derivatives(f, [a, b, d])
    np.testing.assert_allclose(first, [b * d, a * d, a * b], rtol=1e-12)
    np.testing.assert_allclose(second, [[0, d, b], [d, 0, a], [b, a, 0]], rtol=1e-12)


@pytest.mark.parametrize("fold", [tf.scan, tf.foldl, tf.foldr])
def test_wrong_inputs_of_folds(fold):
    add = lambda a, e: a + e  # noqa: E731
    with pytest.raises(TypeError, match="callable, not 3"):
        fold(3, c([1.0]))
    with pytest.raises(ValueError, match="first axis"):
        fold(add, c(1.0))
    with pytest.raises(ValueError, match="initializer"):
        fold(add, tf.zeros((0,)))
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        fold(lambda a, e: a, (c([1.0]), c([1.0, 2.0])))
    with pytest.raises(ValueError, match="structures differ"):
        fold(lambda a, e: (a, e), c([1.0, 2.0]))


# py_function, numpy_function


def test_py_function_is_differentiable():
    first, second = derivatives(lambda x: tf.py_function(lambda v: v**3, [x], tf.float64), 2.0)
    assert (first, second) == (12.0, 12.0)
    pair = tf.py_function(lambda v: (v, 2), [c(1.0)], [tf.float32, tf.int64])
    assert pair[1].dtype == tf.int64
    assert tf.py_function(lambda v: None, [c(1.0)], []) == []
    with pytest.raises(IAE, match="float32, not int32"):
        tf.py_function(lambda v: v, [c(1.0)], tf.int32)
    with pytest.raises(ValueError, match="2 results for 1"):
        tf.py_function(lambda v: (v, v), [c(1.0)], [tf.float32])


def test_numpy_function_has_no_gradient():
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = tf.numpy_function(lambda v: np.sort(v)[::-1], [x], tf.float32)
    np.testing.assert_array_equal(y, [2.0, 1.0])
    assert tape.gradient(y, x) is None


def test_host_functions_as_decorators():
    """`@tf.numpy_function(Tout=...)`: arguments become arrays, results tensors."""

    @tf.numpy_function(Tout=[tf.float32, tf.int32])
    def halves(x, divisor=2):
        assert isinstance(x, np.ndarray)
        return x / divisor, np.int64(len(x))

    half, count = halves(tf.constant([2.0, 4.0]))
    np.testing.assert_array_equal(half, [1, 2])
    assert count == 2 and count.dtype == tf.int32 and half.dtype == tf.float32
    np.testing.assert_array_equal(halves(tf.constant([2.0]), divisor=4)[0], [0.5])

    @tf.py_function(Tout=tf.float32)
    def square(x):
        assert isinstance(x, tf.Tensor)
        return x * x

    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = square(x)
    assert tape.gradient(y, x) == 6
