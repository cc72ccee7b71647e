"""Composite tensors as arguments of operations: values together with how they lie in rows.

Operations know dense tensors. Where an argument turns out to be none, making an array of it raises
`CompositeError`, and only then is it looked up here what the operation does of composites: a call
with dense tensors does not pay for it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from distgrad.core import tree

# By the kind of composites that they are for.
_operations: dict[tuple[str, str, str], Callable[..., Any]] = {}
_families: dict[tuple[str, str], Callable[..., Any]] = {}
_classes: dict[str, type[Composite]] = {}  # those that can be packed


class CompositeError(ValueError, TypeError):
    """A dense tensor is needed, and a composite one was given."""


class Composite:
    """What is no dense tensor, but stands for one: its ``flat_values`` are a tensor, or texts.

    ``packed`` gives these, and texts that say how they lie; ``unpacked`` takes them.
    """

    kind = "ragged"
    made_dense_by = "to_tensor()"
    # Operators of NumPy's arrays leave it to ours.
    __array_ufunc__ = None

    flat_values: Any
    shape: Any
    dtype: Any
    spec: Any

    def __init_subclass__(cls) -> None:
        if "unpacked" in vars(cls):
            _classes[cls.kind] = cls

    if TYPE_CHECKING:  # as `distgrad.ragged.elementwise` installs it, and the operators

        def __getitem__(self, key: Any) -> Any: ...

    @property
    def nbytes(self) -> int:
        """Those of its values."""
        return getattr(self.flat_values, "_data", self.flat_values).nbytes

    def element(self) -> Any:
        """What a user gets of it where it is an element of a dataset."""
        return self

    def with_flat_values(self, new_values: Any) -> Any:
        raise NotImplementedError

    def numpy(self) -> Any:
        raise NotImplementedError

    def packed(self) -> tuple[Any, ...]:
        raise NotImplementedError

    @classmethod
    def unpacked(cls, values: Any, *parts: Any) -> Any:
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise CompositeError(
            f"a {type(self).__name__} is no array, and this takes no other: make one by "
            f"{self.made_dense_by}"
        )


class Record:
    """What has named fields, tensors or nests of them among these (an ``ExtensionType``)."""

    def fields(self) -> dict[str, Any]:
        """The fields by their names."""
        raise NotImplementedError

    @classmethod
    def of_fields(cls, fields: Any) -> Any:
        """One of this class with the fields that another one had, or others of their kinds."""
        raise NotImplementedError


class Static:
    """What is no tensor among the fields of a record, in a nest of what is."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def unpacked(kind: str, *parts: Any) -> Any:
    """The composite tensor of this kind that ``packed`` gave these parts of."""
    return _classes[kind].unpacked(*parts)


def values_of(item: Any) -> Any:
    """What has a gradient in a composite tensor; anything else as it is."""
    return item.flat_values if isinstance(item, Composite) else item


class CompositeSpec:
    """What is known of a composite tensor, as operations are told of their results."""

    kind = "ragged"
    made_dense_by = "to_tensor()"

    def of_shape(self, shape: Any) -> Any:
        """The same of another shape."""
        raise NotImplementedError


def of_composites(
    *operations: Any, kind: str = "ragged"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the function is what the operations do of composite arguments of this kind."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for operation in operations:
            _operations[kind, *_key(operation)] = function
        return function

    return register


def of_family(
    *modules: str, kind: str = "ragged"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As `of_composites`, for all other operations of modules: it is given the operation first."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _families.update(dict.fromkeys([(kind, module) for module in modules], function))
        return function

    return register


def composites(args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """The composite tensors among the arguments of a call, and what says that they are wanted."""
    kinds = (Composite, CompositeSpec)
    return [leaf for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, kinds)]


def otherwise(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What an operation does where its dense form has raised CompositeError.

    Raises that error where no argument is a composite tensor, and one that names the operation
    where it takes none.
    """
    given = composites(args, kwargs)
    if not given:
        raise  # the error that brought us here: it comes from a function that a user gave
    kind = given[0].kind
    importlib.import_module(f"distgrad.{kind}")  # which registers what there is
    found = _operations.get((kind, *_key(operation)))
    if found is not None:
        return found(*args, **kwargs)
    family = _families.get((kind, operation.__module__))
    if family is None:
        what = f"{operation.__name__} takes no {type(given[0]).__name__}"
        raise CompositeError(f"{what}: make a tensor of it by {given[0].made_dense_by}") from None
    return family(operation, *args, **kwargs)


def takes_composites(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with composite arguments as well, where something is registered for them."""

    @functools.wraps(function)
    def operation(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except CompositeError:
            return otherwise(function, args, kwargs)

    return operation


def _key(operation: Any) -> tuple[str, str]:
    return operation.__module__, operation.__name__
