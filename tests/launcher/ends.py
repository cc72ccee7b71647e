"""The program of a rank that ends in some way: ``mpirun -n 3 python ends.py CASE``.

Or ``distgrad launch -n 3 ends.py CASE``. It imports no pytest: hundreds of ranks run it.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np

from distgrad.comm import clocks, mpi_life, tcp
from distgrad.comm.communicator import Communicator
from distgrad.core.errors import DataError, DivergedError, PreemptedError
from distgrad.launcher import environ
from distgrad.launcher.connect import connect, run_rank


def fine(c: Communicator) -> int:
    array = np.ones(5)
    c.allreduce(array)
    print(f"sum {array.sum():g}", flush=True)
    return 0


def returns_a_code(c: Communicator) -> int:
    c.barrier()
    return 4


def exits_with_zero(c: Communicator) -> int:
    raise SystemExit(0)


def bug_on_one_rank(c: Communicator) -> int:
    if c.rank == 1:
        raise ZeroDivisionError("bug in user code")
    c.barrier()
    return 0


def bug_with_shared_memory(c: Communicator) -> int:
    maps = Path("/proc/self/maps")
    if c.rank == 1 and maps.exists():
        print(*set(re.findall(r"/dev/shm/mpich\S+", maps.read_text())), flush=True)
    return bug_on_one_rank(c)


def bug_on_all_ranks(c: Communicator) -> int:
    raise ZeroDivisionError("bug in user code")


def bug_on_all_ranks_late_on_the_first(c: Communicator) -> int:
    c.barrier()
    time.sleep(0 if c.rank else 0.5)
    raise ZeroDivisionError("bug in user code")


def diverged_on_all_ranks(c: Communicator) -> int:
    c.barrier()
    raise DivergedError("loss is nan at step 3.")


def diverged_on_all_ranks_with_much_to_close_on_the_first(c: Communicator) -> int:
    if c.rank == 0:
        c.at_end.append(lambda in_peace: time.sleep(1.0))
    return diverged_on_all_ranks(c)


def preempted_on_all_ranks(c: Communicator) -> int:
    if c.rank == 0:
        time.sleep(4)  # rank 0 is still saving
    raise PreemptedError("saved at step 7.")


def bad_data_on_one_rank(c: Communicator) -> int:
    if c.rank == 1:
        raise DataError("shard.npy is truncated.")
    c.barrier()
    return 0


def bad_data_while_others_compute(c: Communicator) -> int:
    if c.rank == 1:
        raise DataError("shard.npy is truncated.")
    time.sleep(60)
    return 0


def frozen_rank(c: Communicator) -> int:
    c.barrier()
    if c.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    c.barrier()
    return 0


def late_rank(c: Communicator) -> int:
    for _ in range(2):
        if c.rank == 1:
            time.sleep(3)
        array = np.ones(5)
        c.allreduce(array)
    print(f"sum {array.sum():g}", flush=True)
    return 0


def killed_rank(c: Communicator) -> int:
    c.barrier()
    if c.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    c.barrier()
    return 0


def different_calls(c: Communicator) -> int:
    if c.rank == 0:
        c.barrier()
    else:
        c.allreduce(np.zeros(3))
    return 0


def different_calls_in_a_script() -> int:
    return different_calls(connect())


def exits_on_one_rank(c: Communicator) -> int:
    if c.rank == 1:
        raise SystemExit(9)
    c.barrier()
    return 0


def exits_in_a_script() -> int:
    c = connect()
    with contextlib.suppress(SystemExit):
        sys.exit(3)  # somebody catches it
    c.barrier()
    if c.rank == 1:
        sys.exit(9)
    c.barrier()
    return 0


def exits_slowly_on_a_busy_machine() -> int:
    os.getloadavg = lambda: (4.0 * os.cpu_count(), 0.0, 0.0)
    if environ.detect().rank == 1:
        atexit.register(time.sleep, 4.5)  # after it has left the others
    return exits_in_a_script()


def exits_while_another_still_connects() -> int:
    rank = environ.detect().rank
    clocks.ahead = Communicator.barrier if rank == 2 else lambda c: 0
    if rank == 1:
        atexit.register(time.sleep, 1.5)
    return exits_on_one_rank(connect())


def exits_with_a_code_of_ours() -> int:
    c = connect()
    if c.rank == 1:
        sys.exit(3)
    c.barrier()
    return 0


def exits_with_the_code_of_a_loss() -> int:
    c = connect()
    c.barrier()
    if c.rank == 1:
        sys.exit(6)
    return 0


def exits_without_cleaning_up() -> int:
    c = connect()
    if c.rank == 1:
        os._exit(1)
    c.barrier()
    return 0


def a_bug_without_stdout() -> int:
    c = connect()
    if c.rank == 1:
        sys.stdout = open("/dev/full", "w")  # noqa: SIM115 - until the end
        print("lost")
        raise KeyError("a bug")
    c.barrier()
    return 0


def raises_an_exit_in_a_script() -> int:
    c = connect()
    if c.rank == 1:
        raise SystemExit(9)
    c.barrier()
    return 0


def exits_with_words_in_a_script() -> int:
    c = connect()
    if c.rank == 1:
        sys.exit("the words of its user")
    c.barrier()
    return 0


def ends_early_in_a_script() -> int:
    c = connect()
    if c.rank == 0:
        c.barrier()
    return 0


def forks_in_a_script() -> int:
    c = connect()
    if c.rank == 1:
        for ends_well in (True, False):
            if os.fork() == 0:
                if ends_well:
                    sys.exit()
                raise ValueError("a bug in the child")
            os.wait()
    return fine(c)


def ends_early_under_a_slow_mpirun() -> int:
    mpi_life._PASSED_ON = 2.0
    return ends_early_in_a_script()


def bugs_under_a_slow_mpirun(c: Communicator) -> int:
    mpi_life._PASSED_ON = 2.0
    raise ZeroDivisionError("bug in user code")


def exits_before_it_connects() -> int:
    if environ.detect().rank == 1:
        sys.exit(9)
    return fine(connect())


def killed_while_others_connect() -> int:
    if environ.detect().rank == 1:
        tcp.share = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
    return fine(connect())


def no_rank_can_connect_and_the_first_comes_late() -> int:
    if environ.detect().rank == 0:
        time.sleep(2)
    return fine(connect())


def rank_0_never_connects() -> int:
    if environ.detect().rank == 0:
        time.sleep(60)
    return fine(connect())


def interrupted_by_its_first_rank() -> int:
    c = connect()
    c.barrier()
    if c.rank == 0:
        os.kill(os.getppid(), signal.SIGINT)  # as Ctrl-C, which the supervisor passes on
    while True:
        c.barrier()


def uncaught_in_a_script() -> int:
    c = connect()
    if c.rank == 1:
        raise KeyError("in a script")
    c.barrier()
    return 0


if __name__ == "__main__":
    Path("begun").touch()
    main = globals()[sys.argv[1]]
    in_a_script = not inspect.signature(main).parameters
    sys.exit(main() if in_a_script else run_rank(environ.detect(), main))
