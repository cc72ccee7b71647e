"""What all ranks must have in common before the first step."""

from __future__ import annotations

import json
import platform
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.compile import eager
from distgrad.compile.llvm import engine
from distgrad.core import dispatch
from distgrad.core.composite import Composite
from distgrad.core.errors import UsageError
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable
from distgrad.launcher import threads


def environment() -> dict[str, Any]:
    """What decides bits beside the job: CPU type through its BLAS core, versions, threads; GPU."""
    blas = threads.blas_info()
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        **{f"blas_{key}": value for key, value in blas.items()},
        **dispatch.current().facts(),
    }


def check_environment(communicator: Communicator, **more: Any) -> None:
    """Compares libraries, CPU type and threads, and ``more``, with all ranks.

    Raises UsageError that names the first difference.
    """
    if communicator.world_size == 1:
        return
    own = {**more, **environment()}
    for rank, other in enumerate(communicator.allgather_object(own)):
        for key, *values in differences("", other, own):
            there, here = (each if isinstance(each, str) else short(each) for each in values)
            raise UsageError(
                f"rank {rank} has {key} {there}, rank {communicator.rank} has {here}: all workers "
                "need the same job, CPU and GPU type and library versions."
            )


def check_alike(communicator: Communicator, said: Mapping[str, Any], advice: str) -> None:
    """Raises UsageError on every rank, with ``advice``, where `difference` finds one."""
    found = difference(communicator, said)
    if found is not None:
        raise UsageError(f"{found}: {advice}")


def difference(communicator: Communicator, said: Mapping[str, Any]) -> str | None:
    """The first thing that a rank has said otherwise than rank 0; all ranks must call it.

    They say numbers, texts, and lists and dicts of them.
    """
    everyone = communicator.allgather_object(dict(said))
    for rank, other in enumerate(everyone):
        for key, here, there in differences("", everyone[0], other):
            return f"{key} is {_cut(str(there))} on rank {rank} and {_cut(str(here))} on rank 0"
    return None


def check_executor(communicator: Communicator, name: str) -> None:
    """Compares what runs the steps, and the kernels of eager operations, with all ranks.

    Raises UsageError that names the first difference, MissingExtraError where this machine
    lacks what the executor needs.
    """
    version = engine.version() if name == "generated" else ""
    check_environment(communicator, executor=name, llvmlite=version, kernels=_kernels(communicator))


def check_kernels(communicator: Communicator) -> None:
    """Compares the kernels of eager operations, and the environment, with all ranks.

    Raises UsageError that names the first difference.
    """
    check_environment(communicator, kernels=_kernels(communicator))


def _kernels(communicator: Communicator) -> str:
    return eager.identity() if communicator.world_size > 1 else ""


def check_shards(shards: int | None, communicator: Communicator) -> None:
    """Compares DISTGRAD_VIRTUAL_SHARDS, which is None where it is not set, with all ranks.

    Raises UsageError on every rank, naming the first difference.
    """
    everyone = communicator.allgather_object(shards)
    for rank, other in enumerate(everyone):
        if other != everyone[0]:
            said = ["none" if each is None else str(each) for each in (everyone[0], other)]
            raise UsageError(
                f"DISTGRAD_VIRTUAL_SHARDS is {said[0]} on rank 0 and {said[1]} on rank {rank}: all "
                "ranks need the same. To other hosts Open MPI's mpirun passes a variable where it "
                "is told to: add -x DISTGRAD_VIRTUAL_SHARDS."
            )


def check_variables(variables: Mapping[str, Variable], communicator: Communicator) -> None:
    """Compares names, shapes and dtypes of all ranks; the names are paths.

    Raises UsageError on every rank, naming the first difference.
    """
    own = [(name, tuple(v.shape), v.dtype.name) for name, v in variables.items()]
    everyone = communicator.allgather_object(own)
    for rank, other in enumerate(everyone):
        for position in range(max(len(other), len(everyone[0]))):
            here, there = (_at(each, position) for each in (everyone[0], other))
            if here != there:
                raise UsageError(
                    f"variable {position} is {there} on rank {rank} and {here} on rank 0: every "
                    "rank must build the same model."
                )


def give(variables: Iterable[Variable], communicator: Communicator, root: int = 0) -> None:
    """Assigns the values that variables have on rank ``root``, on all ranks."""
    for variable in variables:
        value = np.array(variable.numpy())
        communicator.broadcast(value, root)
        variable.assign(value)


def check_data(communicator: Communicator, digest: Sequence[int], *, strict: bool) -> None:
    """Compares checksums of some data with all ranks: one could have been given its own part.

    Raises UsageError on every rank if ``strict``; else warns on rank 0, since data may be drawn by
    chance. The message names the first rank that differs.
    """
    everyone = communicator.allgather_object(list(digest))
    other = next((rank for rank, each in enumerate(everyone) if each != everyone[0]), None)
    if other is None:
        return
    text = (
        f"rank {other} was given other data than rank 0: every worker needs the whole of them, in "
        "the same order, and takes its own part. Where chance divides or shuffles them, set its "
        "seed."
    )
    if strict:
        raise UsageError(text)
    if communicator.rank == 0:
        warn(text)


def checksum(array: Any) -> int:
    """A number that nearly always differs for arrays, or ragged tensors, that do."""
    if isinstance(array, Composite):
        values, *lie = array.packed()
        return zlib.crc32(repr(lie).encode(), checksum(values))
    array = np.asarray(array)
    plain = array.dtype.kind in "biufc"
    return zlib.crc32(array.tobytes() if plain else repr(array.tolist()).encode())


def differences(name: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two nests of dicts and lists differ, and the values there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from differences(f"{name}.{key}" if name else key, one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for position, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(f"{name}.{position}", *pair)
    elif one != other:
        yield name, one, other


def short(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    return _cut(json.dumps(value, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _at(listed: Sequence[Any], position: int) -> str:
    if position >= len(listed):
        return "missing"
    name, shape, dtype = listed[position]
    return f"{name} {list(shape)} {dtype}"
