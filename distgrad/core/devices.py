"""Which device new arrays lie on: of the process, and of a ``device`` context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from distgrad.backend.base import Backend, NotHere, NotInstalled
from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core import dispatch
from distgrad.core.errors import MissingExtraError, NoDeviceError
from distgrad.core.user_line import warn
from distgrad.launcher import environ

soft_placement = True  # what ``tf.config.set_soft_device_placement`` was last told
_warned: set[str] = set()  # devices that are not here


def use(kind: str, rank: int = 0) -> Backend:
    """Makes ``kind`` ("cpu" or "cuda") where this process makes new arrays.

    Of several GPUs, the process takes the one of its number among those of its machine, ``rank``.
    Raises MissingExtraError without CuPy, NoDeviceError where no GPU can be used.
    """
    if kind == "cpu":
        dispatch.default = numpy_backend
    else:
        dispatch.default, _ = _cuda(lambda count: rank % count)
    return dispatch.default


def use_default() -> Backend:
    """``use`` of what DISTGRAD_DEVICE says."""
    return use(environ.device() or "cpu", environ.detect().local_rank)


def ask_environment() -> None:
    """Takes note of DISTGRAD_DEVICE; the device is opened when the first array is made.

    Then, too, a wrong one is refused: not by the import, which has nobody to print an error.
    """
    if environ.names_device():
        dispatch.default = dispatch.only_namespace = None


def count_gpus() -> int:
    """How many GPUs this process can use; 0 without CuPy."""
    from distgrad.backend import cupy

    try:
        return cupy.load().count
    except NotHere:
        return 0


def on_gpu() -> bool:
    """Whether this thread makes new arrays on a GPU."""
    return dispatch.only_namespace is None and dispatch.current() is not numpy_backend


@contextmanager
def scope(kind: str, index: int = 0) -> Iterator[None]:
    """Context in which this thread makes new arrays on a CPU ("cpu") or on a GPU ("gpu").

    Raises as ``use`` does, and NoDeviceError for a GPU that is not there.
    """
    before = dispatch.in_force.backend
    backend: Any = numpy_backend
    if kind != "cpu":
        backend, selected = _cuda(lambda _: index)
    dispatch.in_force.backend = backend
    try:
        yield
    finally:
        dispatch.in_force.backend = before
        if kind != "cpu":
            backend.select(selected)


def placement(name: str, kind: str, index: int) -> AbstractContextManager[None]:
    """``scope`` for a device as TensorFlow names it; another where it is not here, if that may be.

    Raises as ``scope`` does where ``soft_placement`` is off.
    """
    backend = numpy_backend
    try:
        if kind == "gpu":
            backend, before = _cuda(lambda _: index)
            backend.select(before)
        elif kind != "cpu" or index:
            raise NoDeviceError(f"there is no device {name!r} here; use '/CPU:0'")
    except (MissingExtraError, NoDeviceError) as error:
        if not soft_placement:
            raise
        gpu = kind == "gpu" and count_gpus() > 0
        if kind != "cpu" and name not in _warned:
            _warned.add(name)
            warn(
                f"{error} What was meant for {name!r} lies on the {'first GPU' if gpu else 'CPU'}; "
                "tf.config.set_soft_device_placement(False) makes an error of it."
            )
        return scope("gpu" if gpu else "cpu")
    return scope(kind, index)


@contextmanager
def host() -> Iterator[None]:
    """Context in which this thread makes new arrays on the CPU."""
    before = dispatch.in_force.backend
    dispatch.in_force.backend = numpy_backend
    try:
        yield
    finally:
        dispatch.in_force.backend = before


def _cuda(choose: Callable[[int], int]) -> tuple[Any, int]:
    """The backend for GPUs, on GPU ``choose(count)``, and the number of the one it was on."""
    from distgrad.backend import cupy

    try:
        backend = cupy.load()
        before = backend.selected
        backend.select(choose(backend.count))
    except NotInstalled as error:
        raise MissingExtraError(str(error)) from error
    except NotHere as error:
        raise NoDeviceError(str(error)) from error
    if dispatch.backends.get(backend.array_type) is not backend:
        backend.dnn.wanted = environ.use_cudnn()
        dispatch.register(backend)
    return backend, before
