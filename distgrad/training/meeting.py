"""Where the shards of a step meet: what all of them bring is added up, and all go on.

Shards of one worker take turns, each in a thread of its own, one of which runs at a time. A shard
that meets nobody needs none of this.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.core import dispatch, recording
from distgrad.core.custom import custom_gradient
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.training.state import share

SPARE = -1  # the index of a shard that somebody else runs


class _Here(threading.local):
    seat: Seat | None = None
    asked = False  # whether this thread has asked for others since somebody looked


_here = _Here()


def current() -> Seat | None:
    """The shard that this thread runs, where it may meet others."""
    return _here.seat


def has_others() -> bool:
    """Whether the running shard meets others: whoever asks would add up something with theirs.

    Raises RuntimeError where there are others that cannot be met.
    """
    _here.asked = True
    if _here.seat is None and share() < 1:
        raise RuntimeError(
            "numbers are to be added up over shards that run one after the other. A layer that "
            "does so needs meets = True; distribute.gradients must be called without state= or "
            "variables=, so that it looks at the function first"
        )
    return _here.seat is not None


class asked:
    """Context that knows afterwards whether anybody in it would have met other shards."""

    found = False

    def __enter__(self) -> asked:
        self._before, _here.asked = _here.asked, False
        return self

    def __exit__(self, *exc: object) -> None:
        self.found, _here.asked = _here.asked, self._before or _here.asked


def over_shards(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums of tensors over all shards of the step, alike in each; themselves without others.

    The gradient is that of the loss of the whole batch: what comes back from all shards is added
    up as well. Every shard must call it equally often. Raises RuntimeError as `has_others` does.
    """
    if not has_others():
        return list(tensors)
    seat = _here.seat
    assert seat is not None

    recording.refuse("a sum over shards")

    @custom_gradient
    def added_up(*parts: Tensor) -> Any:
        totals = seat.add_up([part._host() for part in parts])

        def back(*upstream: Tensor) -> list[Tensor]:
            weight = seat.weight
            if weight == 1.0:
                return over_shards(upstream)
            return [g / weight for g in over_shards([g * weight for g in upstream])]

        return [as_tensor(total) for total in totals], back

    found = added_up(*tensors)
    return list(found) if isinstance(found, (list, tuple)) else [found]


class Seat:
    """One shard's run of a step that has ``shards`` in all, ``work``, as a subclass has it.

    ``weight`` is what its gradients are still to be multiplied by, in units of their mean.
    ``pause`` and ``resume`` are called before and after others run.
    """

    def __init__(self, index: int, shards: int, weight: float = 1.0) -> None:
        self.index, self.shards = index, shards
        self.weight = weight
        self.rehearses = False  # meets nobody
        self.dismissed = self.done = False
        self.error: BaseException | None = None
        self.brought: list[np.ndarray] = []
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self._alone_at: Meeting | None = None

    def work(self) -> None:
        raise NotImplementedError

    def pause(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    @property
    def is_spare(self) -> bool:
        """Whether somebody else runs this shard as well, and what it brings is left."""
        return self.index == SPARE

    @property
    def purpose(self) -> tuple[Any, ...]:
        """What it has come to a meeting for: the same for all shards."""
        return tuple((array.shape, array.dtype) for array in self.brought)

    def add_up(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The sums of what all shards bring, in one fixed order."""
        self.brought = list(arrays)
        self.meet()
        return self.brought

    def meet(self) -> None:
        """Returns when all shards have come here, and what they met for is done."""
        if self.rehearses:
            return
        self.pause()
        if self._alone_at is not None:
            _here.seat = None
            try:
                self._alone_at.together([self])
            finally:
                _here.seat = self
        else:
            self.back.release()
            self.go.acquire()
            if self.dismissed:
                raise _Dismissed
        self.resume()

    def run(self) -> None:
        """The work, in this thread; an error is kept."""
        before, _here.seat = _here.seat, self
        try:
            if not self.dismissed:
                self.work()
        except _Dismissed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            _here.seat = before
            self.done = True

    def start(self) -> None:
        """Makes a thread that runs it when it is let ``go``."""
        context, backend = contextvars.copy_context(), dispatch.current()

        def work() -> None:
            backend.enter_thread()
            self.go.acquire()
            context.run(self.run)
            self.back.release()

        threading.Thread(target=work, daemon=True, name=f"shard {self.index}").start()


class Meeting:
    """Runs the shards of this worker, from one meeting with all others to the next."""

    def __init__(self, communicator: Communicator) -> None:
        self.communicator = communicator

    def hold(self, seats: Sequence[Any]) -> None:
        """Runs all to their ends. Raises the first error of one, and RuntimeError where some ended
        while others wanted to meet."""
        if len(seats) == 1:
            (seat,) = seats
            seat._alone_at = self
            seat.run()
            if seat.error is not None:
                raise seat.error
            return
        for seat in seats:
            seat.start()
        try:
            while not all(seat.done for seat in seats):
                for seat in seats:
                    seat.go.release()
                    seat.back.acquire()
                _look_for_errors(seats)
                if not seats[0].done:
                    self.together(seats)
        except BaseException:
            _dismiss(seats)
            raise

    def together(self, seats: Sequence[Any]) -> None:
        """Does what all shards have met for."""
        if len({seat.purpose for seat in seats}) > 1:
            raise RuntimeError(
                "shards of a batch applied gradients of different variables, or met for something "
                "else: a step must do the same for all samples"
            )
        self.add_up(seats)

    def add_up(self, seats: Sequence[Any]) -> None:
        """Adds up the arrays that all shards have brought, in their order, whoever had them."""
        own = {seat.index: seat.brought for seat in seats if not seat.is_spare}
        total = ordered_sum(self.communicator.allgather_object(own))
        for seat in seats:
            seat.brought = total


class _Dismissed(BaseException):
    """Ends the turns of shards beside one that has failed."""


def _look_for_errors(seats: Sequence[Any]) -> None:
    error = next((seat.error for seat in seats if seat.error is not None), None)
    if error is not None:
        raise error
    if len({seat.done for seat in seats}) > 1:
        raise RuntimeError(
            "some shards of a batch applied gradients, or met for something else, where others had "
            "come to their end: a step (train_step) must do so equally often for all samples"
        )


def _dismiss(seats: Sequence[Any]) -> None:
    """Ends the threads of shards that have met, or are on their way to it."""
    for seat in seats:
        if not seat.done:
            seat.dismissed = True
            seat.go.release()
            seat.back.acquire()


def ordered_sum(everyone: Sequence[dict[int, list[np.ndarray]]]) -> list[np.ndarray]:
    """Arrays by shard, of all ranks, added in the order of the shards."""
    first, *rest = in_order(everyone)
    total = [np.array(array) for array in first]
    for arrays in rest:
        for place, array in zip(total, arrays, strict=True):
            place += array
    return total


def in_order(everyone: Sequence[dict[int, Any]]) -> list[Any]:
    """What the shards of all ranks have, in their order."""
    shards = {index: each for part in everyone for index, each in part.items()}
    return [shards[index] for index in sorted(shards)]
