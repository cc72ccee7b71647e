"""Shapes by rule: what a layer makes of floats, told without trying it out on zeros.

That would take long for convolutions of large images, and for networks of them. A layer that can
tell has a ``_told_shape``; what it leaves open, odd shapes and errors above all, is tried out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distgrad.core import recording
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.registry import is_ours

Shape = tuple[int | None, ...]


def told(layer: Any, args: tuple, kwargs: Mapping[str, Any]) -> KerasTensor | None:
    """The output for these KerasTensors of a layer, which is built by this; None where it is to be
    tried out."""
    if len(args) != 1 or set(kwargs) - {"training"} or not is_ours(type(layer)):
        return None
    given = args[0]
    tensors = given if isinstance(given, (list, tuple)) else [given]
    if layer.casts_inputs is False or not all(map(_is_plain, tensors)):
        return None
    shape = layer._told_shape([t.shape for t in given] if tensors is given else given.shape)
    if shape is None or any(size is not None and size < 1 for size in shape):
        return None
    if not layer.built:
        with recording.paused():
            layer._build_once(args, {})
    return KerasTensor(shape, layer.compute_dtype)


def _is_plain(tensor: Any) -> bool:
    plain = type(tensor) is KerasTensor and tensor._keras_mask is None
    return plain and tensor.dtype.is_floating


def slid(
    space: Sequence[int | None],
    sizes: Sequence[int],
    strides: Sequence[int],
    rates: Sequence[int],
    padding: str,
) -> Shape:
    """How many windows there are along each axis."""
    found: list[int | None] = []
    for n, size, stride, rate in zip(space, sizes, strides, rates, strict=True):
        if n is not None:
            reach = (size - 1) * rate if padding == "valid" else 0
            n = -((reach - n) // stride)  # rounded up
        found.append(n)
    return tuple(found)


def broadcast(shapes: Sequence[Shape]) -> Shape | None:
    """The shape to which shapes of one rank broadcast; None where that cannot be told."""
    if len({(len(shape), *shape[:1]) for shape in shapes}) != 1:
        return None
    found: list[int | None] = []
    for sizes in zip(*shapes, strict=True):
        wide = set(sizes) - {1} if len(set(sizes)) > 1 else set(sizes)
        if len(wide) > 1:
            return None
        found.append(wide.pop())
    return tuple(found)


def keeps_shape(activation: Callable[..., Any] | None) -> bool:
    """Whether this is an activation of ours that gives as many elements as it gets."""
    named = getattr(activation, "__name__", "glu")
    return activation is None or (named != "glu" and is_ours(activation))
