"""The calls of layers that a thread is in, and contexts around them: modes, and trials."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from distgrad.core.tensor import Tensor
from distgrad.core.undone import undone


class _Calls(threading.local):
    """The calls that this thread is in: how deep, and whether they train."""

    depth = 0
    training: bool | None = None
    trial = False
    again = False  # to compute inner values once more

    def __init__(self) -> None:
        # What layers have added in the last call: shards in threads of their own have each theirs.
        self.losses: WeakKeyDictionary[Any, list[Tensor]] = WeakKeyDictionary()


class Losses:
    """Whether some layer has added a loss, and who is told of each that one adds.

    Where one has, calls must clear those of the last call.
    """

    used = False
    listeners: ClassVar[list[Callable[[Any], None]]] = []


calls = _Calls()


class within:
    """Context that stands for the call of a layer that is made once more: no state is kept."""

    def __init__(self, training: bool | None) -> None:
        self._training = training

    def __enter__(self) -> None:
        self._saved = calls.training, calls.again
        calls.training, calls.again = self._training, True
        calls.depth += 1

    def __exit__(self, *exc: object) -> None:
        calls.training, calls.again = self._saved
        calls.depth -= 1


class in_mode:
    """Context in which layers train or do not, as ``training`` says; None leaves that alone."""

    def __init__(self, training: Any) -> None:
        self._training = training

    def __enter__(self) -> None:
        self._saved = calls.training
        if self._training is not None:
            calls.training = bool(self._training)

    def __exit__(self, *exc: object) -> None:
        calls.training = self._saved


class quiet:
    """Context in which a layer is tried out: training as it does by default, nothing is kept.

    Weights are: what ``build`` assigns stays.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._undone = undone()

    def __enter__(self) -> None:
        self._saved = calls.training, calls.depth, calls.trial
        self._losses_used = Losses.used
        calls.training, calls.trial = None, True
        self._undone.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._undone.__exit__()
        calls.training, calls.depth, calls.trial = self._saved
        Losses.used = self._losses_used
        self._layer._forget_losses()


def trying_out() -> bool:
    """Whether the running call is a trial, or one made again, whose state is not to be kept."""
    return calls.trial or calls.again
