"""GradientTape: records the primitives of one thread, and walks them backwards.

Entries lie in execution order, so the backward walk needs no recursion and no sorting. A tape
knows tensors by a number that is never reused, and keeps only what the rules of each primitive
ask for; dropped intermediates are freed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from distgrad.backend.heap import keep_freed
from distgrad.core import recording, timeline, tree
from distgrad.core.backward import (
    accumulate,
    backward,
    collect,
    emptying,
    path_from,
    telling,
    zeros,
    zeros_like,
)
from distgrad.core.composite import Composite, values_of
from distgrad.core.dtypes import INEXACT
from distgrad.core.indexed_slices import IndexedSlices, dense
from distgrad.core.plan import Plan
from distgrad.core.primitive import Primitive
from distgrad.core.reading import variable_of
from distgrad.core.targets import (
    differentiable,
    like_composite,
    number_of,
    one_hot_rows,
    seed_of,
    seeds_of,
    stacked,
)
from distgrad.core.tensor import Tensor, next_uid
from distgrad.core.variable import Variable


class UnconnectedGradients(enum.Enum):
    """What ``gradient`` gives for a source that the target does not depend on."""

    NONE = "none"
    ZERO = "zero"


class Entry(NamedTuple):
    """One recorded call: inputs are (uid, shape) as the plan keeps them, outputs uids."""

    plan: Plan
    inputs: tuple
    saved: tuple
    outputs: Any  # a uid, or a tuple of (uid, shape, dtype) for several outputs


class GradientTape:
    """Records operations for automatic differentiation (``tf.GradientTape``).

    A tape records the thread that entered it. ``persistent`` allows several gradients;
    ``watch_accessed_variables`` watches every trainable variable that is read, and the weights of
    frozen layers: a layer may train again by the time that their gradients are asked for.
    """

    _watches_frozen = True

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        self._persistent = persistent
        self._watch_accessed = watch_accessed_variables
        self._entries: list[Entry] | None = None  # None: never entered, or used up
        self._tracked: set[int] = set()
        self._roots: set[int] = set()  # those of what is watched, which no entry has made
        self._variables: dict[int, tuple[Variable, list[int]]] = {}
        self._has_blocks = False  # whether an entry is a block
        self._recording = False
        # Told each source's place and gradient as soon as that is final; for the training loop.
        self._told: Callable[[int, Any], None] | None = None
        # Where gradients may be written to, by the places of their sources; for that loop, too.
        self._buffers: Mapping[int, Any] = {}

    def __enter__(self) -> GradientTape:
        if self._recording:
            raise ValueError("this tape is recording already; it cannot be entered twice")
        if self._entries is None:
            self._forget()
        keep_freed()
        self._resume()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._recording:
            self._pause()

    def _forget(self) -> None:
        self._entries, self._tracked, self._variables = [], set(), {}
        self._roots = set()
        self._has_blocks = False

    def _resume(self) -> None:
        recording.push(self)
        self._recording = True

    def _pause(self) -> None:
        recording.remove(self)
        self._recording = False

    # What bind and the variables call.

    def record(self, primitive: Primitive, args: tuple, params: dict, out: Any) -> None:
        tracked = self._tracked
        if not tracked:
            return
        if len(args) == 2:  # without a loop: most operations have two arguments
            a, b = args
            mask = int(type(a) is Tensor and a._uid in tracked)
            if type(b) is Tensor and b._uid in tracked:
                mask += 2
        elif len(args) == 1:
            a = args[0]
            mask = int(type(a) is Tensor and a._uid in tracked)
        else:
            mask, bit = 0, 1
            for arg in args:
                if type(arg) is Tensor and arg._uid in tracked:
                    mask |= bit
                bit <<= 1
        if not mask:
            return
        plan = primitive.plans.get(mask) or primitive.plan(mask, len(args))
        if plan is None:
            return
        inputs, kept = plan.keep(args, out, params)
        outputs: Any
        if type(out) is Tensor:
            outputs = out._uid
            if not outputs:  # made by this thread a moment ago: no other one can number it
                outputs = out._uid = next_uid()
            tracked.add(outputs)
        else:
            outputs = tuple([self._track_output(tensor) for tensor in out])
        self._entries.append((plan, inputs, kept, outputs))  # type: ignore[union-attr, arg-type]

    def _track_output(self, tensor: Tensor) -> tuple[int, tuple, Any]:
        tensor._uid = tensor._uid or next_uid()
        if tensor._data.dtype.kind in INEXACT:
            self._tracked.add(tensor._uid)
        return tensor._uid, tensor._data.shape, tensor._data.dtype

    def read_variable(self, variable: Variable, value: Tensor) -> None:
        known = self._variables.get(id(variable))
        if known is None:
            if not self._follows(variable):
                return
            known = self._variables[id(variable)] = (variable, [])
        uid = value._uid  # which what a variable lends has from the start
        if uid not in self._tracked and value._data.dtype.kind in INEXACT:
            self._tracked.add(uid)
            self._roots.add(uid)
            known[1].append(uid)

    def _follows(self, variable: Variable) -> bool:
        """Whether this tape watches ``variable``, or will when it is read."""
        if id(variable) in self._variables:
            return True
        watched = variable.trainable or (variable.made_trainable and self._watches_frozen)
        return self._watch_accessed and watched

    def _record_block(self, entry: Any) -> None:
        """Takes the entry of a `Block`, whose inputs it follows."""
        self._tracked.update([uid for uid, _, _ in entry[3]])
        self._entries.append(entry)  # type: ignore[union-attr]
        self._has_blocks = True

    def watch(self, tensor: Any) -> None:
        """Watches a tensor or variable, or each one in a nest of them.

        Only operations that follow are recorded; a layer's variables are taken as well, where
        TensorFlow refuses those of Keras 3. Raises ValueError for anything else, RuntimeError on
        a tape that was never entered.
        """
        if self._entries is None:
            raise RuntimeError("watch needs a tape that has been entered: with GradientTape() as t")
        items = [values_of(variable_of(item)) for item in tree.flatten(tensor)]
        for item in items:
            if not isinstance(item, (Tensor, Variable)):
                raise ValueError(f"only tensors and variables can be watched, not {item!r}")
        for item in items:
            if item.dtype.numpy_dtype.kind not in INEXACT:
                import logging  # at its first use: it would double what this module takes to load

                log = logging.getLogger("distgrad")
                log.warning("a watched %s tensor has no gradient: it is None", item.dtype.name)
            if isinstance(item, Variable):
                self._variables.setdefault(id(item), (item, []))
            elif item._data.dtype.kind in INEXACT:
                self._tracked.add(number_of(item))
                self._roots.add(item._uid)

    def watched_variables(self) -> tuple[Variable, ...]:
        """The variables watched so far, in the order of their first access."""
        return tuple(variable for variable, _ in self._variables.values())

    @contextmanager
    def stop_recording(self) -> Any:
        """Context whose operations this tape does not see.

        As in TensorFlow, it changes nothing within a function that was called under the tape.
        Raises RuntimeError before the tape was entered, ValueError where it does not record.
        """
        if self._entries is None:
            raise RuntimeError("stop_recording needs a tape that has been entered")
        if not self._recording:
            raise ValueError("stop_recording needs a tape that is recording")
        if not any(recorder is self for recorder in recording.stack()):
            yield
            return
        self._pause()
        try:
            yield
        finally:
            if self._entries is not None:  # else a gradient inside has ended the recording
                self._resume()

    def reset(self) -> None:
        """Forgets all operations and watches; recording goes on. ValueError where it does not."""
        if not self._recording:
            raise ValueError("reset needs a tape that is recording")
        self._forget()

    @timeline.timed("gradient")
    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        unconnected_gradients: Any = UnconnectedGradients.NONE,
    ) -> Any:
        """The gradient of the sum of ``target`` with respect to each of ``sources``.

        The result has the structure of ``sources``; each leaf has the shape and dtype of its
        source, or is None where the target does not depend on it; a source that is only gathered
        from along its first axis gets IndexedSlices. ``output_gradients``, of the structure of
        ``target``, weigh its elements. Raises RuntimeError on a tape that was never entered, or on
        a second call where it is not persistent.
        """
        unconnected = unconnected_gradients
        if type(unconnected) is not UnconnectedGradients:
            unconnected = UnconnectedGradients(unconnected)
        self._check_entries()
        targets = differentiable(target, "target", (Tensor, Variable, IndexedSlices))
        given = tree.flatten(sources)
        wanted = differentiable(given, "source", (Tensor, Variable))
        seeds = seeds_of(target, len(targets), output_gradients)
        entries = self._take_entries()
        cotangents: dict[int, Any] = {}
        itself: dict[int, int] = {}  # a number for each source that is a target, too
        for tensor, seed in zip(targets, seeds, strict=True):
            if type(tensor) is IndexedSlices:
                seed, tensor = tensor._at(seed), tensor.values
            uid = self._target_uid(tensor)
            alone = not uid and any([source is tensor for source in wanted])
            if alone and tensor.dtype.numpy_dtype.kind in INEXACT:
                uid = itself[id(tensor)] = itself.get(id(tensor)) or next_uid()
            if uid:
                accumulate(cotangents, uid, seed_of(tensor, seed))
        groups = [self._source_uids(source, itself.get(id(source), 0)) for source in wanted]
        kept = {uid for group in groups for uid in group}
        path, reached = self._path(entries, kept)
        if path is not entries:
            entries.clear()
        # Any further reading of a variable is added to the first.
        places = {groups[i][0]: buffer for i, buffer in self._buffers.items() if groups[i]}
        if self._told is None:
            backward(emptying(path), reached, cotangents, kept, places)
            results = [collect(cotangents, group) for group in groups]
        else:
            results = [None] * len(groups)
            walk = telling(path, groups, cotangents, results, self._told)
            backward(walk, reached, cotangents, kept, places)
        if unconnected is UnconnectedGradients.ZERO:
            results = [
                zeros_like(source) if result is None else result
                for source, result in zip(wanted, results, strict=True)
            ]
        self._end()
        if any([isinstance(leaf, Composite) for leaf in given]):
            results = list(map(like_composite, given, results))
        return tree.unflatten(sources, results)

    def jacobian(
        self,
        target: Any,
        sources: Any,
        unconnected_gradients: Any = UnconnectedGradients.NONE,
        parallel_iterations: int | None = None,
        experimental_use_pfor: bool = True,
    ) -> Any:
        """The derivative of each element of ``target`` with respect to each of ``sources``.

        The result has the structure of ``sources``; each leaf has shape ``target.shape +
        source.shape``, or is None where the target does not depend on it. The cost is that of one
        gradient per element of the target. Raises RuntimeError as ``gradient`` does, and where
        ``experimental_use_pfor`` is False on a tape that is not persistent; AttributeError for a
        list of targets.
        """
        unconnected = UnconnectedGradients(unconnected_gradients)
        if not isinstance(target, (Tensor, Variable)):
            raise AttributeError(f"jacobian takes one tensor as its target, not {target!r}")
        seeds = one_hot_rows(target, tuple(target.shape))
        wanted, rows = self._rows(target, sources, seeds, experimental_use_pfor)
        zero = unconnected is UnconnectedGradients.ZERO
        results: list[Any] = []
        for source, grads in zip(wanted, rows, strict=True):
            shape = (*target.shape, *source.shape)
            if grads is None:
                results.append(zeros(shape, source) if zero else None)
            else:
                results.append(stacked(grads, 0, shape))
        return tree.unflatten(sources, results)

    def batch_jacobian(
        self,
        target: Any,
        source: Any,
        unconnected_gradients: Any = UnconnectedGradients.NONE,
        parallel_iterations: int | None = None,
        experimental_use_pfor: bool = True,
    ) -> Tensor:
        """The derivative of sample i of ``target`` with respect to sample i of ``source``.

        The result has shape ``(b, *target.shape[1:], *source.shape[1:])``, and is zeros where the
        target does not depend on the source, as in TensorFlow. It is right only where the samples
        do not depend on each other. The cost is that of one gradient per element of one sample.
        Raises ValueError where the first dimensions differ, IndexError for a scalar, and
        RuntimeError as ``jacobian`` does.
        """
        UnconnectedGradients(unconnected_gradients)
        shape, below = tuple(target.shape), tuple(source.shape)
        if not shape or not below:
            raise IndexError(f"batch_jacobian needs a batch axis; shapes are {shape} and {below}")
        if shape[0] != below[0]:
            raise ValueError(f"batch_jacobian: {shape[0]} samples in target, {below[0]} in source")
        seeds = one_hot_rows(target, shape[1:])
        _, (grads,) = self._rows(target, source, seeds, experimental_use_pfor)
        if grads is None:
            return zeros((*shape, *below[1:]), source)
        return stacked(grads, 1, (*shape, *below[1:]))

    def _rows(
        self, target: Any, sources: Any, seeds: Iterable[Tensor], vectorized: bool
    ) -> tuple[list[Any], list[Any]]:
        """The sources, and for each its gradient under every seed (None if none reaches it)."""
        self._check_entries()
        if not (vectorized or self._persistent):
            raise RuntimeError("without pfor a jacobian needs GradientTape(persistent=True)")
        wanted = differentiable(sources, "source", (Tensor, Variable))
        entries = self._take_entries()
        uid = self._target_uid(target)
        groups = [self._source_uids(source) for source in wanted]
        kept = {u for group in groups for u in group}
        path, reached = self._path(entries, kept)
        rows: list[Any] = [[] for _ in wanted]
        for seed in seeds if uid else ():
            cotangents: dict[int, Any] = {uid: seed}
            backward(reversed(path), reached, cotangents, kept)
            for row, group in zip(rows, groups, strict=True):
                row.append(dense(collect(cotangents, group)))
        if uid and not int(np.prod(target.shape)):  # no element, but a path if there is one
            rows = [[zeros_like(s)] if uid in reached else [] for s in wanted]
        self._end()
        for i, (source, row) in enumerate(zip(wanted, rows, strict=True)):
            if all(g is None for g in row):
                rows[i] = None
            else:
                rows[i] = [zeros_like(source) if g is None else g for g in row]
        return wanted, rows

    def _check_entries(self) -> None:
        if self._entries is None:
            raise RuntimeError(
                "a non-persistent GradientTape gives one set of gradients, after it was entered; "
                "use GradientTape(persistent=True) for more"
            )

    def _path(self, entries: list[Any], sources: set[int]) -> tuple[list[Any], set[int]]:
        """The entries that depend on a source, in order, and the numbers of all that does."""
        if self._roots <= sources:
            return entries, self._tracked
        return path_from(entries, sources)

    def _take_entries(self) -> list[Any]:
        """The entries for one walk; a tape that is not persistent gives them up and stops."""
        if self._recording and not self._persistent:
            self._pause()
        if self._has_blocks and recording.stack():  # who records the walk must know its tensors
            self._expand_blocks()
        entries = list(self._entries or ())
        if not self._persistent:
            self._entries = None
        return entries

    def _expand_blocks(self) -> None:
        """Puts the entries of the operations inside in the place of each block."""
        entries: list[Any] = []
        for entry in self._entries or ():
            block: Any = entry[0]
            if block.through is None:
                entries.append(entry)
                continue
            within, numbers = block.expanded(*entry[1:])
            entries += within
            self._tracked |= numbers
        self._entries, self._has_blocks = entries, False

    def _end(self) -> None:
        if not self._persistent:
            self._tracked = set()

    def _target_uid(self, target: Any) -> int:
        """The number of a target, 0 if this tape does not know it or it has no gradient."""
        if isinstance(target, Variable):
            known = self._variables.get(id(target))
            if known is None or target._buffer.dtype.kind not in INEXACT:
                return 0
            known[1].append(next_uid())  # stands for this reading of the variable
            return known[1][-1]
        return target._uid if target._uid in self._tracked else 0

    def _source_uids(self, source: Any, itself: int = 0) -> list[int]:
        """The numbers of a source: of each of its readings, or its own as a target."""
        if isinstance(source, Variable):
            known = self._variables.get(id(source))
            found = list(known[1]) if known else []
        else:
            found = [source._uid] if source._uid in self._tracked else []
        return [*found, itself] if itself else found


class TrainingTape(GradientTape):
    """The tape of a training loop, which asks for no gradients of what is frozen."""

    _watches_frozen = False
