"""The processes of the side-by-side benchmarks: their environment, start, questions and end."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "RESULTS.md"
PEERS = Path.home() / ".cache" / "distgrad" / "benchmarks"
# torch before the rest, from its index of builds for CPUs alone where there is one for us.
TORCH = ["torch==2.13.0", "--extra-index-url", "https://download.pytorch.org/whl/cpu"]
PACKAGES = ["tensorflow==2.21.0", "keras==3.15.1", "jax==0.10.2", "autograd==1.9.1", "scipy"]
LIMIT = 900.0  # seconds for one answer: some compile for minutes

# Every contender, by the name in tables: module and form of it in peers.
CONTENDERS = {
    "distgrad eager": ("distgrad", "eager"),
    "distgrad captured": ("distgrad", "captured"),
    "distgrad fit": ("distgrad", "fit"),
    "distgrad V=8": ("distgrad", "shards8"),
    "torch eager": ("torch", "eager"),
    "torch compile": ("torch", "compile"),
    "TensorFlow function": ("tensorflow", "function"),
    "TensorFlow XLA": ("tensorflow", "xla"),
    "Keras": ("keras", "batch"),
    "Keras, no XLA": ("keras", "plain"),
    "Keras fit": ("keras", "fit"),
    "JAX jit": ("jax", "jit"),
    "HIPS autograd": ("autograd", "tape"),
}
DISTGRAD = [name for name, (peer, _) in CONTENDERS.items() if peer == "distgrad"]


def install(folder: Path) -> Path:
    """The Python of an environment with all peers; makes it if need be."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *TORCH], check=True)
    subprocess.run([*pip, *PACKAGES], check=True)
    return python


def peers_python(folder: Path) -> str:
    """The Python of that environment; makes it if there is none."""
    python = folder / "bin" / "python"
    return str(python if python.exists() else install(folder))


def offered(python: Path | None, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Which of these contenders can run, and which are missing from the peers' Python."""
    modules = {peer for peer, _ in CONTENDERS.values()} - {"distgrad"}
    there = {"distgrad"}
    if python is not None:
        code = "import sys, importlib.util as u; print(*filter(u.find_spec, sys.argv[1:]))"
        found = subprocess.run(
            [python, "-c", code, *sorted(modules)], capture_output=True, text=True, check=True
        )
        there |= set(found.stdout.split())
    names = list(names)
    runs = [name for name in names if CONTENDERS[name][0] in there]
    return runs, [name for name in names if name not in runs]


def environment(cores: int = 1) -> dict[str, str]:
    """What the process of a contender inherits: threads for so many cores, no GPU, no chatter."""
    threads = {f"{each}_NUM_THREADS": str(cores) for each in ("OMP", "OPENBLAS", "MKL")}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    # Peers' byte code came with their installation; ours is not to be compiled at each start.
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**own, **threads, **quiet, "PYTHONPATH": str(ROOT)}


class PeerError(RuntimeError):
    """A contender that ended, took too long, or said that it cannot."""


class Process:
    """A contender in a process of its own, on one core with one thread, or on some with as many."""

    def __init__(
        self,
        name: str,
        python: Path | None = None,
        env: dict[str, str] | None = None,
        cores: int = 1,
    ) -> None:
        peer, form = CONTENDERS[name]
        self.name = name
        program = sys.executable if peer == "distgrad" else python
        ours, theirs = socket.socketpair()
        words = ["--socket", str(theirs.fileno()), "--start", repr(time.time()), peer, form]
        if hasattr(os, "sched_getaffinity"):
            taken = sorted(os.sched_getaffinity(0))[-cores:]
            words += ["--cores", ",".join(map(str, taken))]
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  what it prints, for errors
        self.process = subprocess.Popen(
            [str(program), str(HERE / "serve.py"), *words],
            env={**environment(cores), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        ours.settimeout(LIMIT)
        self._socket, self._lines = ours, ours.makefile("rw")

    def ask(self, *request: Any) -> Any:
        """The answer to a request of ``serve.py``. Raises PeerError where there is none."""
        try:
            print(json.dumps(request), file=self._lines, flush=True)
            line = self._lines.readline()
        except TimeoutError:
            raise PeerError(f"{self.name}: no answer within {LIMIT:.0f} s") from None
        except OSError as error:
            raise PeerError(f"{self.name}: {error}") from None
        if not line:
            self._said.seek(0)
            raise PeerError(f"{self.name} ended:\n{self._said.read()[-2000:]}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise PeerError(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._lines.close()
        self._socket.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=60)
        self._said.close()


@contextlib.contextmanager
def crew(names: Iterable[str], python: Path | None, cores: int = 1) -> Iterator[dict[str, Process]]:
    """A process for each contender, all alive at once."""
    made: dict[str, Process] = {}
    try:
        for name in names:
            made[name] = Process(name, python, cores=cores)
        yield made
    finally:
        for process in made.values():
            process.close()


@dataclass
class Handed:
    """Files that carry weights and samples to all contenders alike."""

    folder: Path

    def __call__(self, workload: Any, samples: tuple | None = None) -> str:
        import numpy as np

        path = self.folder / f"{workload.slug}.npz"
        parameters = workload.parameters()
        x, y = samples or workload.samples()
        values = {f"p{i}": p.value for i, p in enumerate(parameters)}
        np.savez(path, x=x, y=y, kinds=np.array([p.kind for p in parameters]), **values)
        return str(path)


@contextlib.contextmanager
def handing() -> Iterator[Handed]:
    with tempfile.TemporaryDirectory() as folder:
        yield Handed(Path(folder))


def machine() -> str:
    """Processor, cores and system in one line."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, AttributeError):
        text = Path("/proc/cpuinfo").read_text()
        model = re.search(r"model name\s*:\s*(.*)", text)[1]  # type: ignore[index]
        model += " with AVX-512" if "avx512f" in text else ""
    return (
        f"{os.cpu_count()} cores of {model}, {platform.system()}, Python {sys.version.split()[0]}"
    )


def write_section(title: str, text: str, path: Path = RESULTS) -> None:
    """Puts ``text`` under ``## title``, in place of what was there; other sections stay."""
    section = f"## {title}\n\n{text.strip()}\n"
    old = path.read_text() if path.exists() else "# Latest measurements\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.M | re.S)
    if pattern.search(old):
        new = pattern.sub(lambda _: section + "\n", old)
    else:
        new = old.rstrip() + "\n\n" + section
    path.write_text(new.rstrip() + "\n")


def arguments(parser: Any) -> None:
    """The options that all three programs share."""
    parser.add_argument("--install", action="store_true", help="make the peers' environment first")
    parser.add_argument("--folder", type=Path, default=PEERS, help="where that environment lies")
    parser.add_argument("--python", type=Path, help="the Python of an environment with the peers")
    parser.add_argument("--only", type=lambda text: text.split(","), help="contenders: A,B,...")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {RESULTS.name}")


def chosen(options: Any, default: Iterable[str]) -> tuple[Path | None, list[str]]:
    """The peers' Python and the contenders that run; says on stdout which are missing."""
    if options.install:
        install(options.folder)
    python = options.python or options.folder / "bin" / "python"
    if not python.exists():
        python = None
    wanted = options.only or list(default)
    unknown = [name for name in wanted if name not in CONTENDERS]
    if unknown:
        raise SystemExit(f"no contender {unknown[0]!r}; there are {', '.join(CONTENDERS)}")
    runs, missing = offered(python, wanted)
    if missing:
        print(f"left out, not installed (--install): {', '.join(missing)}\n")
    return python, runs
