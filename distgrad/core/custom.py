"""custom_gradient: functions that bring a gradient of their own.

The function's outputs pass through the primitive ``custom_call``, so that tapes, captures and
every other recorder see one more operation like any other.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core import recording, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.indexed_slices import add
from distgrad.core.primitive import bind, primitive, registry, sample
from distgrad.core.reading import variable_of
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.variable import Variable, writers


@primitive(multiple=True, match=())
def custom_call(xp, *values, count, grad):
    """Copies of the first ``count`` values; ``grad`` gives the cotangents of the other ones."""
    return tuple(value.copy() for value in values[:count])


@custom_call.vjp("*")
def _(g, count, grad, needs, known):
    others = known[count:]
    needs = needs[count:]
    return [*_added(known[:count], g), *(grad(g, others, needs) if any(needs) else others)]


@custom_call.samples
def _(rng):
    def grad(g, known, needs):  # the other value does not enter the result
        return _added(known, [0 * g[0], None])

    yield sample(rng.normal(size=3), rng.normal(size=3), np.arange(2), count=1, grad=grad)


def custom_gradient(f: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Decorator for a function that returns ``(result, grad)`` (``tf.custom_gradient``).

    ``grad`` takes one upstream gradient per output, zeros where an output was not used, and
    returns one gradient per positional argument (a bare one for a single argument), None where
    there is none. Where the function reads or assigns variables that were made trainable and are
    not its arguments, ``grad`` must take ``variables=None``, a list in the order in which they were
    made, and return ``(argument_gradients, variable_gradients)``. Higher derivatives go through the
    operations inside ``grad``.

    Calling it raises TypeError for a ``grad`` without ``variables`` that needs it; the backward
    pass raises ValueError for a wrong number of gradients, or one of another shape or dtype.
    """
    return custom_gradient if f is None else own_gradient(f)


def own_gradient(f: Callable[..., Any], *, adds: bool = False) -> Callable[..., Any]:
    """`custom_gradient` of ``f``, whose ``grad`` may add to what is there.

    With ``adds`` it takes ``known`` beside ``variables``, the gradient so far of each argument and
    then of each variable, None where there is none, and returns what that becomes; its variables
    are those of which somebody wants the gradient.
    """

    @functools.wraps(f)
    def with_own_gradient(*args: Any, **kwargs: Any) -> Any:
        with _Uses() as uses:
            result, grad = f(*args, **kwargs)
        leaves = [variable_of(leaf) for leaf in tree.flatten(args)]
        given = [*leaves, *map(variable_of, tree.flatten(kwargs))]
        variables = [v for v in uses.variables() if not any(v is item for item in given)]
        if variables and not _takes_variables(grad):
            names = ", ".join(v.name for v in variables)
            raise TypeError(
                f"{_name(f)} reads variables ({names}): its grad must take variables=None and "
                "return (argument_gradients, variable_gradients)"
            )
        inputs = [as_tensor(a) if isinstance(a, Operand) else None for a in leaves]
        inputs += [v._read() for v in variables]
        used = [i for i, tensor in enumerate(inputs) if tensor is not None]
        tensors = [inputs[i] for i in used]
        # Without a past: the gradient goes through grad, not through the function's own steps.
        outputs = [bind(registry["stop_gradient"], as_tensor(r)) for r in tree.flatten(result)]
        rule = _Gradient(grad, _name(f), len(leaves), variables, used, tensors, adds)
        made = bind(custom_call, *outputs, *tensors, count=len(outputs), grad=rule)
        return tree.unflatten(result, made)

    return with_own_gradient


