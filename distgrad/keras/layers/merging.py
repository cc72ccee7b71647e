"""Layers of several inputs: sums, products, extremes, concatenation; and each as a function.

Inputs of fewer axes get axes of 1 after the batch, and all broadcast to one shape. A mask of the
inputs counts where it does in Keras: an element-wise merge is masked where all inputs are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.keras.layers import shaping
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.moving import Moving
from distgrad.keras.losses.regression import normalized
from distgrad.ops.casting import cast, ones_like
from distgrad.ops.clipping import maximum as larger
from distgrad.ops.clipping import minimum as smaller
from distgrad.ops.layout import broadcast_to
from distgrad.ops.linalg import matmul
from distgrad.ops.logic import logical_or, select
from distgrad.ops.reduce import reduce_any, reduce_sum
from distgrad.ops.shape import concat, expand_dims, reshape, transpose
from distgrad.sparse import mixed


def _has(kind: type, inputs: Any) -> bool:
    return isinstance(inputs, (list, tuple)) and any(isinstance(x, kind) for x in inputs)


def _shapes(layer: Layer, inputs: Any) -> list[tuple[int, ...]]:
    """The shapes of a list of tensors. Raises ValueError for anything else."""
    if not isinstance(inputs, (list, tuple)) or not inputs:
        raise ValueError(f"{layer.name!r} takes a list of tensors, not {inputs!r}")
    return [tuple(x._data.shape) for x in inputs]


def _of_one_batch(layer: Layer, shapes: Sequence[Sequence[int | None]]) -> None:
    if len({tuple(shape[:1]) for shape in shapes}) > 1:
        raise ValueError(f"{layer.name!r}: inputs of shapes {shapes} have other batch sizes")


def _alike(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Inputs in one dtype, that in which Keras has theirs meet."""
    if len({x.dtype for x in inputs}) == 1:
        return list(inputs)
    from distgrad.keras.ops.promotion import result_type  # integers beside floats are rare

    return [cast(x, result_type(*(x.dtype for x in inputs))) for x in inputs]


def _two(layer: Layer, inputs: Any) -> tuple[Tensor, Tensor]:
    if len(inputs) != 2:
        raise ValueError(f"{layer.name!r} takes exactly 2 inputs, not {len(inputs)}")
    return inputs[0], inputs[1]


class Merge(Layer):
    """Base of the element-wise ones: a subclass defines ``merge(inputs, masks)``.

    And ``of_two``, which is for sparse inputs: they have no masks, and are of one shape. Raises
    ValueError for inputs that are not a list, or whose shapes do not broadcast; and where
    the first inputs are of unequal batches. Later ones, as a model may give its layers, broadcast.
    """

    supports_masking = True

    @staticmethod
    def of_two(x: Any, y: Any) -> Any:
        raise NotImplementedError

    def _of_sparse(self, inputs: list[Any]) -> Any:
        return functools.reduce(self.of_two, inputs)

    def build(self, input_shape: Any) -> None:
        if any(isinstance(shape, (list, tuple)) for shape in input_shape):
            _of_one_batch(self, input_shape)

    def merge(self, inputs: list[Tensor], masks: list[Tensor | None]) -> Tensor:
        raise NotImplementedError

    def _told_shape(self, shape: Any) -> Any:
        return shaping.broadcast(shape) if isinstance(shape, list) and len(shape) == 2 else None

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if _has(SparseTensor, inputs):
            return self._of_sparse(_alike(inputs))
        if _has(Composite, inputs):
            return self.merge(list(inputs), [None] * len(inputs))
        shapes = _shapes(self, inputs)
        rank = max(map(len, shapes))
        aligned = []
        for x, shape in zip(_alike(inputs), shapes, strict=True):
            wide = (*shape[:1], *(1,) * (rank - len(shape)), *shape[1:])
            aligned.append(x if len(shape) == rank else reshape(x, wide))
        try:
            np.broadcast_shapes(*(x._data.shape for x in aligned))
        except ValueError:
            raise ValueError(f"{self.name!r}: shapes {shapes} do not broadcast") from None
        masks = [None] * len(aligned) if mask is None else mask
        return self.merge(aligned, [_beside(m, x) for m, x in zip(masks, aligned, strict=True)])

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        known = [] if mask is None else _masks(self, inputs, mask)
        if not known or any(m is None for m in known):
            return None
        return functools.reduce(logical_or, known)


