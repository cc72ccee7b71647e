"""The NumPy backend: CPUs, and the reference for every other one."""

from __future__ import annotations

import functools
import threading
import warnings
from typing import Any

import numpy as np

from distgrad.backend.base import Backend

# TensorFlow computes inf and nan silently. A filter on the kernels' own modules costs nothing,
# where np.errstate would cost more than a small kernel, and leaves the user's NumPy alone.
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"distgrad\.")


class _Philox(threading.local):
    """This thread's generator, which is put to the place of each key."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(key=0)
        self.generator = np.random.Generator(self.bits)
        self.fresh = dict(self.bits.state)


_philox = _Philox()


class NumpyBackend(Backend):
    """Arrays of NumPy, on the host."""

    name = "numpy"
    xp = np
    array_type = np.ndarray

    @functools.cached_property
    def special(self) -> Any:
        import scipy.special

        return scipy.special

    @functools.cached_property
    def linalg(self) -> Any:
        import scipy.linalg

        return scipy.linalg

    @functools.cached_property
    def ndimage(self) -> Any:
        import scipy.ndimage

        return scipy.ndimage

    def asarray(self, value: Any, dtype: Any = None) -> np.ndarray:
        return np.array(value, dtype=dtype)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array

    def generator(self, key: np.ndarray) -> np.random.Generator:
        """This thread's generator at the place of ``key``: to be used at once."""
        # A counter-based generator: two words are Philox's key, two the high half of its counter,
        # so that streams of different keys never meet (Salmon et al., SC'11).
        words = np.asarray(key, dtype=np.uint64)
        counter = np.zeros(4, np.uint64)
        counter[2:] = words[2:]
        place = {"counter": counter, "key": words[:2]}
        # A generator of its own for each key would take five times as long.
        state: Any = {**_philox.fresh, "state": place}
        _philox.bits.state = state
        return _philox.generator

    def random_uniform(self, key: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        draw = np.float64 if np.dtype(dtype) == np.float64 else np.float32
        values = np.asarray(self.generator(key).random(shape, dtype=draw))
        return values.astype(dtype, copy=False)

    def random_normal(self, key: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        draw = np.float64 if np.dtype(dtype) == np.float64 else np.float32
        values = np.asarray(self.generator(key).standard_normal(shape, dtype=draw))
        return values.astype(dtype, copy=False)

    def random_fill(self, kind: str, key: Any, out: np.ndarray) -> None:
        """Draws ``random`` or ``standard_normal`` numbers, as above, into a C-ordered array."""
        getattr(self.generator(key), kind)(out=out, dtype=out.dtype)

    def random_integers(
        self, key: Any, low: int, high: int, shape: tuple, dtype: Any
    ) -> np.ndarray:
        return np.asarray(self.generator(key).integers(low, high, shape, dtype=dtype))

    def random_permutation(self, key: Any, n: int) -> np.ndarray:
        return self.generator(key).permutation(n)

    def solve_triangular(
        self, matrix: np.ndarray, rhs: np.ndarray, *, lower: bool, transpose: bool
    ) -> np.ndarray:
        from scipy.linalg import get_lapack_funcs

        # LAPACK itself: scipy.linalg.solve_triangular costs a hundred small systems per call.
        (trtrs,) = get_lapack_funcs(("trtrs",), (matrix, rhs))
        x = np.empty_like(rhs)
        for at in np.ndindex(matrix.shape[:-2] if x.size else (0,)):
            x[at], zero = trtrs(matrix[at], rhs[at], lower=lower, trans=transpose)
            if zero:
                raise np.linalg.LinAlgError(f"the matrix has a zero on its diagonal, at {zero - 1}")
        return x


backend = NumpyBackend()
