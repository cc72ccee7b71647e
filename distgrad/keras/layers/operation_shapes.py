"""What operations make of KerasTensors, by rule where zeros would not tell it.

Zeros have no groups to be summed, no four corners of a quadrangle, and loops over them may have no
end; and where an axis of unknown size is cut, its parts depend on the size that is tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.dispatch import as_tensor
from distgrad.keras.backend import image_data_format
from distgrad.keras.layers.symbolic import KerasTensor

Settings = Mapping[str, Any]
Rule = Callable[[Settings, tuple], Any]


def told(operation: str, settings: Settings, args: tuple) -> Any:
    """The KerasTensors that the operation gives; None: it is to be tried out."""
    rule = _RULES.get(operation)
    return None if rule is None else rule(settings, args)


def _loop(settings: Settings, args: tuple) -> Any:
    given = tree.map_structure(lambda x: x if hasattr(x, "shape") else as_tensor(x), args[0])
    return tree.map_structure(lambda x: KerasTensor(x.shape, x.dtype), given)


def _parts(axis_of: Callable[[Settings, int], int]) -> Rule:
    def rule(settings: Settings, args: tuple) -> Any:
        x, cuts = args[0], settings["indices_or_sections"]
        axis = axis_of(settings, len(x.shape)) % len(x.shape)
        if x.shape[axis] is not None:
            return None
        sizes: list[int | None] = [None]
        if isinstance(cuts, (int, np.integer)):
            sizes *= int(cuts)
        else:
            ends = itertools.pairwise([0, *np.asarray(cuts).tolist()])
            sizes = [max(b - a, 0) if a >= 0 and b >= 0 else None for a, b in ends] + sizes
        return [_with(x, axis, size) for size in sizes]

    return rule


def _with(x: Any, axis: int, size: int | None) -> KerasTensor:
    return KerasTensor((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)


def _unstacked(settings: Settings, args: tuple) -> Any:
    x, count, axis = args[0], settings.get("num"), settings.get("axis", 0) % len(args[0].shape)
    if count is None or x.shape[axis] is not None:
        return None
    return [KerasTensor((*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype) for _ in range(count)]


def _groups(settings: Settings, args: tuple) -> Any:
    return _with(args[0], 0, None) if settings.get("num_segments") is None else None


def _different(settings: Settings, args: tuple) -> Any:
    (x,), axis, size = args, settings.get("axis"), settings.get("size")
    length = tuple(x.shape) if axis is None else (x.shape[axis],)
    values = KerasTensor((size,), x.dtype) if axis is None else _with(x, axis % len(x.shape), size)
    shapes = {"return_index": (size,), "return_inverse": length, "return_counts": (size,)}
    more = [KerasTensor(shape, "int32") for n, shape in shapes.items() if settings.get(n)]
    return (values, *more) if more else values


def _block(settings: Settings, args: tuple) -> Any:
    x, starts = args
    if not isinstance(starts, KerasTensor):
        return None
    sizes = np.asarray(settings["shape"]).tolist()
    shape = [None if n == -1 else n for n in sizes]  # the rest, wherever it starts
    return KerasTensor(shape, x.dtype) if len(shape) == len(x.shape) else None


def _seen_from(settings: Settings, args: tuple) -> Any:
    images, *points = args
    ranks = [len(each.shape) for each in points]
    if len(images.shape) not in (3, 4) or ranks != [len(images.shape) - 1] * 2:
        return None
    if any(tuple(each.shape[-2:]) != (4, 2) for each in points):
        return None
    return KerasTensor(images.shape, images.dtype)


def _scaled(settings: Settings, args: tuple) -> Any:
    images, shape = args[:2]
    given = isinstance(shape, (tuple, list)) and None in shape
    return KerasTensor(shape, images.dtype) if given else None


def _padded(settings: Settings, args: tuple) -> Any:
    images, shape = args[0], list(args[0].shape)
    sides = [settings.get(f"{side}_padding") for side in ("top", "left", "bottom", "right")]
    if len(shape) not in (3, 4) or any(n is not None and n < 0 for n in sides):
        return None
    first = (settings.get("data_format") or image_data_format()) == "channels_first"
    for axis, side in zip((-2, -1) if first else (-3, -2), ("height", "width"), strict=True):
        if shape[axis] is None and (target := settings.get(f"target_{side}")) is not None:
            shape[axis] = target
    unknown = tuple(shape) != tuple(images.shape) and None not in shape[-3:]
    return KerasTensor(shape, images.dtype) if unknown else None


_RULES: dict[str, Rule] = {
    "WhileLoop": _loop,
    "Split": _parts(lambda settings, rank: settings.get("axis", 0)),
    "ArraySplit": _parts(lambda settings, rank: settings.get("axis", 0)),
    "Vsplit": _parts(lambda settings, rank: 0),
    "Hsplit": _parts(lambda settings, rank: int(rank > 1)),
    "Dsplit": _parts(lambda settings, rank: 2),
    "Unstack": _unstacked,
    "Unique": _different,
    **dict.fromkeys(("SegmentSum", "SegmentMax", "SegmentMin", "SegmentProd"), _groups),
    "Slice": _block,
    "PerspectiveTransform": _seen_from,
    "ScaleAndTranslate": _scaled,
    "PadImages": _padded,
}
