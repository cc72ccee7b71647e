"""The driver's and the workers' ends of the Ray launcher, joined without Ray."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from distgrad.comm.rendezvous import Gate, knock
from distgrad.launcher.environ import World
from distgrad.launcher.ray import agent
from distgrad.launcher.ray.crew import Crew
from distgrad.launcher.ray.wire import ENDED, KILL, OUT, Wire
from distgrad.testing import process

pytestmark = pytest.mark.timeout_s(60)

TOKEN = "one secret"


class Setup:
    """A crew of some ranks that all run the same Python code, each agent in a thread."""

    def __init__(self, folder: Path, code: str, workers: int = 1, **settings: str) -> None:
        gate = Gate("127.0.0.1", 0, TOKEN)
        self.folder = folder
        self.crew = Crew(gate, workers, folder / "logs")
        self.errand = agent.Errand(
            driver=gate.address,
            token=TOKEN,
            arguments=["-c", code, "an argument"],
            settings=settings,
            folder=str(folder),
            restart=3,
            timeout=20,
        )
        self.codes: dict[int, int] = {}
        self.threads = [
            threading.Thread(target=self._run, args=(rank, workers), daemon=True)
            for rank in range(workers)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, rank: int, workers: int) -> None:
        world = World(rank, workers, rank, workers, "distgrad", "127.0.0.1:1")
        self.codes[rank] = agent.run(self.errand, world, "another secret")

    def ended(self) -> list[int | None]:
        ranks = self.crew.ranks
        process.wait_until(lambda: None not in [r.poll() for r in ranks], 30, "all ranks")
        for thread in self.threads:
            thread.join(10)
        return [rank.poll() for rank in ranks]

    def wait_for(self, name: str) -> None:
        process.wait_until((self.folder / name).exists, 30, name)


def guest(gate: Gate, rank: int) -> Wire:
    """An agent of no rank."""
    return Wire(knock(gate.address, TOKEN, rank, time.monotonic() + 20))


HELLO = """
import os, signal, sys
rank = os.environ["DISTGRAD_RANK"]
print("rank", rank, "of", os.environ["DISTGRAD_WORLD_SIZE"], os.environ["DISTGRAD_ADDRESS"],
      os.environ["DISTGRAD_TOKEN"], os.environ["DISTGRAD_RESTART"], os.environ["MINE"])
