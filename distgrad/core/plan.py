"""What a tape keeps of a call, so that the rules of its primitive can walk back from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.core import recording
from distgrad.core.straight import straightened
from distgrad.core.tensor import Tensor

if TYPE_CHECKING:
    from distgrad.core.primitive import Primitive


class Plan:
    """What a tape keeps of one call of a primitive, for one set of tracked arguments.

    ``keep(args, out, params)`` gives the tracked inputs as (uid, shape) pairs, and per rule what
    the rule asks for. A rule is a function and the place of its argument among those inputs; a
    rule for several arguments has one place for each, -1 for those that are not tracked. ``only``
    is the rule where there is one, for one argument, and no other input; ``placing`` are those
    that take a ``place``, ``adding`` those for several arguments that take what is ``known`` of
    their cotangents, to which they add.
    """

    __slots__ = ("_straight", "_wanted", "adding", "keep", "only", "placing", "primitive", "rules")

    through: Any = None  # what a block has in place of rules

    def __init__(
        self,
        primitive: Primitive,
        rules: tuple[tuple[Callable[..., Any], int | tuple[int, ...]], ...],
        keep: Callable[[tuple, Any, dict], tuple[tuple, tuple]],
        only: Callable[..., Any] | None,
        wanted: Sequence[Sequence[str]],
    ) -> None:
        self.primitive = primitive
        self.rules = rules
        self.keep = keep
        self.only = only
        self.placing = frozenset(rule for rule, _ in rules if "place" in _parameters(rule))
        self.adding = frozenset(rule for rule, _ in rules if "known" in _parameters(rule))
        self._wanted = wanted
        self._straight: tuple[tuple[Callable[..., Any], int], ...] | None = None

    def straight(self) -> tuple[tuple[Callable[..., Any], int], ...]:
        """The rules as functions of arrays, for real numbers; empty where not all can be."""
        made = self._straight
        if made is None:
            made = self._straight = self._make_straight()
        return made

    def _make_straight(self) -> tuple[tuple[Callable[..., Any], int], ...]:
        known = {*self.primitive.arg_names, "out"}
        made: list[tuple[Callable[..., Any], int]] = []
        if not _keeps_kind(self.primitive):
            return ()
        for (rule, slot), wanted in zip(self.rules, self._wanted, strict=True):
            if type(slot) is not int or not known.issuperset(wanted):
                return ()
            with recording.suspended():
                straight = straightened(rule, wanted, Tensor)
            if straight is None:
                return ()
            made.append((straight, slot))
        return tuple(made)


def make_plan(primitive: Primitive, mask: int, count: int) -> Plan | None:
    """For the arguments whose bits are set in ``mask``, of ``count``; None if no rule is theirs."""
    tracked = [i for i in range(count) if mask >> i & 1]
    chosen = []
    for names, fn in primitive.rules:
        every = names == ("*",)
        positions = tuple(range(count) if every else map(primitive.arg_names.index, names))
        if set(positions) & set(tracked):
            chosen.append((fn, positions))
    inputs = [i for i in tracked if any(i in positions for _, positions in chosen)]
    if not inputs:
        return None
    rules: list[tuple[Callable[..., Any], int | tuple[int, ...]]] = []
    kept: list[str] = []
    asked: list[list[str]] = []
    for fn, positions in chosen:
        slots = tuple(inputs.index(i) if i in inputs else -1 for i in positions)
        rules.append((fn, slots[0] if len(slots) == 1 and not primitive.variadic else slots))
        wanted = [name for name in _parameters(fn) if name not in ("place", "known")][1:]
        asked.append(wanted)
        kept.append(_tuple(_source(primitive, item, tracked, positions) for item in wanted))
    pairs = _tuple(f"(args[{i}]._uid, args[{i}]._data.shape)" for i in inputs)
    # One generated expression, since a loop over what to keep would cost more than a kernel.
    keep = eval(f"lambda args, out, params: ({pairs}, {_tuple(kept)})")
    single = len(rules) == 1 and len(inputs) == 1 and type(rules[0][1]) is int
    return Plan(primitive, tuple(rules), keep, rules[0][0] if single else None, asked)


def _source(primitive: Primitive, item: str, tracked: list[int], positions: tuple[int, ...]) -> str:
    """The text of what a rule asks for by the name ``item``."""
    if item == "out":
        return "out"
    if item == "args":
        return "args"
    if item == "shapes":
        return "tuple([a._data.shape for a in args])"
    if item == "needs":
        return str(tuple(i in tracked for i in positions))
    if item in primitive.arg_names:
        return f"args[{primitive.arg_names.index(item)}]"
    if item in primitive.param_names:
        return f"params[{item!r}]"
    base, _, attribute = item.rpartition("_")
    if base in primitive.arg_names and attribute in ("shape", "dtype"):
        return f"args[{primitive.arg_names.index(base)}]._data.{attribute}"
    raise TypeError(f"the vjp of {primitive.name} asks for {item!r}, which it does not have")


def _keeps_kind(primitive: Primitive) -> bool:
    """Whether complex arguments, where it takes them, give a complex result."""
    if primitive.variadic or primitive.multiple or primitive.param_names:
        return False
    if "c" not in (primitive.kinds or "c"):
        return True
    ones = [np.ones(1, np.complex64)] * len(primitive.arg_names)
    try:
        return np.asarray(primitive.kernel(np, *ones)).dtype.kind == "c"
    except Exception:  # whatever a kernel says to such arguments
        return False


def _parameters(rule: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(rule).parameters)


def _tuple(items: Iterable[str]) -> str:
    return "(" + "".join(f"{item}, " for item in items) + ")"