def _masks(layer: Layer, inputs: Any, mask: Any) -> list[Tensor | None]:
    """The masks of the inputs. Raises ValueError for anything but two lists of one length."""
    for name, given in (("inputs", inputs), ("mask", mask)):
        if not isinstance(given, (list, tuple)):
            raise ValueError(f"{layer.name!r}: {name} should be a list, not {given!r}")
    if len(mask) != len(inputs):
        raise ValueError(f"{layer.name!r}: {len(mask)} masks do not fit {len(inputs)} inputs")
    return [None if m is None else as_tensor(m) for m in mask]


def _beside(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """A mask of steps, or of elements, as one of the elements of ``x``."""
    if mask is None:
        return None
    steps = mask._data.ndim < x._data.ndim
    return broadcast_to(expand_dims(mask, -1) if steps else mask, x._data.shape)


class Add(Merge):
    """The sum of the inputs."""

    of_two = staticmethod(mixed.add)

    def merge(self, inputs: list[Tensor], masks: list[Tensor | None]) -> Tensor:
        return functools.reduce(lambda a, b: a + b, inputs)


class Subtract(Merge):
    """The first input minus the second. Raises ValueError for another number of them."""

    def _of_sparse(self, inputs: list[Any]) -> Any:
        return mixed.subtract(*_two(self, inputs))

    def merge(self, inputs: list[Tensor], masks: list[Tensor | None]) -> Tensor:
        first, second = _two(self, inputs)
        return first - second


class Multiply(Merge):
    """The product of the inputs; a masked element counts as 1, and is 0 where all are masked."""

    of_two = staticmethod(mixed.multiply)

    def merge(self, inputs: list[Tensor], masks: list[Tensor | None]) -> Tensor:
        known = [x if m is None else select(m, x, 1) for x, m in zip(inputs, masks, strict=True)]
        product = functools.reduce(lambda a, b: a * b, known)
        given = [m for m in masks if m is not None]
        if len(given) < len(masks):
            return product
        return select(functools.reduce(logical_or, given), product, 0)


class Average(Merge):
    """The mean of the inputs."""

    of_two = staticmethod(mixed.add)

    def _of_sparse(self, inputs: list[Any]) -> Any:
        return super()._of_sparse(inputs) / len(inputs)

    def merge(self, inputs: list[Tensor], masks: list[Tensor | None]) -> Tensor:
        return functools.reduce(lambda a, b: a + b, inputs) / len(inputs)


class Maximum(Merge):
    """The largest of the inputs, element by element; a masked element gives way to the others."""

    choose: Callable[..., Tensor] = larger
    of_two = staticmethod(mixed.maximum)

    def merge(self, inputs: list[Tensor], masks: list[Tensor | None]) -> Tensor:
        (y, *others), (known, *rest) = inputs, masks
        for x, mask in zip(others, rest, strict=True):
            if mask is not None:
                x = select(mask, x, y)
            if known is not None:
                y = select(known, y, x)
            known = None if mask is None or known is None else logical_or(known, mask)
            y = type(self).choose(y, x)
        return y


class Minimum(Maximum):
    """The smallest of the inputs, element by element; a masked element gives way to the others."""

    choose = smaller
    of_two = staticmethod(mixed.minimum)


class Concatenate(Moving):
    """The inputs one after the other along ``axis``.

    Raises ValueError for inputs that are not a list, or whose other axes differ.
    """

    supports_masking = True

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def _told_shape(self, shape: Any) -> Any:
        if not isinstance(shape, list) or len({len(each) for each in shape}) != 1:
            return None
        rank = len(shape[0])
        if not -rank <= self.axis < rank:
            return None
        at = self.axis % rank
        others = {(*each[:at], *each[at + 1 :]) for each in shape}
        sizes = [each[at] for each in shape]
        if len(others) != 1 or None in sizes:
            return None
        return (*shape[0][:at], sum(sizes), *shape[0][at + 1 :])

    def call(self, inputs: Any) -> Any:
        if not isinstance(inputs, (list, tuple)) or not inputs:
            raise ValueError(f"{self.name!r} takes a list of tensors, not {inputs!r}")
        if _has(SparseTensor, inputs):
            return mixed.concat(_alike(inputs), self.axis)
        if _has(Composite, inputs):
            return concat(inputs, self.axis)
        shapes = [x._data.shape for x in inputs]
        ranks = {len(shape) for shape in shapes}
        if len(ranks) == 1 and -len(shapes[0]) <= self.axis < len(shapes[0]):
            at = self.axis % len(shapes[0])
            if len({(*shape[:at], *shape[at + 1 :]) for shape in shapes}) == 1:
                return concat(_alike(inputs), self.axis)
        raise ValueError(f"{self.name!r}: shapes {shapes} do not match but for axis {self.axis}")

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        known = [] if mask is None else _masks(self, inputs, mask)
        if all(m is None for m in known):
            return None
        masks = [
            ones_like(x, dtype=bool) if m is None else _beside(m, x)
            for x, m in zip(map(as_tensor, inputs), known, strict=True)
        ]
        return reduce_any(concat([cast(m, bool) for m in masks], self.axis), axis=-1)


class Dot(Layer):
    """Sample by sample, the sum of products along one axis of each of two inputs.

    ``axes`` is one axis of both, or one for each; ``normalize`` gives the cosine of the vectors.
    The other axes of the first input stand before those of the second, at least one.
    Raises ValueError for other axes, the batch among them, or sizes that differ.
    """

    supports_masking = True  # it ends here

    def __init__(self, axes: int | Sequence[int], normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(axes, int) and (
            not isinstance(axes, Sequence)
            or len(axes) != 2
            or not all(isinstance(axis, int) for axis in axes)
        ):
            raise ValueError(f"axes must be an int or two of them, not {axes!r}")
        self.axes = axes
        self.normalize = normalize

    def call(self, inputs: Any) -> Tensor:
        if _has(SparseTensor, inputs):
            inputs = list(map(mixed.densified, inputs))
        if _has(Composite, inputs):
            return self._of_rows(*_two(self, inputs))
        shapes = _shapes(self, inputs)
        _of_one_batch(self, shapes)
        pair = _two(self, _alike(inputs))
        chosen = (self.axes, self.axes) if isinstance(self.axes, int) else self.axes
        places = [axis % len(shape) for axis, shape in zip(chosen, shapes, strict=True)]
        sizes = [shape[axis] for axis, shape in zip(places, shapes, strict=True)]
        if 0 in places or sizes[0] != sizes[1]:
            raise ValueError(
                f"{self.name!r}: no products along the axes {tuple(chosen)} of inputs of shapes "
                f"{shapes}: their sizes must agree, and axis 0 is the batch"
            )
        free = []
        matrices = []
        for x, shape, axis in zip(pair, shapes, places, strict=True):
            if self.normalize:
                x = normalized(x, axis)
            others = [i for i in range(1, len(shape)) if i != axis]
            free.append([shape[i] for i in others])
            rows = int(np.prod(free[-1]))
            matrices.append(reshape(transpose(x, (0, *others, axis)), (shape[0], rows, sizes[0])))
        product = matmul(matrices[0], matrices[1], transpose_b=True)
        return reshape(product, (shapes[0][0], *((free[0] + free[1]) or [1])))

    def _of_rows(self, one: Any, other: Any) -> Tensor:
        """Of two ragged tensors of the same rows. Raises ValueError for rows of more axes."""
        axes = {self.axes} if isinstance(self.axes, int) else set(self.axes)
        ranks = {len(one.shape), len(other.shape)}
        if not axes <= {1, -1} or self.normalize or ranks != {2}:
            raise ValueError(
                f"{self.name!r} multiplies ragged tensors of two axes, along the second, and does "
                "not normalize them: give it to_tensor()"
            )
        return reduce_sum(one * other, 1, keepdims=True)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        return None


# The same as functions


def add(inputs: Any, **kwargs: Any) -> Tensor:
    """``Add(**kwargs)(inputs)``; so are the others."""
    return Add(**kwargs)(inputs)


def subtract(inputs: Any, **kwargs: Any) -> Tensor:
    """``Subtract(**kwargs)(inputs)``."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Any, **kwargs: Any) -> Tensor:
    """``Multiply(**kwargs)(inputs)``."""
    return Multiply(**kwargs)(inputs)


def average(inputs: Any, **kwargs: Any) -> Tensor:
    """``Average(**kwargs)(inputs)``."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Any, **kwargs: Any) -> Tensor:
    """``Maximum(**kwargs)(inputs)``."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Any, **kwargs: Any) -> Tensor:
    """``Minimum(**kwargs)(inputs)``."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Tensor:
    """``Concatenate(axis, **kwargs)(inputs)``."""
    return Concatenate(axis, **kwargs)(inputs)


def dot(inputs: Any, axes: int | Sequence[int] = -1, **kwargs: Any) -> Tensor:
    """``Dot(axes, **kwargs)(inputs)``."""
    return Dot(axes, **kwargs)(inputs)
