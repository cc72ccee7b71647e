"""Rows of arrays that lie on a GPU, put together where they are needed by one launch."""

from __future__ import annotations

import numpy as np
import pytest

from distgrad.backend import cupy as cupy_backend
from distgrad.backend.sent import Picked, Sent
from distgrad.core import dispatch

pytestmark = pytest.mark.usefixtures("on_gpu")

N = 700
# Rows of 12, 5, 64, 1 and 8 bytes: words of 4, 1, 16, 1 and 4.
ARRAYS = {
    "float32": np.arange(3 * N, dtype=np.float32).reshape(N, 3),
    "uint8": (np.arange(5 * N) % 251).astype(np.uint8).reshape(N, 5),
    "float64": np.arange(8 * N, dtype=np.float64).reshape(N, 2, 4),
    "bool": np.arange(N) % 3 == 0,
    "int64": np.arange(N) - 9,
}
ORDER = np.random.default_rng(0).permutation(N)


@pytest.fixture
def launches(monkeypatch):
    rows, names = dispatch.current().rows, []
    launch = rows._launch

    def counted(name, *args):
        names.append(name)
        launch(name, *args)

    monkeypatch.setattr(rows, "_launch", counted)
    monkeypatch.setattr(rows._tables, "_known", {})
    return names


@pytest.mark.parametrize("ordered", [True, False])
def test_rows_of_several_arrays_go_to_their_places_by_one_launch(launches, ordered) -> None:
    backend = dispatch.current()
    sources = {name: backend.asarray(array) for name, array in ARRAYS.items()}
    order = backend.asarray(ORDER) if ordered else None
    places = {name: backend.xp.zeros((600, *a.shape[1:]), a.dtype) for name, a in ARRAYS.items()}
    for start in (0, 13, 99):  # the same table, from another row on
        rows = [Picked(source, order, start, start + 600) for source in sources.values()]
        backend.rows.pick(
            [(place.data.ptr, part) for place, part in zip(places.values(), rows, strict=True)]
        )
        numbers = ORDER[start : start + 600] if ordered else np.arange(start, start + 600)
        for (name, array), part in zip(ARRAYS.items(), rows, strict=True):
            assert (places[name].get() == array[numbers]).all()
            assert (part.together().get() == array[numbers]).all()
    assert launches == ["pick_rows"] * 3 and len(backend.rows._tables._known) == 1


def test_shards_of_a_batch_begin_where_others_end(launches) -> None:
    backend = dispatch.current()
    source, order = backend.asarray(ARRAYS["float32"]), backend.asarray(ORDER)
    place = backend.xp.zeros((20, 3), np.float32)
    batch = Picked(source, order, 100, 120)
    parts = [batch[0:7], batch[7:20]]
    backend.rows.pick([(place[:7].data.ptr, parts[0]), (place[7:].data.ptr, parts[1])])
    assert (place.get() == ARRAYS["float32"][ORDER[100:120]]).all()
    assert launches == ["pick_rows"]
    assert batch[7:40].shape == (13, 3) and batch[30:40].shape == (0, 3)


def test_another_array_at_the_same_place_has_a_table_of_its_own(launches) -> None:
    backend = dispatch.current()
    memory = backend.asarray(np.arange(24, dtype=np.float32))
    place = backend.xp.zeros(12, np.float32)
    for width in (2, 4):  # as memory that is used again
        source = memory.reshape(-1, width)
        backend.rows.pick([(place.data.ptr, Picked(source, None, 2, 5))])
        assert (place[: 3 * width].get() == np.arange(2 * width, 5 * width)).all()


def test_what_was_sent_knows_its_rows_until_it_is_asked_for_them() -> None:
    backend = dispatch.current()
    array = ARRAYS["float64"]
    sent = Sent(array[3:9], Picked(backend.asarray(array), None, 3, 9))
    part = sent[2:4]
    assert (part.shape, part.dtype, part.picked.start) == ((2, 2, 4), np.float64, 5)
    assert (part.there.get() == array[5:7]).all() and part.picked is None
    assert (part.host == array[5:7]).all() and sent.picked is not None


def test_large_arrays_take_no_pinned_memory_of_their_size(monkeypatch) -> None:
    monkeypatch.setattr(cupy_backend, "_STAGED", 100)
    backend = dispatch.current()
    for array in (ARRAYS["float32"], ARRAYS["float64"].T, ARRAYS["bool"]):
        given = array.copy(order="K")
        there = backend.asarray(given)
        given[:] = 0  # the copy is the caller's before that
        assert (there.get() == array).all() and there.flags.c_contiguous
