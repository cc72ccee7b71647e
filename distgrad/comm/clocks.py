"""How far the clocks of hosts are apart, as far as exchanges between them can tell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from distgrad.comm.communicator import Communicator

_ROUNDS = 8


def ahead(communicator: Communicator, clock: Callable[[], int] = time.time_ns) -> int:
    """Nanoseconds by which the clock of this rank is ahead of rank 0's; all ranks must call it.

    Nobody leaves an exchange before everybody has entered it: each bounds the difference on both
    sides. It is known within the time of the shortest exchange, and 0 where that agrees with all
    of them; where ranks share memory, and so the host, nothing is exchanged.
    """
    if communicator.world_size == 1 or communicator.shares_memory:
        return 0
    lowest, highest = -math.inf, math.inf
    entered = left = 0
    for _ in range(_ROUNDS):
        before, entered = entered, clock()
        everyone = communicator.allgather_object((entered, left))
        zero_entered, zero_left_before = everyone[0]
        if left:
            lowest = max(lowest, before - zero_left_before)
        left = clock()
        highest = min(highest, left - zero_entered)
    return 0 if lowest <= 0 <= highest else int(lowest + highest) // 2
