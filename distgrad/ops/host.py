"""Python code as an operation: what looks at values, and gives an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core import recording, tree
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
    leaves = tree.flatten(args)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, (Operand, np.ndarray))]
    kept: list[Any] = [None if i in places else leaf for i, leaf in enumerate(leaves)]
    structure = tree.map_structure(lambda leaf: None, args)

    def run(*arrays: np.ndarray) -> Any:
        filled = list(kept)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = Tensor(array)
        return fn(*tree.unflatten(structure, filled))

    return bind(host_values, *[as_tensor(leaves[i]) for i in places], fn=run)
