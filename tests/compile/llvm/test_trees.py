"""Sums over shards in registers: right, and with the bits of shards that are added one by one."""

from __future__ import annotations

import numpy as np
import pytest

from distgrad.comm.tree import ShardTree
from distgrad.compile.llvm import engine, trees
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Buffer, View
from distgrad.core.primitive import registry
from distgrad.ops.tree_sums import halves, in_tree

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite, and a CPU with FMA")
RNG = np.random.default_rng(0)
COMPILE = {
    "product_over_shards": trees.compile_product,
    "sum_over_shards": trees.compile_rows_sum,
}


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def summed(name, *arrays, merges):
    """What the generated steps give, for arrays of any strides."""
    shape = tuple(a.shape[2] for a in arrays)
    values = [Value.like(a) for a in arrays]
    out = Value(shape, np.dtype(np.float32))
    params = {"merges": tuple(merges)}
    apply = Apply(tuple(values), (out,), primitive=registry[name], params=params)
    homes = {}

    def view(array):
        made = View(Buffer(array.nbytes), 0, array.shape, array.strides, array.dtype)
        homes[made.buffer] = array
        return made

    result = np.full(shape, np.nan, np.float32)
    places = {v: view(a) for v, a in zip([*values, out], [*arrays, result], strict=True)}

    def find(view):
        if view.buffer in homes and homes[view.buffer].strides == view.strides:
            return homes[view.buffer]
        if view.buffer.kind == "constant":
            return view.buffer.owner
        return homes.setdefault(view.buffer, np.full(view.shape, np.nan, view.dtype))

    for step in COMPILE[name](apply, places):
        step.run(find)
    return result


def tree_of(count):
    tree = ShardTree(count, range(count))
    return tree.merges(tree.root)


SHAPES = [  # shards, samples, height, width
    *[(1, 1, 1, 1), (1, 7, 5, 16), (2, 3, 6, 17), (3, 5, 7, 33), (8, 4, 13, 64)],
    *[(8, 16, 12, 65), (5, 2, 1, 130), (8, 3, 25, 200), (7, 9, 30, 10), (4, 1, 193, 48)],
]


@pytest.mark.parametrize("shape", SHAPES)
def test_products_against_float64(shape):
    count, samples, height, width = shape
    x, g = normal(count, samples, height), normal(count, samples, width)
    found = summed("product_over_shards", x, g, merges=tree_of(count))
    wanted = np.einsum("vbi,vbj->ij", x.astype(np.float64), g.astype(np.float64))
    most = np.einsum("vbi,vbj->ij", np.abs(x), np.abs(g))
    assert (np.abs(found - wanted) <= count * samples * np.spacing(most)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", COMPILE)
def test_the_bits_of_shards_one_by_one_in_their_tree(name, shape):
    count, samples, height, width = shape
    arrays = normal(count, samples, height), normal(count, samples, width)
    arrays = arrays if name == "product_over_shards" else arrays[1:]
    parts = [summed(name, *(a[v : v + 1] for a in arrays), merges=(0,)) for v in range(count)]
    merges = tree_of(count)
    found = summed(name, *arrays, merges=merges)
    assert found.tobytes() == in_tree(parts, merges).tobytes()
    assert found.tobytes() == summed(name, *arrays, merges=merges).tobytes()
    if count > 1:  # as two calls
        left, right = halves(merges)
        first = summed(name, *(a[: len(left)] for a in arrays), merges=left)
        second = summed(name, *(a[len(left) :] for a in arrays), merges=right)
        assert found.tobytes() == (first + second).tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_any_tile_gives_the_same_bits(shape, monkeypatch):
    """As CPUs have registers of different sizes."""
    count, samples, height, width = shape
    x, g = normal(count, samples, height), normal(count, samples, width)
    wanted = summed("product_over_shards", x, g, merges=tree_of(count))
    for tile in [(6, 1), (3, 2)]:
        monkeypatch.setattr(trees, "_tile", lambda _, tile=tile: trees.Tile(*tile))
        found = summed("product_over_shards", x, g, merges=tree_of(count))
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("width", [3, 16, 65])
def test_rows_are_added_in_their_order(width):
    x = normal(1, 40, width)
    wanted = np.zeros(width, np.float32)
    for row in x[0]:
        wanted += row
    assert summed("sum_over_shards", x, merges=(0,)).tobytes() == wanted.tobytes()


def test_the_sum_over_samples_is_one_chain_of_fused_steps():
    """What a shard means: in float64 a product of two floats is exact."""
    rng = np.random.default_rng(3)  # where rounding twice is rounding once
    x, g = (rng.normal(size=(1, 30, n)).astype(np.float32) for n in (3, 5))
    wanted = np.zeros((3, 5), np.float32)
    for row, other in zip(x[0].astype(np.float64), g[0].astype(np.float64), strict=True):
        wanted = (np.outer(row, other) + wanted).astype(np.float32)
    found = summed("product_over_shards", x, g, merges=(0,))
    np.testing.assert_array_equal(found, wanted)


def test_arrays_whose_elements_do_not_lie_in_order():
    x, g = normal(2, 9, 5), normal(2, 9, 20)
    wanted = summed("product_over_shards", x, g, merges=(0, 1))
    turned = np.asfortranarray(x)
    found = summed("product_over_shards", turned, g[:, :, ::-1][:, :, ::-1], merges=(0, 1))
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("present", [range(8), [0, 1, 3, 4, 6, 7, 10], [5], [2, 9, 10]])
def test_trees_with_missing_shards(present):
    tree = ShardTree(11, present)
    merges = tree.merges(tree.root)
    leaves = [(0, shard) for shard in tree.present]
    parts = normal(len(leaves), 6)
    out = np.empty(6, np.float32)
    tree.combine({leaf: part.copy() for leaf, part in zip(leaves, parts, strict=True)}, out)
    assert out.tobytes() == in_tree(list(parts), merges).tobytes()
