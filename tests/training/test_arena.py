"""Arenas: variables share one flat array, and nobody's borrowed tensor changes under their eyes."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.training.arena import ALIGN, Arena, by_dtype

pytestmark = pytest.mark.cpu


def variables(dtype: str = "float32") -> list[tf.Variable]:
    """Shapes that fill a line of the arena in part, in full, and not at all."""
    rng = np.random.default_rng(0)
    shapes = [(3, 5), (), (ALIGN,), (0, 2), (2, 3, 4)]
    return [tf.Variable(rng.normal(size=shape), dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_move_in_and_the_variables_look_into_it(dtype: str) -> None:
    group = variables(dtype)
    before = [np.array(variable.numpy()) for variable in group]
    arena = Arena(group)
    assert arena.values.dtype == dtype and arena.values.shape == (arena.size,)
    for variable, value, where in zip(group, before, arena.slices, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
        np.testing.assert_array_equal(arena.values[where], value.ravel())
        assert where.start % ALIGN == 0

    arena.recall_loans()
    arena.values[:] = np.arange(arena.size)
    for variable, where in zip(group, arena.slices, strict=True):
        expected = np.arange(where.start, where.stop).reshape(variable.shape)
        np.testing.assert_array_equal(variable.numpy(), expected)


def test_an_assignment_reaches_the_arena_and_keeps_to_its_slice() -> None:
    group = variables()
    arena = Arena(group)
    before = arena.values.copy()
    group[4].assign(np.full((2, 3, 4), 7))
    where = arena.slices[4]
    assert (arena.values[where] == 7).all()
    before[where] = 7
    np.testing.assert_array_equal(arena.values, before)


def test_gaps_are_zero() -> None:
    arena = Arena(variables())
    covered = np.zeros(arena.size, bool)
    for where in arena.slices:
        assert not covered[where].any(), "slices overlap"
        covered[where] = True
    assert not covered.all()
    assert (arena.values[~covered] == 0).all()


def test_views_of_another_array() -> None:
    arena = Arena(variables())
    flat = arena.empty()
    assert flat.shape == arena.values.shape and not flat.any()
    views = arena.views(flat)
    assert [view.shape for view in views] == [tuple(v.shape) for v in arena.variables]
    for number, view in enumerate(views):
        assert np.shares_memory(view, flat) or view.size == 0
        view[...] = number + 1
    for number, where in enumerate(arena.slices):
        assert (flat[where] == number + 1).all()


def test_borrowed_tensors_keep_their_value() -> None:
    weight, other = tf.Variable([[1.0, 2.0], [3.0, 4.0]]), tf.Variable([5.0, 6.0])
    early = weight.value()  # borrowed before the variable moves in
    arena = Arena([weight, other])
    borrowed = {
        "value": weight.value(),
        "read_value": weight.read_value(),
        "slice": weight[1],
        "slice of a slice": weight[1][0:1],
        "transposed": tf.transpose(weight),
        "reshaped": tf.reshape(weight, (4,)),
        "converted": tf.convert_to_tensor(weight),
        "identity": tf.identity(weight),
        "in a list": list(weight)[1],
    }
    arrays = {name: np.array(tensor.numpy()) for name, tensor in borrowed.items()}
    arena.recall_loans()
    arena.values[:] = -1
    for name, tensor in borrowed.items():
        np.testing.assert_array_equal(tensor.numpy(), arrays[name], err_msg=name)
    np.testing.assert_array_equal(early.numpy(), [[1, 2], [3, 4]])
    assert (weight.numpy() == -1).all() and (weight.value().numpy() == -1).all()


def test_what_a_tape_keeps_survives_an_update() -> None:
    weight = tf.Variable([2.0, 3.0])
    arena = Arena([weight])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weight * weight * weight)
    arena.recall_loans()
    arena.values[:] = 100
    np.testing.assert_array_equal(tape.gradient(loss, weight).numpy(), [12, 27])


def test_by_dtype() -> None:
    group = [tf.Variable(0.0, dtype=d) for d in ("float64", "float32", "float64", "float32")]
    assert by_dtype(group) == [[0, 2], [1, 3]]
    assert by_dtype([]) == []
