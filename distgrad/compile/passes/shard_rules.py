"""Rules for several shards at once: a primitive on values that have a leading axis of shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.compile.passes.trials import row_by_row
from distgrad.compile.program import Apply, Value

if TYPE_CHECKING:
    from distgrad.compile.passes.shards import Widening


def rule_for(apply: Apply) -> Callable[[Widening, Apply], Value | None] | None:
    """What gives the stacked result, or None where it is to be done shard by shard."""
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


def _again(work: Widening, apply: Apply, inputs: Sequence[Any], **changed: Any) -> Value:
    """The primitive on stacked inputs, with some parameters changed."""
    (out,) = apply.outputs
    params = {**apply.params, **changed}
    return work.apply(apply.name, inputs, (work.count, *out.shape), out.dtype, params)


def _elementwise(work: Widening, apply: Apply) -> Value:
    rank = len(apply.outputs[0].shape)
    return _again(work, apply, [work.aligned(v, rank) for v in apply.inputs])


def _along_axis(work: Widening, apply: Apply) -> Value | None:
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


def _samples(work: Widening, apply: Apply) -> Value | None:
    """Whatever works on any number of leading axes, where all its arrays have them."""
    if any(type(v) is Value and not work.is_wide(v) for v in apply.inputs):
        return None
    return _again(work, apply, [work.stacked(v) for v in apply.inputs])


def _merged(work: Widening, apply: Apply) -> Value | None:
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
    if not out.shape:
        return None
    if not (_keeps_rows(work, apply) or row_by_row(apply, work.count, work.is_wide)):
        return None
    shape = (work.count * out.shape[0], *out.shape[1:])
    made = work.apply(apply.name, inputs, shape, out.dtype, {**apply.params, **changed})
    return work.reshape(made, (work.count, *out.shape))


def _windows(work: Widening, apply: Apply) -> Value | None:
    """Convolutions and pooling, where the filters have no samples and all else has."""
    for name, value in zip(apply.primitive.arg_names, apply.inputs, strict=True):
        if work.is_wide(value) == (name == "w"):
            return None
    return _merged(work, apply)


def _keeps_rows(work: Widening, apply: Apply) -> bool:
    if not work.rows_kept or apply.name != "dot":
        return False
    sizes = [n for v in (*apply.inputs, *apply.outputs) for n in v.shape]
    return apply.outputs[0].dtype == np.float32 and min(sizes) > 1


def _rows(work: Widening, value: Value) -> Value:
    return work.reshape(work.stacked(value), (work.count * value.shape[0], *value.shape[1:]))


def _dot(work: Widening, apply: Apply) -> Value | None:
    a, b = apply.inputs
    wide = work.is_wide(a), work.is_wide(b)
    if wide == (True, True):
        return _again(work, apply, [work.stacked(a), work.stacked(b)])
    if wide == (True, False) and len(b.shape) == 2 and not apply.params["transpose_a"]:
        return _merged(work, apply) or _one_by_one(work, apply)
    return None


def _one_by_one(work: Widening, apply: Apply) -> Value:
    """A product with a weight as one call that multiplies shard by shard."""
    (a, b), (out,) = apply.inputs, apply.outputs
    rows = int(np.prod(a.shape[:-1], dtype=np.int64))
    left = work.reshape(work.stacked(a), (work.count, rows, a.shape[-1]))
    right = work.reshape(b, (1, *b.shape))
    shape = (work.count, rows, out.shape[-1])
    made = work.apply("dot", [left, right], shape, out.dtype, apply.params)
    return work.reshape(made, (work.count, *out.shape))


def _permute(work: Widening, apply: Apply) -> Value:
    perm = (0, *(p + 1 for p in apply.params["perm"]))
    return _again(work, apply, [work.stacked(apply.inputs[0])], perm=perm)


def _to_shape(work: Widening, apply: Apply) -> Value:
    (out,) = apply.outputs
    shape = (work.count, *out.shape)
    if apply.name == "reshape_to":
        return work.reshape(work.stacked(apply.inputs[0]), shape)
    return _again(work, apply, [work.aligned(apply.inputs[0], len(out.shape))], shape=shape)


def _sum_to(work: Widening, apply: Apply) -> Value:
    (x,), (out,) = apply.inputs, apply.outputs
    gap = (1,) * (len(x.shape) - len(out.shape))
    shape = (work.count, *gap, *out.shape)
    made = work.apply("sum_to", [work.stacked(x)], shape, out.dtype, {"shape": shape})
    return work.reshape(made, (work.count, *out.shape))


def _join(work: Widening, apply: Apply) -> Value:
    inputs = []
    for value in apply.inputs:
        shape = (work.count, *value.shape)
        if work.is_wide(value):
            inputs.append(work.stacked(value))
        else:
            params = {"shape": shape}
            inputs.append(work.apply("broadcast_to", [value], shape, value.dtype, params))
    return _again(work, apply, inputs, axis=_further(apply.params["axis"]))


def _gather_rows(work: Widening, apply: Apply) -> Value | None:
    table, indices = apply.inputs
    if work.is_wide(table) or not work.is_wide(indices):
        return None
    return _again(work, apply, [table, work.stacked(indices)])


def _random(work: Widening, apply: Apply) -> Value:
    (key,), (out,) = apply.inputs, apply.outputs
    params = {"kernel": apply.primitive.kernel, "params": apply.params}
    shape = (work.count, *out.shape)
    return work.apply("random_rows", [work.stacked(key)], shape, out.dtype, params)


_RULES: dict[str, Callable[[Widening, Apply], Value | None]] = {
    **dict.fromkeys(
        [
            *("sum", "mean", "max", "min", "prod", "any_true", "all_true"),
            *("argmax_along", "argmin_along", "softmax_along", "log_softmax_along", "softmax_grad"),
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
        _windows,
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
