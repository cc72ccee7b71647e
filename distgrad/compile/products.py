"""Which products of matrices are generated, and which are left to BLAS and its threads."""

from __future__ import annotations

from distgrad.launcher import environ

# Terms (m * n * k) of the largest product that has one thread whatever BLAS has: half a millisecond
# of work. Threads of BLAS spin, and on a busy machine wait for each other at every product for as
# long as others are at work, which makes small models ten and more times as slow.
ALONE = 1 << 25


def one_thread() -> bool:
    """Whether BLAS has one thread, as generated products have: then all of them are generated."""
    return environ.blas_info()["threads"] == 1
