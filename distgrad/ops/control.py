"""Control flow as functions: cond, while_loop, map_fn, scan and their kin.

Plain Python ``if``, ``for`` and ``while`` work on tensors as they are, on a tape too; these are
the same under TensorFlow's names, over nests of tensors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core import recording, tree
from distgrad.core.composite import (
    Composite,
    CompositeError,
    CompositeSpec,
    Record,
    takes_composites,
)
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import of_input, string
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import are_texts, as_strings, is_text
from distgrad.ops.shape import broadcast_to, stack, unstack
from distgrad.ops.tensor_array import TensorArray


def cond(
    pred: Any,
    true_fn: Callable[[], Any] | None = None,
    false_fn: Callable[[], Any] | None = None,
    name: str | None = None,
) -> Any:
    """``true_fn()`` if the scalar ``pred`` holds, else ``false_fn()``; only one of them runs.

    Raises TypeError where one of them is not callable, ValueError for a ``pred`` of several
    elements.
    """
    _check_callable("cond", true_fn=true_fn, false_fn=false_fn)
    return true_fn() if as_tensor(pred) else false_fn()  # type: ignore[misc]


def case(
    pred_fn_pairs: Sequence[tuple[Any, Callable[[], Any]]] | dict,
    default: Callable[[], Any] | None = None,
    exclusive: bool = False,
    strict: bool = False,
    name: str | None = None,
) -> Any:
    """The result of the first function whose predicate holds, else of ``default``.

    Raises InvalidArgumentError where none holds and there is no ``default``, or where several hold
    and ``exclusive`` is True (TensorFlow looks only outside of eager mode); TypeError for anything
    but pairs of a bool and a function.
    """
    if not isinstance(pred_fn_pairs, (list, tuple, dict)):
        raise TypeError(f"case takes a list of (predicate, function), not {pred_fn_pairs!r}")
    if default is not None:
        _check_callable("case", default=default)
    pairs = list(pred_fn_pairs.items() if isinstance(pred_fn_pairs, dict) else pred_fn_pairs)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"case takes pairs of a predicate and a function, not {pair!r}")
        _check_callable("case", fn=pair[1])
    true = []
    for i, (pred, fn) in enumerate(pairs):
        if not as_tensor(pred).dtype.is_bool:
            raise TypeError(f"case: a predicate is bool, not {pred!r}")
        if as_tensor(pred):
            true.append((i, fn))
            if not exclusive:
                break
    if len(true) > 1:
        raise InvalidArgumentError(f"case: predicates {[i for i, _ in true]} hold, but exclusive")
    if true:
        return true[0][1]()
    if default is None:
        raise InvalidArgumentError("case: no predicate holds, and there is no default")
    return default()


def switch_case(
    branch_index: Any,
    branch_fns: Any,
    default: Callable[[], Any] | None = None,
    name: str | None = None,
) -> Any:
    """The result of the function numbered ``branch_index``; of ``default`` for another number.

    ``branch_fns`` is a list of functions, of (int, function) pairs, or a dict; the numbers are 0 to
    n - 1. Without ``default`` the last function takes its place. Raises ValueError for no functions
    or other numbers, TypeError for an index that is not an integer scalar.
    """
    if isinstance(branch_fns, dict):
        pairs = list(branch_fns.items())
    else:
        fns = list(branch_fns)
        paired = bool(fns) and isinstance(fns[0], (tuple, list))
        pairs = [tuple(p) for p in fns] if paired else list(enumerate(fns))
    for key, fn in pairs:
        if not isinstance(key, (int, np.integer)):
            raise TypeError(f"switch_case: {key!r} is not an int")
        _check_callable("switch_case", branch=fn)
    branches = dict(pairs)
    if not pairs or sorted(key for key, _ in pairs) != list(range(len(pairs))):
        raise ValueError(f"switch_case needs functions numbered 0 to n - 1, not {sorted(branches)}")
    if default is not None:
        _check_callable("switch_case", default=default)
    fallback = branches[max(branches)] if default is None else default
    return branches.get(as_tensor(branch_index).__index__(), fallback)()


def while_loop(
    cond: Callable[..., Any],
    body: Callable[..., Any],
    loop_vars: Any,
    shape_invariants: Any = None,
    parallel_iterations: int = 10,
    back_prop: bool = True,
    swap_memory: bool = False,
    maximum_iterations: Any = None,
    name: str | None = None,
) -> Any:
    """Runs ``loop_vars = body(*loop_vars)`` while ``cond(*loop_vars)`` holds; gives the last ones.

    ``loop_vars`` is a list or tuple of nests of tensors, ragged and sparse ones among them, texts
    and TensorArrays; the result has its structure. Python's numbers among them become tensors at
    the end, and in a function that is captured at the start. Raises ValueError for no loop
    variables or a body that returns another structure, TypeError where ``cond`` or ``body`` is not
    callable or ``body`` returns no loop variables.
    """
    _check_callable("while_loop", cond=cond, body=body)
    if not isinstance(loop_vars, (list, tuple)):
        raise TypeError(f"while_loop takes its loop_vars as a list or tuple, not {loop_vars!r}")
    if not len(loop_vars):
        raise ValueError("while_loop needs at least one loop variable")
    ready = _loop_variable if recording.per_thread.capture is not None else _plain_or_tensor
    values = tree.map_structure(ready, loop_vars)
    limit = math.inf if maximum_iterations is None else int(maximum_iterations)
    done = 0
    while done < limit and as_tensor(cond(*values)):
        new = body(*values)
        if not isinstance(new, (list, tuple)):
            if new is None or len(loop_vars) > 1:
                raise TypeError(
                    f"while_loop: body must return {len(loop_vars)} values, not {new!r}"
                )
            new = [new]
        tree.assert_same_structure(list(values), list(new), check_types=False)
        values = tree.pack_sequence_as(loop_vars, map(ready, tree.flatten(new)))
        done += 1
    return tree.map_structure(_loop_variable, values)


def _plain_or_tensor(value: Any) -> Any:
    return value if type(value) in (bool, int, float) else _loop_variable(value)


def _loop_variable(value: Any) -> Any:
    kinds = (TensorArray, Composite, Record, SparseTensor)
    return value if isinstance(value, kinds) else _given(value)


@takes_composites
def map_fn(
    fn: Callable[[Any], Any],
    elems: Any,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    back_prop: bool = True,
    swap_memory: bool = False,
    infer_shape: bool = True,
    name: str | None = None,
    fn_output_signature: Any = None,
) -> Any:
    """``fn`` of each slice of ``elems`` along the first axis, the results stacked.

    ``elems`` is a tensor or a nest of tensors, or of texts, with one first dimension, ``fn`` takes
    a slice of that structure and may return another. Raises ValueError for scalars or first
    dimensions that differ; InvalidArgumentError for a result of another dtype than
    ``fn_output_signature``, and ValueError or TypeError for one of another structure.
    """
    _check_callable("map_fn", fn=fn)
    wanted = dtype if fn_output_signature is None else fn_output_signature
    if any(isinstance(spec, CompositeSpec) for spec in tree.flatten(wanted)):
        raise CompositeError("map_fn: no dense tensor is to be made")
    rows = _slices("map_fn", elems)
    if not rows:
        with recording.paused():
            return _none_of(_as_outputs(fn(_blank(elems)), wanted))
    return _stack([_as_outputs(fn(row), wanted) for row in rows])


def vectorized_map(
    fn: Callable[[Any], Any], elems: Any, fallback_to_while_loop: bool = True, warn: bool = True
) -> Any:
    """``fn`` of each slice of ``elems`` along the first axis, the results stacked.

    The same as ``map_fn``, slice by slice; a first dimension of 1 is repeated as needed.
    """
    leaves = [as_tensor(leaf) for leaf in tree.flatten(elems)]
    count = max((leaf._data.shape[0] for leaf in leaves if leaf._data.ndim), default=0)
    spread = [_repeated(leaf, count) for leaf in leaves]
    return map_fn(fn, tree.pack_sequence_as(elems, spread))


def scan(
    fn: Callable[[Any, Any], Any],
    elems: Any,
    initializer: Any = None,
    parallel_iterations: int = 10,
    back_prop: bool = True,
    swap_memory: bool = False,
    infer_shape: bool = True,
    reverse: bool = False,
    name: str | None = None,
) -> Any:
    """All running results of ``a = fn(a, slice)`` over the first axis of ``elems``, stacked.

    Without ``initializer`` the first slice is the first result. With ``reverse`` the slices are
    taken from the last to the first, and the results stay beside their slices. Raises ValueError
    for scalars, no slices, or a result of another structure than the one before.
    """
    state, results = _accumulate("scan", fn, elems, initializer, reverse)
    if not results:
        return _none_of(state)
    return _stack(results[::-1] if reverse else results)


def foldl(
    fn: Callable[[Any, Any], Any],
    elems: Any,
    initializer: Any = None,
    parallel_iterations: int = 10,
    back_prop: bool = True,
    swap_memory: bool = False,
    name: str | None = None,
) -> Any:
    """The last of ``a = fn(a, slice)`` over the first axis of ``elems``, first slice first."""
    return _accumulate("foldl", fn, elems, initializer, False)[0]


def foldr(
    fn: Callable[[Any, Any], Any],
    elems: Any,
    initializer: Any = None,
    parallel_iterations: int = 10,
    back_prop: bool = True,
    swap_memory: bool = False,
    name: str | None = None,
) -> Any:
    """The last of ``a = fn(a, slice)`` over the first axis of ``elems``, last slice first."""
    return _accumulate("foldr", fn, elems, initializer, True)[0]


def py_function(
    func: Callable[..., Any] | None = None, inp: Any = None, Tout: Any = None, name: Any = None
) -> Any:
    """``func(*inp)`` on tensors, its results as tensors of the dtypes ``Tout``; differentiable.

    ``@py_function(Tout=...)`` makes a function that does so with its arguments.

    Raises ValueError for results of another number, InvalidArgumentError for another dtype.
    """
    if func is None:
        return _decorator(py_function, Tout)
    recording.refuse("py_function")
    return _typed("py_function", func(*map(_given, inp or ())), Tout)


def numpy_function(
    func: Callable[..., Any] | None = None,
    inp: Any = None,
    Tout: Any = None,
    stateful: bool = True,
    name: str | None = None,
) -> Any:
    """``func(*inp)`` on arrays, its results as tensors of the dtypes ``Tout``; no gradient.

    ``@numpy_function(Tout=...)`` makes a function that does so with its arguments.

    Raises ValueError for results of another number. Arrays are cast to ``Tout``.
    """
    if func is None:
        return _decorator(numpy_function, Tout)
    recording.refuse("numpy_function")
    return _typed("numpy_function", func(*[_given(value).numpy() for value in inp or ()]), Tout)


def _decorator(called: Callable[..., Any], dtypes: Any) -> Callable[..., Any]:
    def decorator(func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def outer(*args: Any, **kwargs: Any) -> Any:
            return called(functools.partial(func, **kwargs), args, dtypes)

        return outer

    return decorator


def _typed(name: str, results: Any, dtypes: Any) -> Any:
    if dtypes is None:
        return results
    if not tree.is_nested(dtypes):
        return _of_dtype(name, results, dtypes)
    if not dtypes:
        return []
    found = list(results) if isinstance(results, (list, tuple)) else [results]
    if len(found) != len(dtypes):
        raise ValueError(f"{name}: {len(found)} results for {len(dtypes)} dtypes")
    return [_of_dtype(name, r, d) for r, d in zip(found, dtypes, strict=True)]


def _given(value: Any) -> Any:
    """A value as Python gets it: a tensor, or texts, which have ``numpy()``, too."""
    return as_strings(value) if is_text(value) else as_tensor(value)


def _of_dtype(name: str, value: Any, dtype: Any) -> Any:
    spec = None if isinstance(dtype, type) else getattr(dtype, "dtype", None)
    wanted = of_input(spec or dtype)
    if wanted is string:
        return as_strings(value)
    if isinstance(value, Operand) and value.dtype != wanted:
        raise InvalidArgumentError(
            f"{name}: the function returned {value.dtype.name}, not {wanted.name}; use cast"
        )
    return as_tensor(value, dtype=wanted)


def _check_callable(name: str, **functions: Any) -> None:
    for argument, fn in functions.items():
        if not callable(fn):
            raise TypeError(f"{name}: {argument} must be callable, not {fn!r}")


def _slices(name: str, elems: Any) -> list[Any]:
    """The slices of a nest of tensors, or of texts, along the first axis, each a nest."""
    leaves = [_given(leaf) for leaf in tree.flatten(elems)]
    if not leaves or any(not len(leaf.shape) for leaf in leaves):
        raise ValueError(f"{name} takes tensors with a first axis, not scalars or nothing")
    counts = {leaf.shape[0] for leaf in leaves}
    if len(counts) != 1:
        raise ValueError(f"{name}: the first dimensions differ: {sorted(counts)}")
    rows = zip(*(list(leaf) if is_text(leaf) else unstack(leaf) for leaf in leaves), strict=True)
    return [tree.pack_sequence_as(elems, row) for row in rows]


def _stack(rows: list[Any]) -> Any:
    """A nest of stacked tensors from nests of one structure."""
    columns = zip(*map(tree.flatten, rows), strict=True)
    return tree.pack_sequence_as(rows[0], [stack(list(column)) for column in columns])


def _as_outputs(result: Any, dtypes: Any) -> Any:
    if dtypes is None:
        return tree.map_structure(lambda v: v if are_texts(v) else as_tensor(v), result)
    return tree.map_structure(lambda leaf, dtype: _of_dtype("map_fn", leaf, dtype), result, dtypes)


def _blank(elems: Any) -> Any:
    """One slice of zeros, to learn what ``fn`` would give where there is no slice."""
    return tree.map_structure(
        lambda x: Tensor(np.zeros(as_tensor(x)._data.shape[1:], as_tensor(x)._data.dtype)), elems
    )


def _none_of(row: Any) -> Any:
    """What stacking no rows like this one gives."""
    return tree.map_structure(lambda t: Tensor(np.zeros((0, *t._data.shape), t._data.dtype)), row)


def _repeated(leaf: Tensor, count: int) -> Tensor:
    if not leaf._data.ndim or leaf._data.shape[0] != 1 or count == 1:
        return leaf
    return broadcast_to(leaf, shape=(count, *leaf._data.shape[1:]))


def _accumulate(
    name: str, fn: Any, elems: Any, initializer: Any, reverse: bool
) -> tuple[Any, list[Any]]:
    """The last result of ``fn``, and all of them in the order in which they were made."""
    _check_callable(name, fn=fn)
    rows = _slices(name, elems)
    if reverse:
        rows.reverse()
    results = []
    if initializer is not None:
        state = tree.map_structure(as_tensor, initializer)
    elif rows:
        state = rows.pop(0)
        results.append(state)
    else:
        raise ValueError(f"{name} over no slices needs an initializer")
    for row in rows:
        new = fn(state, row)
        tree.assert_same_structure(state, new, check_types=False)
        state = tree.map_structure(as_tensor, new)
        results.append(state)
    return state, results
