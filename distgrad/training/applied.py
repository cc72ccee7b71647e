"""Which optimizers apply the gradients that ranks have added up, and what for.

Their settings must be the same on all ranks. Known are those that are given the very tensors that
came back; they are looked for in the first calls alone.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from distgrad.comm.communicator import Communicator
from distgrad.core import tree
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.training.handshake import check_alike

_CALLS = 64  # in which they are looked for


class _Known(threading.local):
    """What this thread has seen."""

    def __init__(self) -> None:
        self.calls = 0
        self.tensors: list[weakref.ref[Tensor]] = []  # of the last call
        self.optimizers: list[weakref.ref[Any]] = []
        self.variables: list[weakref.ref[Variable]] = []
        self.warned = False


known = _Known()


def brought(gradients: Any) -> None:
    """Says that a nest of tensors, numbers and None has gradients of all ranks."""
    if known.calls < _CALLS:
        found = tree.flatten(gradients)
        known.tensors = [weakref.ref(each) for each in found if isinstance(each, Tensor)]
    elif known.tensors:
        known.tensors = []


def note(optimizer: Any, pairs: Iterable[tuple[Any, Variable]]) -> None:
    """Says that an optimizer applies gradients, perhaps such ones."""
    given = {id(each) for ref in known.tensors if (each := ref()) is not None}
    variables = [variable for gradient, variable in pairs if id(gradient) in given]
    if variables and not any(ref() is optimizer for ref in known.optimizers):
        known.optimizers.append(weakref.ref(optimizer))
        known.variables += map(weakref.ref, variables)


def compare(communicator: Communicator) -> list[Variable]:
    """Compares the settings of the optimizers; all ranks must call it, once in each of their calls.

    That is done in the second call, the fourth, and so on, and the variables that they update are
    returned then. Raises UsageError on every rank, naming the first difference.
    """
    known.calls += 1
    if known.calls > _CALLS or known.calls < 2 or known.calls & (known.calls - 1):
        return []
    optimizers = [each for ref in known.optimizers if (each := ref()) is not None]
    variables = [each for ref in known.variables if (each := ref()) is not None]
    numbers = communicator.allgather_object((len(optimizers), len(variables)))
    if len(set(numbers)) > 1 or not optimizers:
        return []  # one may apply them alone, and give the others what comes of it
    check_settings(communicator, optimizers)
    return variables


def check_settings(communicator: Communicator, optimizers: Sequence[Any]) -> None:
    """Compares the settings of optimizers with all ranks.

    Raises UsageError on every rank, naming the first difference.
    """
    said = [optimizer.described() for optimizer in optimizers]
    check_alike(
        communicator,
        {"optimizer": said[0] if len(said) == 1 else said},
        "every worker must apply the gradients of all by the same optimizer, with the same "
        "settings.",
    )
