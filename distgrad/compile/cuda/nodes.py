"""What a program for a GPU does, thing by thing: launches, and Python beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from distgrad.compile.cuda.source import Kernel
from distgrad.compile.program import Call, Slot
from distgrad.compile.steps import Buffer, View
from distgrad.core.primitive import Primitive
from distgrad.core.tensor import Tensor


class Arrays(Protocol):
    """What a node finds its arrays with."""

    backend: Any

    def array(self, view: View) -> Any:
        """The array on the device."""

    def host(self, view: View) -> np.ndarray:
        """The value of a slot or a constant, on the host."""

    def hold(self, buffer: Buffer, array: Any) -> None:
        """``array`` is what the buffer, of kind "dynamic", has from now on."""

    def launch(self, kernel: Kernel) -> None:
        """Starts a kernel of the plan's own."""


class Node(NamedTuple):
    """One thing that is done: ``run(arrays)``, which reads and writes the views of ``mentions``.

    ``where`` it is done: on the "device", in Python on the "host", or "before" the launch of what
    stands around it: a slot, or the last look at a variable that is written to. ``made`` are the
    results that it holds. A ``leaf`` may run beside all that follows it, up to the next of the
    plan's joins.
    """

    run: Callable[[Arrays], None]
    mentions: tuple[View, ...]
    writes: tuple[View, ...] = ()
    where: str = "device"
    made: tuple[View, ...] = ()
    opaque: bool = False  # it is a kernel over CuPy, which may do what cannot be captured
    kernel: Kernel | None = None  # that it starts, and nothing else
    products: int = 0  # multiplications of numbers, where it is a product of matrices
    leaf: bool = False


def launch(kernel: Kernel, writes: tuple[View, ...]) -> Node:
    """A node that starts a kernel."""
    return Node(lambda arrays: arrays.launch(kernel), kernel.places, writes, kernel=kernel)


# What a node does in Python


class Draw:
    """A slot: what Python gives this time."""

    def __init__(self, slot: Slot, view: View) -> None:
        self._draw, self._view = slot.draw, view

    def __call__(self, arrays: Arrays) -> None:
        drawn = self._draw()._host()
        np.copyto(arrays.host(self._view), drawn)


class Python:
    """A call of Python code, on tensors that are good for as long as it takes."""

    def __init__(self, call: Call, views: Sequence[View]) -> None:
        self._run, self._views = call.run, views

    def __call__(self, arrays: Arrays) -> None:
        self._run(*[Tensor(arrays.array(view)) for view in self._views])


class Opaque:
    """A primitive's kernel over CuPy, with products by cuBLAS itself."""

    def __init__(
        self,
        primitive: Primitive,
        params: dict[str, Any],
        inputs: Sequence[Any],
        made: tuple[View, ...],
    ) -> None:
        self._primitive, self._params = primitive, params
        self._inputs, self._made = inputs, made

    def __call__(self, arrays: Arrays) -> None:
        primitive, backend = self._primitive, arrays.backend
        at = arrays.host if primitive.creates else arrays.array
        given = [at(v) if isinstance(v, View) else v for v in self._inputs]
        ours = (
            primitive.name in backend.own.by_primitive
            or primitive.name in backend.rows.by_primitive
        )
        if ours or primitive.creates or primitive.host:
            out = primitive.kernel_for(backend.xp)(*given, **self._params)
        else:
            out = primitive.kernel(backend.capturable, *given, **self._params)
        for view, array in zip(self._made, out if primitive.multiple else (out,), strict=True):
            arrays.hold(view.buffer, backend.xp.ascontiguousarray(array).reshape(view.shape))
