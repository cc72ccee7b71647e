"""What a metric has added up so far, as Keras's variables of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType, as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.reading import Reading, pass_on
from distgrad.core.shapes import TensorShape, shape_of
from distgrad.core.tensor import Operand, Tensor

if TYPE_CHECKING:
    from distgrad.keras.metrics.base import Metric


class SoFar:
    """An attribute of a metric that is a part of its sums, a `Statistic`.

    ``read(metric, sums)`` gives the part: a view, or an array that ``write(metric, sums, value)``
    puts into the sums. A subclass may set an attribute of that name to something else. ``name`` is
    that in Keras, by default the attribute's.
    """

    def __init__(
        self,
        read: Callable[[Any, np.ndarray], np.ndarray],
        write: Callable[[Any, np.ndarray, np.ndarray], None] | None = None,
        name: str | None = None,
    ) -> None:
        self.read, self._write, self.name = read, write, name

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    def __get__(self, metric: Metric | None, owner: type) -> Any:
        return self if metric is None else Statistic(metric, self)

    def write(self, metric: Any, sums: np.ndarray, value: np.ndarray) -> None:
        if self._write is not None:
            self._write(metric, sums, value)
        else:
            self.read(metric, sums)[...] = value


class Statistic(Operand):
    """A part of what a metric has added up: always what it is now, and ``assign`` changes it."""

    __slots__ = ("_metric", "_part")

    trainable = False

    def __init__(self, metric: Metric, part: SoFar) -> None:
        self._metric, self._part = metric, part

    def part(self) -> np.ndarray:
        """A copy of the value in float64, in which it is added up."""
        metric = self._metric
        return np.array(self._part.read(metric, metric.statistics()[: metric.size]))

    def _read(self) -> Tensor:
        return Tensor(self.part().astype(self.dtype.numpy_dtype))

    @property
    def name(self) -> str:
        return str(self._part.name)

    @property
    def path(self) -> str:
        return f"{self._metric.name}/{self.name}"

    @property
    def dtype(self) -> DType:
        return as_dtype(self._metric.dtype)

    @property
    def shape(self) -> TensorShape:
        return shape_of(self.part().shape)

    @property
    def value(self) -> Reading:
        """``value()`` is the current value as a tensor, ``value`` what operations take for it."""
        return Reading(self)

    def numpy(self) -> Any:
        """A copy of the value: an ndarray, or a NumPy scalar for rank 0."""
        return self._read().numpy()

    def assign(self, value: Any) -> Statistic:
        """Sets it in the metric. Raises InvalidArgumentError for a value of another shape."""
        recording.call(self._set, value)
        return self

    def assign_add(self, delta: Any) -> Statistic:
        """Adds to it in the metric."""
        recording.call(self._add, delta, 1)
        return self

    def assign_sub(self, delta: Any) -> Statistic:
        """Subtracts from it in the metric."""
        recording.call(self._add, delta, -1)
        return self

    def _add(self, delta: Any, sign: int) -> None:
        self._set(self.part() + sign * np.asarray(as_tensor(delta)._host(), np.float64))

    def _set(self, value: Any) -> None:
        metric = self._metric
        array = np.asarray(as_tensor(value)._host(), np.float64)
        if array.shape != self.shape:
            raise InvalidArgumentError(
                f"cannot assign a value of shape {array.shape} to {self.path} of shape {self.shape}"
            )
        sums = metric.statistics()
        self._part.write(metric, sums[: metric.size], array)
        metric.keep(sums)

    def __repr__(self) -> str:
        found = self._read()
        known = f"shape={found.shape}, dtype={found.dtype.name}, value={found.numpy()}"
        return f"<Variable path={self.path}, {known}>"


pass_on(Statistic, lambda self: self._read())
