"""Where a `Dataset` begins: at arrays, numbers, a generator, or other datasets side by side."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.errors import InvalidArgumentError
from distgrad.data import cardinality, composites, nest, specs
from distgrad.data.cardinality import INFINITE_CARDINALITY
from distgrad.data.generated import as_specified, cast, checked, fitted
from distgrad.data.rows import Pass, Rows, each_row

if TYPE_CHECKING:
    from distgrad.data.dataset import Dataset


class Origins:
    """What `Dataset` inherits the ways to make one from."""

    @classmethod
    def from_tensor_slices(cls: Any, tensors: Any, name: str | None = None) -> Dataset:
        """The rows of an array, or of each array of a nest. Raises ValueError for unequal lengths.

        The arrays are not copied: a change to one changes the elements. Of a list of datasets each
        is an element, for ``interleave`` and ``flat_map``.
        """
        if isinstance(tensors, list) and tensors and all(isinstance(d, Origins) for d in tensors):
            joined = lambda: specs.joined(map(specs.of_array, tensors))  # noqa: E731
            return cls(lambda _: iter(tensors), len(tensors), spec=joined)
        arrays = nest.map_leaves(_read_only, nest.to_arrays(tensors))
        if composites.has(arrays):
            found = list(composites.each_row(arrays))
            whole = specs.unstacked(nest.map_leaves(specs.of_array, arrays))
            return cls(lambda _: iter(found), len(found), spec=whole)
        rows = Rows(arrays, None)
        spec = lambda: specs.of_rows(arrays)  # noqa: E731
        return cls(lambda _: each_row(rows), nest.length(arrays), lambda _: rows, spec)

    @classmethod
    def from_tensors(cls: Any, tensors: Any, name: str | None = None) -> Dataset:
        """One element."""
        element = nest.map_leaves(_read_only, nest.to_arrays(tensors))
        spec = lambda: nest.map_leaves(specs.of_array, element)  # noqa: E731
        return cls(lambda _: iter([element]), 1, spec=spec)

    @classmethod
    def range(
        cls: Any, *args: int, output_type: Any = np.int64, name: str | None = None
    ) -> Dataset:
        """The numbers of Python's ``range``, of dtype ``output_type``.

        Raises InvalidArgumentError (a ValueError) for a step of 0.
        """
        if len(args) == 3 and args[2] == 0:
            raise InvalidArgumentError("the step of a range is not 0")
        numbers, kind = range(*args), _dtype(output_type)
        spec = lambda: specs.of_array(np.zeros((), kind))  # noqa: E731
        return cls(lambda _: (np.asarray(i, kind) for i in numbers), len(numbers), spec=spec)

    @classmethod
    def counter(
        cls: Any, start: int = 0, step: int = 1, dtype: Any = np.int64, name: str | None = None
    ) -> Dataset:
        """``start``, ``start + step`` and so on, without end."""
        kind = _dtype(dtype)
        return cls(
            lambda _: (np.asarray(number, kind) for number in itertools.count(start, step)),
            INFINITE_CARDINALITY,
            spec=lambda: specs.of_array(np.zeros((), kind)),
        )

    @classmethod
    def from_generator(
        cls: Any,
        generator: Callable[..., Any],
        output_types: Any = None,
        output_shapes: Any = None,
        args: tuple | None = None,
        output_signature: Any = None,
        name: str | None = None,
    ) -> Dataset:
        """What ``generator(*args)``, called anew for every iteration, gives.

        ``output_signature`` is a nest of things with a dtype and a shape; ``output_types`` and
        ``output_shapes`` are the older way to say it. Elements are cast to the dtypes. Raises
        TypeError for something that cannot be called and where both are given, and
        InvalidArgumentError (a ValueError) for an element of another form, dtype or shape, after
        which the iteration may go on.
        """
        if not callable(generator):
            raise TypeError("from_generator needs a function that makes the generator")
        if output_signature is not None and (output_types or output_shapes) is not None:
            raise TypeError("give output_signature, or output_types and output_shapes, not both")
        given = tuple(args or ())

        def announced(value: Any) -> Any:
            if output_signature is not None:
                return fitted(value, output_signature, as_specified)
            if output_types is not None:
                return checked(fitted(value, output_types, cast), output_shapes)
            return nest.to_arrays(value)

        def elements(_: Pass) -> Iterator[Any]:
            return map(announced, generator(*given))

        spec = output_signature
        if spec is None and output_types is not None:
            spec = lambda: specs.of_types(output_types, output_shapes)  # noqa: E731
        return cls(elements, spec=spec)

    @classmethod
    def load(
        cls: Any,
        path: Any,
        element_spec: Any = None,
        compression: str | None = None,
        reader_func: Any = None,
        wait: bool = False,
    ) -> Dataset:
        """What ``save`` wrote to a folder, read as it is iterated over.

        ``element_spec`` is what the dataset says of its elements, that of the file for None.
        ``reader_func`` makes the dataset of one of datasets, of which there is one. The other
        settings change nothing. Raises NotFoundError where nothing was saved.
        """
        from distgrad.data import kept

        file = kept.path_in(path)
        size, spec = kept.announced(file)
        whole = cls(lambda _: kept.read(file), size, spec=element_spec or spec)
        return whole if reader_func is None else reader_func(cls.from_tensor_slices([whole]))

    @classmethod
    def list_files(
        cls: Any,
        file_pattern: Any,
        shuffle: bool | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> Dataset:
        """The names of the files that match a pattern of ``glob``, or one of several.

        In a random order, another at every iteration, but for ``shuffle=False``: sorted then.
        Raises InvalidArgumentError (a ValueError) where there is none.
        """
        one = isinstance(file_pattern, (str, os.PathLike))
        patterns = [os.fspath(each) for each in ([file_pattern] if one else file_pattern)]
        names = sorted({name for pattern in patterns for name in glob.glob(pattern)})
        if not names:
            raise InvalidArgumentError(f"No files matched pattern: {', '.join(patterns)}")
        files = cls.from_tensor_slices(names)
        return files if shuffle is False else files.shuffle(len(names), seed)

    @classmethod
    def zip(cls: Any, *args: Any, datasets: Any = None, name: str | None = None) -> Dataset:
        """Elements of several datasets side by side, up to the end of the shortest.

        Takes the datasets one by one, or in a tuple or a dict.
        """
        together = datasets if datasets is not None else args[0] if len(args) == 1 else args
        parts = list(nest.leaves(together))
        if not parts or not all(isinstance(part, Origins) for part in parts):
            raise TypeError(f"zip takes datasets, not {together!r}")
        places = nest.map_leaves(parts.index, together)

        def elements(this: Pass) -> Iterator[Any]:
            for values in zip(*(part._elements(this) for part in parts), strict=False):
                yield nest.map_leaves(values.__getitem__, places)

        size = cardinality.shortest([part._size for part in parts])
        spec = lambda: nest.map_leaves(lambda part: part.element_spec, together)  # noqa: E731
        if any(part._rows is None or part._shuffled for part in parts):
            return cls(elements, size, spec=spec)

        def rows(this: Pass) -> Rows:
            arrays = [part._rows(this).cut(slice(size)).arrays for part in parts]
            return Rows(nest.map_leaves(arrays.__getitem__, places), None)

        return cls(lambda this: each_row(rows(this)), size, rows, spec)


def _dtype(dtype: Any) -> np.dtype:
    return np.dtype(getattr(dtype, "as_numpy_dtype", dtype))


def _read_only(array: Any) -> Any:
    if isinstance(array, (Origins, Composite)):
        return array
    view = array.view()
    view.flags.writeable = False
    return view
