"""The import law: who may know whom, read from the source of every module.

An import inside ``if TYPE_CHECKING`` is for readers and type checkers, and does not count.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import distgrad
from distgrad.testing import process

ROOT = Path(distgrad.__path__[0])

# From the bottom to the top: a room imports those before it, never those after it.
ORDER = ("backend", "core", "ops", "ragged", "compile", "training", "keras", "distribute", "worker")

# What a room may import of ours. A room that is missing here is bound by ORDER alone.
ALLOWED = {
    "comm": {"comm", "core.errors"},
    "data": {"data", "core.composite", "core.errors", "core.files", "core.later"},
    "data.composites": {"data", "core.composite", "core.sparse_tensor", "ragged"},
    # What a user's own loop gets are tensors, and what it asks for their kinds.
    "data.calling": {"data", "core.composite", "core.dispatch", "core.errors", "core.texts"},
    "data.dataset": {"data", "core.op_errors"},
    "data.examples": {
        "data",
        "core.composite",
        "core.errors",
        "core.sparse_tensor",
        "core.texts",
        "ragged",
    },
    "data.ragged_features": {"data", "core.dtypes", "core.texts", "ragged"},
    "data.features": {"data", "core.dtypes", "core.errors", "core.sparse_tensor", "core.texts"},
    "data.generated": {
        "data",
        "core.composite",
        "core.errors",
        "core.sparse_tensor",
        "core.texts",
    },
    "data.drawing": {"ops.random", "ops.streams"},
    "data.iterating": {"data", "core.errors", "core.op_errors", "core.place", "core.recording"},
    "data.kept": {"data", "core.dtypes", "core.errors", "core.files", "core.texts"},
    "data.lines": {"data", "core.errors", "core.texts"},
    "data.nest": {"core.composite", "core.errors", "core.sparse_tensor", "core.texts", "ragged"},
    "data.records": {"data", "core.errors", "core.files", "core.op_errors", "core.texts"},
    "data.rows": {"data", "core.seeding"},
    "data.serialized": {"data", "core"},
    "data.specs": {
        "data",
        "core.composite",
        "core.sparse_tensor",
        "core.spec",
        "core.texts",
    },
    "config": {"config", "settings"},
    "job": set(),
    "launcher": {"launcher", "job", "comm", "core.errors", "worker"},
    "launcher.environ": {"core.errors"},
    "report": {
        "report",
        "core.errors",
        "core.files",
        "training.checkpoint",
        "training.run_folder",
        "config",
    },
    "export": {"", "export", "keras", "compile", "ops", "core"},
    "export.run": {"", "export", "trained", "keras", "data", "training", "core"},
    "export.deployed": {"export", "trained", "keras.layers", "ops", "core"},
    "export.web": {"export", "core"},
}
# They import next to nothing, and so may be imported by any room.
LEAVES = {"launcher.environ", "launcher.load", "launcher.threads", "core.user_line"}
WORKER_MAY_BE_IMPORTED_BY = {"cli", "launcher", "bench"}  # which times its loop

# Every package that is not in the standard library, and the module (or room) that knows it.
EVERYWHERE = {"numpy"}
HOMES = {
    "typer": "cli",
    "pydantic": "config",
    "pydantic_core": "config",
    "ruamel": "config",
    "mpi4py": "comm.mpi",
    "threadpoolctl": "launcher.threads",
    "ml_dtypes": "core.dtypes",
    "safetensors": "training.tensors",
    "h5py": "keras.models.weights_h5",
    "pyarrow": "data.table",
    "tensorboardX": "training.tensorboard",
    "rich": "training.progress report.tables",  # a bar, and tables
    "cupy": "backend.cupy",
    "cupyx": "backend.cupy",
    "cudnn": "backend.cudnn",
    "ray": "launcher.ray",
    "llvmlite": "compile",
    "cloudpickle": "launcher.calling",
    "scipy": "backend.numpy",
    "matplotlib": "report keras.visualization.gallery",
    "PIL": "keras.utils.images",
    "pydot": "keras.utils.drawing",
    "sklearn": "keras.wrappers.estimators",
    "onnx": "export.onnx_file",
    "google": "data.messages",
    "crc32c": "data.checksum",
    "onnxruntime": "export.verify",
}
# Where several modules of the room may import the package.
ROOMS = {"cli", "config", "compile", "launcher.ray"}
NOT_LOADED = ("ray", "mpi4py", "cupy", "cudnn", "pydantic", "scipy", "llvmlite", "matplotlib")


class Import(NamedTuple):
    """``source`` imports ``target``; both without ``distgrad.`` if they are ours."""

    source: str
    target: str
    ours: bool
    lazy: bool  # inside a function
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def modules() -> dict[str, ast.Module]:
    return {module_name(path): ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}


def imports(name: str) -> Iterator[Import]:
    yield from _imports(name, modules()[name], lazy=False)


def _imports(source: str, node: ast.AST, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _imports(source, other, lazy)
        elif isinstance(child, ast.Import):
            for alias in child.names:
                yield _named(source, alias.name, lazy, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{source}:{child.lineno}: imports are absolute here"
            for alias in child.names:
                # `from distgrad.ops import random` names a module, `from x import name` may not.
                full = f"{child.module}.{alias.name}"
                inner = full.removeprefix("distgrad.")
                yield _named(
                    source, full if inner in modules() else child.module, lazy, child.lineno
                )
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(source, child, lazy or inside)


def _named(source: str, full: str, lazy: bool, line: int) -> Import:
    ours = full.partition(".")[0] == "distgrad"
    target = full.removeprefix("distgrad").removeprefix(".") if ours else full
    return Import(source, target, ours, lazy, line)


def room(module: str) -> str:
    return module.partition(".")[0]


@cache
def all_imports() -> list[Import]:
    return [found for name in modules() for found in imports(name)]


@cache
def our_imports() -> list[Import]:
    return [found for found in all_imports() if found.ours]


def within(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def test_the_walk_sees_the_imports() -> None:
    """Were it blind, every other test here would pass."""
    found = {(i.source, i.target, i.lazy) for i in all_imports()}
    assert ("training.step", "comm.communicator", False) in found
    assert ("worker", "training.checkpoint", False) in found  # from distgrad.training import ...
    assert ("launcher.local", "worker", True) in found
    assert ("comm.mpi", "mpi4py", True) in found
    assert ("job", "config", False) not in found  # for type checkers alone
    assert len(modules()) > 50 and len(our_imports()) > 150


def test_rooms_import_downwards_only() -> None:
    rank = {name: number for number, name in enumerate(ORDER)}
    wrong = [
        str(i)
        for i in our_imports()
        if rank.get(room(i.source), -1) < rank.get(room(i.target), -1) and room(i.source) in rank
    ]
    assert wrong == []


def test_the_side_rooms_know_what_they_may_know() -> None:
    """comm and data know arrays, config and job nothing, launchers the job but no layers."""
    wrong = []
    for i in our_imports():
        bound = [place for place in ALLOWED if within(i.source, place)]
        if not bound:
            continue
        allowed = ALLOWED[max(bound, key=len)] | LEAVES
        wrong += [str(i)] if not any(within(i.target, place) for place in allowed) else []
    assert wrong == []


def test_the_rooms_in_order_leave_launchers_and_the_command_line_alone() -> None:
    """Below the worker nobody knows who has started the process: a script joins in one place."""
    wrong = [
        str(i)
        for i in our_imports()
        if room(i.source) in ORDER
        and room(i.target) in ("launcher", "cli", "config", "job", "testing")
        and i.target not in LEAVES
        and not (i.source == "worker" and i.target == "job")
        and not (i.source == "training.world" and i.target == "launcher.connect" and i.lazy)
    ]
    assert wrong == []


def test_only_the_command_line_and_launchers_import_the_worker() -> None:
    found = [i for i in our_imports() if within(i.target, "worker")]
    assert found
    assert {room(i.source) for i in found} <= WORKER_MAY_BE_IMPORTED_BY
    assert all(i.lazy for i in found), "a launcher that only starts mpirun needs no layers"


def test_nothing_that_is_shipped_needs_the_test_helpers() -> None:
    assert [str(i) for i in our_imports() if room(i.target) == "testing" != room(i.source)] == []


def test_private_names_stay_in_their_module() -> None:
    """What another module needs has a name without an underscore, and so a docstring."""
    wrong = [
        f"{name}:{node.lineno} imports {alias.name} of {node.module}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "distgrad"
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert wrong == []


def test_layers_are_read_by_the_config_only_when_needed() -> None:
    """``config`` finds constructors by name: a job's other sections load none of them."""
    program = "import sys, distgrad.config; print('distgrad.config.schema' in sys.modules)"
    assert run(program).strip() == "True"
    strings = [
        node.value
        for name, tree in modules().items()
        if room(name) in ("config", "job")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and str(node.value).startswith("distgrad.")
    ]
    assert all(text.startswith("distgrad.keras") for text in strings), strings


