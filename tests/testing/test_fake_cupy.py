"""The stand-in for CuPy itself."""

from __future__ import annotations

import sys
import weakref

import numpy as np
import pytest

from distgrad.testing import fake_cupy, fake_streams


def test_an_address_does_not_keep_memory() -> None:
    with fake_cupy.installed():
        array = sys.modules["cupy"].zeros((4, 5), np.float32)
        part = array[1:3, 2]
        assert array.data.ptr < part.data.ptr
        lent = fake_streams.Pointer.lent[part.data.ptr]
        lent.array()[:] = 7
        assert array[1, 2] == array[2, 2] == 7 and float(array.sum()) == 14
        memory = weakref.ref(array._data)
        del array, part
        assert memory() is None
        with pytest.raises(LookupError):
            lent.array()
    assert not fake_streams.Pointer.lent


def test_memory_that_is_used_again_is_not_what_lay_there_before(monkeypatch) -> None:
    with fake_cupy.installed():
        memory = np.zeros(320, np.uint8)
        at = memory.__array_interface__["data"][0]
        fake_streams.Pointer.lent[at + 64] = fake_streams._Lent(np.zeros(4))  # gone at once
        with pytest.raises(LookupError, match="given back"):
            fake_streams.held(at + 64)
        monkeypatch.setattr(np, "full", lambda *_: memory)
        fake_streams.MemoryPool().malloc(64)
        monkeypatch.undo()
        assert fake_streams.held(at + 64) is None
