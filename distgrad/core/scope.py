"""What is left of a tensor that a function has made, and not returned, once that was captured."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np

from distgrad.core.errors import ScopeError


class OutOfScope:
    """Stands for an array that later calls make anew: of it shape and dtype alone are known."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, function: str) -> None:
        self.shape, self.dtype, self.function = shape, dtype, function
        self.ndim, self.size = len(shape), math.prod(shape)
        self.nbytes = self.size * dtype.itemsize

    def copy(self) -> OutOfScope:
        return self

    def refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ScopeError(
            f"a tensor of shape {self.shape} and dtype {self.dtype.name} is out of scope: "
            f"{self.function} made it, in a call that is over, and did not return it"
        )

    __array__ = __array_ufunc__ = __array_function__ = __getattr__ = __getitem__ = refuse
