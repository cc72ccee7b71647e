"""What a dataset says of its elements before there is one: its ``element_spec``.

A step that keeps the form of elements passes on what the dataset before it says, and others say how
they change it. So no generator runs for it, and of users' functions only those that make elements,
on zeros and ones. Where that does not tell, the first element does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import numpy as np

from distgrad.core.composite import Composite, CompositeSpec
from distgrad.core.sparse_tensor import SparseTensor, SparseTensorSpec
from distgrad.data import nest
from distgrad.data.rows import Pass

_unseen = ContextVar("unseen", default=False)  # whether no element may be looked at for a spec
_SIZES = 2, 3  # of zeros for an axis of any size: what differs between the two is of any size, too


class _Trial:
    """A function that is tried on zeros, and whether it has asked for the size of an axis."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, False


_trial: ContextVar[_Trial | None] = ContextVar("trial", default=None)


def tried_size() -> int | None:
    """The size of axes of any size while ``element_spec`` tries a function on zeros; else None.

    Texts are empty then: what reads numbers from them makes zeros.
    """
    trial = _trial.get()
    if trial is None:
        return None
    trial.asked = True
    return trial.size


class NotKnown(Exception):
    """Only an element can tell; ``axes`` are those whose sizes are not the same in all of them."""

    def __init__(self, axes: Iterable[int] = ()) -> None:
        super().__init__()
        self.axes = frozenset(axes)


class Specified:
    """What `Dataset` inherits its ``element_spec`` from."""

    _elements: Callable[[Pass], Iterator[Any]]
    _spec: Any  # a nest of TensorSpecs, or a function that gives it; None where nobody knows
    _passes: int

    @property
    def element_spec(self) -> Any:
        """A TensorSpec for each array of an element; None for sizes that are not known.

        It is that of the first element where nothing was said. Raises ValueError where there is
        none then.
        """
        if self._spec is None or callable(self._spec):
            try:
                self._spec = _unknown() if self._spec is None else self._spec()
            except NotKnown as reason:
                if _unseen.get():
                    raise
                self._spec = self._of_first(reason.axes)
        return self._spec

    def _same(self) -> Any:
        """``element_spec``, to be given to a dataset of the same elements."""
        return self.element_spec

    def _of_first(self, axes: frozenset[int]) -> Any:
        first = next(self._elements(Pass(self._passes)), None)
        if first is None:
            raise ValueError("the dataset is empty: it has no element to look at")

        def opened(leaf: Any) -> Any:
            spec = of_array(leaf)
            if isinstance(spec, SparseTensorSpec):  # the next one may be of other sizes
                return spec.of_shape([None] * len(spec.shape))
            return spec if isinstance(spec, DatasetSpec) else _with(spec, axes)

        return nest.map_leaves(opened, first)


class DatasetSpec:
    """What is known of a dataset that is in the place of an array: the spec of its elements."""

    def __init__(self, element_spec: Any, dataset_shape: Any = ()) -> None:
        self.element_spec = element_spec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatasetSpec) and self.element_spec == other.element_spec

    def __hash__(self) -> int:
        return hash((DatasetSpec, tuple(nest.leaves(self.element_spec))))

    def __repr__(self) -> str:
        return f"DatasetSpec({self.element_spec!r})"


def _unknown() -> Any:
    raise NotKnown


def agree(datasets: Sequence[Specified], words: str) -> None:
    """Raises TypeError with these words where specs of datasets differ in form or in dtypes.

    Nothing is said where only an element could tell.
    """
    token = _unseen.set(True)
    try:
        first, *others = (dataset.element_spec for dataset in datasets)
    except (NotKnown, TypeError):  # of a dtype that no tensor has
        return
    finally:
        _unseen.reset(token)
    for number, other in enumerate(others, 1):
        try:
            same = nest.map_leaves(_same_kind, first, other)
        except ValueError:  # of another form
            same = False
        if not all(nest.leaves(same)):
            raise TypeError(words.format(first=first, number=number, other=other))


def _same_kind(one: Any, other: Any) -> bool:
    if isinstance(one, DatasetSpec) or isinstance(other, DatasetSpec):
        return type(one) is type(other)
    return bool(one.dtype == other.dtype)


def _with(spec: Any, axes: frozenset[int]) -> Any:
    return _of_shape(spec, [None if axis in axes else size for axis, size in enumerate(spec.shape)])


def _of_shape(spec: Any, shape: Any) -> Any:
    """The spec with another shape."""
    if isinstance(spec, CompositeSpec):
        return spec.of_shape(shape)
    return type(spec)(shape, spec.dtype)


