"""What torch and JAX compile for the stages of ``gpu.py --all``, side by side before them.

It lies in caches that the stages' processes find. Of torch's choices by measuring, made while
others were at work, nothing is kept (in float32 max-autotune has none to make among kernels of
products: `peers/torch_peer.py`); XLA's are kept with what it has compiled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

# In the order in which they are begun: those that take longest first.
CONTENDERS = ("JAX jit", "torch reduce-overhead", "torch max-autotune")
_CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "JAX_COMPILATION_CACHE_DIR": "jax",
}
_TUNED, _CHOOSES = "torch max-autotune", "bfloat16"


def environment(folder: Path) -> dict[str, str]:
    """That of processes with caches in a folder; a cache that is named in ours stays there."""
    caches = {name: str(folder / part) for name, part in _CACHES.items()}
    return {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **caches, **os.environ}


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that leads a session, and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _begun(
    command: Sequence[str], env: Mapping[str, str], errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=errors
    )


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return f"    {lines[-1][:300]}" if lines else "    without a word"


def compiled(
    program: Path,
    workloads: Sequence[str],
    seconds: float,
    env: Mapping[str, str],
    more: Sequence[str],
    say: Callable[[str], None],
) -> set[tuple[str, str]]:
    """Lets ``program`` compile all contenders for some workloads, as many at a time as cores.

    Returns the contenders and workloads of what is done. The last workloads, which are the largest,
    come first. What is not done in time is ended.
    """
    ends, began = time.monotonic() + seconds, time.time()
    waiting = [(name, slug) for name in CONTENDERS for slug in reversed(workloads)]
    cores = os.cpu_count() or 1
    threads = str(max(1, 2 * cores // max(min(len(waiting), cores), 1)))
    running: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
    errors: dict[tuple[str, str], IO[bytes]] = {}
    done: set[tuple[str, str]] = set()
    with contextlib.ExitStack() as files:
        files.callback(lambda: [end(process) for process in running.values()])
        while time.monotonic() < ends and (waiting or running):
            while waiting and len(running) < cores:
                job = name, slug = waiting.pop(0)
                own = {**env, "TORCHINDUCTOR_COMPILE_THREADS": threads}
                if name == _TUNED and slug.endswith(_CHOOSES):  # its kernels are kept, no choice
                    own["TORCHINDUCTOR_CACHE_DIR"] += "-thrown"
                command = [sys.executable, str(program), "--compile", name, "--workload", slug]
                errors[job] = files.enter_context(tempfile.TemporaryFile())
                running[job] = _begun([*command, *more], own, errors[job])
            for job, process in list(running.items()):
                if process.poll() is not None:
                    took = time.time() - began
                    say(f"{job[1]}, {job[0]}: ended with {process.returncode} at {took:.0f} s")
                    if process.returncode == 0:
                        done.add(job)
                    else:
                        say(_last_line(errors[job]))
                    end(running.pop(job))
            time.sleep(0.05)
    say(f"not compiled in time: {[*running, *waiting]}")
    for choice in Path(env["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.best_config"):
        if choice.stat().st_mtime > began:
            choice.unlink()
    return done
