"""GradientTape: records the primitives of one thread, and walks them backwards.

Entries lie in execution order, so the backward walk needs no recursion and no sorting. A tape
knows tensors by a number that is never reused, and keeps only what the rules of each primitive
ask for; dropped intermediates are freed.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import Any, NamedTuple

from distgrad.core import recording, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import Plan, Primitive, bind, registry
from distgrad.core.tensor import Tensor, next_uid
from distgrad.core.variable import Variable


class UnconnectedGradients(enum.Enum):
    """What ``gradient`` gives for a source that the target does not depend on."""

    NONE = "none"
    ZERO = "zero"


class Entry(NamedTuple):
    """One recorded call: inputs are (uid, shape) of the plan's positions, outputs their uids."""

    plan: Plan
    inputs: tuple
    saved: tuple
    outputs: Any  # a uid, or a tuple of (uid, shape, dtype) for several outputs


class GradientTape:
    """Records operations for automatic differentiation (``tf.GradientTape``).

    A tape records the thread that entered it. ``persistent`` allows several gradients;
    ``watch_accessed_variables`` watches every trainable variable that is read.
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        self._persistent = persistent
        self._watch_accessed = watch_accessed_variables
        self._entries: list[Entry] | None = None  # None: never entered, or used up
        self._tracked: set[int] = set()
        self._variables: dict[int, tuple[Variable, list[int]]] = {}
        self._recording = False

    def __enter__(self) -> GradientTape:
        if self._recording:
            raise ValueError("this tape is recording already; it cannot be entered twice")
        if self._entries is None:
            self._forget()
        self._resume()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._recording:
            self._pause()

    def _forget(self) -> None:
        self._entries, self._tracked, self._variables = [], set(), {}

    def _resume(self) -> None:
        recording.push(self)
        self._recording = True

    def _pause(self) -> None:
        recording.remove(self)
        self._recording = False

    # What bind and the variables call.

    def record(self, primitive: Primitive, args: tuple, params: dict, out: Any) -> None:
        tracked = self._tracked
        mask, bit = 0, 1
        for arg in args:
            if type(arg) is Tensor and arg._uid in tracked:
                mask |= bit
            bit <<= 1
        if not mask:
            return
        plan = primitive.plan(mask, len(args))
        if plan is not None:
            self._append(plan, args, plan.save(args, out, params), out)

    def _append(self, plan: Plan, args: tuple, saved: tuple, out: Any) -> None:
        inputs = tuple([(args[i]._uid, args[i]._data.shape) for i in plan.positions])
        outputs: Any
        if type(out) is Tensor:
            out._uid = outputs = out._uid or next_uid()
            self._tracked.add(outputs)
        else:
            outputs = tuple([self._track_output(tensor) for tensor in out])
        self._entries.append((plan, inputs, saved, outputs))  # type: ignore[union-attr, arg-type]

    def _track_output(self, tensor: Tensor) -> tuple[int, tuple, Any]:
        tensor._uid = tensor._uid or next_uid()
        if tensor._data.dtype.kind in "fc":
            self._tracked.add(tensor._uid)
        return tensor._uid, tensor._data.shape, tensor._data.dtype

    def read_variable(self, variable: Variable, value: Tensor) -> None:
        known = self._variables.get(id(variable))
        if known is None:
            if not (self._watch_accessed and variable.trainable):
                return
            known = self._variables[id(variable)] = (variable, [])
        if value._uid not in self._tracked:
            value._uid = value._uid or next_uid()
            if value._data.dtype.kind in "fc":
                self._tracked.add(value._uid)
                known[1].append(value._uid)

    def watch(self, tensor: Any) -> None:
        """Watches a tensor or variable, or each one in a nest of them.

        Only operations that follow are recorded. Raises ValueError for anything else.
        """
        for item in tree.flatten(tensor):
            if isinstance(item, Variable):
                self._variables.setdefault(id(item), (item, []))
            elif isinstance(item, Tensor):
                item._uid = item._uid or next_uid()
                if item._data.dtype.kind in "fc":
                    self._tracked.add(item._uid)
            else:
                raise ValueError(f"only tensors and variables can be watched, not {item!r}")

    def watched_variables(self) -> tuple[Variable, ...]:
        """The variables watched so far, in the order of their first access."""
        return tuple(variable for variable, _ in self._variables.values())

    @contextmanager
    def stop_recording(self) -> Any:
        """Context whose operations this tape does not see."""
        if self._entries is None:
            raise RuntimeError("stop_recording needs a tape that has been entered")
        if not self._recording:
            raise ValueError("stop_recording needs a tape that is recording")
        self._pause()
        try:
            yield
        finally:
            self._resume()

    def reset(self) -> None:
        """Forgets all operations and watches; recording goes on."""
        if not self._recording:
            raise ValueError("reset needs a tape that is recording")
        self._forget()

    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        unconnected_gradients: Any = UnconnectedGradients.NONE,
    ) -> Any:
        """The gradient of the sum of ``target`` with respect to each of ``sources``.

        The result has the structure of ``sources``; each leaf has the shape and dtype of its
        source, or is None where the target does not depend on it. ``output_gradients``, of the
        structure of ``target``, weigh its elements. Raises RuntimeError on a tape that was never
        entered, or on a second call where it is not persistent.
        """
        unconnected = UnconnectedGradients(unconnected_gradients)
        if self._entries is None:
            raise RuntimeError(
                "a non-persistent GradientTape gives one set of gradients, after it was entered; "
                "use GradientTape(persistent=True) for more"
            )
        targets = _differentiable(target, "target")
        wanted = _differentiable(sources, "source")
        if output_gradients is None:
            seeds: list[Any] = [None] * len(targets)
        else:
            seeds = tree.flatten(output_gradients)
            if len(seeds) != len(targets):
                raise ValueError(f"{len(seeds)} output_gradients for {len(targets)} targets")
        if not self._persistent and self._recording:
            self._pause()
        entries = list(self._entries)
        if not self._persistent:
            self._entries = None

        cotangents: dict[int, Any] = {}
        for tensor, seed in zip(targets, seeds, strict=True):
            uid = self._target_uid(tensor)
            if uid:
                _accumulate(cotangents, uid, _seed(tensor, seed))
        uids = [self._source_uids(source) for source in wanted]
        _backward(entries, cotangents, {uid for group in uids for uid in group})
        results = [_collect(cotangents, group) for group in uids]
        if unconnected is UnconnectedGradients.ZERO:
            results = [
                _zeros_like(source) if result is None else result
                for source, result in zip(wanted, results, strict=True)
            ]
        if not self._persistent:
            self._tracked = set()
        return tree.unflatten(sources, results)

    def _target_uid(self, target: Any) -> int:
        """The number of a target, 0 if this tape does not know it or it has no gradient."""
        if isinstance(target, Variable):
            known = self._variables.get(id(target))
            if known is None or target._buffer.dtype.kind not in "fc":
                return 0
            known[1].append(next_uid())  # stands for this reading of the variable
            return known[1][-1]
        return target._uid if target._uid in self._tracked else 0

    def _source_uids(self, source: Any) -> list[int]:
        if isinstance(source, Variable):
            known = self._variables.get(id(source))
            return list(known[1]) if known else []
        return [source._uid] if source._uid in self._tracked else []


def _differentiable(nest: Any, what: str) -> list[Any]:
    leaves = tree.flatten(nest)
    for leaf in leaves:
        if not isinstance(leaf, (Tensor, Variable)):
            raise TypeError(f"a {what} must be a tensor or a variable, not {leaf!r}")
    return leaves


def _seed(target: Any, seed: Any) -> Tensor:
    shape, dtype = tuple(target.shape), target.dtype.numpy_dtype
    if seed is None:
        return registry["fill"](1, shape=shape, dtype=dtype)
    tensor = as_tensor(seed, like=None if isinstance(seed, (Tensor, Variable)) else dtype)
    if tensor._data.dtype != dtype:
        raise InvalidArgumentError(
            f"output_gradients of {tensor.dtype.name} for a target of {target.dtype.name}"
        )
    if tensor._data.shape == ():
        return tensor if shape == () else registry["broadcast_to"](tensor, shape=shape)
    if tensor._data.shape != shape:
        raise InvalidArgumentError(
            f"output_gradients of shape {tensor.shape} for a target of shape {target.shape}"
        )
    return tensor


def _zeros_like(source: Any) -> Tensor:
    return registry["fill"](0, shape=tuple(source.shape), dtype=source.dtype.numpy_dtype)


def _accumulate(cotangents: dict[int, Any], uid: int, value: Any) -> None:
    known = cotangents.get(uid)
    cotangents[uid] = value if known is None else bind(registry["add"], known, value)


def _collect(cotangents: dict[int, Any], uids: list[int]) -> Any:
    total = None
    for uid in uids:
        value = cotangents.get(uid)
        if value is not None:
            total = value if total is None else bind(registry["add"], total, value)
    return total


def _backward(entries: list[Any], cotangents: dict[int, Any], sources: set[int]) -> None:
    """Walks the entries backwards; leaves the cotangents of ``sources`` in ``cotangents``."""
    # First forwards: only what depends on a source needs a cotangent.
    reached = set(sources)
    useful = []
    for entry in entries:
        for uid, _ in entry[1]:
            if uid in reached:
                useful.append(entry)
                outputs = entry[3]
                if type(outputs) is int:
                    reached.add(outputs)
                else:
                    reached.update([o[0] for o in outputs])
                break
    entries.clear()
    while useful:
        plan, inputs, saved, outputs = useful.pop()
        if type(outputs) is int:
            # A source keeps its cotangent: it may lie in the middle of the graph.
            g = cotangents.get(outputs) if outputs in sources else cotangents.pop(outputs, None)
        else:
            g = _gather(cotangents, outputs, sources)
        if g is None:
            continue
        shapes = dict(zip(plan.positions, inputs, strict=True))
        for rule, kept in zip(plan.rules, saved, strict=True):
            if len(rule.positions) == 1:
                uid, shape = shapes[rule.positions[0]]
                if uid in reached:
                    _deliver(cotangents, uid, shape, rule.fn(g, *kept))
            elif any(i in shapes and shapes[i][0] in reached for i in rule.positions):
                for i, value in zip(rule.positions, rule.fn(g, *kept), strict=True):
                    if i in shapes and shapes[i][0] in reached:
                        uid, shape = shapes[i]
                        _deliver(cotangents, uid, shape, value)


def _deliver(cotangents: dict[int, Any], uid: int, shape: tuple, value: Any) -> None:
    if value is None:
        return
    if value._data.shape != shape:
        value = bind(registry["sum_to"], value, shape=shape)
    _accumulate(cotangents, uid, value)


def _gather(cotangents: dict[int, Any], outputs: tuple, sources: set[int]) -> Any:
    """The cotangents of several outputs, zeros where one has none; None if none has."""
    take = [cotangents.get(u) if u in sources else cotangents.pop(u, None) for u, _, _ in outputs]
    if all(g is None for g in take):
        return None
    return tuple(
        registry["fill"](0, shape=shape, dtype=dtype) if g is None else g
        for g, (_, shape, dtype) in zip(take, outputs, strict=True)
    )
