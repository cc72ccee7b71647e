"""Python code as an operation: what looks at values, and gives an array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Operand, Tensor


@primitive(vjp=None, match=(), host=True)
def host_values(xp, *arrays, fn):
    """``fn(*arrays)`` on arrays of the host, an array; no recorder sees what it does."""
    given = [backend_of(array).to_numpy(array) for array in arrays]
    with recording.suspended():
        return xp.asarray(fn(*given))


@host_values.samples
def _(rng):
    yield sample(rng.normal(size=(2, 3)), rng.normal(size=3), fn=np.dot)


def on_host(fn: Callable[..., Any], *args: Any) -> Tensor:
    """``fn(*args)``, an array that depends on the arguments alone, as a tensor; no gradient.

    The arguments are nests. A captured function calls ``fn`` again at each replay, with tensors
    where it has them.
    """
    if recording.per_thread.capture is None:
        with recording.suspended():
            return Tensor(np.asarray(fn(*args)))
    tensors: list[Tensor] = []
    fill = _filler(args, tensors)
    return bind(host_values, *tensors, fn=lambda *arrays: fn(*fill(iter(arrays))))


def _filler(item: Any, tensors: list[Tensor]) -> Callable[[Iterator[Any]], Any]:
    """A function that builds ``item`` anew, with the next array for each tensor in it."""
    if isinstance(item, (Operand, np.ndarray)):
        tensors.append(as_tensor(item))
        return lambda arrays: Tensor(next(arrays))
    if type(item) in (list, tuple):
        parts = [_filler(part, tensors) for part in item]
        if type(item) is list:
            return lambda arrays: [part(arrays) for part in parts]
        return lambda arrays: tuple([part(arrays) for part in parts])
    if isinstance(item, Mapping):
        named = {key: _filler(part, tensors) for key, part in item.items()}
        return lambda arrays: {key: part(arrays) for key, part in named.items()}
    return lambda arrays: item
