"""What a user's own steps return, by name, added up over shards and batches.

The result of a metric stands for the statistics that the metric has added up, so that over several
shards and batches it is what the metric says of all their samples. Any other number is averaged
over the shards of a batch, and that of the last batch counts, as in Keras. So is an array, but
arrays of different shapes, as of shards of different sizes, are put one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.dtypes import is_floating, is_number
from distgrad.data.loader import Batch


class Statistics(NamedTuple):
    """What the metric of this index has added up in one shard."""

    metric: int
    sums: np.ndarray


class Mark(str):
    """The number of a metric, as text, in the place of its result."""

    __slots__ = ()


def marked(values: Mapping[str, Any], metrics: Sequence[Any]) -> dict[str, Any]:
    """What a step returned, with a `Mark` for each result of a metric; dicts in it are opened.

    A captured step gives that: of the results of its replays nobody knows whose they are.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(marked(value, metrics))
        else:
            index = next((i for i, metric in enumerate(metrics) if metric.gave(value)), None)
            found[name] = value if index is None else Mark(index)
    return found


def goes_on(metric: Any, alone: bool) -> bool:
    """Whether it is given batch after batch as it stands: a user's own is, in a shard ``alone``.

    What it keeps need not be a sum.
    """
    return alone and bool(getattr(metric, "updates_itself", False))


def begin_pass(metrics: Iterable[Any], alone: bool) -> None:
    """Resets those that go on from batch to batch."""
    for metric in metrics:
        if goes_on(metric, alone):
            metric.reset_state()


class Returned:
    """Turns what a step returns on each shard into one vector of sums, and that into named values.

    ``metrics()`` are the same, in the same order, on every worker. ``alone``: there is one shard.
    """

    def __init__(self, metrics: Callable[[], Sequence[Any]], alone: bool = False) -> None:
        self._metrics, self._alone = metrics, alone
        self._parts: list[tuple[str, int | None, int]] = []  # of each name: its metric, its size
        self._last: np.ndarray = np.zeros(0)  # the sums of the last batch
        self._arrays: dict[str, np.ndarray] = {}  # of the last batch

    def begin_shard(self) -> None:
        """Resets what is to be the statistics of a shard."""
        for metric in self._metrics():
            if not goes_on(metric, self._alone):
                metric.reset_state()

    def of_shard(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers, arrays and `Statistics` for what a step returned, `marked` or not.

        Raises ValueError for what is neither of numbers nor the result of a metric.
        """
        metrics = self._metrics()
        found: dict[str, Any] = {}
        for name, value in marked(values, metrics).items():
            if isinstance(value, Mark):
                metric = metrics[int(value)]
                if goes_on(metric, self._alone):
                    sums = np.zeros(0)
                else:
                    metric.must_add()
                    sums = metric.statistics()
                found[name] = Statistics(int(value), sums)
            else:
                found[name] = _as_numbers(name, value)
        return found

    def together(self, everyone: Sequence[Mapping[int, dict[str, Any]]], batch: Batch) -> Any:
        """The sums of a batch, added in the order of its shards, whoever had them.

        Raises ValueError where the shards returned something else under their names.
        """
        shards = {index: values for part in everyone for index, values in part.items()}
        first = shards[min(shards)]
        self._parts = [_part(name, value) for name, value in first.items()]
        if any([_part(*each) for each in v.items()] != self._parts for v in shards.values()):
            shown = sorted({", ".join(values) or "nothing" for values in shards.values()})
            raise ValueError(
                "a step must return the same names, with values of one kind, for every part of a "
                f"batch; it returned {' or '.join(shown)}"
            )
        total = np.zeros(sum(size for _, _, size in self._parts) + 1)
        for index in sorted(shards):
            size = batch.sizes[index]
            given = shards[index].values()
            rows = [
                v.sums if isinstance(v, Statistics) else [v * size]
                for v in given
                if not isinstance(v, np.ndarray)
            ]
            total += np.concatenate([*rows, [size]])
        self._last = total
        sizes = [batch.sizes[index] for index in sorted(shards)]
        self._arrays = {
            name: _one_array([shards[index][name] for index in sorted(shards)], sizes)
            for name, value in first.items()
            if isinstance(value, np.ndarray)
        }
        return total

    def values(self, sums: np.ndarray) -> dict[str, Any]:
        """What the metrics say of all samples, and the numbers of the last batch, by name."""
        metrics, start = self._metrics(), 0
        found: dict[str, Any] = {}
        for name, metric, size in self._parts:
            part = sums[start : start + size]
            if name in self._arrays:
                found[name] = self._arrays[name]
            elif metric is None:
                found[name] = float(self._last[start] / self._last[-1])
            elif goes_on(metrics[metric], self._alone):
                found[name] = metrics[metric].told()
            else:
                found[name] = metrics[metric].value_of_sums(part)
                metrics[metric].keep(part)  # so that users who ask it get the same
            start += size
        return found


def _part(name: str, value: Any) -> tuple[str, int | None, int]:
    if isinstance(value, Statistics):
        return name, value.metric, value.sums.size
    return name, None, 0 if isinstance(value, np.ndarray) else 1


def _as_numbers(name: str, value: Any) -> float | np.ndarray:
    array = np.array(value)
    if not is_number(array.dtype):
        raise ValueError(f"a step must return numbers by name; {name!r} is {value!r}")
    return array if array.ndim else float(array)


def _one_array(arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """What stands for the arrays of the shards of these sizes."""
    first = arrays[0]
    if len(arrays) == 1:
        return first
    if any(array.shape != first.shape for array in arrays):
        return np.concatenate(arrays)
    mean = np.average(arrays, axis=0, weights=sizes)
    return mean.astype(first.dtype) if is_floating(first.dtype) else mean
