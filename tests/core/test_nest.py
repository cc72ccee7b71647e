"""nest: leaves out of a structure, and back into one."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import distgrad as tf

nest = tf.nest
Pair = namedtuple("Pair", "a b")
Other = namedtuple("Other", "a b")
nests = st.recursive(
    st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(nests)
def test_there_and_back(structure):
    leaves = nest.flatten(structure)
    packed = nest.pack_sequence_as(structure, leaves)
    assert packed == structure and type(packed) is type(structure)
    nest.assert_same_structure(structure, packed)
    doubled = nest.map_structure(lambda a, b: a + b, structure, packed)
    assert nest.flatten(doubled) == [2 * leaf for leaf in leaves]


def test_flatten():
    assert nest.flatten({"b": [1, (2,)], "a": Pair(3, 4)}) == [3, 4, 1, 2]
    assert nest.flatten(None) == [None] and nest.flatten("abc") == ["abc"]
    assert nest.flatten([[], (), {}]) == [] and len(nest.flatten(np.ones(3))) == 1
    assert nest.flatten({1: 1, "a": 2}) == [1, 2]  # keys that cannot be sorted


def test_is_nested():
    yes, no = ([], (), {}, Pair(1, 2)), (1, "a", np.ones(1), tf.constant([1]), {1}, None)
    assert all(map(nest.is_nested, yes)) and not any(map(nest.is_nested, no))


def test_types_are_kept():
    made = nest.pack_sequence_as(OrderedDict(b=0, a=[0]), [1, 2])
    assert made == OrderedDict(b=2, a=[1]) and list(made) == ["b", "a"]
    default = nest.map_structure(lambda x: x + 1, defaultdict(int, x=1))
    assert default == {"x": 2} and default["y"] == 0
    assert nest.map_structure(lambda x: x + 1, Pair(1, (2,))) == Pair(2, (3,))


@pytest.mark.parametrize(
    "one, two, error",
    [
        ([1], [1, 2], ValueError),
        (1, [1], ValueError),
        ({"a": 1}, {"b": 1}, ValueError),
        ([1, [2]], [1, 2], ValueError),
        ([1], (1,), TypeError),
        ({"a": 1}, [1], TypeError),
        (Pair(1, 2), Other(1, 2), TypeError),
        (Pair(1, 2), (1, 2), TypeError),
    ],
    ids=str,
)
def test_structures_that_differ(one, two, error):
    """ValueError for the structure, TypeError for types, as in TensorFlow."""
    with pytest.raises(error):
        nest.assert_same_structure(one, two)
    with pytest.raises(error):
        nest.map_structure(lambda a, b: a, one, two)
    if error is TypeError and not isinstance(one, dict):
        nest.assert_same_structure(one, two, check_types=False)
        assert len(nest.map_structure(lambda a, b: a, one, two, check_types=False)) == len(one)


def test_structures_that_are_the_same():
    nest.assert_same_structure({"a": 1}, OrderedDict(a=2))
    nest.assert_same_structure([1, (2,)], [None, ("x",)])


def test_wrong_arguments():
    with pytest.raises(TypeError, match="not 3"):
        nest.map_structure(3, [1])
    with pytest.raises(ValueError):
        nest.map_structure(lambda: 1)
    with pytest.raises(TypeError):
        nest.map_structure(lambda a: a, [1], unknown=1)
    for flat in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match=f"{len(flat)} items"):
            nest.pack_sequence_as([0, 0], flat)


def test_a_shape_is_a_leaf_and_text_no_list_of_leaves():
    shapes = {"a": tf.TensorShape([2, 3]), "b": (tf.TensorShape(None),)}
    assert nest.flatten(shapes) == [tf.TensorShape([2, 3]), tf.TensorShape(None)]
    assert nest.map_structure(lambda s: s.rank, shapes) == {"a": 2, "b": (None,)}
    assert not nest.is_nested(tf.TensorShape([1]))
    with pytest.raises(TypeError, match="'ab'"):
        nest.pack_sequence_as([1, 2], "ab")
