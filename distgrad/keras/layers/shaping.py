"""Shapes by rule: what a layer makes of floats, told without trying it out on zeros.

That would take long for convolutions of large images, and for networks of them. A layer that can
tell has a ``_told_shape``; what it leaves open, odd shapes and errors above all, is tried out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

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
    known = () if shape is None else [size for size in shape if size is not None]
    if shape is None or any(isinstance(size, tuple) or size < 1 for size in known):
        return None
    if not layer.built:
        with recording.paused():
            layer._build_once(args, {})
    return KerasTensor(shape, layer.compute_dtype)


def stated(layer: Any, args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """The outputs of a layer that says their shapes itself and cannot be tried out."""
    if not layer.built:
        with recording.paused():
            layer._build_once(args, kwargs)
    first, named = shapes_for(layer.compute_output_shape, layer._call_parameters, args, kwargs)
    shapes = layer.compute_output_shape(**named) if named else layer.compute_output_shape(first)
    return _of_dtype(shapes, layer.compute_dtype)


def _of_dtype(shapes: Any, dtype: str) -> Any:
    if isinstance(shapes, Mapping):
        return {key: _of_dtype(shape, dtype) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, (int, np.integer)) for size in shapes):
        return KerasTensor(shapes, dtype)
    return type(shapes)(_of_dtype(shape, dtype) for shape in shapes)


def shapes_for(
    function: Callable[..., Any], names: Sequence[str], args: tuple, kwargs: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """What a ``build`` or ``compute_output_shape`` takes: the shape of the first argument of the
    call, or those that it has arguments for, as ``a_shape`` of ``a``, under their names."""
    wanted = inspect.signature(function).parameters
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if len(wanted) > 1:
        shapes = {name: shapes_of(given.get(name.removesuffix("_shape"))) for name in wanted}
        named = {name: shape for name, shape in shapes.items() if shape is not None}
        if named:
            return None, named
    return shapes_of(args[0] if args else next(iter(kwargs.values()))), {}


def takes_any(function: Callable[..., Any]) -> bool:
    """Whether a ``build`` has an argument for a shape."""
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters)


def by_position(
    names: Sequence[str], args: tuple, kwargs: Mapping[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a ``compute_output_shape``, with shapes that are given by name in place."""
    wanted = [f"{name}_shape" for name in names]
    if not args and wanted and wanted[0] not in kwargs and len(kwargs) == 1:
        return tuple(kwargs.values()), {}  # the only one, as ``input_shape``
    shapes = list(args)
    while len(shapes) < len(wanted) and set(wanted[len(shapes) :]) & set(kwargs):
        shapes.append(kwargs.get(wanted[len(shapes)]))
    return tuple(shapes), {n: v for n, v in kwargs.items() if n not in wanted}


def shapes_of(value: Any) -> Any:
    """The shape of a tensor as a tuple, in the nest in which the tensors lie."""
    if isinstance(value, Mapping):
        return {key: shapes_of(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple([shapes_of(item) for item in value])
    if isinstance(value, list):
        return [shapes_of(item) for item in value]
    return None if value is None else tuple(getattr(value, "shape", ()))


def _is_plain(tensor: Any) -> bool:
    plain = type(tensor) is KerasTensor and tensor._keras_mask is None and not tensor.composite
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
