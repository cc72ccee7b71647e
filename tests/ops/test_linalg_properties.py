"""Laws of linear algebra over random shapes, batches and equations."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import distgrad as tf

properties = settings(max_examples=30)
sizes = st.integers(1, 4)
batches = st.lists(st.integers(1, 3), max_size=2).map(tuple)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def regular(seed, batch, n):
    return normal(seed, *batch, n, n) + 4 * np.eye(n)


def thinned(batch, keep):
    """A batch shape that broadcasts to ``batch``: some axes 1, some leading ones gone."""
    kept = [n if k else 1 for n, k in zip(batch, keep, strict=False)]
    return tuple(kept[keep[-1] :])


@properties
@given(batches, sizes, sizes, sizes, st.lists(st.booleans(), min_size=5, max_size=5))
def test_matmul_broadcasts_and_transposes(batch, m, n, k, flags):
    ta, tb, left = flags[0], flags[1], flags[2]
    small = thinned(batch, flags[2:])
    a = normal(0, *(small if left else batch), *((n, m) if ta else (m, n)))
    b = normal(1, *(batch if left else small), *((k, n) if tb else (n, k)))
    found = tf.matmul(a, b, transpose_a=ta, transpose_b=tb)
    plain_a = a.swapaxes(-1, -2) if ta else a
    plain_b = b.swapaxes(-1, -2) if tb else b
    np.testing.assert_allclose(found, plain_a @ plain_b, rtol=1e-10, atol=1e-12)
    ta_, tb_ = tf.constant(a), tf.constant(b)
    with tf.GradientTape() as tape:
        tape.watch([ta_, tb_])
        y = tf.matmul(ta_, tb_, transpose_a=ta, transpose_b=tb)
    for g, source in zip(tape.gradient(y, [ta_, tb_]), (a, b), strict=True):
        assert g.shape == source.shape
        # The product is linear in each: <gradient, source> is the sum of the product itself.
        np.testing.assert_allclose(np.sum(g.numpy() * source), np.sum(y.numpy()), atol=1e-9)


@st.composite
def equations(draw):
    """Operand labels, an output made of some of them, and a size for each."""
    letters = "abcde"
    operand = st.text(alphabet=letters, min_size=0, max_size=3)
    terms = draw(st.lists(operand, min_size=1, max_size=4))
    used = sorted(set("".join(terms)))
    output = "".join(draw(st.permutations(used)))[: draw(st.integers(0, len(used)))]
    return terms, output, {c: draw(st.integers(1, 3)) for c in letters}


@properties
@given(equations(), st.integers(0, 99))
def test_einsum_is_numpys(equation, seed):
    terms, output, size = equation
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=[size[c] for c in term]) for term in terms]
    for text in (",".join(terms), f"{','.join(terms)}->{output}"):
        expected = np.einsum(text, *arrays)
        found = tf.einsum(text, *arrays)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


@properties
@given(st.lists(sizes, min_size=1, max_size=3), st.lists(sizes, min_size=1, max_size=3),
       st.randoms(use_true_random=False))  # fmt: skip
def test_tensordot_is_numpys(a_shape, b_shape, random):
    count = random.randint(0, min(len(a_shape), len(b_shape)))
    of_a = random.sample(range(len(a_shape)), count)
    of_b = random.sample(range(len(b_shape)), count)
    for i, j in zip(of_a, of_b, strict=True):
        b_shape[j] = a_shape[i]
    a, b = normal(0, *a_shape), normal(1, *b_shape)
    found = tf.tensordot(a, b, [of_a, of_b])
    expected = np.tensordot(a, b, (of_a, of_b))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@properties
@given(batches, sizes, sizes, st.booleans(), st.booleans())
def test_solvers_solve(batch, n, k, adjoint, lower):
    a, b = regular(0, batch, n), normal(1, *batch, n, k)
    x = tf.linalg.solve(a, b, adjoint=adjoint)
    np.testing.assert_allclose(tf.matmul(a, x, transpose_a=adjoint), b, atol=1e-9)
    t = np.tril(a) if lower else np.triu(a)
    x = tf.linalg.triangular_solve(a, b, lower=lower, adjoint=adjoint)
    np.testing.assert_allclose(tf.matmul(t, x, transpose_a=adjoint), b, atol=1e-9)
    inverse = tf.linalg.inv(a)
    np.testing.assert_allclose(tf.linalg.det(inverse) * tf.linalg.det(a), np.ones(batch), rtol=1e-9)
    s, log_abs = tf.linalg.slogdet(a)
    np.testing.assert_allclose(s * tf.exp(log_abs), tf.linalg.det(a), rtol=1e-9)


@properties
@given(batches, sizes, sizes)
def test_decompositions_give_the_matrix_back(batch, m, n):
    x = normal(2, *batch, m, n)
    q, r = tf.linalg.qr(x)
    np.testing.assert_allclose(tf.matmul(q, r), x, atol=1e-10)
    eye = np.broadcast_to(np.eye(min(m, n)), (*batch, min(m, n), min(m, n)))
    np.testing.assert_allclose(tf.matmul(q, q, transpose_a=True), eye, atol=1e-10)
    s, u, v = tf.linalg.svd(x)
    back = tf.matmul(u * tf.expand_dims(s, -2), v, transpose_b=True)
    np.testing.assert_allclose(back, x, atol=1e-10)
    assert np.all(np.diff(s.numpy(), axis=-1) <= 0) and np.all(s.numpy() >= 0)
    p = tf.linalg.pinv(x)
    np.testing.assert_allclose(tf.matmul(tf.matmul(x, p), x), x, atol=1e-9)
    gram = x @ x.swapaxes(-1, -2) + np.eye(m)
    factor = tf.linalg.cholesky(gram)
    np.testing.assert_allclose(tf.matmul(factor, factor, transpose_b=True), gram, atol=1e-10)
    e, w = tf.linalg.eigh(gram)
    np.testing.assert_allclose(tf.matmul(gram, w), tf.expand_dims(e, -2) * w, atol=1e-9)
