"""``tf.experimental.ExtensionType``: classes of named fields, tensors among them.

Such an object goes into functions and out of them, through loops and branches: what is no tensor in
it belongs to the signature.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import Composite, Record
from distgrad.core.dtypes import DType, as_dtype
from distgrad.core.shapes import TensorShape
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import are_texts
from distgrad.ops.constants import constant, convert_to_tensor
from distgrad.ops.logic import equal, logical_and, logical_not
from distgrad.ops.reduce import reduce_all

_PLAIN = (int, float, str, bytes, bool, type(None))
_KINDS = (*_PLAIN, Tensor, TensorShape, DType, SparseTensor)
_UNIONS = (typing.Union, types.UnionType)
_OPEN = "_open"  # the attribute of an object that is being made


class ImmutableDict(dict):
    """A mapping in a field."""

    def _refuse(self, *args: Any, **kwargs: Any) -> typing.NoReturn:
        raise TypeError("the mappings of an ExtensionType cannot be changed: make another object")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = __ior__ = _refuse

    def __repr__(self) -> str:
        return f"ImmutableDict({super().__repr__()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ImmutableDict, (dict(self),)


class _Class(type):
    """The class of the classes: what is made of them is closed once its fields are there."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is ExtensionType:
            raise TypeError("ExtensionType is a base class: define one of your own with fields")
        made: Any = object.__new__(cls)  # type: ignore[arg-type]
        object.__setattr__(made, _OPEN, True)
        made.__init__(*args, **kwargs)
        return made._closed()


class ExtensionType(Record, metaclass=_Class):
    """Base class of classes whose annotations are fields (``tf.experimental.ExtensionType``).

    Fields are tensors, to which values are converted, ragged and sparse ones, shapes, dtypes, other
    such objects, Python's numbers, texts, bools and None, or tuples, mappings and unions of those.
    Their values, in the order of the annotations, are the arguments of the constructor, unless the
    class has an ``__init__`` of its own, which sets them all; ``__validate__`` may look at them.

    Raises TypeError for an annotation or a value of another type, ValueError for an attribute
    without an annotation and for a field that is not set, AttributeError where one is set later.
    """

    _types: typing.ClassVar[dict[str, Any]] = {}
    __signature__: typing.ClassVar[inspect.Signature]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hints = {n: t for n, t in typing.get_type_hints(cls).items() if n not in _RESERVED}
        for name, value in vars(cls).items():
            described = callable(value) or hasattr(value, "__get__") or name[:2] == "__"
            if name not in hints and not described:
                raise ValueError(
                    f"{cls.__name__}: the field {name!r} has no annotation of its type"
                )
        for name, kind in hints.items():
            _check_type(name, kind)
        cls._types = hints
        if "__init__" not in vars(cls) and cls.__init__ is ExtensionType.__init__:
            cls.__signature__ = _signature(cls, hints)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = type(self).__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, value)

    def _closed(self) -> Any:
        kinds, found = type(self)._types, vars(self)
        del found[_OPEN]
        for name, kind in kinds.items():
            if name not in found:
                if not hasattr(type(self), name):
                    raise ValueError(f"{type(self).__name__}: the field {name!r} is not set")
                found[name] = getattr(type(self), name)
            found[name] = _converted(name, found[name], kind)
        if more := set(found) - set(kinds):
            raise AttributeError(f"{type(self).__name__} has no fields {sorted(more)}")
        self.__validate__()
        return self

    def __validate__(self) -> None:
        """Raises what is to be raised where the fields do not fit each other."""

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self)._types}

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Any:
        made = cls.__new__(cls)
        vars(made).update(fields)
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        if _OPEN not in vars(self):
            raise AttributeError(
                f"{type(self).__name__}.{name} is set by the constructor alone: make another object"
            )
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")

    def __eq__(self, other: object) -> Any:
        """Whether all fields are equal, a bool tensor; False where classes or shapes differ."""
        if type(other) is not type(self):
            return False
        return _same(list(self.fields().values()), list(other.fields().values()))

    def __ne__(self, other: object) -> Any:
        found = self == other
        return True if found is False else logical_not(found)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.fields().items())
        return f"{type(self).__qualname__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of_fields, (self.fields(),)


_RESERVED = set(typing.get_type_hints(ExtensionType))


def _signature(cls: type, kinds: Mapping[str, Any]) -> inspect.Signature:
    """The fields as arguments; one without a default after one with it is given by keyword."""
    parameters, optional = [], False
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for name in kinds:
        default = getattr(cls, name, inspect.Parameter.empty)
        optional = optional or default is not inspect.Parameter.empty
        if optional and default is inspect.Parameter.empty:
            kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


def _check_type(name: str, kind: Any) -> None:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple or origin in _UNIONS:
        for part in parts:
            if part is not ...:
                _check_type(name, part)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        for part in parts:
            _check_type(name, part)
    elif not (kind in _KINDS or (isinstance(kind, type) and issubclass(kind, (Composite, Record)))):
        shown = kind.__name__ if isinstance(kind, type) else kind
        raise TypeError(f"the field {name!r} has a type that is none of a field: {shown!r}")


def _converted(name: str, value: Any, kind: Any) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        for part in sorted(parts, key=lambda part: part is Tensor):  # what becomes one comes last
            if part is Tensor or _is_a(value, part):
                return _converted(name, value, part)
    elif origin is tuple and isinstance(value, (tuple, list)):
        kinds = [parts[0]] * len(value) if parts[-1:] == (...,) else list(parts)
        if len(kinds) == len(value):
            return tuple(_converted(name, v, k) for v, k in zip(value, kinds, strict=True))
    elif origin is not None and origin is not tuple and isinstance(value, Mapping):
        key, item = parts
        pairs = ((_converted(name, k, key), _converted(name, v, item)) for k, v in value.items())
        return ImmutableDict(pairs)
    elif kind is Tensor and not isinstance(value, (Composite, SparseTensor, Record)):
        return convert_to_tensor(value)
    elif kind is TensorShape:
        return TensorShape(value)
    elif kind is DType:
        return as_dtype(value)
    elif _is_a(value, kind):
        return value
    wanted = kind.__name__ if isinstance(kind, type) else kind
    raise TypeError(f"{name}: expected {wanted!r}, got {type(value).__name__!r}")


def _is_a(value: Any, kind: Any) -> bool:
    return isinstance(value, typing.get_origin(kind) or kind)


def _same(one: Any, two: Any) -> Any:
    """Whether two values are equal, a bool tensor; False where it takes no look into tensors."""
    if tree.is_nested(one) or isinstance(one, Composite):
        ones, twos = (
            tree.flatten(v.packed() if isinstance(v, Composite) else v) for v in (one, two)
        )
        found = [_same(a, b) for a, b in zip(ones, twos, strict=False)]
        if len(ones) != len(twos) or any(each is False for each in found):
            return False
        return functools.reduce(logical_and, found, constant(True))
    if isinstance(one, (Operand, np.ndarray)):
        texts = are_texts(one)
        if tuple(one.shape) != tuple(two.shape) or texts != are_texts(two):
            return False
        if texts:
            return constant(bool((one == two).all()))
        return one.dtype == two.dtype and reduce_all(equal(one, two))
    same = one == two
    return constant(True) if same is True else same
