"""``distgrad.function``: a Python function under TensorFlow's decorator.

A function is captured as a program at the first call with arguments of a kind, and replayed from
then on: what Python alone does (a print, an append to a list) happens at that first call only, as
in TensorFlow. The program has the kernels of an eager run, and its bits; with ``jit_compile=True``
it is compiled, where llvmlite is installed, and rounds otherwise. What cannot be captured (Python's
``if``, ``for`` and ``while`` over values of tensors among it) runs as it is; with ``jit_compile``
after one warning that shows the line.

Under a tape a call runs by a program, too, and so does the way back through it, with the bits of an
eager run, compiled or not; under several tapes, other recorders, and on a GPU, it runs as it is.

As in TensorFlow, arrays among its arguments come in as tensors, Python numbers as they are, and
arrays and numbers among its results go out as tensors.
"""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from distgrad.core import devices, recording, timeline, tree
from distgrad.core.composite import Composite, Record, Static, unpacked
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_number
from distgrad.core.errors import SignatureError
from distgrad.core.gradients import Unrecorded, recorded
from distgrad.core.spec import TensorSpec
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import are_texts, as_strings, is_text
from distgrad.core.undone import assigned

if TYPE_CHECKING:  # loaded by the first function that is captured: most scripts capture none
    from distgrad.compile.captured import Captured, Run
    from distgrad.compile.executors import Name
    from distgrad.compile.program import Program
    from distgrad.compile.taped import Taped

Jit = bool | Literal["auto", "strict"]

run_eagerly = False  # what ``tf.config.run_functions_eagerly`` was last told

_RELAXED = 8  # times as many signatures, where it is said that shapes vary


class _Programs:
    """The captured form of one function, or of a method of ``owner``: copies have their own."""

    def __init__(self, owner: Any = None) -> None:
        self.owner = owner
        self.by_device: dict[str, Captured] = {}
        self.concrete: dict[Any, Function] = {}  # by what they are for

    def __deepcopy__(self, memo: dict) -> _Programs:
        return _Programs()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Programs, ()


class _Habits:
    """What a function was seen to do, as itself or as a method of any object."""

    called = False
    asks = False  # for gradients of what it did itself


