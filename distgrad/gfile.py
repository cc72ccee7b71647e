"""``tf.io.gfile``: files and folders, by the names that TensorFlow has for them."""

from __future__ import annotations

import errno
import glob as _glob
import os
import shutil
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NamedTuple

from distgrad.core.errors import NotFoundError
from distgrad.core.op_errors import AlreadyExistsError

__all__ = [
    "GFile",
    "copy",
    "exists",
    "glob",
    "isdir",
    "join",
    "listdir",
    "makedirs",
    "mkdir",
    "remove",
    "rename",
    "rmtree",
    "stat",
    "walk",
]


class _Exists(AlreadyExistsError, FileExistsError):
    """A file is there already."""


class Status(NamedTuple):
    """What ``stat`` says of a file: its bytes, when it was changed, whether it is a folder."""

    length: int
    mtime_nsec: int
    is_directory: bool


def _named(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with TensorFlow's errors, which are Python's as well."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except FileNotFoundError as error:
            raise NotFoundError(f"{error.filename}; No such file or directory") from None
        except FileExistsError as error:
            raise _Exists(f"{error.filename}; File exists: say overwrite=True") from None

    return call


class GFile:
    """A file, opened when it is first read or written: as ``open`` gives it, in UTF-8 for text.

    Raises NotFoundError (a FileNotFoundError) for a file to be read that is not there.
    """

    def __init__(self, name: Any, mode: str = "r") -> None:
        self.name, self.mode = name, mode
        self._opened: Any = None

    @_named
    def _open(self) -> Any:
        if self._opened is None:
            encoding = None if "b" in self.mode else "utf-8"
            self._opened = open(self.name, self.mode, encoding=encoding)  # noqa: SIM115
        return self._opened

    def size(self) -> int:
        """Bytes of the file."""
        return stat(self.name).length

    def __enter__(self) -> GFile:
        if self.mode[0] != "r":  # there from now on, even if nothing is written
            self._open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; it can be opened again."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def read(self, n: int = -1) -> Any:
        """The next ``n`` characters or bytes; all that are left for -1."""
        return self._open().read(n)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._open())

    def __next__(self) -> Any:
        return next(self._open())

    def __getattr__(self, name: str) -> Any:  # readline, write, seek, tell, flush ...
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._open(), name)


@_named
def copy(src: Any, dst: Any, overwrite: bool = False) -> None:
    """Copies a file. Raises AlreadyExistsError where there is one, unless ``overwrite``."""
    if os.path.exists(dst) and not overwrite:
        raise FileExistsError(errno.EEXIST, "File exists", dst)
    shutil.copyfile(src, dst)


@_named
def rename(src: Any, dst: Any, overwrite: bool = False) -> None:
    """Renames a file. Raises AlreadyExistsError where there is one, unless ``overwrite``."""
    if os.path.exists(dst) and not overwrite:
        raise FileExistsError(errno.EEXIST, "File exists", dst)
    os.replace(src, dst)


def glob(pattern: Any) -> list[str]:
    """The files that match a pattern, or one of several, in order."""
    patterns = [pattern] if isinstance(pattern, (str, os.PathLike)) else pattern
    return [path for each in patterns for path in sorted(_glob.glob(os.fspath(each)))]


def makedirs(path: Any) -> None:
    """Makes a folder and those above it, where they are not there."""
    os.makedirs(path, exist_ok=True)


@_named
def stat(path: Any) -> Status:
    """What is known of a file."""
    found = os.stat(path)
    return Status(found.st_size, found.st_mtime_ns, os.path.isdir(path))


def walk(top: Any, topdown: bool = True, onerror: Any = None) -> Iterator[Any]:
    """For each folder below: its name, the folders and the files in it."""
    return os.walk(top, topdown, onerror)


def isdir(path: Any) -> bool:
    """Whether it is a folder."""
    return os.path.isdir(path)


def join(path: Any, *paths: Any) -> Any:
    """One path of its parts."""
    return os.path.join(path, *paths)


exists = os.path.exists
listdir, mkdir, remove = _named(os.listdir), _named(os.mkdir), _named(os.remove)
rmtree = _named(shutil.rmtree)
