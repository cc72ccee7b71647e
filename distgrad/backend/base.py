"""What a backend is: an array namespace and a few calls that namespaces do not share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Backend(ABC):
    """One array library on one kind of device."""

    name: str
    xp: Any  # the namespace that kernels are written over
    array_type: type

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
