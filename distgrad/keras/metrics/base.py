"""Metrics: additive float64 statistics of a batch, and the value they stand for.

Because every metric is a sum over samples, the sums of all virtual shards can be added in one
fixed order, and a metric is the same whoever computed its parts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating
from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.keras import initializers
from distgrad.keras.losses.base import in_float32, own_dtype
from distgrad.keras.metrics.statistic import SoFar
from distgrad.keras.metrics.weighing import host, masked_weight, mean_sums, same_rank
from distgrad.keras.named_first import named_first
from distgrad.keras.naming import auto_name
from distgrad.keras.registry import Configured, is_ours, not_begun, snake_case
from distgrad.keras.variable import Variable
from distgrad.ops.casting import cast
from distgrad.training import turns

Value = float | list[float]


class Metric(Configured):
    """Base of all metrics: ``sums`` of a batch (``size`` numbers), ``value`` of their total.

    One without a name is named after its class, and counts up in a process where Keras's does:
    ``auc``, ``auc_1``. ``direction`` is "up" where more is better, "down" where less is, None where
    nobody knows; ``dtype``, a dtype or policy, is that of ``result()``; by default float32, or
    float64 where ``floatx`` is. A metric written for Keras works, too: alone, where a batch is one
    shard, it is given batch after batch, whatever it keeps of them. With several shards its
    ``update_state`` must add what ``result`` needs to variables made with ``add_weight``, as sums
    over samples, give it to other metrics in attributes, or change what ``super().update_state`` is
    given.
    """

    size = 2
    direction: str | None = None
    updates_itself = False  # by an ``update_state`` of a user
    _answers_itself = False  # by a ``result`` of a user
    _numbered = False  # whether names that it has by itself count up in a process
    _default_name: str | None = None  # where they do not
    _kept: tuple[str, ...] = ()  # the parts of its sums that are variables in Keras
    _adds: bool | None = None  # whether its own updates add; None until one was looked at

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        self.name = name or self._default_name or auto_name(snake_case(type(self).__name__))
        self.dtype = own_dtype(dtype)
        self._running_sums: Any = 0.0
        self._last_result: Any = None  # what result() gave last
        self.added: list[Variable] = []  # by add_weight

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if is_ours(cls) and "_default_name" not in cls.__dict__:
            cls._default_name = None if cls._numbered else snake_case(cls.__name__)
        if "result" in cls.__dict__:
            cls.result = _remembered(cls.result)  # type: ignore[method-assign]
            cls._answers_itself = True
        if "update_state" in cls.__dict__:
            cls.update_state = _joining(cls.update_state)  # type: ignore[method-assign]
            cls.updates_itself = True

    def expect(self, shape: tuple[int, ...]) -> None:
        """Told the shape of predictions before the first of them, where ``size`` follows from it.

        Several workers must agree on it before a batch, also one that has no samples of it.
        """
        for metric in self._metrics_below():
            metric.expect(shape)

    @property
    def variables(self) -> list[Any]:
        """What it has added up, in Keras's order: those of ``add_weight``, or parts of its sums."""
        return [*self.added] or [getattr(self, name) for name in self._kept]

    def _metrics_below(self) -> list[Metric]:
        """The metrics in attributes of one that gives them its batches."""
        if not self.updates_itself:
            return []
        return [metric for value in vars(self).values() for metric in _metrics_in(value)]

    def numbers_in_all(self) -> int:
        """How many numbers ``of_batch`` gives: its own, then those of the metrics below."""
        return self.size + sum(metric.numbers_in_all() for metric in self._metrics_below())

    @named_first
    def add_weight(
        self,
        shape: Any = (),
        initializer: Any = "zeros",
        dtype: Any = None,
        name: str | None = None,
    ) -> Variable:
        """A variable of a metric that keeps its sums in variables.

        Raises RuntimeError before ``super().__init__()``.
        """
        if not hasattr(self, "added"):
            raise not_begun(self)
        made = initializers.get(initializer)(tuple(shape), dtype=dtype or self.dtype)
        variable = Variable(made, trainable=False, name=name)
        self.added.append(variable)
        self.size = sum(v.shape.num_elements() for v in self.added)
        return variable

    def add_variable(
        self,
        shape: Any = (),
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str | None = "sum",
        name: str | None = None,
    ) -> Variable:
        """``add_weight``; ``aggregation`` changes nothing: shards are always added up."""
        return self.add_weight(shape, initializer, dtype, name)

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        """Additive statistics of one batch: a float64 vector of ``size``."""
        if not self.added:
            raise NotImplementedError(f"{type(self).__name__} defines no sums()")
        return self._by_updates(y_true, y_pred, sample_weight)

    def of_batch(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        """The ``sums`` of one batch, by way of an ``update_state`` of a user's own."""
        given = () if sample_weight is None else (sample_weight,)
        run = self._by_updates if self.updates_itself else self.sums
        return run(y_true, y_pred, *given)

    def _by_updates(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        kept = self.state()
        self.reset_state()
        zero = self.statistics()
        self.give(y_true, y_pred, sample_weight)
        found = self.statistics()
        self.must_add()
        if self._adds is None:
            self.give(y_true, y_pred, sample_weight)
            self._adds = bool(np.allclose(self.statistics() - found, found - zero, equal_nan=True))
            if not self._adds:
                warn(
                    f"what {type(self).__name__} {self.name!r} keeps is no sum over batches, which "
                    "is all that is known of it where batches are cut into several shards: its "
                    "value means little. Alone, without virtual shards, it is what it says."
                )
        self.set_state(kept)
        return found

    def give(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """``update_state`` with tensors of one dtype, as a user's own expects."""
        y_pred = as_tensor(y_pred)
        others = [_like(y_pred, each) for each in (y_true, sample_weight) if each is not None]
        self.update_state(others[0], y_pred, *others[1:])

    def must_add(self) -> None:
        """Raises ValueError where what it keeps of a shard is nowhere that others can see."""
        if not self.added and not self._metrics_below() and type(self).sums is Metric.sums:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} keeps what it finds outside of variables, "
                "and batches are cut into several shards: add it up in variables made with "
                "add_weight, or run alone and without virtual shards"
            )

    def operations(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        """The ``sums`` of an unweighted batch by operations, which a captured step has rather.

        None where there are none: ``sums`` is then called as it is.
        """
        return None

    def value(self, sums: np.ndarray) -> Value:
        """The metric for summed statistics."""
        if not self.added:
            return float(sums[0] / sums[1]) if sums[1] else 0.0
        kept = self.state()
        for variable, part in self._parts_of_sums(sums):
            variable.assign(part)
        found = self.told()
        self.set_state(kept)
        return found

    def value_of_sums(self, sums: np.ndarray) -> Value:
        """The ``value``, by way of a ``result`` of a user's own."""
        if not self._answers_itself:
            return self.value(sums)
        kept = self.state()
        self.keep(sums)
        found = self.told()
        self.set_state(kept)
        return found

    def told(self) -> Value:
        """``result`` as a number of Python, or a list of them."""
        found: Value = np.asarray(as_tensor(self.result())._host()).tolist()
        return found

    def state(self) -> tuple[Any, list[Any], list[Any]]:
        """What ``update_state`` has added up so far."""
        below = [metric.state() for metric in self._metrics_below()]
        return self._running_sums, [v.numpy() for v in self.added], below

    def statistics(self) -> np.ndarray:
        """What ``update_state`` has added up so far, as ``of_batch`` gives it of one batch."""
        if self.added:
            own = np.concatenate([np.ravel(v.numpy()).astype(np.float64) for v in self.added])
        else:
            own = (
                self._running_sums
                if isinstance(self._running_sums, np.ndarray)
                else np.zeros(self.size)
            )
        below = self._metrics_below()
        return np.concatenate([own, *(m.statistics() for m in below)]) if below else own

    def gave(self, value: Any) -> bool:
        """Whether ``value`` is what ``result`` has returned last."""
        return value is self._last_result and value is not None

    def set_state(self, state: tuple[Any, list[Any], list[Any]]) -> None:
        self._running_sums = state[0]
        for variable, value in zip(self.added, state[1], strict=True):
            variable.assign(value)
        for metric, kept in zip(self._metrics_below(), state[2], strict=True):
            metric.set_state(kept)

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Adds a batch: ``(y_true, y_pred, sample_weight=None)``."""
        recording.call(self._add_batch, *args, **kwargs)

    def _add_batch(self, *args: Any, **kwargs: Any) -> None:
        turns.joins(self)
        with recording.paused():
            self._running_sums = self._running_sums + self.sums(*args, **kwargs)

    def result(self) -> Tensor:
        """The metric over all batches since the start or the last reset."""
        self._last_result = recording.slot(self._make_result)
        return self._last_result

    def absorb(self, sums: np.ndarray) -> None:
        """Adds ``statistics`` of batches that were given to it elsewhere."""
        for variable, part in self._parts_of_sums(sums):
            variable.assign_add(part)
        if not self.added:
            self._running_sums = self._running_sums + sums[: self.size]
        for metric, part in parts_of(self._metrics_below(), sums, self.size):
            metric.absorb(part)

    def keep(self, sums: np.ndarray) -> None:
        """Has these ``statistics`` in the place of its own."""
        for variable, part in self._parts_of_sums(sums):
            variable.assign(part)
        if not self.added:
            self._running_sums = np.array(sums[: self.size], np.float64)
        for metric, part in parts_of(self._metrics_below(), sums, self.size):
            metric.keep(part)

    def _parts_of_sums(self, sums: np.ndarray) -> Iterator[tuple[Variable, np.ndarray]]:
        """Each variable with its part of ``sums``."""
        start = 0
        for variable in self.added:
            stop = start + variable.shape.num_elements()
            part = sums[start:stop].reshape(variable.shape)
            yield variable, part.astype(variable.dtype.numpy_dtype)
            start = stop

    def _make_result(self) -> Tensor:
        value = self.value(self.statistics())
        return Tensor(np.asarray(value, as_dtype(self.dtype).numpy_dtype))

    def reset_state(self) -> None:
        """Forgets all batches."""
        recording.call(self._reset_all)

    def reset_states(self) -> None:
        """``reset_state`` by its older name, which loops of one's own are full of."""
        self.reset_state()

    def _reset_all(self) -> None:
        self._running_sums = 0.0
        for variable in self.added:
            variable.assign(np.zeros(variable.shape, variable.dtype.numpy_dtype))
        for metric in self._metrics_below():
            metric.reset_state()

    # The same with the state in the caller's hands: values of its variables, none at the start.

    def stateless_update_state(
        self, metric_variables: Sequence[Any], *args: Any, **kwargs: Any
    ) -> list[Any]:
        """The state after a batch, from that before it."""
        return self._with(metric_variables, lambda: self.update_state(*args, **kwargs))[1]

    def stateless_result(self, metric_variables: Sequence[Any]) -> Any:
        """The metric for such a state."""
        return self._with(metric_variables, self.result)[0]

    def stateless_reset_state(self) -> list[Any]:
        """The state before any batch."""
        return self._with([], lambda: None)[1]

    def _with(self, values: Sequence[Any], run: Callable[[], Any]) -> tuple[Any, list[Any]]:
        kept = self.state()
        # What metrics below have added up is in its statistics alone.
        parts = self.variables if self.added or not self._metrics_below() else []
        try:
            self.reset_state()
            if values and parts:
                for variable, value in zip(parts, values, strict=True):
                    variable.assign(value)
            elif values:
                self.keep(np.asarray(as_tensor(values[0])._host(), np.float64))
            found = run()
            if self.added:
                state = self.state()[1]
            else:
                state = [each.part() for each in parts] or [self.statistics()]
            return found, [Tensor(np.array(value)) for value in state]
        finally:
            self.set_state(kept)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        self.update_state(*args, **kwargs)
        return self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class Mean(Metric):
    """The weighted mean of the values it is given: ``update_state(values, sample_weight=None)``."""

    total = SoFar(lambda _, sums: sums[0, ...])
    count = SoFar(lambda _, sums: sums[1, ...])
    _kept = ("total", "count")

    def sums(self, values: Any, sample_weight: Any = None) -> np.ndarray:  # type: ignore[override]
        return mean_sums(host(values), sample_weight)


class Sum(Metric):
    """The weighted sum of the values it is given: ``update_state(values, sample_weight=None)``."""

    size = 1
    total = SoFar(lambda _, sums: sums[0, ...])
    _kept = ("total",)

    def sums(self, values: Any, sample_weight: Any = None) -> np.ndarray:  # type: ignore[override]
        numbers = host(values).astype(np.float64)
        if sample_weight is None:
            return np.array([numbers.sum()])
        numbers, weight = same_rank(numbers, host(sample_weight).astype(np.float64))
        weight = weight.reshape(weight.shape + (1,) * (numbers.ndim - weight.ndim))
        return np.array([(numbers * weight).sum()])

    def value(self, sums: np.ndarray) -> Value:
        return float(sums[0])


class MeanMetric(Metric):
    """A metric that is the weighted mean of one value per sample; masked steps do not count."""

    total, count = Mean.total, Mean.count
    _kept = Mean._kept
    _default_name = None

    def per_sample(self, y_true: Any, y_pred: Any) -> Any:
        """One value per sample; the mean is taken over further axes."""
        raise NotImplementedError

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        mask = getattr(y_pred, "_keras_mask", None)
        given = map(in_float32, map(as_tensor, (y_true, y_pred)))
        return mean_sums(host(self.per_sample(*given)), masked_weight(sample_weight, mask))


class MeanMetricWrapper(MeanMetric):
    """A function of (y_true, y_pred) as a metric; it gives one value per sample."""

    _numbered = True

    def __init__(
        self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(name, dtype)
        self.fn = fn
        self._options = kwargs

    def per_sample(self, y_true: Any, y_pred: Any) -> Any:
        prediction = as_tensor(y_pred)
        return self.fn(_like(prediction, y_true), prediction, **self._options)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._options}


def one_by_one(metrics: Iterable[Any]) -> list[Any]:
    """Metrics, with those that a model keeps as one in their places."""
    return [each for metric in metrics for each in getattr(metric, "metrics", (metric,))]


def parts_of(
    metrics: Iterable[Metric], sums: np.ndarray, start: int
) -> Iterator[tuple[Metric, np.ndarray]]:
    """Each metric with its part of ``sums``, one after the other from ``start`` on."""
    for metric in metrics:
        stop = start + metric.numbers_in_all()
        yield metric, sums[start:stop]
        start = stop


def _metrics_in(value: Any) -> Iterator[Metric]:
    if isinstance(value, Metric):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _metrics_in(item)


def _remembered(result: Callable[..., Any]) -> Callable[..., Any]:
    """A user's own ``result``, which keeps what it gave."""

    @functools.wraps(result)
    def remembered(self: Metric, *args: Any, **kwargs: Any) -> Any:
        self._last_result = result(self, *args, **kwargs)
        return self._last_result

    return remembered


def _like(prediction: Tensor, value: Any) -> Tensor:
    """A tensor, whose floats are those of the predictions: a user's metric computes with both."""
    tensor = as_tensor(value)
    both = is_floating(tensor._data.dtype) and is_floating(prediction._data.dtype)
    return cast(tensor, prediction.dtype) if both else tensor


def _joining(update_state: Callable[..., Any]) -> Callable[..., Any]:
    """A user's own ``update_state``, of which the replicas of a strategy are told."""

    @functools.wraps(update_state)
    def joining(self: Metric, *args: Any, **kwargs: Any) -> Any:
        recording.tell(turns.joins, self)
        return update_state(self, *args, **kwargs)

    return joining
