"""Several shards at once: a program of one shard becomes that of ``count`` shards of its shape.

Values that differ from shard to shard get a leading axis. Work within a sample is then done for all
shards in one go, and products with weights become one product, where that keeps every bit; what
adds up over the samples of a shard, such as a weight's gradient, is done shard by shard, and goes
to a place of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distgrad.compile.program import Apply, Call, Instruction, Program, Read, Slot, Value
from distgrad.core.primitive import registry
from distgrad.core.tensor import Tensor


class NotWide(Exception):
    """A program that cannot run several shards at once."""


class Wide:
    """A value of every shard: stacked along a leading axis, or one by one, or both."""

    def __init__(self, stacked: Value | None = None, parts: list[Value] | None = None) -> None:
        self.stacked = stacked
        self.parts = parts


def over_shards(
    program: Program,
    count: int,
    chosen: Callable[[int], Callable[[Any], Any]],
    statistics: int = 0,
) -> tuple[Program, list[Value], list[list[Value]]]:
    """The program for ``count`` shards, and what stands for its outputs.

    The first ``statistics`` outputs come stacked, the others as the values of each shard. Inputs
    get a leading axis of ``count``; the new program has no outputs yet. ``chosen(number)`` wraps a
    slot's draw, so that it draws from the stream of that shard. Raises NotWide where Python code
    writes variables.
    """
    work = _Work(count, chosen, _final(program, program.outputs[:statistics]))
    inputs = []
    for value in program.inputs:
        wide = Value((count, *value.shape), value.dtype)
        inputs.append(wide)
        work.known[value] = Wide(wide)
    for instruction in program.instructions:
        work.add(instruction)
    first = [work.whole(value) for value in program.outputs[:statistics]]
    rest = [work.parts(value) for value in program.outputs[statistics:]]
    return Program(program.name, tuple(inputs), tuple(work.made), ()), first, rest


def _final(program: Program, statistics: Sequence[Value]) -> set[Instruction]:
    """Sums over the samples of a shard that lead to outputs only, and what is made of them.

    ``statistics`` are outputs that do not count.
    """
    users: dict[Value, list[Instruction]] = {}
    for instruction in program.instructions:
        for value in instruction.values:
            users.setdefault(value, []).append(instruction)
    alone: set[Instruction] = set()
    for instruction in reversed(program.instructions):
        if not set(statistics).isdisjoint(instruction.outputs):
            continue
        if all(user in alone for out in instruction.outputs for user in users.get(out, ())):
            alone.add(instruction)
    final: set[Instruction] = set()
    summed: set[Value] = set()
    for instruction in program.instructions:
        if not isinstance(instruction, Apply) or instruction not in alone:
            continue
        if _sums(instruction) or not summed.isdisjoint(instruction.values):
            final.add(instruction)
            summed.update(instruction.outputs)
    return final


def _sums(apply: Apply) -> bool:
    """Whether it adds up over the samples of a shard: over the first axis."""
    if apply.name == "dot":
        return apply.params["transpose_a"] and len(apply.inputs[0].shape) == 2
    if apply.name == "sum_to":
        (x,), (out,) = apply.inputs, apply.outputs
        return len(out.shape) < len(x.shape) or (out.shape[0] == 1 < x.shape[0])
    if apply.name in ("sum", "mean"):
        axis = apply.params["axis"]
        return axis is None or 0 in axis
    return apply.name in _SUMS


class _Work:
    def __init__(
        self,
        count: int,
        chosen: Callable[[int], Callable[[Any], Any]],
        final: set[Instruction],
    ) -> None:
        self.count = count
        self.final = final
        self.known: dict[Value, Wide] = {}
        self.made: list[Instruction] = []
        self._chosen = chosen
        self._whole: Apply | None = None

    # Values

    def apply(
        self, name: str, inputs: Sequence[Any], shape: Any, dtype: Any, params: dict[str, Any]
    ) -> Value:
        out = Value(tuple(shape), dtype)
        line = "" if self._whole is None else self._whole.line
        primitive = registry[name]
        self.made.append(
            Apply(
                tuple(inputs),
                (out,),
                primitive=primitive,
                params=params,
                line=line,
            )
        )
        return out

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        if value.shape == tuple(shape):
            return value
        return self.apply("reshape_to", [value], shape, value.dtype, {"shape": tuple(shape)})

    def parts(self, value: Any) -> list[Any]:
        """The value of each shard."""
        wide = self.known.get(value) if type(value) is Value else None
        if wide is None:
            return [value] * self.count
        if wide.parts is None:
            assert wide.stacked is not None
            wide.parts = [
                self.apply("getitem", [wide.stacked], value.shape, value.dtype, {"key": (v,)})
                for v in range(self.count)
            ]
        return wide.parts

    def stacked(self, value: Value) -> Value:
        """The values of all shards, along a leading axis."""
        wide = self.known[value]
        if wide.stacked is None:
            rows = [self.reshape(p, (1, *value.shape)) for p in wide.parts or ()]
            shape = (self.count, *value.shape)
            wide.stacked = self.apply("join", rows, shape, value.dtype, {"axis": 0})
        return wide.stacked

    def whole(self, value: Value) -> Value:
        """As ``stacked``; what is the same for all shards is repeated."""
        if value in self.known:
            return self.stacked(value)
        shape = (self.count, *value.shape)
        return self.apply("broadcast_to", [value], shape, value.dtype, {"shape": shape})

    def is_wide(self, value: Any) -> bool:
        return type(value) is Value and value in self.known

    # Instructions

    def add(self, instruction: Instruction) -> None:
        if isinstance(instruction, Slot):
            (out,) = instruction.outputs
            stacked = Value((self.count, *out.shape), out.dtype)
            draws = [self._chosen(v)(instruction.draw) for v in range(self.count)]
            draw = functools.partial(_drawn, draws)
            self.made.append(replace(instruction, outputs=(stacked,), draw=draw))
            self.known[out] = Wide(stacked)
        elif isinstance(instruction, Call):
            self._add_call(instruction)
        elif not any(map(self.is_wide, instruction.inputs)):
            if not isinstance(instruction, (Read, Apply)):
                raise NotWide(f"a {type(instruction).__name__.lower()} in a shard")
            self.made.append(instruction)
        elif isinstance(instruction, Apply):
            self._add_apply(instruction)
        else:
            raise NotWide(f"a {type(instruction).__name__.lower()} in a shard")

    def _add_call(self, call: Call) -> None:
        if call.writes:
            raise NotWide(f"{call.label} is called, and may write variables")
        if not any(map(self.is_wide, call.inputs)):
            self.made.append(call)
        elif call.any_shape:
            whole = tuple(self.stacked(v) if self.is_wide(v) else v for v in call.inputs)
            self.made.append(replace(call, inputs=whole))
        else:
            for inputs in zip(*map(self.parts, call.inputs), strict=True):
                self.made.append(replace(call, inputs=tuple(inputs)))

    def _add_apply(self, apply: Apply) -> None:
        self._whole = apply
        rule = _rule(apply)
        made = None
        if rule is not None and apply not in self.final:
            made = rule(self, apply)
        if made is None:
            self._map(apply)
        else:
            self.known[apply.outputs[0]] = Wide(made)

    def _map(self, apply: Apply) -> None:
        """Shard by shard, as it is."""
        rows = []
        for inputs in zip(*map(self.parts, apply.inputs), strict=True):
            outputs = tuple(Value(o.shape, o.dtype) for o in apply.outputs)
            self.made.append(replace(apply, inputs=tuple(inputs), outputs=outputs))
            rows.append(outputs)
        for position, out in enumerate(apply.outputs):
            self.known[out] = Wide(parts=[row[position] for row in rows])

    def aligned(self, value: Any, rank: int) -> Any:
        """A stacked value whose own axes are the last of ``rank``; others as they are."""
        if not self.is_wide(value):
            return value
        gap = (1,) * (rank - len(value.shape))
        return self.reshape(self.stacked(value), (self.count, *gap, *value.shape))


def _drawn(draws: Sequence[Callable[[], Tensor]]) -> Tensor:
    return Tensor(np.stack([draw()._data for draw in draws]))


# Rules: the stacked result, or None where it is to be done shard by shard.


def _rule(apply: Apply) -> Callable[[_Work, Apply], Value | None] | None:
    if apply.primitive.multiple or apply.effect:
        return None
    if apply.primitive.expr is not None or apply.name in _ELEMENTWISE:
        return _elementwise
    return _RULES.get(apply.name)


_ELEMENTWISE = {
    "cast_discrete",
    "cast_float",
    "fill_like",
    "is_finite",
    "logical_and",
    "logical_not",
    "logical_or",
    "stop_gradient",
    "is_class",
}


def _again(work: _Work, apply: Apply, inputs: Sequence[Any], **changed: Any) -> Value:
    """The primitive on stacked inputs, with some parameters changed."""
    (out,) = apply.outputs
    params = {**apply.params, **changed}
    return work.apply(apply.name, inputs, (work.count, *out.shape), out.dtype, params)


def _elementwise(work: _Work, apply: Apply) -> Value:
    rank = len(apply.outputs[0].shape)
    return _again(work, apply, [work.aligned(v, rank) for v in apply.inputs])


def _along_axis(work: _Work, apply: Apply) -> Value | None:
    """Whatever works along given axes, which are one further on now."""
    axis = apply.params["axis"]
    if any(type(v) is Value and not work.is_wide(v) for v in apply.inputs):
        return None
    if axis is None:
        axis = tuple(range(len(apply.inputs[0].shape)))
    moved = tuple(_further(a) for a in axis) if isinstance(axis, (tuple, list)) else _further(axis)
    return _again(work, apply, [work.stacked(v) for v in apply.inputs], axis=moved)


def _further(axis: int) -> int:
    return axis + 1 if axis >= 0 else axis


def _samples(work: _Work, apply: Apply) -> Value | None:
    """Whatever works on any number of leading axes, where all its arrays have them."""
    if any(type(v) is Value and not work.is_wide(v) for v in apply.inputs):
        return None
    return _again(work, apply, [work.stacked(v) for v in apply.inputs])


def _merged(work: _Work, apply: Apply) -> Value | None:
    """Whatever takes each sample by itself: the samples of all shards along one axis."""
    (out,) = apply.outputs
    inputs, changed = [], {}
    for value in apply.inputs:
        if not work.is_wide(value):
            inputs.append(value)
            continue
        inputs.append(_rows(work, value))
    if "shape" in apply.params:
        first, *rest = apply.params["shape"]
        changed["shape"] = (work.count * first, *rest)
    if not out.shape or not _row_by_row(work, apply):
        return None
    shape = (work.count * out.shape[0], *out.shape[1:])
    made = work.apply(apply.name, inputs, shape, out.dtype, {**apply.params, **changed})
    return work.reshape(made, (work.count, *out.shape))


def _rows(work: _Work, value: Value) -> Value:
    return work.reshape(work.stacked(value), (work.count * value.shape[0], *value.shape[1:]))


def _row_by_row(work: _Work, apply: Apply) -> bool:
    """Whether the kernel gives each shard the same bits alone and among others: by a trial.

    Libraries choose their inner loops by sizes, so that this is no matter of course.
    """
    described = tuple(
        (v.shape, v.dtype.str, work.is_wide(v)) if type(v) is Value else repr(v)
        for v in apply.inputs
    )
    return _trial(apply.primitive, described, repr(sorted(apply.params.items())), work.count, apply)


class _Trials(dict[Any, bool]):
    """Outcomes of trials in this process, by everything that decides them."""


_trials = _Trials()


def _trial(primitive: Any, described: Any, params: str, count: int, apply: Apply) -> bool:
    key = primitive.name, described, params, count
    if key not in _trials:
        _trials[key] = _try(primitive, described, count, apply.params)
    return _trials[key]


def _try(primitive: Any, described: Any, count: int, params: dict[str, Any]) -> bool:
    rng = np.random.default_rng(0)
    shared: list[Any] = []
    for item in described:
        if isinstance(item, str):
            return False
        shape, dtype, wide = item
        full = (count * shape[0], *shape[1:]) if wide else shape
        kind = np.dtype(dtype).kind
        values = rng.normal(size=full) if kind == "f" else np.zeros(full)
        shared.append(values.astype(dtype))
    changed = dict(params)
    if "shape" in params:
        first, *rest = params["shape"]
        changed["shape"] = (count * first, *rest)
    together = np.asarray(primitive.kernel(np, *shared, **changed))
    for v in range(count):
        own = [
            array[v * item[0][0] : (v + 1) * item[0][0]] if item[2] else array
            for array, item in zip(shared, described, strict=True)
        ]
        alone = np.asarray(primitive.kernel(np, *own, **params))
        rows = alone.shape[0]
        if together[v * rows : (v + 1) * rows].tobytes() != alone.tobytes():
            return False
    return True


def _dot(work: _Work, apply: Apply) -> Value | None:
    a, b = apply.inputs
    wide = work.is_wide(a), work.is_wide(b)
    if wide == (True, True):
        return _again(work, apply, [work.stacked(a), work.stacked(b)])
    if wide == (True, False) and len(b.shape) == 2 and not apply.params["transpose_a"]:
        return _merged(work, apply) or _one_by_one(work, apply)
    return None


def _one_by_one(work: _Work, apply: Apply) -> Value:
    """A product with a weight as one call that multiplies shard by shard."""
    (a, b), (out,) = apply.inputs, apply.outputs
    rows = int(np.prod(a.shape[:-1], dtype=np.int64))
    left = work.reshape(work.stacked(a), (work.count, rows, a.shape[-1]))
    right = work.reshape(b, (1, *b.shape))
    shape = (work.count, rows, out.shape[-1])
    made = work.apply("dot", [left, right], shape, out.dtype, apply.params)
    return work.reshape(made, (work.count, *out.shape))


def _permute(work: _Work, apply: Apply) -> Value:
    perm = (0, *(p + 1 for p in apply.params["perm"]))
    return _again(work, apply, [work.stacked(apply.inputs[0])], perm=perm)


def _to_shape(work: _Work, apply: Apply) -> Value:
    (out,) = apply.outputs
    shape = (work.count, *out.shape)
    if apply.name == "reshape_to":
        return work.reshape(work.stacked(apply.inputs[0]), shape)
    return _again(work, apply, [work.aligned(apply.inputs[0], len(out.shape))], shape=shape)


def _sum_to(work: _Work, apply: Apply) -> Value:
    (x,), (out,) = apply.inputs, apply.outputs
    gap = (1,) * (len(x.shape) - len(out.shape))
    shape = (work.count, *gap, *out.shape)
    made = work.apply("sum_to", [work.stacked(x)], shape, out.dtype, {"shape": shape})
    return work.reshape(made, (work.count, *out.shape))


def _join(work: _Work, apply: Apply) -> Value:
    inputs = []
    for value in apply.inputs:
        shape = (work.count, *value.shape)
        if work.is_wide(value):
            inputs.append(work.stacked(value))
        else:
            params = {"shape": shape}
            inputs.append(work.apply("broadcast_to", [value], shape, value.dtype, params))
    return _again(work, apply, inputs, axis=_further(apply.params["axis"]))


def _gather_rows(work: _Work, apply: Apply) -> Value | None:
    table, indices = apply.inputs
    if work.is_wide(table) or not work.is_wide(indices):
        return None
    return _again(work, apply, [table, work.stacked(indices)])


def _random(work: _Work, apply: Apply) -> Value:
    (key,), (out,) = apply.inputs, apply.outputs
    params = {"kernel": apply.primitive.kernel, "params": apply.params}
    shape = (work.count, *out.shape)
    return work.apply("random_rows", [work.stacked(key)], shape, out.dtype, params)


# Sums over samples, beside those of `_sums`.
_SUMS = {
    "convolve_grad_w",
    "depthwise_convolve_grad_w",
    "getitem_grad",
    "put_rows",
    "take_grad",
}

_RULES: dict[str, Callable[[_Work, Apply], Value | None]] = {
    **dict.fromkeys(
        [
            *("sum", "mean", "max", "min", "prod", "any_true", "all_true"),
            *("argmax_along", "argmin_along", "softmax_along", "log_softmax_along"),
            *("standardize", "standardize_grad"),
            *("cumsum_along", "cumprod_along"),
        ],
        _along_axis,
    ),
    **dict.fromkeys(
        [
            *("sparse_cross_entropy", "sparse_cross_entropy_grad"),
            *("cross_entropy", "cross_entropy_grad"),
        ],
        _samples,
    ),
    **dict.fromkeys(
        [
            *("convolve", "convolve_grad_x", "depthwise_convolve", "depthwise_convolve_grad_x"),
            *("max_windows", "max_windows_grad", "mean_windows", "mean_windows_grad"),
            "at_maximum",
        ],
        _merged,
    ),
    "dot": _dot,
    "permute": _permute,
    "reshape_to": _to_shape,
    "broadcast_to": _to_shape,
    "sum_to": _sum_to,
    "join": _join,
    "gather_rows": _gather_rows,
    **dict.fromkeys(
        [
            *("random_uniform", "random_normal", "random_truncated_normal"),
            *("random_integers", "random_permutation"),
        ],
        _random,
    ),
}


class draws_from:
    """Wraps the draws of slots, so that each shard's come from a stream of its own.

    ``streams`` are put in before a run: contexts, one for each shard.
    """

    def __init__(self) -> None:
        self.streams: Sequence[Any] = ()

    def __call__(self, number: int) -> Callable[[Any], Any]:
        return lambda draw: functools.partial(self._draw, number, draw)

    def _draw(self, number: int, draw: Callable[[], Tensor]) -> Tensor:
        with self.streams[number]:
            return draw()
