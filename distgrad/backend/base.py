"""What a backend is: an array namespace and a few calls that namespaces do not share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class NotHere(Exception):
    """There is no such device, or its library cannot be used; the text says what to do."""


class NotInstalled(NotHere):
    """The library is not there; the text has the ``pip install`` line."""


class OutOfMemory(Exception):
    """The memory of a device is used up; the text says what takes less."""


class Lost(Exception):
    """A device answers no more."""


class Backend(ABC):
    """One array library on one kind of device."""

    name: str
    xp: Any  # the namespace that kernels are written over
    array_type: type
    # Kernels of primitives, by name, that take the place of those written over ``xp``; each is
    # ``kernel(plain, *arrays, **params)``, where ``plain`` is the one over ``xp``.
    kernels: Mapping[str, Callable[..., Any]] = {}
    # Those that do several calls at once, by name, as ``Primitive.native_each`` does.
    each: Mapping[str, Callable[[Sequence[tuple[tuple, tuple]], dict[str, Any]], bool]] = {}
    # Those that are bound to arrays which stay, by name, as ``Primitive.native_bound`` is.
    bound: Mapping[str, Callable[[Sequence[tuple[tuple, tuple]], dict[str, Any]], Any]] = {}
    take_bfloat16: Set[str] = frozenset()  # those that are given it as it is, and round once
    copies_ahead = False  # whether batches can be copied to it while it computes

    @property
    @abstractmethod
    def special(self) -> Any:
        """The module with ``scipy.special``'s functions; imported when first asked for."""

    @abstractmethod
    def asarray(self, value: Any, dtype: Any = None) -> Any:
        """``value`` (ndarray, scalar, nest of numbers) as a fresh array of this backend."""

    @abstractmethod
    def to_numpy(self, array: Any) -> Any:
        """The array on the host, as an ndarray; may share memory."""

    def copy_each(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Copies arrays, the second of each pair into the first, which is like it."""
        for target, source in pairs:
            target[...] = source

    @abstractmethod
    def random_uniform(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uniform floats in [0, 1) that depend on ``key`` (4 uint64) and ``shape`` alone."""

    @abstractmethod
    def random_normal(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """Standard normal floats that depend on ``key`` (4 uint64) and ``shape`` alone."""

    @abstractmethod
    def random_integers(self, key: Any, low: int, high: int, shape: tuple, dtype: Any) -> Any:
        """Integers in [low, high) that depend on ``key`` (4 uint64) and the arguments alone."""

    @abstractmethod
    def random_permutation(self, key: Any, n: int) -> Any:
        """A permutation of range(n), int64, that depends on ``key`` (4 uint64) and n alone."""

    @abstractmethod
    def solve_triangular(self, matrix: Any, rhs: Any, *, lower: bool, transpose: bool) -> Any:
        """``x`` with ``T @ x = rhs``, T the lower or upper triangle of each matrix of the batch.

        ``transpose`` takes T transposed. Raises a ValueError for a zero on the diagonal.
        """

    def add_at(self, array: Any, positions: tuple[Any, ...], values: Any) -> None:
        """Adds values to elements of ``array``, in their order; those at one position add up."""
        self.xp.add.at(array, positions, values)

    def fused(self, name: str, expr: str, arguments: tuple[str, ...]) -> Any:
        """One kernel for a scalar expression over ``arguments``; None where there is none.

        It is ``kernel(plain, *arrays)``, as those of ``kernels`` are.
        """
        return None

    def device_of(self, array: Any) -> str:
        """TensorFlow's name of the device that an array lies on."""
        return "/CPU:0"

    def enter_thread(self) -> None:
        """Called by a thread of ours before it touches arrays."""
        return None

    # Of devices that run behind their host; a host is done when a call returns.

    def mark(self) -> Any:
        """The end of the work that this thread has given the device so far."""
        return None

    def after(self, mark: Any) -> None:
        """What this thread gives the device from now on waits for a ``mark``."""
        return None

    def stream(self, name: str) -> AbstractContextManager[Any]:
        """Context in which this thread's work runs beside that of other streams."""
        return nullcontext()

    def free(self) -> int:
        """Bytes of memory that nobody uses."""
        return 0

    def facts(self) -> dict[str, str]:
        """What of the device and its libraries decides bits, or must be alike on all ranks."""
        return {}

    def explain(self, operation: str, error: Exception) -> Exception | None:
        """OutOfMemory or Lost, for an error that says so; None for any other."""
        return None