print(sys.argv[1], os.getcwd(), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
print("to stderr, \u00e9", end="", file=sys.stderr)
sys.exit(int(rank) * 5)
"""


def test_ranks_know_who_they_are_and_are_heard(tmp_path: Path, capfd) -> None:
    setup = Setup(tmp_path, HELLO, workers=2, MINE="yes")
    assert setup.ended() == [0, 5]
    setup.crew.close()
    assert setup.codes == {0: 0, 1: 5}
    said = capfd.readouterr()
    own = ["rank {} of 2 127.0.0.1:1 another secret 3 yes", f"an argument {tmp_path} False"]
    out = said.out.splitlines()
    assert [line for line in out if "[rank" not in line] == [own[0].format(0), own[1]]
    marked = [f"[rank 1] {own[0].format(1)}", f"[rank 1] {own[1]}"]
    assert [line for line in out if "[rank" in line] == marked
    assert said.err.count("to stderr, é") == 2
    log = (tmp_path / "logs" / "rank_00001.log").read_text().splitlines()
    assert sorted(log) == sorted([own[0].format(1), own[1], "to stderr, é"])
    assert not (tmp_path / "logs" / "rank_00000.log").exists()


SLEEP = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
signal.signal(signal.SIGINT, lambda *_: sys.exit(76))
pathlib.Path("ready").touch()
for _ in range(600):
    time.sleep(0.1)  # one sleep of a minute misses a signal just before it
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 76)])
def test_signals_reach_the_rank(tmp_path: Path, number: int, code: int) -> None:
    setup = Setup(tmp_path, SLEEP)
    setup.wait_for("ready")
    setup.crew.signal(number)
    assert setup.ended() == [code]
    setup.crew.close()


def test_a_signal_before_the_agents_comes_to_them_all_the_same(tmp_path: Path) -> None:
    gate = Gate("127.0.0.1", 0, TOKEN)
    crew = Crew(gate, 1, None)
    crew.signal(signal.SIGTERM)
    wire = guest(gate, 0)
    assert wire.receive() == (4, signal.SIGTERM)
    wire.send(ENDED, {"code": 75, "said": True})
    process.wait_until(lambda: crew.ranks[0].poll() == 75, 10, "the end")
    crew.close()


def test_a_killed_rank_is_told_by_its_signal(tmp_path: Path) -> None:
    setup = Setup(tmp_path, SLEEP)
    setup.wait_for("ready")
    rank = setup.crew.ranks[0]
    process.wait_until(lambda: rank.pid, 10, "its process id")
    assert rank.host == socket.gethostname()
    os.kill(rank.pid, signal.SIGKILL)
    assert setup.ended() == [-signal.SIGKILL]
    setup.crew.close()


def test_closing_the_crew_kills_who_is_left(tmp_path: Path) -> None:
    setup = Setup(tmp_path, SLEEP, workers=2)
    setup.wait_for("ready")
    process.wait_until(lambda: all(r.pid for r in setup.crew.ranks), 10, "both ranks")
    pids = [rank.pid for rank in setup.crew.ranks]
    setup.crew.close()
    assert setup.ended() == [-signal.SIGKILL] * 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_worker_that_vanishes_counts_as_killed() -> None:
    gate = Gate("127.0.0.1", 0, TOKEN)
    crew = Crew(gate, 2, None)
    wire = guest(gate, 1)
    process.wait_until(lambda: crew.missing() == [0], 10, "rank 1")
    wire.send(OUT, b"last words without an end")
    wire.close()
    process.wait_until(lambda: crew.ranks[1].poll() is not None, 10, "the loss")
    assert crew.ranks[1].poll() == -signal.SIGKILL
    crew.close()


def test_a_rank_dies_when_the_driver_is_gone(tmp_path: Path) -> None:
    gate = Gate("127.0.0.1", 0, TOKEN)
    (tmp_path / "code.py").write_text(SLEEP)
    errand = agent.Errand(gate.address, TOKEN, ["code.py"], {}, str(tmp_path), 0, 20.0)
    codes: list[int] = []
    world = World(0, 1, 0, 1, "distgrad", "127.0.0.1:1")
    thread = threading.Thread(target=lambda: codes.append(agent.run(errand, world, "x")))
    thread.start()
    guest = gate.accept(20)
    assert guest is not None
    process.wait_until((tmp_path / "ready").exists, 30, "the rank")
    guest[1].close()  # as the kernel does it for a process that was killed
    thread.join(10)
    assert codes == [-signal.SIGKILL]
    gate.close()


def test_the_driver_may_kill(tmp_path: Path) -> None:
    deaf = "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    setup = Setup(tmp_path, f"{deaf} pathlib.Path('ready').touch(); time.sleep(60)")
    setup.wait_for("ready")
    setup.crew.signal(signal.SIGTERM)
    setup.crew.ranks[0].send(KILL)
    assert setup.ended() == [-signal.SIGKILL]
    setup.crew.close()


def test_a_long_output_arrives_whole(tmp_path: Path, capfd) -> None:
    setup = Setup(tmp_path, "for i in range(50000): print('line', i)", workers=2)
    assert setup.ended() == [0, 0]
    setup.crew.close()
    out = capfd.readouterr().out
    assert out.count("line") == 100_000
    log = (tmp_path / "logs" / "rank_00001.log").read_text()
    assert log == "".join(f"line {i}\n" for i in range(50000))


def test_strangers_stay_outside() -> None:
    gate = Gate("127.0.0.1", 0, TOKEN)
    crew = Crew(gate, 1, None)
    first = guest(gate, 7)  # no such rank
    assert first.receive() is None
    assert crew.missing() == [0]
    crew.close()