class Function:
    """A function made by ``distgrad.function``; ``python_function`` is the one it was made from."""

    def __init__(
        self,
        python_function: Callable[..., Any],
        input_signature: Sequence[Any] | None = None,
        jit_compile: Jit | None = None,
        many_shapes: bool = False,
    ) -> None:
        if not callable(python_function):
            raise TypeError(f"function needs a callable, not {python_function!r}")
        functools.update_wrapper(self, python_function)
        self.python_function = python_function
        self._jit = jit_compile
        self._many_shapes = many_shapes or input_signature is not None
        self._programs: _Programs | None = _Programs()  # None: nowhere to keep them
        self._habits = _Habits()
        self._packs = False  # whether it has been given composite tensors, or has made some
        self.input_signature = None if input_signature is None else tuple(input_signature)
        for spec in tree.flatten(self.input_signature or ()):
            if not isinstance(spec, TensorSpec):
                raise TypeError(
                    f"an input_signature holds TensorSpecs and nests of them, not {spec!r}"
                )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.input_signature is not None:
            args, kwargs = self._matched(args, kwargs), {}
        texts = False
        for arg in args:
            if type(arg) is not Tensor:
                args = tree.map_structure(self._argument, args)
                texts = any(map(are_texts, tree.flatten(args)))
                break
        if kwargs:
            kwargs = tree.map_structure(self._argument, kwargs)
            texts = texts or any(map(are_texts, tree.flatten(kwargs)))
        if not self._habits.called:
            return self._first(args, kwargs, texts)
        try:
            return self._call(args, kwargs, texts)
        except Unrecorded as error:  # by arguments of another kind
            trial = error.undone and recording.per_thread.capture is None
            if self._habits.asks or not trial:
                raise
            self._habits.asks = True
            return self._call(args, kwargs, texts)

    def _first(self, args: tuple, kwargs: dict, texts: bool) -> Any:
        """The first call, in which the function may be found to ask for gradients of its own."""
        with assigned() as state:
            try:
                result = self._call(args, kwargs, texts)
            except Unrecorded:
                if self._habits.asks:
                    raise
                self._habits.asks = True
            else:
                self._habits.called = True
                return result
        state.undo()
        return self._first(args, kwargs, texts)

    def _call(self, args: tuple, kwargs: dict, texts: bool) -> Any:
        if run_eagerly or self._programs is None or (texts and not self._jit):
            result = self._run(*args, **kwargs)
        elif timeline.told is None:
            result = self._captured(self._programs).run(args, kwargs)
        else:
            with timeline.span(getattr(self, "__name__", "function")):
                result = self._captured(self._programs).run(args, kwargs)
        return _unpacked(result) if self._packs else result

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self._packs:
            args, kwargs = _unpacked(args), _unpacked(kwargs)
        if not self._habits.asks:
            return tree.map_structure(self._result, self.python_function(*args, **kwargs))
        with recorded():
            return tree.map_structure(self._result, self.python_function(*args, **kwargs))

    def _argument(self, value: Any) -> Any:
        """An array as a tensor, a composite tensor or a record as a nest; others as they are."""
        if isinstance(value, (Composite, Record)):
            self._packs = True
            return _packed(value)
        return _tensor(value)

    def _result(self, value: Any) -> Any:
        python = type(value) in (bool, int, float, complex)
        return as_tensor(value) if python or isinstance(value, Operand) else self._argument(value)

    def _captured(self, programs: _Programs) -> Captured:
        device = "GPU" if devices.on_gpu() else "CPU"
        try:
            return programs.by_device[device]
        except KeyError:
            from distgrad.compile.captured import BUDGET, Captured

            compiled = bool(self._jit) or device == "GPU"
            run = functools.update_wrapper(functools.partial(Function._run, self), self)
            budget = BUDGET * (_RELAXED if self._many_shapes else 1)
            made = programs.by_device[device] = Captured(
                run,
                strict=self._jit == "strict",
                quiet=not self._jit or self._jit == "auto",
                budget=budget,
                make_executor=_compiled if compiled else _replayed,
                in_parts=lambda: compiled and _best() != "numpy",
                under=None if device == "GPU" else _taped(run, budget),
            )
            return made

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        method = self.python_function.__get__(instance, owner)
        bound = Function(method, self.input_signature, self._jit, self._many_shapes)
        bound._habits = self._habits
        # Each access makes a method anew; its programs stay with the object.
        kept, key = getattr(instance, "__dict__", None), f"_programs_{id(self)}"
        if kept is None:
            bound._programs = None
            return bound
        found = kept.get(key)
        if found is None or found.owner is not instance:  # the object is a copy
            found = kept[key] = _Programs(instance)
        bound._programs = found
        return bound

    def experimental_get_tracing_count(self) -> int:
        """How often the function was traced, to be captured."""
        return sum(captured.traced for captured in self._devices())

    @property
    def executors(self) -> list[Any]:
        """Those of the programs that there are, of all devices."""
        return [executor for captured in self._devices() for executor in captured.executors]

    def _devices(self) -> list[Captured]:
        return [] if self._programs is None else list(self._programs.by_device.values())

    def get_concrete_function(self, *args: Any, **kwargs: Any) -> Function:
        """The function for arguments like these: tensors, specs, or Python values, which stay.

        It takes the tensors among them, or all of them, and raises a TypeError (and
        InvalidArgumentError) for another dtype or shape, or another Python value. Asked for again,
        it is the same object. Raises TypeError for arguments that the function does not take.
        """
        if self.input_signature is not None:
            if args or kwargs:
                self._matched(args, kwargs)
            return self
        from distgrad.compile.captured import describe

        signature = inspect.signature(self.python_function)
        bound = signature.bind(*args, **kwargs)
        bound.arguments = {k: tree.map_structure(_spec, v) for k, v in bound.arguments.items()}
        given = inspect.BoundArguments(signature, OrderedDict(bound.arguments))
        bound.apply_defaults()
        key = describe(dict(bound.arguments), [])
        known = {} if self._programs is None else self._programs.concrete
        if key not in known:
            known[key] = self._concrete(given)
        return known[key]

    def _concrete(self, bound: inspect.BoundArguments) -> Function:
        specs = _by_name(bound)

        def concrete(*tensors: Any, **named: Any) -> Any:
            free = [k for k, v in specs.items() if any(map(_is_spec, tree.flatten(v)))]
            order = free if len(tensors) <= len(free) else list(specs)
            given = dict(zip(order, tensors, strict=False)) | named
            if len(tensors) > len(order) or not set(free) <= set(given) <= set(specs):
                raise TypeError(f"{self!r} takes {free}, got {len(tensors)} and {list(named)}")
            matched = {k: _match(specs[k], v) for k, v in given.items()}
            values, count = list((specs | matched).values()), len(bound.args)
            return self(*values[:count], **dict(zip(bound.kwargs, values[count:], strict=True)))

        made = Function(functools.update_wrapper(concrete, self.python_function))
        made._programs = None  # they are this function's
        return made

    def _matched(self, args: tuple, kwargs: dict) -> tuple:
        """The arguments as tensors of the signature; TypeError where one does not fit."""
        assert self.input_signature is not None
        bound = inspect.signature(self.python_function).bind(*args, **kwargs)
        count = len(bound.args)
        bound.apply_defaults()
        given = bound.args[: len(self.input_signature)]
        if count > len(given) or len(given) < len(self.input_signature):
            raise TypeError(
                f"{self.__name__} takes {len(self.input_signature)} arguments by its "  # type: ignore[attr-defined]
                f"input_signature, got {count}"
            )
        return tuple(map(_match, self.input_signature, given))

    def __repr__(self) -> str:
        return f"<distgrad.function {getattr(self.python_function, '__name__', '')}>"


