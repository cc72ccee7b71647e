"""The walk of a tape: from the last entry to the first, each rule adding to what it was given.

An entry is ``(plan, inputs, saved, outputs)``, as `GradientTape` records it; a cotangent is known
by the number of its tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from distgrad.core import dispatch, recording
from distgrad.core.dispatch import backend_of
from distgrad.core.indexed_slices import add, dense, joined
from distgrad.core.primitive import bind_at, registry
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable


def array_of(source: Any) -> Any:
    """The array of a tensor or a variable."""
    return source._buffer if isinstance(source, Variable) else source._data


def zeros(shape: tuple[int, ...], like: Any) -> Tensor:
    """Zeros of ``shape`` with the dtype and on the device of ``like``."""
    array = array_of(like)
    return Tensor(backend_of(array).xp.zeros(shape, array.dtype))


def zeros_like(source: Any) -> Tensor:
    """Zeros of the shape, the dtype and the device of ``source``."""
    return zeros(tuple(source.shape), source)


def accumulate(cotangents: dict[int, Any], uid: int, value: Any) -> None:
    """Adds ``value`` to the cotangent of number ``uid``."""
    known = cotangents.get(uid)
    cotangents[uid] = value if known is None else add(as_cotangent(known), value)


def as_cotangent(value: Any) -> Any:
    """A cotangent that may be a mere array, as a tensor."""
    return Tensor(value) if type(value) is np.ndarray else value


def collect(cotangents: dict[int, Any], uids: list[int]) -> Any:
    """The sum of the cotangents of these numbers, a tensor; None where there is none."""
    if len(uids) == 1 and type(found := cotangents.get(uids[0])) is Tensor:
        return found  # most of the time
    total = None
    for uid in uids:
        value = joined(as_cotangent(cotangents.get(uid)))
        if value is not None:
            total = value if total is None else joined(add(total, value))
    return total


def path_from(entries: list[Any], sources: set[int]) -> tuple[list[Any], set[int]]:
    """The entries that depend on a source, in order, and the numbers of all that does."""
    reached = set(sources)
    path = []
    for entry in entries:
        for uid, _ in entry[1]:
            if uid in reached:
                path.append(entry)
                outputs = entry[3]
                if type(outputs) is int:
                    reached.add(outputs)
                else:
                    reached.update([o[0] for o in outputs])
                break
    return path, reached


def emptying(path: list[Any]) -> Iterator[Any]:
    """The entries from the last to the first; each is let go before the next is taken."""
    while path:
        yield path.pop()


def telling(
    path: list[Any],
    groups: list[list[int]],
    cotangents: dict[int, Any],
    results: list[Any],
    tell: Callable[[int, Any], None],
) -> Iterator[Any]:
    """As ``emptying``; collects each source's gradient after the last entry that adds to it."""
    first: dict[int, int] = {}  # in execution order, so the last one of the walk
    for place, entry in enumerate(path):
        for uid, _ in entry[1]:
            first.setdefault(uid, place)
    due: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        place = min((first.get(uid, len(path)) for uid in group), default=len(path))
        due.setdefault(place, []).append(index)
    while True:
        for index in due.get(len(path), ()):
            results[index] = collect(cotangents, groups[index])
            tell(index, results[index])
        if not path:
            return
        yield path.pop()


def backward(
    path: Iterable[Any],
    reached: set[int],
    cotangents: dict[int, Any],
    sources: set[int],
    places: Mapping[int, Any] = MappingProxyType({}),
) -> None:
    """Walks ``path``, last entry first; leaves the cotangents of ``sources`` in ``cotangents``.

    Where nobody records, cotangents may be arrays, and rules that can be go on with them. Then,
    too, ``places`` are arrays, of sources that no entry makes, into which their cotangents are
    written where what makes them can write to a given array.
    """
    straight = not recording.stack() and dispatch.only_namespace is np
    if not straight:
        places = {}
    plus = registry["add"].kernel_for(np)
    for plan, inputs, saved, outputs in path:
        if type(outputs) is int:
            # A source keeps its cotangent: it may lie in the middle of the graph.
            g = cotangents.get(outputs) if outputs in sources else cotangents.pop(outputs, None)
        elif plan.through is not None:
            _cross(plan, inputs, saved, outputs, cotangents, reached, sources)
            continue
        else:
            g = _gather(cotangents, outputs, sources)
        if g is None:
            continue
        if straight:
            rules = plan._straight
            if rules is None:
                rules = plan.straight()
            if rules:
                array = g if type(g) is np.ndarray else _array(g)
                if array is not None and array.dtype.kind == "f":
                    for (rule, slot), kept in zip(rules, saved):  # noqa: B905
                        uid, shape = inputs[slot]
                        if uid in reached:
                            value = rule(array, *kept)
                            if (
                                uid not in cotangents
                                and type(value) is np.ndarray
                                and value.shape == shape
                            ):
                                cotangents[uid] = value  # most of the time, and without a call
                            else:
                                _put(cotangents, uid, shape, value, plus, places)
                    continue
        if type(g) is not Tensor:
            g = dense(as_cotangent(g))
        if plan.only is not None:  # most entries; being on the path, its input is reached
            uid, shape = inputs[0]
            rule = plan.only
            if places and rule in plan.placing:
                value = rule(g, *saved[0], place=_place(g, uid, cotangents, places))
            else:
                value = rule(g, *saved[0])
            _deliver(cotangents, uid, shape, value, places)
            continue
        for (rule, slots), kept in zip(plan.rules, saved):  # noqa: B905 (strict costs a tenth)
            if type(slots) is int:
                uid, shape = inputs[slots]
                if uid in reached:
                    if places and rule in plan.placing:
                        value = rule(g, *kept, place=_place(g, uid, cotangents, places))
                    else:
                        value = rule(g, *kept)
                    if (
                        type(value) is Tensor
                        and value._data.shape == shape
                        and uid not in cotangents
                    ):
                        cotangents[uid] = value
                    else:
                        _deliver(cotangents, uid, shape, value, places)
            elif any(i >= 0 and inputs[i][0] in reached for i in slots):
                if places and rule in plan.placing:
                    uids = [inputs[i][0] if i >= 0 else 0 for i in slots]
                    made = rule(g, *kept, place=_places(g, uids, cotangents, places))
                elif rule in plan.adding:
                    made = rule(g, *kept, known=_taken(inputs, slots, cotangents))
                else:
                    made = rule(g, *kept)
                for i, value in zip(slots, made, strict=True):
                    if i < 0 or value is None:
                        continue
                    uid, shape = inputs[i]
                    if uid in reached:
                        if (
                            type(value) is Tensor
                            and value._data.shape == shape
                            and uid not in cotangents
                        ):
                            cotangents[uid] = value
                        else:
                            _deliver(cotangents, uid, shape, value, places)