def grad_pass_through(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` with the gradient of the identity (``tf.grad_pass_through``).

    Each result needs the shape of the argument in its place; variables that ``f`` reads have no
    gradient.
    """

    @custom_gradient
    def passed_through(*args: Any, **kwargs: Any) -> Any:
        def grad(*upstream: Any, variables: Any = None) -> Any:
            return (upstream, [None] * len(variables)) if variables else upstream

        return f(*args, **kwargs), grad

    return functools.wraps(f)(passed_through)


class _Uses:
    """A recorder of the variables of this thread that are read or assigned, if made trainable."""

    def __enter__(self) -> _Uses:
        self._found: dict[int, Variable] = {}
        self._thread = threading.get_ident()
        recording.push(self)
        writers.append(self._written)
        return self

    def __exit__(self, *exc: object) -> None:
        writers.remove(self._written)
        recording.remove(self)

    def variables(self) -> list[Variable]:
        """Each once, in the order in which they were made."""
        return sorted(self._found.values(), key=lambda variable: variable._number)

    def record(self, primitive: Any, args: tuple, params: dict, out: Any) -> None:
        """Operations do not matter here."""

    def read_variable(self, variable: Variable, value: Tensor | None) -> None:
        if variable.trainable or variable.made_trainable:
            self._found[id(variable)] = variable

    def _written(self, variable: Variable) -> None:
        if threading.get_ident() == self._thread:
            self.read_variable(variable, None)


class _Gradient:
    """A user's ``grad``, as a rule that gives one checked cotangent per recorded input."""

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        count: int,
        variables: list[Variable],
        used: Sequence[int],
        tensors: Sequence[Any],
        adds: bool,
    ) -> None:
        self.adds = adds
        self.fn, self.name, self.count, self.variables = fn, name, count, variables
        self.used = used
        self.shapes = [t._data.shape for t in tensors]
        self.dtypes = [t._data.dtype for t in tensors]

    def __call__(self, upstream: tuple, known: list[Any], needs: Sequence[bool]) -> list[Any]:
        """One cotangent per recorded input, added to what is known of it."""
        slots, more = [*range(self.count + len(self.variables))], {}
        if self.adds:
            unasked = {i for i, need in zip(self.used, needs, strict=True) if not need}
            slots = [i for i in slots if i < self.count or i not in unasked]
            places = dict(zip(self.used, known, strict=True))
            more["known"] = [places.get(i) for i in slots]
        if variables := [self.variables[i - self.count] for i in slots[self.count :]]:
            of_args, of_variables = self.fn(*upstream, variables=variables, **more)
        else:
            of_args, of_variables = self.fn(*upstream, **more), []
        grads = self._counted(of_args, self.count, "arguments")
        grads += self._counted(of_variables, len(variables), "variables")
        found = dict(zip(slots, grads, strict=True))
        wanted = zip(self.used, self.shapes, self.dtypes, strict=True)
        made = [self._checked(found.get(i), shape, dtype) for i, shape, dtype in wanted]
        return made if self.adds else _added(known, made)

    def _counted(self, grads: Any, count: int, what: str) -> list[Any]:
        flat = tree.flatten(grads)
        if len(flat) != count:
            raise ValueError(
                f"the gradient of {self.name} returned {len(flat)} gradients for {count} {what}"
            )
        return flat

    def _checked(self, grad: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        if grad is None:
            return None
        tensor = grad if isinstance(grad, Operand) else as_tensor(grad, like=dtype)
        if tensor.dtype != dtype:
            raise ValueError(
                f"the gradient of {self.name} returned a {tensor.dtype.name} gradient for a "
                f"{dtype} input; use cast"
            )
        found = tuple(tensor.shape)
        if found == shape:
            return tensor if not isinstance(tensor, Variable) else as_tensor(tensor)
        try:
            whole = np.broadcast_shapes(found, shape)
        except ValueError:
            raise ValueError(
                f"the gradient of {self.name} returned shape {found} for an input of shape {shape}"
            ) from None
        return bind(registry["broadcast_to"], as_tensor(tensor), shape=whole)


def _added(known: Sequence[Any], found: Sequence[Any]) -> list[Any]:
    """The sums of cotangents, either of which may be None."""
    return [
        (b if a is None else a) if a is None or b is None else add(a, b)
        for a, b in zip(known, found, strict=True)
    ]


def _takes_variables(grad: Callable[..., Any]) -> bool:
    parameters = inspect.signature(grad).parameters.values()
    return any(p.name == "variables" or p.kind is p.VAR_KEYWORD for p in parameters)


def _name(f: Callable[..., Any]) -> str:
    return getattr(f, "__name__", repr(f))
