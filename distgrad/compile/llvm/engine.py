"""LLVM through llvmlite: text to machine code, with the object code kept on disk.

The cache is keyed by the text, the CPU and its features, and llvmlite's version; it lies under
the user's cache folder. A file that cannot be read or written is as if it were not there.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import threading
from pathlib import Path
from typing import Any

from distgrad.core import files
from distgrad.core.errors import MissingExtraError
from distgrad.core.user_line import warn

MISSING, NO_FMA = "no llvmlite", "no FMA in this CPU"
_lock = threading.Lock()  # LLVM's contexts are not for several threads at a time
_kept: list[Any] = []  # engines own the code that the addresses point to
_known: dict[str, int] = {}


def available() -> bool:
    """Whether llvmlite is there and loads, and the CPU is one that this generator writes for."""
    return lack() is None


@functools.cache
def lack() -> str | None:
    """What generated kernels lack on this machine; None where they can be made.

    Warns once of an llvmlite that does not load: nobody would look for a slow step's reason there.
    """
    if importlib.util.find_spec("llvmlite") is None:
        return MISSING
    try:
        has_fma = has("fma")
    except (ImportError, OSError) as error:
        found = f"llvmlite is installed, and cannot be loaded ({error})"
        warn(f"{found}: steps run on NumPy's kernels, which are slower. Install it anew.")
        return found
    return None if has_fma else NO_FMA


def has(feature: str) -> bool:
    """Whether the CPU has a feature, by LLVM's name for it."""
    return bool(_host()[1].get(feature))


def version() -> str:
    """The version of llvmlite. Raises MissingExtraError without it, or on an old CPU."""
    if lack() is not None:
        raise MissingExtraError(
            f"generated kernels need llvmlite, and a CPU with FMA ({lack()}): pip install llvmlite"
        )
    import llvmlite

    return llvmlite.__version__


def cpu() -> str:
    """LLVM's name of this machine's CPU."""
    return _host()[0]


@functools.cache
def _host() -> tuple[str, dict[str, bool]]:
    import llvmlite.binding as llvm

    return llvm.get_host_cpu_name(), dict(llvm.get_host_cpu_features())


@functools.cache
def _machine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = _host()
    flags = ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu, features=flags, opt=3, jit=True)


def cache_folder() -> Path:
    """Where object code is kept between runs."""
    return Path.home() / ".cache" / "distgrad" / "kernels"


def address(text: str, name: str, vectorize: bool = True) -> int:
    """The address of function ``name`` of a module, compiled now or before.

    Without ``vectorize`` loops stay as they are written, which takes a third of the time.
    """
    import llvmlite

    cpu, features = _host()
    key = hashlib.sha256(
        repr((text, name, vectorize, cpu, sorted(features.items()), llvmlite.__version__)).encode()
    ).hexdigest()
    with _lock:
        if key not in _known:
            _known[key] = _load(text, name, vectorize, cache_folder() / f"{key}.o")
        return _known[key]


def _load(text: str, name: str, vectorize: bool, path: Path) -> int:
    import llvmlite.binding as llvm

    machine = _machine()
    code = _kept_code(path)
    if code is None:
        code = _compiled(text, vectorize, machine)
        _save(path, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _kept.append(engine)
    return engine.get_function_address(name)


def _compiled(text: str, vectorize: bool, machine: Any) -> bytes:
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = vectorize
    tuning.loop_unrolling = vectorize
    tuning.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def _kept_code(path: Path) -> bytes | None:
    """Object code from the cache, None if it is not there or not whole: LLVM would crash on it."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, code = data[:32], data[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _save(path: Path, code: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not synced: what a loss of power leaves is found out by its digest.
        files.replace(path, hashlib.sha256(code).digest() + code, sync=False)
    except OSError:
        pass


# One argument, a table of pointers: ctypes takes its time for each argument.
PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