def test_every_outside_package_has_one_home() -> None:
    homes = defaultdict(set)
    for i in all_imports():
        package = i.target.partition(".")[0]
        if not i.ours and package not in sys.stdlib_module_names | EVERYWHERE | {"__future__"}:
            homes[package].add(i.source)
    assert set(homes) <= set(HOMES), "a new package needs a home in HOMES"
    for package, sources in homes.items():
        known = HOMES[package].split()
        assert all(any(within(s, home) for home in known) for s in sources), f"{package}: {sources}"
        assert len(sources) <= len(known) or known[0] in ROOMS, f"{package}: {sources}"


def test_optional_packages_are_imported_when_needed() -> None:
    """At the top of a file stand NumPy, and what the command line and the schema are made of.

    Ray and scikit-learn, too: their base classes must be there, and no file imports those of ours
    at its top.
    """
    at_the_top = {
        i.target.partition(".")[0]
        for i in all_imports()
        if not i.ours and not i.lazy and i.target.partition(".")[0] in HOMES
    }
    assert at_the_top <= {"typer", "pydantic", "pydantic_core", "ruamel", "ray", "sklearn"}
    with_bases = {i.source for i in all_imports() if room(i.target) in ("ray", "sklearn")}
    assert all(i.lazy for i in our_imports() if i.target in with_bases)


def test_one_module_reads_the_environment() -> None:
    readers = {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and is_os(node.value))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and names(node) & ENVIRONMENT)
    }
    assert readers == {"launcher.environ"}


ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}


def is_os(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"


def names(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def run(program: str) -> str:
    result = process.run(
        [sys.executable, "-c", program], timeout=60, env={"PYTHONPATH": str(ROOT.parent)}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("module", ["distgrad", "distgrad.keras", "distgrad.testing.process"])
def test_import_distgrad_is_light(module: str) -> None:
    program = f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(run(program))
    assert module in loaded and "numpy" in loaded
    heavy = {*NOT_LOADED, *HOMES} - EVERYWHERE
    assert [name for name in loaded if name.partition(".")[0] in heavy] == []
