"""The executor for GPUs: a program's launches, replayed as CUDA graphs.

What stands between two looks of the host is one graph: it ends where a bucket of gradients is
full, where Python code runs, or at a kernel that cannot be captured. Everything that changes from
run to run (inputs, random keys, weights of shards) lies at fixed places of the device, to which it
is copied before the launch. Graphs are launched on the stream that is current, after all that was
asked of it before.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.compile import cuda_fused
from distgrad.compile.cuda_memory import Memory
from distgrad.compile.cuda_nodes import Node
from distgrad.compile.cuda_plan import Plan
from distgrad.compile.program import Program
from distgrad.compile.steps import Buffer, View
from distgrad.core import dispatch
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable

graphs = True  # False: the same launches one by one, for a look at each of them


Told = Callable[[int], None]


class CudaExecutor:
    """Runs a program on the current GPU; it has the interface of `numpy_exec.Executor`.

    Inputs may lie on the host or on the device. Outputs lie on the device, and are there as soon
    as what is asked of the current stream is.
    """

    def __init__(self, program: Program, groups: Sequence[Sequence[int]] = ()) -> None:
        backend: Any = dispatch.current()
        backend.blas.open()  # where it cannot be used, nothing has begun
        self.backend = backend
        self.plan = Plan(program, groups, self.backend)
        self.groups = tuple(map(tuple, groups))
        self.nbytes = self.plan.nbytes
        self._constants: dict[int, Any] = {}
        self._functions: dict[str, Any] | None = None
        self._idle: list[Frame] = []

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        try:
            frame = self._idle.pop()  # one step for threads, as append is
        except IndexError:
            frame = self.frame()
        try:
            return [array.copy() for array in frame(arrays)]
        finally:
            self._idle.append(frame)

    def block(self) -> Memory:
        """Memory for frames."""
        return Memory(self.backend.xp, self.plan)

    def frame(self, places: Mapping[int, Any] | None = None, block: Memory | None = None) -> Frame:
        """The program bound to memory: ``places`` of the outputs in groups, and a ``block``."""
        return Frame(self, places or {}, self.block() if block is None else block)

    def function(self, name: str) -> Any:
        """A kernel of the program."""
        if self._functions is None:
            module = self.backend.xp.RawModule(code=self.plan.source, options=cuda_fused.OPTIONS)
            names = [kernel.name for kernel in self.plan.kernels]
            self._functions = {name: module.get_function(name) for name in names}
        return self._functions[name]

    def constant(self, data: np.ndarray) -> Any:
        if id(data) not in self._constants:
            self._constants[id(data)] = self.backend.asarray(data)
        return self._constants[id(data)]


class Frame:
    """A program bound to memory: ``frame(arrays)`` gives its outputs, good until the next run.

    ``told(number)`` is called as soon as the work that fills a group of outputs has been put on the
    current stream: an event recorded there is the moment when it is full. ``ready(outputs)``, if
    given, is called in the same way with the outputs that stand before those of groups.
    """

    def __init__(self, executor: CudaExecutor, places: Mapping[int, Any], memory: Memory) -> None:
        self.backend = executor.backend
        self._executor, self._plan = executor, executor.plan
        self._places, self._memory = places, memory
        self._mail = memory.mail
        self._uncapturable: set[int] = set()  # nodes
        self._warming = False
        self._bind()

    def _bind(self) -> None:
        self._bound: list[tuple[Variable, Any]] = []
        self._arrays: dict[View, Any] = {}
        self._held: dict[Buffer, Any] = {}  # what kernels over CuPy gave
        self._fixed: dict[Buffer, Any] = {}  # of those, what must be found where it was
        self._scripts: dict[Any, tuple[list[Callable[[], None]], dict[Buffer, Any]]] = {}
        self._told: Told = lambda number: None
        self._ready: Callable[[list[Any]], None] = lambda outputs: None

    # What nodes ask for

    def array(self, view: View) -> Any:
        if view.buffer.kind == "dynamic":
            return self._at(self._held[view.buffer], view)
        found = self._arrays.get(view)
        if found is None:
            found = self._arrays[view] = self._make(view)
        return found

    def _make(self, view: View) -> Any:
        buffer = view.buffer
        if buffer.kind == "temporary":
            return self._placed(self._memory.block + self._plan.homes[buffer], view)
        if buffer.kind in ("input", "slot"):
            return self._placed(self._mail.place(buffer), view)
        if buffer.kind == "output":
            return self._at(self._places[buffer.owner], view)
        if buffer.kind == "constant":
            return self._at(self._executor.constant(buffer.owner), view)
        self._bound.append((buffer.owner, buffer.owner._buffer))
        return self._at(buffer.owner._buffer, view)

    def _at(self, array: Any, view: View) -> Any:
        if (view.offset, view.shape, view.strides) == (0, array.shape, array.strides):
            return array
        return self._placed(array.data, view)

    def _placed(self, pointer: Any, view: View) -> Any:
        cupy = self.backend.xp
        return cupy.ndarray(view.shape, view.dtype, pointer + view.offset, view.strides)

    def host(self, view: View) -> np.ndarray:
        if view.buffer.kind == "slot":
            return self._mail.on_host(view)
        if view.buffer.kind == "constant":
            return view.buffer.owner
        return self.array(view).get()

    def hold(self, buffer: Buffer, array: Any) -> None:
        fixed = self._fixed.get(buffer)
        if fixed is None:
            self._held[buffer] = array
        else:
            fixed[...] = array
            self._held[buffer] = fixed

    def launch(self, kernel: cuda_fused.Kernel) -> None:
        arrays = tuple([self.array(view) for view in kernel.places])
        if self._warming and kernel.places[0].buffer.kind == "variable":  # it must stay as it is
            arrays = (self.backend.xp.empty(arrays[0].shape, arrays[0].dtype), *arrays[1:])
        self._executor.function(kernel.name)((kernel.blocks,), (kernel.threads,), arrays)

    # Running

    def __call__(
        self,
        arrays: Sequence[Any],
        told: Told | None = None,
        ready: Callable[[list[Any]], None] | None = None,
    ) -> list[Any]:
        for variable, buffer in self._bound:
            if variable._buffer is not buffer:  # moved into an arena
                self._bind()
                break
        for call, values in self._plan.checks:
            call.run(*map(Tensor, values(arrays)))
        if told is not None:
            self._told = told
        if ready is not None:
            self._ready = ready
        try:
            self._mail.start()
            for view, array in zip(self._plan.inputs, arrays, strict=True):
                self._mail.put(view, array)
            key = told is not None, ready is not None
            script = self._scripts.get(key)
            if script is None:
                self._held = {}
                self._scripts[key] = self._record(*key), self._held
            else:
                pieces, self._held = script
                for piece in pieces:
                    piece()
            self._mail.send()  # where nothing is launched
        except (RuntimeError, MemoryError) as error:
            known = dispatch.explained(self._plan.program.name, error)
            if known is None:
                raise
            raise known from error
        return self._outputs()

    def _outputs(self, count: int | None = None) -> list[Any]:
        return [self.array(view) for view in self._plan.outputs[:count]]

    def _record(self, tells: bool, looks: bool) -> list[Callable[[], None]]:
        """Makes the pieces of a run, and runs each as soon as it is there."""
        if not self._memory.warm:
            self._warm_up()
        script: list[Callable[[], None]] = []

        def add(piece: Callable[[], None]) -> None:
            piece()
            script.append(piece)

        start = 0
        for stop, marks in self._stops(tells, looks):
            self._pieces(start, stop, add)
            for mark in marks:
                add(mark)
            start = stop
        return script

    def _stops(self, tells: bool, looks: bool) -> Iterator[tuple[int, list[Callable[[], None]]]]:
        """Numbers of nodes after which somebody is told something; the last is that of all."""
        stops: dict[int, list[Callable[[], None]]] = {}
        if looks:
            count = min((p for group in self._executor.groups for p in group), default=None)
            stops[self._plan.ready or len(self._plan.nodes)] = [
                lambda: self._ready(self._outputs(count))
            ]
        for number, end in enumerate(self._plan.ends if tells else ()):
            tell = stops.setdefault(end + 1, [])
            tell.append(lambda number=number: self._told(number))  # type: ignore[misc]
        stops.setdefault(len(self._plan.nodes), [])
        return iter(sorted(stops.items()))

    def _pieces(self, start: int, stop: int, add: Callable[[Callable[[], None]], None]) -> None:
        while start < stop:
            if self._alone(start):
                add(self._before(start, start))
                add(functools.partial(self._plan.nodes[start].run, self))
                self._keep(start)
                start += 1
                continue
            end = next((i for i in range(start, stop) if self._alone(i)), stop)
            launch, end = self._launches(start, end)
            if launch is not None:
                add(self._before(start, end))
                add(launch)
            start = end

    def _alone(self, index: int) -> bool:
        return self._plan.nodes[index].where == "host" or index in self._uncapturable

    def _before(self, start: int, stop: int) -> Callable[[], None]:
        """Draws the slots of some nodes, and sends them with what waits to be sent."""
        first = [n for n in self._plan.nodes[start:stop] if n.where == "before"]

        def prepare() -> None:
            for node in first:
                node.run(self)
                for view in node.writes:
                    self._mail.drawn(view)
            self._mail.send()

        return prepare

    def _launches(self, start: int, stop: int) -> tuple[Callable[[], None] | None, int]:
        """What launches these nodes, and where that ends: before one that cannot be captured."""
        nodes = range(start, stop)
        if not graphs or not any(self._plan.nodes[i].where == "device" for i in nodes):
            return functools.partial(self._run, nodes), stop
        made = self._capture(nodes)
        if isinstance(made, int):
            self._uncapturable.add(made)
            return (None, start) if made == start else self._launches(start, made)
        return (functools.partial(self._run, nodes) if made is None else made.launch), stop

    def _capture(self, nodes: range) -> Any:
        """A graph of the nodes; or the number of the one that cannot be captured, None for all."""
        stream, held = self._memory.stream, dict(self._held)
        index = nodes.start
        try:
            with stream, self._allocating():
                stream.begin_capture()
                try:
                    for index in nodes:
                        self._do(index)
                except Exception:
                    with contextlib.suppress(RuntimeError):
                        stream.end_capture()
                    raise
                index = -1
                return stream.end_capture()
        except Exception:
            self._held.clear()
            self._held.update(held)
        if index >= 0:
            return index
        # Something was asked of the device that did not refuse at once.
        return next((i for i in nodes if self._plan.nodes[i].opaque), None)

    def _run(self, nodes: range) -> None:
        with self._allocating():
            for index in nodes:
                self._do(index)

    def _do(self, index: int) -> None:
        node = self._plan.nodes[index]
        if node.where == "device":
            node.run(self)
        self._drop(node, index)

    def _drop(self, node: Node, index: int) -> None:
        """Lets go of what no later node looks at."""
        for view in node.mentions:
            buffer = view.buffer
            if buffer.kind != "dynamic" or self._plan.last[buffer] > index:
                continue
            if buffer not in self._fixed and not self._seen_alone(buffer):
                self._held.pop(buffer, None)

    def _seen_alone(self, buffer: Buffer) -> bool:
        """Whether a node that runs by itself looks at it: it must find it at every run."""
        nodes = enumerate(self._plan.nodes)
        return any(
            self._alone(i) and any(view.buffer is buffer for view in node.mentions)
            for i, node in nodes
        )

    def _keep(self, index: int) -> None:
        """Gives the results of a node that runs by itself places for all runs."""
        for view in self._plan.nodes[index].made if graphs else ():
            if view.buffer not in self._fixed:
                with self._allocating():
                    self._fixed[view.buffer] = self._held[view.buffer].copy()
                self._held[view.buffer] = self._fixed[view.buffer]

    @contextlib.contextmanager
    def _allocating(self) -> Iterator[None]:
        with self.backend.xp.cuda.using_allocator(self._memory.pool.malloc):
            yield

    def _warm_up(self) -> None:
        """Runs what lies on the device once, with no effect that lasts, on the stream for capture.

        Kernels are loaded, and the pool gets its memory: neither may happen during a capture.
        """
        cupy, stream = self.backend.xp, self._memory.stream
        self._mail.send()
        self._warming = True
        stream.wait_event(cupy.cuda.get_current_stream().record())
        with stream, self._allocating():
            for index, node in enumerate(self._plan.nodes):
                if node.where == "host":
                    for view in node.made:
                        self._held[view.buffer] = cupy.zeros(view.shape, view.dtype)
                elif node.where == "device":
                    node.run(self)
                self._drop(node, index)
        self._warming = False
        cupy.cuda.get_current_stream().wait_event(stream.record())
        self._held.clear()
        self._memory.warm = True


def cuda_executor(
    program: Program, arrays: Sequence[Any], groups: Sequence[Sequence[int]] = ()
) -> CudaExecutor:
    """An executor for the GPU that is current; the shapes of ``arrays`` are those of the program.

    Sums over rows and matrix products have an order of their own: within a few units in the last
    place of the eager ones, and the same at every run.
    """
    return CudaExecutor(program, groups)
