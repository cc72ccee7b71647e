"""Several hosts on one machine: network namespaces with addresses of their own (Linux, root)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_NET = "10.203.77"


def unavailable() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    if shutil.which("ip") is None:
        return "needs the program ip (iproute2)"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    name = f"dg{os.getpid()}t"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, timeout=20)
    if made.returncode:
        return f"network namespaces are not allowed: {made.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)
    return None


class Hosts:
    """Context in which ``count`` hosts exist, joined by a switch that nothing else is joined to.

    ``addresses`` are theirs. Leaving the context kills what still runs in them.
    """

    def __init__(self, count: int) -> None:
        stem = f"dg{os.getpid()}"
        self.switch = f"{stem}s"
        self.names = [f"{stem}h{i}" for i in range(count)]
        self.addresses = [f"{_NET}.{i + 1}" for i in range(count)]
        self._folder = Path(tempfile.mkdtemp(prefix="distgrad-hosts-"))

    def __enter__(self) -> Hosts:
        try:
            _ip("netns", "add", self.switch)
            self._inside(self.switch, "link", "add", "bridge", "type", "bridge")
            self._inside(self.switch, "link", "set", "bridge", "up")
            for i, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
                _ip("netns", "add", name)
                ends = ("link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0")
                self._inside(self.switch, *ends, "netns", name)
                self._inside(self.switch, "link", "set", f"port{i}", "master", "bridge", "up")
                self._inside(name, "address", "add", f"{address}/24", "dev", "eth0")
                for link in ("lo", "eth0"):
                    self._inside(name, "link", "set", link, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for name in (*self.names, self.switch):
            found = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, timeout=20
            )
            for pid in found.stdout.split():
                subprocess.run(["kill", "-9", pid], capture_output=True, timeout=20)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def on(self, host: int, command: Sequence[str]) -> list[str]:
        """The command, run on a host: in its network, under its name."""
        name = self.names[host]
        shell = 'hostname "$0" && exec "$@"'
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", shell, name, *command]

    def remote_shell(self) -> Path:
        """A program in the place of ssh: ``PROGRAM [options] ADDRESS COMMAND...``."""
        path = self._folder / "remote-shell"
        cases = "\n".join(
            f"    {address}) name={name} ;;"
            for name, address in zip(self.names, self.addresses, strict=True)
        )
        path.write_text(
            "#!/bin/sh\n"
            'while case "$1" in -*) true ;; *) false ;; esac; do shift; done\n'
            f'case "$1" in\n{cases}\n    *) echo "no host $1" >&2; exit 1 ;;\nesac\nshift\n'
            'exec ip netns exec "$name" unshare --uts sh -c "hostname $name && exec $*"\n'
        )
        path.chmod(0o755)
        return path

    def cut(self, host: int) -> None:
        """Takes a host off the switch: nothing arrives any more, and nobody is told."""
        self._inside(self.switch, "link", "set", f"port{host}", "down")

    def join(self, host: int) -> None:
        """Puts a host back on the switch."""
        self._inside(self.switch, "link", "set", f"port{host}", "up")

    @staticmethod
    def _inside(name: str, *words: str) -> None:
        _ip("-n", name, *words)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
