"""One rank of a check: ``python -m distgrad.doctor.ranks RESULT RANKS``."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.core.errors import PeerLostError
from distgrad.launcher import environ
from distgrad.launcher.connect import run_rank

_SIZES = (1, 7, 1024, 1 << 20)  # from one exchange to many chunks
_SMALL, _LARGE = 1024, 1 << 20  # float32 values of the two that are timed
_REPEATS = {_SMALL: 50, _LARGE: 5}


def main(result: Path, ranks: int) -> int:
    """One rank of the check: tries the sums, and rank 0 writes what came out. The exit code."""
    world = environ.detect()
    if not world.is_rank or world.world_size != ranks:
        print(
            f"error: this rank thinks that it is one of {world.world_size}, not of {ranks}: what "
            "started it has set none of the variables that say so. Is this a real mpirun?",
            file=sys.stderr,
        )
        return 3

    def measure(communicator: Communicator) -> int:
        for size in _SIZES:
            for dtype in (np.float32, np.float64):
                _exact(communicator, size, dtype)
        seconds = {size: _seconds(communicator, size, count) for size, count in _REPEATS.items()}
        if communicator.rank == 0:
            found = {
                "shares_memory": communicator.shares_memory,
                "small_us": 1e6 * seconds[_SMALL],
                "large_gb_s": 4e-9 * _LARGE / seconds[_LARGE],
            }
            result.write_text(json.dumps(found))
        communicator.barrier()
        return 0

    return run_rank(world, measure)


def _exact(communicator: Communicator, size: int, dtype: type) -> None:
    """Whole numbers below 2^24 add up without rounding, in any order."""
    count = communicator.world_size
    base = np.arange(size) % 10007
    array: np.ndarray = (base * (communicator.rank + 1)).astype(dtype)
    communicator.allreduce(array)
    expected = base * (count * (count + 1) // 2)
    if not np.array_equal(array, expected):
        wrong = int(np.flatnonzero(array != expected)[0])
        raise PeerLostError(
            f"the sum of {count} ranks at {wrong} of {size} {array.dtype} values is "
            f"{array[wrong]}, not {expected[wrong]}: memory or network changes bytes."
        )


def _seconds(communicator: Communicator, size: int, repeats: int) -> float:
    array = np.zeros(size, np.float32)
    times = []
    for _ in range(repeats):
        communicator.barrier()
        start = time.perf_counter()
        communicator.allreduce(array)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
