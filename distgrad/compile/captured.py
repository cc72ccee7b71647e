"""A function's programs: one per signature of its arguments, made at the first call with it."""

from __future__ import annotations

import inspect
import itertools
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from distgrad.backend.sent import Sent
from distgrad.compile.capture import trace
from distgrad.compile.numpy_exec import numpy_executor
from distgrad.compile.program import Program
from distgrad.compile.traced import Fallback
from distgrad.core import dispatch, recording, tree
from distgrad.core.block import Block
from distgrad.core.composite import Static
from distgrad.core.errors import ScopeError
from distgrad.core.scope import OutOfScope
from distgrad.core.spec import TensorSpec
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable

Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]  # a program, on the arrays of a call

_NEW: Any = object()  # in place of the program of a signature that has not come before

BUDGET = 8  # signatures of one function, before new ones run eagerly


class CaptureError(RuntimeError):
    """A function that was to be captured cannot be; it names the line or argument at fault."""


class Recorded(Protocol):
    """Who makes the calls of a function that somebody records."""

    @property
    def traced(self) -> int:
        """How often it traced the function."""

    def run(self, args: tuple, kwargs: dict) -> Any:
        """A call with these arguments."""


class Captured:
    """Runs ``fn`` by its programs; a call that cannot be captured runs eagerly.

    ``fn`` gives nests of tensors, None and text. What was sent to a device ahead (`Sent`) may stand
    for a tensor, if ``fn`` takes that, too, in an eager run. A fall back to eager warns once with
    the user's line, raises CaptureError where ``strict``, and is no matter where ``quiet``, unless
    programs were made in vain. ``make_executor`` is given a program and the arrays of a call, the
    program ``in_parts`` or with the operations of an eager run. Calls under a tape, or another
    recorder, are eager, or left to ``under``.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        strict: bool = False,
        quiet: bool = False,
        budget: int = BUDGET,
        make_executor: Callable[[Program, Sequence[np.ndarray]], Run] = numpy_executor,
        in_parts: Callable[[], bool] = lambda: True,
        under: Recorded | None = None,
    ) -> None:
        self._fn = fn
        self._under = under
        self._name = getattr(fn, "__name__", "function")
        self._strict = strict
        self._quiet = quiet
        self._budget = budget
        self._make_executor = make_executor
        self._in_parts = in_parts
        self._known: dict[Any, _Replay | None] = {}  # None: this signature runs eagerly
        self._kept: list[Any] = []  # objects among arguments: a signature holds their identity
        self._traced = 0
        self._warned = False
        self._creating = 0
        self._reason = "it makes variables at each call"  # of the latest signature without program
        self._latest: dict[str, str] = {}  # arguments of the latest new signature, as shown

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(args, kwargs)

    def run(self, args: tuple, kwargs: dict) -> Any:
        """A call with these arguments."""
        if recording.active and recording.per_thread.stack:  # a tape, or a capture, wants to see
            return (
                self._fn(*args, **kwargs) if self._under is None else self._under.run(args, kwargs)
            )
        arrays: list[np.ndarray] = []
        try:
            key: Any = None if kwargs else _described(args, arrays)
            if key is None:
                key = describe((args, kwargs), arrays)
            replay = self._known.get(key, _NEW)
        except ScopeError:
            raise
        except TypeError as error:  # a set, a slice of IndexedSlices, an array of another backend
            return self._eagerly(f"an argument has no signature ({error})", args, kwargs)
        if replay is None:
            return self._fn(*args, **kwargs)
        if replay is _NEW:
            return self._first(key, arrays, args, kwargs)
        return replay.run(arrays)

    def _first(self, key: Any, arrays: list, args: tuple, kwargs: dict) -> Any:
        before, self._latest = self._latest, self._arguments(args, kwargs)
        if len(self._known) >= self._budget:
            if not self.executors:
                return self._eagerly(self._reason, args, kwargs)
            return self._eagerly(
                f"it was captured for {self._budget} signatures already: {self._changed(before)} "
                "changes; give arguments of few shapes, and numbers that change as tensors",
                args,
                kwargs,
                in_vain=True,
            )
        leaves = tree.flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if type(leaf) in (Tensor, Sent)]
        arrays = [array.there if type(array) is Sent else array for array in arrays]

        def run(*tensors: Tensor) -> Any:
            filled = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                filled[place] = tensor
            given, named = tree.unflatten((args, kwargs), filled)
            return self._fn(*given, **named)

        self._traced += 1
        try:
            # Other processes may be given another shape, or fall back: they are not waited for.
            with recording.rehearsal() as alone:
                in_parts = self._in_parts()
                program, result, reason = trace(
                    run,
                    arrays,
                    self._name,
                    in_parts,
                    alone.end,
                    goes_on=not in_parts and not self._strict,  # an eager run has the same bits
                    check=_check_result,
                    forgets=True,
                )
            if reason is not None:  # a call like any other, too, and so will the next ones be
                self._known[key], self._reason = None, reason
                self._say(reason, self._quiet)
                return result
            if program is None:  # variables were made: this was a call like any other
                self._creating += 1
                if self._creating > 1:
                    self._say(self._reason, self._quiet)
                    self._known[key] = None
                return result
            with recording.rehearsal():
                replay = _Replay(program, result, arrays, self._make_executor)
        except Fallback as fallback:
            if fallback.once and not self._creating:
                self._creating += 1
                return self._fn(*args, **kwargs)
            self._known[key] = None
            self._reason = fallback.reason
            return self._eagerly(fallback.reason, args, kwargs)
        self._known[key] = replay
        self._kept += [leaf for leaf in leaves if type(leaf) not in (Tensor, Sent)]
        return replay.run(arrays)

    def _eagerly(self, reason: str, args: tuple, kwargs: dict, in_vain: bool = False) -> Any:
        self._say(reason, self._quiet and not in_vain)
        return self._fn(*args, **kwargs)

    def _say(self, reason: str, quiet: bool) -> None:
        if self._strict:
            raise CaptureError(f"{self._name} cannot be captured: {reason}")
        if not self._warned and not quiet:
            self._warned = True
            warn(f"{self._name} runs eagerly: {reason}")

    def _changed(self, before: dict[str, str]) -> str:
        """The argument by which the latest call differs from the one before, and how."""
        for name, now in self._latest.items():
            was = before.get(name)
            if was != now:
                return f"argument {name!r} ({was}, now {now})"
        return "an argument"

    def _arguments(self, args: tuple, kwargs: dict) -> dict[str, str]:
        try:
            given = inspect.signature(self._fn).bind(*args, **kwargs).arguments
        except (TypeError, ValueError):
            given = {**{str(i): v for i, v in enumerate(args)}, **kwargs}
        return {name: _shown(value) for name, value in given.items()}

    @property
    def traced(self) -> int:
        """How often the function was."""
        return self._traced + (0 if self._under is None else self._under.traced)

    @property
    def executors(self) -> list[Any]:
        """Those of the signatures captured so far, in order."""
        return [replay.executor for replay in self._known.values() if replay is not None]


class _Replay:
    """A program, and the structure of what it gives."""

    def __init__(
        self, program: Program, result: Any, arrays: Sequence[np.ndarray], make_executor: Any
    ) -> None:
        self._result = _result_of(result)
        try:
            self.executor: Run = make_executor(program, arrays)
        except Exception as error:
            raise Fallback(f"its program cannot be laid out ({error})") from error
        for leaf in tree.flatten(result):
            if type(leaf) is Block:
                self.executor.lend(leaf.others)

    def run(self, arrays: Sequence[np.ndarray]) -> Any:
        return self._result(self.executor(arrays))


def _result_of(result: Any) -> Callable[[list], Any]:
    """What makes a nest like ``result`` of arrays for its tensors."""
    kept: list[Any] = []
    places = itertools.count()

    def keep(item: Any) -> str:
        kept.append(item)
        return f"kept[{len(kept) - 1}]"

    def text(nest: Any) -> str:
        found, kind = tree.sort(nest), type(nest)
        if kind is Tensor:
            return f"Tensor(made[{next(places)}])"
        if not found:
            return keep(nest)
        if found == "sequence":
            items = ", ".join(map(text, nest))
            if kind in (list, tuple):
                return f"[{items}]" if kind is list else f"({items},)" if items else "()"
        else:
            parts = {key: text(nest[key]) for key in tree.keys(nest)}
            items = ", ".join(f"({keep(key)}, {parts[key]})" for key in nest)
        # The nest itself would keep what was computed alive.
        return f"like({keep(tree.map_structure(lambda leaf: None, nest))}, [{items}])"

    # One generated expression, as a loop would take longer than a small program.
    space = {"kept": kept, "Tensor": Tensor, "like": tree.like}
    return eval(f"lambda made: {text(result)}", space)


def _check_result(result: Any) -> None:
    """Raises Fallback for a result that a program cannot give."""
    for leaf in tree.flatten(result):
        if not (leaf is None or isinstance(leaf, (Tensor, str, bytes, Static, Block))):
            raise Fallback(f"it returns a {type(leaf).__name__}, which is no nest of tensors")


def _described(args: tuple, arrays: list[np.ndarray]) -> Any:
    """``describe`` for tensors alone, as most calls are; None for other arguments."""
    key: list[Any] = []
    for item in args:
        if type(item) is not Tensor or item._lender is not None:
            break
        array = item._data
        if type(array) is not np.ndarray and not _is_here(array):
            break
        arrays.append(array)
        key.append(array.shape)
        key.append(array.dtype)
    else:
        return tuple(key)
    arrays.clear()
    return None


def describe(item: Any, arrays: list[np.ndarray]) -> Any:
    """What a program depends on, hashable; the arrays of tensors go to ``arrays``, in order.

    Raises TypeError for what has no such description.
    """
    kind = type(item)
    if kind is Tensor:
        array = item._data
        if type(array) is OutOfScope:
            array.refuse()
        if not _is_here(array):
            raise TypeError(f"a {type(array).__name__}")
        if item._lender is not None:  # a variable, which the program may write
            array = array.copy()
        arrays.append(array)
        return array.shape, array.dtype
    if kind in (list, tuple):
        return (kind, *[describe(part, arrays) for part in item])
    if isinstance(item, Mapping):
        keys = sorted(item)  # as tree.flatten orders them
        parts = {key: describe(item[key], arrays) for key in keys}
        return (kind, *[(key, parts[key]) for key in item])
    if isinstance(item, (list, tuple)):
        return (kind, *[describe(part, arrays) for part in item])
    if isinstance(item, Operand) and not isinstance(item, Variable):
        raise TypeError(kind.__name__)
    if kind is Sent:
        arrays.append(item)
        return item.shape, item.dtype
    if kind is np.ndarray or getattr(kind, "of_one_call", False):  # text, what replicas have
        raise TypeError(kind.__name__)
    if kind is TensorSpec:
        return kind, item.shape, item.dtype
    if kind is Static:
        return kind, type(item.value), item.value
    if item is None or kind in (bool, int, float, complex, str, bytes):
        return kind, repr(item)
    return kind, id(item)


def _is_here(array: Any) -> bool:
    """Whether programs of this thread take it: those for a GPU take arrays of the host as well."""
    return type(array) is np.ndarray or type(array) is dispatch.current().array_type


def _shown(value: Any) -> str:
    def one(leaf: Any) -> Any:
        if isinstance(leaf, Operand):
            return f"{leaf.dtype.name}{list(leaf.shape)}"
        return reprlib.repr(leaf)

    leaves = [one(leaf) for leaf in tree.flatten(value)]
    return leaves[0] if len(leaves) == 1 else f"[{', '.join(leaves)}]"
