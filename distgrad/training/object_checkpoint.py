"""Checkpoint: the variables of objects in a folder, and back (``tf.train.Checkpoint``).

A checkpoint is a commit: a folder with the arrays in safetensors and a manifest with checksums,
whole or not there. Every rank calls the same methods; rank 0 writes, and the others wait for that
where they read what they have saved.
"""

from __future__ import annotations

import re
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distgrad.core import files, recording
from distgrad.core.errors import InvalidArgumentError, NotFoundError
from distgrad.core.place import Place
from distgrad.core.shapes import TensorShape
from distgrad.core.undone import kept
from distgrad.core.variable import Variable
from distgrad.training import checkpoint, objects, world

_COUNTER = "save_counter"


class Checkpoint:
    """Saves and restores the variables of ``root`` and of the objects given by name.

    Objects are variables, modules, layers, models, optimizers, metrics, random generators,
    iterators of datasets, other checkpoints, and lists, tuples and dicts of them. ``root`` may be
    a weak reference. Those given by name are attributes; ``save_counter`` counts the calls of
    ``save``. A list or dict that becomes an attribute where values wait for their variables is
    copied, so that what is put into it gets its value at once. Raises ValueError for anything else,
    and for a name that ``root`` has for another.
    """

    _save_counter: Variable | None = None

    def __init__(self, root: Any = None, **kwargs: Any) -> None:
        self._root = root
        root = self._held()
        for name, value in (*([] if root is None else [("root", root)]), *kwargs.items()):
            empty = isinstance(value, (list, tuple, dict)) and not value
            if not empty and not objects.is_tracked(value):
                raise ValueError(
                    f"{name}={value!r} cannot be checkpointed: it holds no variables. Give a "
                    "variable, module, layer, model, optimizer, generator or iterator of a "
                    "dataset, or a list or dict of them."
                )
        taken = {} if root is None else dict(objects.children(root))
        for name, value in kwargs.items():
            if taken.get(name, value) is not value:
                raise ValueError(
                    f"{name}={value!r}: the root has another {name!r}, {taken[name]!r}"
                )
            setattr(self, name, value)

    def _held(self) -> Any:
        """The root, which is None where it was but lent, and is gone."""
        return self._root() if isinstance(self._root, weakref.ref) else self._root

    @property
    def save_counter(self) -> Variable:
        """A variable, which only the checkpoint has that is saved or restored, no part of it."""
        return self._counted()

    def _counted(self) -> Variable:
        if self._save_counter is None:
            self._save_counter = Variable(0, dtype="int64", trainable=False, name=_COUNTER)
        return self._save_counter

    def __setattr__(self, name: str, value: Any) -> None:
        waits = "_when_built" in self.__dict__
        super().__setattr__(name, objects.telling(value, self._tell) if waits else value)
        self._tell()

    def _tell(self) -> None:
        for callback in self.__dict__.get("_when_built", ()):
            callback()

    def checkpointed(self) -> Iterator[tuple[str, Any]]:
        """What is saved, by name."""
        if (root := self._held()) is not None:
            yield "", root
        for name, value in vars(self).items():
            if name[0] != "_" and objects.is_tracked(value):
                yield name, value
        if self._save_counter is not None:
            yield _COUNTER, self._save_counter

    def write(self, file_prefix: Any, options: Any = None) -> str:
        """Saves into the folder ``file_prefix``, in place of what is there; returns it."""
        path = Path(file_prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        if world.communicator().rank:
            _expect(path, (path / checkpoint.MANIFEST).exists)
        else:
            keys: dict[int, str] = {}
            paths, arrays = {}, {}
            for name, variable in objects.variables(self).items():
                paths[name] = keys.setdefault(id(variable), name)
                arrays[paths[name]] = np.asarray(variable.numpy())
            count = 0 if self._save_counter is None else int(self._save_counter)
            checkpoint.commit(path, count, {"variables": arrays}, {"paths": paths})
        return str(file_prefix)

    def save(self, file_prefix: Any, options: Any = None) -> str:
        """Saves into ``PREFIX-N`` for the N-th call, as the latest in its folder; returns that."""
        self.save_counter.assign_add(1)
        path = self.write(f"{file_prefix}-{int(self.save_counter)}")
        write_state(Path(path).parent, State(path, [path], [], 0.0))
        return path

    def restore(self, save_path: Any, options: Any = None) -> Status:
        """Reads a checkpoint; what has yet to be made (a layer's weights, an optimizer's state)
        gets its value then. None restores nothing.

        Raises NotFoundError where there is none, DataError for one that is damaged, and
        InvalidArgumentError (a ValueError) where a variable has another shape or dtype; nothing is
        changed then.
        """
        self._counted()
        return Status(self, None if save_path is None else Path(save_path))

    read = restore

    def sync(self) -> None:
        """Nothing: what was saved is on disk."""


class Status:
    """What has become of the values of a checkpoint, and of the variables."""

    def __init__(self, root: Checkpoint, path: Path | None) -> None:
        self._root, self._path = root, path
        self._waiting: set[int] = set()
        self._assigned: dict[int, Variable | Place] = {}
        self._used: set[str] = set()  # keys of the arrays
        self._keys: dict[str, str] = {}
        if path is None:
            return
        _await(path)
        if not (path / checkpoint.MANIFEST).exists():
            raise NotFoundError(f"there is no checkpoint {str(path)!r}")
        found = checkpoint.load(path)
        if "paths" not in found.state:
            raise ValueError(f"{str(path)!r} is the checkpoint of a job, not one of objects")
        self._keys, self._arrays = found.state["paths"], found.arrays["variables"]
        self._match()

    def _more(self) -> None:
        if self._unused():
            self._match()

    def _match(self) -> None:
        """Gives the variables that there are by now their values."""
        pairs = []
        for name, variable in objects.variables(self._root).items():
            key = self._keys.get(name)
            if key is None:
                continue
            self._used.add(key)
            if id(variable) not in self._assigned:
                pairs.append((name, variable, self._arrays[key]))
        for name, variable, value in pairs:
            fits = TensorShape(variable.shape).is_compatible_with(value.shape)
            if not fits or value.dtype != variable.dtype.numpy_dtype:
                raise InvalidArgumentError(
                    f"{str(self._path)!r} has {name!r} as {value.dtype}{list(value.shape)}, the "
                    f"variable is {variable.dtype.name}{list(variable.shape)}"
                )
        with recording.paused():
            for _, variable, value in pairs:
                with kept():  # also where its layer is made in a trial of a model
                    variable.assign(value)
                self._assigned[id(variable)] = variable
        if self._unused():
            for item in objects.unbuilt(self._root):
                if id(item) not in self._waiting:
                    self._waiting.add(id(item))
                    objects.when_built(item, self._more)

    def _unused(self) -> list[str]:
        return sorted(set(self._keys.values()) - self._used - {_COUNTER})

    def _unmatched(self) -> list[str]:
        found = objects.variables(self._root)
        return [n for n, v in found.items() if id(v) not in self._assigned and n != _COUNTER]

    def _assert(self, *lists: tuple[str, list[str]]) -> Status:
        if self._path is None:
            raise AssertionError("no checkpoint was given (save_path=None): nothing was restored")
        for words, names in lists:
            if names:
                raise AssertionError(f"{str(self._path)!r}: {words}: {', '.join(names)}")
        return self

    def assert_consumed(self) -> Status:
        """Raises AssertionError unless all values and all variables have found each other."""
        return self._assert(
            ("no variable (yet) for these values", self._unused()),
            ("no value for these variables", self._unmatched()),
        )

    def assert_existing_objects_matched(self) -> Status:
        """Raises AssertionError where a variable that there is has found no value."""
        return self._assert(("no value for these variables", self._unmatched()))

    def assert_nontrivial_match(self) -> Status:
        """Raises AssertionError where no variable has found a value."""
        nothing = [] if self._used - {_COUNTER} else sorted({*self._keys} - {_COUNTER})
        return self._assert(("no variable for any of these values", nothing))

    def expect_partial(self) -> Status:
        """Nothing: values without a variable are not warned of anyway."""
        return self

    def initialize_or_restore(self, session: Any = None) -> None:
        """Nothing: it has been restored."""

    run_restore_ops = initialize_or_restore


# What this rank, which is not rank 0, has saved and not read yet: how to tell that it is there.
_coming: dict[Path, Callable[[], bool]] = {}
_KEPT = 8
_LOOK = 0.01  # seconds


def _expect(path: Path, there: Callable[[], bool]) -> None:
    _coming[path.absolute()] = there
    if len(_coming) > _KEPT:
        del _coming[next(iter(_coming))]


def _await(path: Path) -> None:
    """Returns when rank 0 has written a checkpoint, or the state of a folder, that is coming."""
    communicator = world.communicator()
    if communicator.rank and (there := _coming.pop(path.absolute(), None)):
        end = time.monotonic() + communicator.timeout
        while not there() and time.monotonic() < end:
            time.sleep(_LOOK)


class CheckpointOptions:
    """TensorFlow's settings of how files are written, which scripts may give: none is asked for."""

    def __init__(self, **settings: Any) -> None:
        vars(self).update(settings)


# The file that says which checkpoint is the latest of a folder, in TensorFlow's words.


class State(NamedTuple):
    """The checkpoints of a folder, the oldest first, as paths; ``times`` are when they came."""

    model_checkpoint_path: str
    all_model_checkpoint_paths: list[str]
    times: list[float]
    last_preserved: float


def write_state(folder: Path, state: State) -> None:
    """Writes the file ``checkpoint`` of ``folder``, on rank 0."""
    if world.communicator().rank:
        _expect(folder, lambda: _has_come_to(folder, state.model_checkpoint_path))
        return

    def within(path: str) -> str:
        return Path(path).name if Path(path).parent == folder else str(Path(path).absolute())

    latest, paths = state.model_checkpoint_path, state.all_model_checkpoint_paths
    lines = [f'model_checkpoint_path: "{within(latest)}"']
    lines += [f'all_model_checkpoint_paths: "{within(path)}"' for path in paths]
    lines += [f"all_model_checkpoint_timestamps: {time!r}" for time in state.times]
    if state.times:
        lines.append(f"last_preserved_timestamp: {state.last_preserved!r}")
    files.replace(folder / "checkpoint", "\n".join([*lines, ""]))


def get_checkpoint_state(checkpoint_dir: Any, latest_filename: str | None = None) -> State | None:
    """What the file ``checkpoint`` of a folder says; None without one."""
    folder = Path(checkpoint_dir)
    _await(folder)
    return _read_state(folder, latest_filename)


def _has_come_to(folder: Path, path: str) -> bool:
    """Whether this checkpoint of the folder is its latest, or one with a higher number."""
    state = _read_state(folder, None)
    return state is not None and _number(state.model_checkpoint_path) >= _number(path)


def _number(path: str) -> int:
    digits = path.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def _read_state(folder: Path, latest_filename: str | None) -> State | None:
    try:
        text = (folder / (latest_filename or "checkpoint")).read_text()
    except OSError:
        return None
    found: dict[str, list[str]] = {}
    for name, quoted, number in re.findall(r'^\s*(\w+): (?:"(.*)"|(\S+))$', text, re.MULTILINE):
        found.setdefault(name, []).append(number or str(folder / quoted))
    if "model_checkpoint_path" not in found:
        return None
    return State(
        found["model_checkpoint_path"][0],
        found.get("all_model_checkpoint_paths", []),
        [float(time) for time in found.get("all_model_checkpoint_timestamps", [])],
        float(found.get("last_preserved_timestamp", ["0"])[0]),
    )


def latest_checkpoint(checkpoint_dir: Any, latest_filename: str | None = None) -> str | None:
    """The path of the latest checkpoint of a folder; None where there is none."""
    state = get_checkpoint_state(checkpoint_dir, latest_filename)
    if state is None or not (Path(state.model_checkpoint_path) / checkpoint.MANIFEST).exists():
        return None
    return state.model_checkpoint_path
