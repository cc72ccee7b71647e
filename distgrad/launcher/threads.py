"""How many threads this process has: those of BLAS, and those that share a generated kernel.

The number of BLAS's decides how it splits its sums, and so decides bits: a worker has one unless it
is told otherwise. That of generated kernels decides none: a worker has its share of the cores.
"""

from __future__ import annotations

import contextlib
from typing import Any

from distgrad.core.errors import UsageError
from distgrad.launcher import environ, load

_of_kernels: int | None = None


def of_kernels() -> int | None:
    """How many threads may share a generated kernel; None: as many as BLAS has."""
    return _of_kernels


def limit(count: int | None) -> None:
    """Gives this process so many threads of BLAS, OpenMP and kernels, also in loaded libraries.

    With None libraries have one, whose bits are those of every worker, and kernels what
    OMP_NUM_THREADS says, else this process's share of the cores of its machine.

    Raises:
        UsageError: ``count`` is less than 1.
    """
    import threadpoolctl

    environ.set_threads(count)
    threadpoolctl.threadpool_limits(count or 1)
    _settle_kernels()


def settle() -> None:
    """Gives this process the threads of a worker if it is a rank, or runs virtual shards.

    So it has the bits of the ranks that ``distgrad launch`` starts. Where a variable of the user
    says how many threads (``OMP_NUM_THREADS=4``), it is left alone.
    """
    with contextlib.suppress(UsageError):  # whoever joins the world says so
        if environ.kernel_threads_are_set():  # with those of libraries, before they were loaded
            _settle_kernels()
        elif not environ.threads_are_asked_for() and (
            environ.detect().is_rank or environ.script_virtual_shards()
        ):
            limit(None)


def _settle_kernels() -> None:
    """As the variables say; a share is that of the cores divided among the machine's ranks."""
    global _of_kernels
    asked = environ.kernel_threads()
    _of_kernels = asked or max(1, load.cores() // environ.detect().local_size)


def blas_info() -> dict[str, Any]:
    """Name, version, architecture (core name) and threads of the BLAS that NumPy uses.

    Two machines on which these differ may give different bits. Unknown values are None.
    """
    library = blas()
    found = {} if library is None else library.info()
    return {
        "name": found.get("internal_api"),
        "version": found.get("version"),
        "architecture": found.get("architecture"),
        "threads": found.get("num_threads"),
    }


def blas() -> Any:
    """The BLAS that NumPy uses, as threadpoolctl controls it; None for an unknown one."""
    import numpy  # noqa: F401  (loads its BLAS)
    import threadpoolctl

    found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    # SciPy loads a BLAS of its own; matrix products are NumPy's.
    return min(found, key=lambda library: "numpy" not in (library.filepath or ""), default=None)
