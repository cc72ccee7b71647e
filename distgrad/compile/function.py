"""``distgrad.function``: a Python function under TensorFlow's decorator.

For now a function runs as it is: Python's ``if``, ``for`` and ``while`` over tensors work in it,
tapes see its operations, and nothing is traced.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core import tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType, as_dtype
from distgrad.core.tensor import Operand


class TensorSpec:
    """Shape and dtype of a tensor; None in the shape stands for any size, as a shape for any."""

    def __init__(self, shape: Any, dtype: Any = "float32", name: str | None = None) -> None:
        self.shape = None if shape is None else tuple(shape)
        self.dtype: DType = as_dtype(dtype)
        self.name = name

    def is_compatible_with(self, value: Any) -> bool:
        """Whether a tensor (or another spec) has this dtype and fits this shape."""
        if value.dtype != self.dtype:
            return False
        if self.shape is None or value.shape is None:
            return True
        pairs = zip(self.shape, value.shape, strict=False)
        same_rank = len(self.shape) == len(value.shape)
        return same_rank and all(a is None or b is None or a == b for a, b in pairs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TensorSpec):
            return NotImplemented
        return (self.shape, self.dtype) == (other.shape, other.dtype)

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))

    def __repr__(self) -> str:
        return f"TensorSpec(shape={self.shape}, dtype={self.dtype.name!r}, name={self.name!r})"


class Function:
    """A function made by ``distgrad.function``; ``python_function`` is the one it was made from."""

    def __init__(
        self, python_function: Callable[..., Any], input_signature: Sequence[Any] | None = None
    ) -> None:
        if not callable(python_function):
            raise TypeError(f"function needs a callable, not {python_function!r}")
        functools.update_wrapper(self, python_function)
        self.python_function = python_function
        self.input_signature = None if input_signature is None else tuple(input_signature)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.input_signature is not None:
            args, kwargs = self._matched(args, kwargs), {}
        return self.python_function(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        return Function(self.python_function.__get__(instance, owner), self.input_signature)

    def _matched(self, args: tuple, kwargs: dict) -> tuple:
        """The arguments as tensors of the signature; TypeError where one does not fit."""
        assert self.input_signature is not None
        given = inspect.signature(self.python_function).bind(*args, **kwargs).args
        if len(given) != len(self.input_signature):
            raise TypeError(
                f"{self.__name__} takes {len(self.input_signature)} arguments by its "  # type: ignore[attr-defined]
                f"input_signature, got {len(given)}"
            )
        return tuple(map(_match, self.input_signature, given))

    def __repr__(self) -> str:
        return f"<distgrad.function {getattr(self.python_function, '__name__', '')}>"


def _match(spec: Any, value: Any) -> Any:
    if not isinstance(spec, TensorSpec):
        parts = zip(tree.flatten(spec), tree.flatten_up_to(spec, value), strict=True)
        return tree.pack_sequence_as(spec, [_match(s, v) for s, v in parts])
    if isinstance(value, Operand):
        found: Any = value
    else:
        try:
            found = as_tensor(value, dtype=spec.dtype)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{value!r} does not fit {spec}: {error}") from None
    if not spec.is_compatible_with(found):
        raise TypeError(f"a {found.dtype.name} tensor of shape {found.shape} does not fit {spec}")
    return found


def function(
    func: Callable[..., Any] | None = None,
    input_signature: Sequence[Any] | None = None,
    autograph: bool = True,
    jit_compile: bool | None = None,
    reduce_retracing: bool = False,
    experimental_implements: str | None = None,
    experimental_autograph_options: Any = None,
    experimental_attributes: dict | None = None,
    experimental_relax_shapes: bool | None = None,
    experimental_compile: bool | None = None,
    experimental_follow_type_hints: bool | None = None,
) -> Any:
    """Decorator for a function of tensors, with or without arguments (``tf.function``).

    With ``input_signature``, a sequence of TensorSpec or nests of them, arguments are converted to
    tensors and checked. The other options are hints to a compiler, and change nothing here.
    Raises TypeError where an argument does not fit the signature.
    """
    if func is None:
        return lambda f: Function(f, input_signature)
    return Function(func, input_signature)
