"""The lifetime plan: nothing overlaps that lives at the same time, and little is wasted."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distgrad.compile.memory import ALIGN, Lifetime, block, plan

lives = st.builds(
    lambda nbytes, start, length: Lifetime(nbytes, start, start + length),
    st.integers(0, 1000),
    st.integers(0, 20),
    st.integers(0, 8),
)


@given(st.lists(lives, max_size=25))
def test_no_two_overlap_in_memory_and_time(lifetimes):
    layout = plan(lifetimes)
    spans = list(zip(layout.offsets, lifetimes, strict=True))
    for i, (offset, life) in enumerate(spans):
        assert offset % ALIGN == 0 and offset + life.nbytes <= layout.nbytes
        for other_offset, other in spans[:i]:
            if other.start <= life.stop and life.start <= other.stop:
                assert offset + life.nbytes <= other_offset or (
                    other_offset + other.nbytes <= offset
                )


def test_a_chain_needs_room_for_two():
    chain = [Lifetime(1024, i, i + 1) for i in range(50)]
    assert plan(chain).nbytes == 2048


def test_a_block_is_aligned():
    for nbytes in (1, 100, 4096):
        made = block(nbytes)
        assert made.ctypes.data % ALIGN == 0 and made.nbytes == nbytes
        assert made.dtype == np.uint8
