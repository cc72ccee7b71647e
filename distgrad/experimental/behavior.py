"""NumPy's manners for tensors: operators that mix dtypes, methods, and indices that are arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Operand, Tensor
from distgrad.experimental import arrays, elementwise, promotion, reductions
from distgrad.keras import ops
from distgrad.keras.operators import TWO_SIDED
from distgrad.ops.indexing import index

_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
_COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}


def experimental_enable_numpy_behavior(
    prefer_float32: bool = False, dtype_conversion_mode: str = "legacy"
) -> None:
    """Gives tensors and variables NumPy's operators, methods and indices, from now on.

    With ``prefer_float32`` Python's floats alone are float32, not float64. Raises ValueError for
    another ``dtype_conversion_mode`` than "legacy", NumPy's rules.
    """
    if dtype_conversion_mode != "legacy":
        raise ValueError(f'dtype_conversion_mode is "legacy", not {dtype_conversion_mode!r}')
    promotion.prefer_float32 = prefer_float32
    for name, function in _methods().items():
        setattr(Operand, name, function)


def _methods() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for short in _ARITHMETIC:
        function = getattr(elementwise, TWO_SIDED[short])
        made[f"__{short}__"] = _operator(function)
        made[f"__r{short}__"] = _reflected(function)
    for short, name in _COMPARISONS.items():
        made[f"__{short}__"] = _operator(getattr(elementwise, name))
    made["__eq__"] = _equality(elementwise.equal, False)  # type: ignore[attr-defined]
    made["__ne__"] = _equality(elementwise.not_equal, True)  # type: ignore[attr-defined]
    made["__matmul__"] = _operator(reductions.matmul)
    made["__rmatmul__"] = _reflected(reductions.matmul)
    made["__getitem__"] = item
    made["T"] = property(arrays.transpose)  # type: ignore[attr-defined]
    made["data"] = property(promotion.tensor)
    made["size"] = property(arrays.size)
    made["astype"] = lambda self, dtype: promotion.tensor(self, dtype)
    made["tolist"] = lambda self: self.numpy().tolist()
    made["reshape"] = _reshape
    for name in ("ravel", "transpose"):
        made[name] = getattr(arrays, name)
    made["clip"] = elementwise.clip
    for name in ("max", "mean", "min"):
        made[name] = getattr(reductions, name)
    return made


def _operator(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    return lambda self, other: function(self, other)


def _reflected(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    return lambda self, other: function(other, self)


def _equality(function: Callable[[Any, Any], Tensor], differ: bool) -> Callable[[Any, Any], Any]:
    def compare(self: Any, other: Any) -> Any:
        if other is None:
            return differ
        try:
            return function(self, other)
        except InvalidArgumentError:
            if np.shape(self) != np.shape(other):  # shapes that do not broadcast are just unequal
                return differ
            raise

    return compare


def _reshape(self: Any, *newshape: Any, order: str = "C") -> Tensor:
    return arrays.reshape(self, newshape[0] if len(newshape) == 1 else newshape, order)


def item(self: Any, key: Any) -> Tensor:
    """``self[key]`` by NumPy's rules: lists, tuples and arrays of integers or bools are indices."""
    keys = key if isinstance(key, tuple) else (key,)
    if not any(_is_array(each) for each in keys):
        return index(self, key)
    plain = tuple(
        np.asarray(each.numpy() if isinstance(each, Operand) else each)  # type: ignore[attr-defined]
        if _is_array(each)
        else each
        for each in keys
    )
    numbers = np.arange(self.shape.num_elements()).reshape(self.shape)
    try:
        places = numbers[plain]
    except IndexError as error:
        raise InvalidArgumentError(f"of a tensor of shape {self.shape}: {error}") from None
    return ops.take(ops.ravel(self), places)


def _is_array(key: Any) -> bool:
    if isinstance(key, Operand):
        return key.shape.rank > 0
    return isinstance(key, (list, tuple, np.ndarray))
