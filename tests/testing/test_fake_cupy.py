"""The stand-in for CuPy itself."""

from __future__ import annotations

import sys
import weakref

from distgrad.testing import fake_cupy


def test_its_memory_goes_with_it() -> None:
    with fake_cupy.installed():
        array = sys.modules["cupy"].zeros(1000)
        assert array.data.ptr
        memory = weakref.ref(array._data)
        del array
        assert memory() is not None  # as long as its address may be used
    assert memory() is None
