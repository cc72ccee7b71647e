"""One float32 allreduce, by size, beside MPICH, torch gloo and memcpy.

    python benchmarks/allreduce.py [--peers FOLDER] [--rounds N] [--ranks 2,4] [--sizes 4K,1M]
                                   [--only tcp,mpich]

Every contender is a world of processes of its own, with one thread each. Rounds go through all of
them in turn, in rotating order, so that a noisy machine meets all alike; what counts is the median
of the ratios of each round. A time is that of the slowest rank. The results are compared first.

    tcp      ours over TCP, ranks of this host sharing memory (the default)
    sockets  the same with all bytes through the sockets, as between hosts
    mpi      ours over mpi4py
    mpich    MPI_Allreduce of the MPI library
    gloo     torch.distributed with gloo
    memcpy   one copy of the array by each rank, for scale

Peers are installed into FOLDER (default: in the user's cache) by the first run with gloo in it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from crew import PEERS, ROOT, peers_python

sys.path.insert(0, str(ROOT))  # measure the code beside this file

WORLDS = ["tcp", "sockets", "mpi", "mpich", "gloo", "memcpy"]
OURS = ["tcp", "sockets", "mpi"]
SIZES = ["4K", "16K", "64K", "256K", "1M", "4M", "16M", "64M"]
LIMIT = 120.0  # seconds for one answer
SECONDS = 0.15  # of one measurement


def join(kind: str, rank: int, world_size: int, address: str, token: str) -> tuple:
    """Joins a world; the allreduce of an array, in place, and a barrier."""
    import numpy as np

    if kind == "memcpy":
        other = np.zeros(1 << 24, np.float32)
        return lambda array: np.copyto(other[: array.size], array), lambda: None
    if kind == "gloo":
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        dist.init_process_group("gloo", f"tcp://{address}", rank=rank, world_size=world_size)
        return lambda array: dist.all_reduce(torch.from_numpy(array)), dist.barrier
    if kind == "mpich":
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        return lambda array: world.Allreduce(MPI.IN_PLACE, array), world.Barrier

    from distgrad.comm import mpi, one_host, tcp
    from distgrad.comm.communicator import Communicator

    if kind == "mpi":
        transport = one_host.through_memory(mpi.MPITransport(), 60.0)
    else:
        transport = tcp.connect(rank, world_size, address, token, share_memory=kind == "tcp")
    communicator = Communicator(transport)
    return communicator.allreduce, communicator.barrier


def serve(kind: str, rank: int, world_size: int, address: str, token: str, control: str) -> None:
    """One rank: answers each line of the control connection with seconds per allreduce."""
    import numpy as np

    allreduce, barrier = join(kind, rank, world_size, address, token)
    host, port = control.split(":")
    lines = socket.create_connection((host, int(port))).makefile("rw")
    print(rank, file=lines, flush=True)
    for line in iter(lines.readline, ""):
        elements, repeats = json.loads(line)
        if repeats == 0:
            array = np.arange(elements, dtype=np.float32) + rank
            allreduce(array)
            print(json.dumps(float(array[-1])), file=lines, flush=True)
            continue
        array = np.zeros(elements, np.float32)
        allreduce(array)
        barrier()
        start = time.perf_counter()
        for _ in range(repeats):
            allreduce(array)
        seconds = (time.perf_counter() - start) / repeats
        barrier()  # nobody disturbs those who still measure
        print(json.dumps(seconds), file=lines, flush=True)


class World:
    """The ranks of one contender, and the lines to them."""

    def __init__(self, kind: str, size: int, python: str) -> None:
        from distgrad.comm.rendezvous import Rendezvous, new_token
        from distgrad.launcher.starters import find_mpirun

        self.kind = kind
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(LIMIT)
        control = f"127.0.0.1:{listening.getsockname()[1]}"
        token, self.meeting = new_token(), None
        address = "127.0.0.1:0"
        if kind in ("tcp", "sockets"):
            self.meeting = Rendezvous(size, token).start()
            address = self.meeting.address
        if kind == "gloo":
            with socket.create_server(("127.0.0.1", 0)) as free:
                address = f"127.0.0.1:{free.getsockname()[1]}"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        words = [__file__, "--control", control, "--address", address, "--token", token]
        words += ["--world-size", str(size), "--serve", kind]
        if kind in ("mpi", "mpich"):
            starts = [[find_mpirun(), "-n", str(size), python, *words]]
        else:
            starts = [[python, *words, "--rank", str(rank)] for rank in range(size)]
        self.processes = [subprocess.Popen(s, env=env, stdin=subprocess.DEVNULL) for s in starts]
        self.lines = []
        for _ in range(size):
            connection, _ = listening.accept()
            connection.settimeout(LIMIT)
            self.lines.append(connection.makefile("rw"))
        for line in self.lines:
            line.readline()
        listening.close()

    def ask(self, elements: int, repeats: int) -> list[float]:
        for line in self.lines:
            print(json.dumps([elements, repeats]), file=line, flush=True)
        return [json.loads(line.readline()) for line in self.lines]

    def close(self) -> None:
        for line in self.lines:
            line.close()
        for process in self.processes:
            process.kill()
            process.wait(timeout=60)


def bytes_of(text: str) -> int:
    return int(text.rstrip("KM")) * {"K": 1 << 10, "M": 1 << 20}.get(text[-1], 1)


def report(worlds: list[World], sizes: list[str], rounds: int) -> None:
    """Prints a line for each size: microseconds of everyone, and the ratios of ours."""
    ranks = len(worlds[0].lines)
    names = [world.kind for world in worlds]
    print(f"\n{ranks} ranks: microseconds (median of {rounds} rounds)")
    print("size".ljust(6) + "".join(name.rjust(10) for name in names))
    ratios: list[str] = []
    for size in sizes:
        elements = bytes_of(size) // 4
        expected = ranks * (elements - 1) + ranks * (ranks - 1) / 2
        for world in worlds:
            if world.kind != "memcpy":
                got = world.ask(elements, 0)
                assert all(abs(v - expected) <= 1e-6 * expected for v in got), (world.kind, got)
        repeats = {
            world.kind: max(2, min(2000, int(SECONDS / max(world.ask(elements, 2)))))
            for world in worlds
        }
        times: dict[str, list[float]] = {name: [] for name in names}
        for i in range(rounds):
            place = i % len(worlds)
            for world in worlds[place:] + worlds[:place]:
                times[world.kind].append(max(world.ask(elements, repeats[world.kind])))
        cells = [f"{1e6 * statistics.median(times[name]):10.1f}" for name in names]
        print(size.ljust(6) + "".join(cells), flush=True)
        ratios.append(size.ljust(6) + "  ".join(compared(times)))
    print("ratios to the peers, below 1 is faster (median of the rounds, and their range)")
    print("\n".join(ratios), flush=True)


def compared(times: dict[str, list[float]]) -> list[str]:
    cells = []
    for mine in OURS:
        for peer in ("mpich", "gloo"):
            if mine in times and peer in times:
                found = [a / b for a, b in zip(times[mine], times[peer], strict=True)]
                middle = statistics.median(found)
                cells.append(f"{mine}/{peer} {middle:5.2f} ({min(found):.2f} to {max(found):.2f})")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words: Callable[[str], list[str]] = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ranks", type=words, default=["2", "4"])
    parser.add_argument("--sizes", type=words, default=SIZES)
    parser.add_argument("--only", type=words, default=WORLDS)
    for hidden in ("--serve", "--control", "--address", "--token"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ("--rank", "--world-size"):
        parser.add_argument(hidden, type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        where = options.address, options.token, options.control
        rank = options.rank
        if options.serve in ("mpi", "mpich"):
            from mpi4py import MPI

            rank = MPI.COMM_WORLD.rank
        serve(options.serve, rank, options.world_size, *where)
        return
    for size in map(int, options.ranks):
        worlds: list[World] = []
        try:
            for kind in options.only:
                gloo = kind == "gloo"
                worlds.append(
                    World(kind, size, peers_python(options.peers) if gloo else sys.executable)
                )
            report(worlds, options.sizes, options.rounds)
        finally:
            for world in worlds:
                world.close()


if __name__ == "__main__":
    main()
