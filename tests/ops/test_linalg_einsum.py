"""einsum: values against NumPy's own, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

CASES = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ba", (2, 3)),
    ("ii", (3, 3)),
    ("ii->i", (3, 3)),
    ("iii->i", (2, 2, 2)),
    ("iij,jk->ik", (3, 3, 4), (4, 2)),
    ("ij->", (2, 3)),
    ("abc->cb", (2, 3, 4)),
    ("i,i", (3,), (3,)),
    ("i,j->ij", (3,), (4,)),
    ("i,j->ji", (3,), (4,)),
    ("ij,kl->", (2, 3), (4, 5)),
    ("ij,ij->ij", (2, 3), (2, 3)),
    ("bqhd,bkhd->bhqk", (2, 3, 2, 4), (2, 5, 2, 4)),
    ("bhqk,bkhd->bqhd", (2, 2, 3, 5), (2, 5, 2, 4)),
    ("...ij,...jk->...ik", (5, 1, 2, 3), (6, 3, 4)),
    ("...ij,jk->...ik", (5, 2, 3), (3, 4)),
    ("ij...,jk...->ik...", (2, 3, 7), (3, 4, 7)),
    ("...a->...", (2, 3)),
    ("...,...", (2, 3), (3,)),
    (" i j , j -> i ", (2, 3), (3,)),
    (",->", (), ()),
    (",i->i", (), (3,)),
    ("ab,bc,cd,de->ae", (2, 3), (3, 4), (4, 5), (5, 6)),
    ("ij,j,ik,kl->l", (2, 3), (3,), (2, 4), (4, 5)),
    ("a,a,a->a", (3,), (3,), (3,)),
    ("a,b,c->abc", (3,), (2,), (4,)),
    ("...i,...i,i->...", (2, 3), (1, 3), (3,)),
    ("ij,jk->ik", (0, 3), (3, 4)),
    ("ij,jk->ik", (2, 0), (0, 4)),
]


def operands(shapes):
    rng = np.random.default_rng(len(shapes))
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("equation, shapes", [(c[0], c[1:]) for c in CASES])
def test_value_and_gradients(equation, shapes):
    arrays = operands(shapes)
    expected = np.einsum(equation, *arrays)
    found = tf.einsum(equation, *arrays)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11, atol=1e-12)
    if all(a.size for a in arrays):
        check_gradients(lambda *args: tf.einsum(equation, *args), arrays)


def test_float32_and_integers_keep_their_dtype():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert tf.einsum("ij,kj->ik", a, a).dtype == tf.float32
    found = tf.einsum("ij->j", tf.constant([[1, 2], [3, 4]]))
    assert found.dtype == tf.int32 and found.numpy().tolist() == [4, 6]


@pytest.mark.parametrize(
    "equation, shapes, why",
    [
        ("ij,jk->ik", [(2, 3), (2, 3)], "sizes 3 and 2"),
        ("ij->iz", [(2, 3)], "'z'"),
        ("ij->ii", [(2, 3)], "twice"),
        ("ij->i", [(2,)], "does not name the axes"),
        ("ij->i", [(2, 3, 4)], "does not name the axes"),
        ("ij->i", [(2, 3), (2, 3)], "1 operands"),
        ("...j->j", [(2, 3)], "ellipsis"),
        ("i1->i", [(2, 3)], "letters"),
        ("...i,...i->...", [(2, 3), (4, 3)], "sizes"),
        ("ii->i", [(1, 3)], "sizes"),
    ],
)
def test_an_equation_that_does_not_fit_names_itself_and_the_shapes(equation, shapes, why):
    with pytest.raises(tf.errors.InvalidArgumentError, match=why) as caught:
        tf.einsum(equation, *[tf.ones(shape) for shape in shapes])
    assert repr(equation) in str(caught.value)
    assert all(str(shape) in str(caught.value) for shape in shapes)


def test_dtypes_do_not_mix():
    with pytest.raises(tf.errors.InvalidArgumentError, match="float32 and float64"):
        tf.einsum("i,i", tf.ones(2), tf.ones(2, dtype=tf.float64))
