"""Numbers too small for full precision (denormals) as zeros, while a training step runs.

Gradients and moments that die out end as denormals, on which a processor is many times slower.
TensorFlow and XLA treat them as zeros, too. A thread that is started meanwhile inherits it.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
from types import TracebackType
from typing import Any

_SIZE = 64  # bytes, more than any fenv_t of glibc or musl has

# Where fenv_t has the control register, and the bits in it that flush results and arguments.
_PLACES = {
    "x86_64": (28, 1 << 15 | 1 << 6),  # mxcsr: FTZ, DAZ
    "aarch64": (0, 1 << 24),  # fpcr: FZ
}


class _PerThread(threading.local):
    """This thread's floating-point environment, as it was before."""

    def __init__(self) -> None:
        self.depth = 0
        self.environment = ctypes.create_string_buffer(_SIZE)
        self.word = ctypes.c_uint32.from_buffer(self.environment, _PLACE[0])
        self.at = ctypes.c_void_p(ctypes.addressof(self.environment))


class flushed:
    """Context in which this thread takes denormals as zeros, where the system can do that."""

    __slots__ = ()

    def __enter__(self) -> None:
        own = _per_thread
        own.depth += 1
        if own.depth > 1 or _library is None:
            return
        _library.fegetenv(own.at)
        old = own.word.value
        own.word.value = old | _PLACE[1]
        _library.fesetenv(own.at)
        own.word.value = old

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        own = _per_thread
        own.depth -= 1
        if own.depth == 0 and _library is not None:
            _library.fesetenv(own.at)


def _load() -> Any:
    if sys.platform != "linux" or platform.machine() not in _PLACES:
        return None
    try:
        library = ctypes.PyDLL("libm.so.6")  # too short to let other threads run meanwhile
        return library if library.fegetenv and library.fesetenv else None
    except (OSError, AttributeError):
        return None


_PLACE = _PLACES.get(platform.machine(), (0, 0))
_library = _load()
_per_thread = _PerThread()