def of_array(leaf: Any) -> Any:
    """The spec of an array, or of a dataset that is in its place."""
    from distgrad.core.spec import TensorSpec
    from distgrad.core.texts import dtype_of

    if isinstance(leaf, Specified):
        return DatasetSpec(leaf.element_spec)
    if isinstance(leaf, Composite):
        return leaf.spec
    return TensorSpec(leaf.shape, dtype_of(leaf))


def of_rows(arrays: Any) -> Any:
    """The spec of the rows of arrays."""
    return unstacked(nest.map_leaves(of_array, arrays))


def of_types(types: Any, shapes: Any) -> Any:
    """The spec for a nest of dtypes and one of shapes; None for shapes that were not said."""
    from distgrad.core.spec import TensorSpec

    if isinstance(types, dict):
        return {key: of_types(types[key], shapes and shapes[key]) for key in types}
    if isinstance(types, tuple):
        parts = [None] * len(types) if shapes is None else shapes
        return tuple(map(of_types, types, parts))
    return TensorSpec(shapes, types)


def stacked(spec: Any, size: int | None) -> Any:
    """The spec of so many elements in one."""

    # (The rank may be unknown.)
    return _of_shapes(lambda shape: type(shape)([size]).concatenate(shape), spec)


def unstacked(spec: Any) -> Any:
    """The spec of the rows of an element."""
    return _of_shapes(lambda shape: shape[1:], spec)


def _of_shapes(change: Callable[[Any], Any], spec: Any) -> Any:
    """The spec with other shapes. Raises NotKnown where there are datasets among the arrays."""

    def leaf_of(leaf: Any) -> Any:
        if isinstance(leaf, DatasetSpec):
            raise NotKnown
        return _of_shape(leaf, change(leaf.shape))

    return nest.map_leaves(leaf_of, spec)


def reshaped(spec: Any, shapes: Iterable[Any]) -> Any:
    """The spec of the same dtypes with other shapes, leaf by leaf; None keeps one."""
    each = iter(shapes)

    def leaf_of(leaf: Any) -> Any:
        shape = next(each)
        return _of_shape(leaf, leaf.shape if shape is None else shape)

    return nest.map_leaves(leaf_of, spec)


def joined(specs: Iterable[Any]) -> Any:
    """The spec that elements of all these fit; None for sizes in which they differ."""

    def both(one: Any, other: Any) -> Any:
        if isinstance(one, DatasetSpec):
            return DatasetSpec(joined([one.element_spec, other.element_spec]))
        shape = one.shape.most_specific_compatible_shape(other.shape)
        return _of_shape(one, shape)

    first, *others = specs
    for other in others:
        try:
            first = nest.map_leaves(both, first, other)
        except (AttributeError, TypeError, ValueError, KeyError):  # of another form
            raise NotKnown from None
    return first


def through(function: Callable[[Any], Any], spec: Any) -> Any:
    """The spec of what a function makes of elements. Raises NotKnown where zeros do not tell."""
    axes = {
        axis
        for leaf in _flat(spec)
        for axis, size in enumerate(leaf.shape if leaf.shape.rank is not None else ())
        if size is None
    }
    trials: list[_Trial] = []

    def made_of(size: int, fill: Callable[..., np.ndarray]) -> Any:
        trials.append(_Trial(size))
        before = _trial.set(trials[-1])
        try:
            made = nest.to_arrays(function(_filled(spec, size, fill)))
        finally:
            _trial.reset(before)
        return nest.map_leaves(of_array, made)

    with np.errstate(all="ignore"):
        try:
            found = [made_of(_SIZES[0], np.zeros)]
            if axes or trials[0].asked:
                found.append(made_of(_SIZES[1], np.zeros))
        except Exception:  # of any code of users
            raise NotKnown(axes) from None
        with suppress(Exception):  # a size may depend on a number
            found.append(made_of(_SIZES[0], np.ones))
    return joined(found)


def _flat(spec: Any) -> Iterator[Any]:
    """The TensorSpecs of a nest, those of the datasets in it as well."""
    for leaf in nest.leaves(spec):
        yield from _flat(leaf.element_spec) if isinstance(leaf, DatasetSpec) else (leaf,)


def _filled(spec: Any, size: int, fill: Callable[..., np.ndarray]) -> Any:
    def filled(leaf: Any) -> Any:
        if isinstance(leaf, DatasetSpec):
            from distgrad.data.dataset import Dataset

            elements = [_filled(leaf.element_spec, size, fill)]
            return Dataset(lambda _: iter(elements), len(elements), spec=leaf.element_spec)
        if isinstance(leaf, CompositeSpec) and not isinstance(leaf, SparseTensorSpec):
            raise NotKnown
        array = fill([size if n is None else n for n in leaf.shape], leaf.dtype.numpy_dtype)
        return SparseTensor.of_dense(array) if isinstance(leaf, SparseTensorSpec) else array

    return nest.map_leaves(filled, spec)