def _array(cotangent: Any) -> Any:
    """The array of a cotangent; None where it looks into a variable, which may change."""
    tensor = dense(cotangent)
    return tensor._data if tensor._lender is None else None


def _place(
    g: Any, uid: int, cotangents: dict[int, Any], places: Mapping[int, Any]
) -> np.ndarray | None:
    """Where a rule may write a source's first cotangent."""
    place = places.get(uid)
    if place is None or uid in cotangents or g._data.dtype != place.dtype:
        return None
    return place


def _places(
    g: Any, uids: list[int], cotangents: dict[int, Any], places: Mapping[int, Any]
) -> list[np.ndarray | None] | None:
    """The same for a rule for several arguments; None where there is no place at all, or two of
    them are one tensor, whose cotangents are to be added.
    """
    if places.keys().isdisjoint(uids) or len(set(uids)) < len(uids):
        return None
    return [_place(g, uid, cotangents, places) if uid in places else None for uid in uids]


def _taken(inputs: tuple, slots: tuple[int, ...], cotangents: dict[int, Any]) -> list[Any]:
    """The tensors that are there for these arguments, None where there is none, taken out."""
    known: list[Any] = []
    for slot in slots:
        uid = inputs[slot][0] if slot >= 0 else 0
        found = as_cotangent(cotangents.get(uid))
        known.append(found if type(found) is Tensor else None)
        if known[-1] is not None:
            del cotangents[uid]
    return known


def _put(
    cotangents: dict[int, Any],
    uid: int,
    shape: tuple,
    value: Any,
    plus: Any,
    places: Mapping[int, Any],
) -> None:
    """Adds an array, which may be a NumPy scalar, to the cotangents."""
    known = cotangents.get(uid)
    if value.shape == shape:
        if known is None:
            cotangents[uid] = value if type(value) is np.ndarray else np.asarray(value)
            return
        if type(known) is np.ndarray:
            value = plus(known, value)
            cotangents[uid] = value if type(value) is np.ndarray else np.asarray(value)
            return
    _deliver(cotangents, uid, shape, Tensor(np.asarray(value)), places)


def _deliver(
    cotangents: dict[int, Any], uid: int, shape: tuple, value: Any, places: Mapping[int, Any]
) -> None:
    """Adds a cotangent, which may have a broadcast shape; to what lies in its place, over that."""
    if value is None:
        return
    known, place = cotangents.get(uid), places.get(uid)
    if type(value) is Tensor and value._data.shape != shape:
        free = known is None and place is not None and place.dtype == value._data.dtype
        value = bind_at(place if free else None, registry["sum_to"], value, shape=shape)
    if known is None:
        cotangents[uid] = value
    elif type(known) is type(value) is Tensor and known._data is place:
        np.add(place, value._data, out=place)
    else:
        cotangents[uid] = add(as_cotangent(known), value)


def _cross(
    block: Any,
    inputs: tuple,
    held: list[Tensor],
    outputs: tuple,
    cotangents: dict[int, Any],
    reached: set[int],
    sources: set[int],
) -> None:
    """Takes the cotangents of a block's outputs to its inputs."""
    take = [cotangents.get(u) if u in sources else cotangents.pop(u, None) for u, _, _ in outputs]
    given = [dense(as_cotangent(g)) for g in take]
    if all(g is None for g in given):
        return
    wanted = [uid in reached for uid, _ in inputs]
    known = _taken(inputs, tuple(i if w else -1 for i, w in enumerate(wanted)), cotangents)
    for (uid, _), value in zip(inputs, block.through(held, given, known, wanted), strict=True):
        if value is not None:
            accumulate(cotangents, uid, value)


def _gather(cotangents: dict[int, Any], outputs: tuple, sources: set[int]) -> Any:
    """The cotangents of several outputs, zeros where one has none; None if none has."""
    take = [cotangents.get(u) if u in sources else cotangents.pop(u, None) for u, _, _ in outputs]
    if all(g is None for g in take):
        return None
    take = [dense(as_cotangent(g)) for g in take]
    xp = backend_of(next(g for g in take if g is not None)._data).xp
    return tuple(
        Tensor(xp.zeros(shape, dtype)) if g is None else g
        for g, (_, shape, dtype) in zip(take, outputs, strict=True)
    )
