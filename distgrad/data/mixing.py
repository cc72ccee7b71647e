"""Steps of a `Dataset` that draw numbers, mix datasets, or thin one out, by chance or choice."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad.data import nest, shard, specs
from distgrad.data.calling import as_of_now, call
from distgrad.data.cardinality import INFINITE_CARDINALITY, UNKNOWN_CARDINALITY
from distgrad.data.grouping import one_of
from distgrad.data.rows import Numbers

_unseeded = Numbers()
# Streams of these numbers, and those of unseeded shuffles, which count from 1, lie apart.
_APART = 2**31


def _fractions(key: tuple[int, int, int]) -> Iterator[float]:
    """Numbers in [0, 1), without end."""
    return (number / 2**64 for number in shard.random_numbers(*key))


class Mixing:
    """What `Dataset` inherits these steps from."""

    _elements: Callable[[Any], Iterator[Any]]
    element_spec: Any

    @staticmethod
    def sample_from_datasets(
        datasets: Sequence[Any],
        weights: Any = None,
        seed: int | None = None,
        stop_on_empty_dataset: bool = False,
        rerandomize_each_iteration: bool | None = None,
    ) -> Any:
        """Elements of the datasets, each of one that is drawn by its weight (None: all the same).

        It ends with the last dataset, or with the first where ``stop_on_empty_dataset``. Every
        iteration draws the same, but where ``rerandomize_each_iteration``. Raises ValueError for no
        dataset, or for weights that are not one number each, TypeError for elements of different
        forms or dtypes.
        """
        parts = list(datasets)
        shares = np.full(len(parts), 1.0) if weights is None else np.asarray(weights, np.float64)
        if not parts or shares.shape != (len(parts),) or (shares < 0).any() or not shares.any():
            raise ValueError(f"{len(parts)} datasets cannot have the weights {weights!r}")
        number = _APART + (0 if seed is not None else next(_unseeded))

        def elements(this: Any) -> Iterator[Any]:
            own = this.seed if seed is None else int(seed)
            epoch = this.epoch if rerandomize_each_iteration else 0
            alive = (shares > 0).astype(float)

            def chosen() -> Iterator[int]:
                for fraction in _fractions((own, number, epoch)):
                    bounds = np.cumsum(alive * shares)
                    yield int(np.searchsorted(bounds, fraction * bounds[-1], side="right"))

            yield from _in_turns(parts, this, chosen(), alive, stop_on_empty_dataset)

        endless = [part._size == INFINITE_CARDINALITY for part in parts]
        infinite = all(endless) if stop_on_empty_dataset else any(endless)
        return _mixed(parts, elements, INFINITE_CARDINALITY if infinite else UNKNOWN_CARDINALITY)

    @staticmethod
    def choose_from_datasets(
        datasets: Sequence[Any], choice_dataset: Any, stop_on_empty_dataset: bool = True
    ) -> Any:
        """Elements of the datasets, each of that whose number ``choice_dataset`` gives.

        It ends with the choices, or with the first dataset where ``stop_on_empty_dataset``. Raises
        ValueError for no dataset, TypeError for choices that are no integers and for elements of
        different forms or dtypes, and InvalidArgumentError for one that is no number of a dataset.
        """
        parts = list(datasets)
        if not parts:
            raise ValueError("choose_from_datasets needs a dataset")

        def elements(this: Any) -> Iterator[Any]:
            choices = (
                one_of("a choice", operator.index(choice), len(parts))
                for choice in choice_dataset._elements(this)
            )
            alive = np.ones(len(parts))
            yield from _in_turns(parts, this, choices, alive, stop_on_empty_dataset)

        return _mixed(parts, elements, UNKNOWN_CARDINALITY)

    @classmethod
    def random(
        cls: Any,
        seed: int | None = None,
        rerandomize_each_iteration: bool | None = None,
        name: str | None = None,
    ) -> Any:
        """Random int64 numbers from 0 to 2**32 - 1, without end: the same at every iteration, but
        where ``rerandomize_each_iteration``."""
        number = _APART + (0 if seed is not None else next(_unseeded))

        def elements(this: Any) -> Iterator[Any]:
            own = this.seed if seed is None else int(seed)
            epoch = this.epoch if rerandomize_each_iteration else 0
            for drawn in shard.random_numbers(own, number, epoch):
                yield np.asarray(drawn >> 32, np.int64)

        spec = lambda: specs.of_array(np.zeros((), np.int64))  # noqa: E731
        return cls(elements, INFINITE_CARDINALITY, spec=spec)

    def rejection_resample(
        self,
        class_func: Callable[..., Any],
        target_dist: Any,
        initial_dist: Any = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> Any:
        """Pairs of a class, which ``class_func`` gives, and an element; so many are left out that
        classes come as often as ``target_dist`` says.

        ``initial_dist`` is how often they come before (counted on the way for None). Raises
        ValueError for distributions of different lengths.
        """
        class_func = as_of_now(class_func)
        wanted = np.asarray(target_dist, np.float64)
        before = None if initial_dist is None else np.asarray(initial_dist, np.float64)
        if before is not None and before.shape != wanted.shape:
            raise ValueError(
                f"target_dist {target_dist!r} and initial_dist {initial_dist!r} differ"
            )
        number = _APART + (0 if seed is not None else next(_unseeded))

        def elements(this: Any) -> Iterator[Any]:
            fractions = _fractions((this.seed if seed is None else int(seed), number, this.epoch))
            seen = np.zeros(len(wanted))
            for element, fraction in zip(self._elements(this), fractions, strict=False):
                kind = nest.to_arrays(call(class_func, element))
                seen[int(kind)] += 1
                frequency = seen if before is None else before
                with np.errstate(divide="ignore", invalid="ignore"):
                    ratio = np.where(frequency > 0, wanted / frequency, 0)
                if fraction * ratio.max() < ratio[int(kind)]:
                    yield kind, element

        made: Any = type(self)
        kind_of = lambda element: nest.to_arrays(call(class_func, element))  # noqa: E731
        return made(
            elements,
            spec=lambda: (specs.through(kind_of, self.element_spec), self.element_spec),
        )


def _in_turns(
    parts: Sequence[Any], this: Any, choices: Iterator[int], alive: np.ndarray, stop: bool
) -> Iterator[Any]:
    """Elements of the parts that ``choices`` name; those at their end are left out."""
    readers = [part._elements(this) for part in parts]
    for choice in choices:
        found = next(readers[choice], readers) if alive[choice] else readers
        if found is not readers:
            yield found
        elif stop:
            return
        else:
            alive[choice] = 0
            if not alive.any():
                return


def _mixed(parts: Sequence[Any], elements: Callable[[Any], Iterator[Any]], size: int) -> Any:
    specs.agree(
        parts,
        "the datasets must have compatible elements: the first has {first}, that of number "
        "{number} {other}",
    )
    made: Any = type(parts[0])
    return made(elements, size, spec=lambda: specs.joined([part.element_spec for part in parts]))