def _best() -> Name:
    from distgrad.compile import executors

    return executors.best()


def _compiled(program: Program, arrays: Sequence[Any]) -> Run:
    from distgrad.compile import executors, numpy_exec

    best = _best()
    if best == "numpy":
        return numpy_exec.replaying_executor(program, arrays)
    return executors.make(best, program, arrays)


def _taped(run: Callable[..., Any], budget: int) -> Taped:
    """Calls of ``run`` under a tape, by programs with the bits of an eager run."""
    from distgrad.compile.captured import Captured
    from distgrad.compile.taped import Taped

    def make(fn: Callable[..., Any]) -> Captured:
        return Captured(
            fn, quiet=True, budget=budget, make_executor=_replayed, in_parts=lambda: False
        )

    return Taped(run, make)


def _replayed(program: Program, arrays: Sequence[Any]) -> Run:
    from distgrad.compile.interpreter import Interpreter

    return Interpreter(program, arrays)


def _tensor(value: Any) -> Any:
    numeric = isinstance(value, (np.ndarray, np.generic)) and is_number(value.dtype)
    return as_tensor(value) if numeric else value


class Packed(tuple):
    """A composite tensor as a program has it: a tensor, and how it lies, which never changes."""


class PackedRecord(tuple):
    """A record as a program has it: its class, which never changes, and its fields."""


def _packed(value: Any) -> Any:
    """What goes into a nest of tensors for an argument, or for a field of one."""
    if isinstance(value, Composite):
        return Packed((value.kind, *value.packed()))
    if isinstance(value, Record):
        fields = {n: tree.map_structure(_packed, v) for n, v in value.fields().items()}
        return PackedRecord((Static(type(value)), fields))
    return value if isinstance(value, Operand) or are_texts(value) else Static(value)


def _unpacked(nest: Any) -> Any:
    """The nest with composite tensors and records again where they were packed."""
    if type(nest) is Static:
        return nest.value
    if type(nest) is PackedRecord:
        return nest[0].value.of_fields(_unpacked(nest[1]))
    if type(nest) is Packed:
        return unpacked(*nest)
    found = tree.sort(nest)
    if found == "sequence":
        return tree.like(nest, [_unpacked(item) for item in nest])
    if found == "mapping":
        return tree.like(nest, [(key, _unpacked(value)) for key, value in nest.items()])
    return nest


def _is_spec(value: Any) -> bool:
    return isinstance(value, TensorSpec)


def _spec(value: Any) -> Any:
    if isinstance(value, Composite):
        return value.spec
    value = _tensor(value)
    texts = isinstance(value, np.ndarray) and is_text(value)
    return TensorSpec.from_tensor(value) if texts or isinstance(value, Operand) else value


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments by name, in their order; those of ``*args`` are ``args_0`` and so on."""
    names: list[str] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{name}_{i}" for i in range(len(value))]
        else:
            names += list(value) if kind is inspect.Parameter.VAR_KEYWORD else [name]
    return dict(zip(names, (*bound.args, *bound.kwargs.values()), strict=True))


def _match(spec: Any, value: Any) -> Any:
    if not isinstance(spec, TensorSpec):
        if not tree.is_nested(spec):  # a Python value, which stays
            if value is not spec and value != spec:
                raise TypeError(f"a concrete function of {spec!r} was given {value!r} for it")
            return spec
        parts = zip(tree.flatten(spec), tree.flatten_up_to(spec, value), strict=True)
        return tree.pack_sequence_as(spec, [_match(s, v) for s, v in parts])
    if isinstance(value, (Operand, Composite)):
        found: Any = value
    elif is_text(value):
        found = as_strings(value)
    else:
        try:
            found = as_tensor(value, dtype=spec.dtype)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{value!r} does not fit {spec}: {error}") from None
    if not spec.is_compatible_with(found):
        kind = f"{found.kind} tensor" if isinstance(found, Composite) else "tensor"
        raise SignatureError(
            f"a {found.dtype.name} {kind} of shape {found.shape} does not fit {spec}"
        )
    return found


def function(
    func: Callable[..., Any] | None = None,
    input_signature: Sequence[Any] | None = None,
    autograph: bool = True,
    jit_compile: Jit | None = None,
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
    tensors and checked. With ``jit_compile=True`` (or ``experimental_compile``) the program of a
    call is compiled, and there is a warning where it runs eagerly; ``"strict"`` raises CaptureError
    in its place, ``"auto"`` says nothing. A program is made for each shape and dtype, and each
    value of what is no tensor, for 8 of them, or for 64 with ``reduce_retracing`` or an
    ``input_signature``; further ones run eagerly, as do those with texts of a dataset. The other
    options are hints to a compiler, and change nothing here. Raises TypeError where an argument
    does not fit the signature.
    """
    jit = experimental_compile if jit_compile is None else jit_compile
    many = bool(reduce_retracing or experimental_relax_shapes)
    if func is None:
        return lambda f: Function(f, input_signature, jit, many)
    return Function(func, input_signature, jit, many)
