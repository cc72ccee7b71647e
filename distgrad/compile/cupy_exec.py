"""The executor for GPUs: a program's launches, replayed as CUDA graphs.

What stands between two looks of the host is one graph: it ends where a bucket of gradients is
full, where Python code runs, or at a kernel that cannot be captured. A program may run several
times in a launch, for several shards. Everything that changes from run to run (inputs, random keys,
weights of shards) lies at fixed places of the device, to which it is copied before the launch.
Graphs are launched on the stream that is current, after all that was asked of it before.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.backend.cuda_launch import OPTIONS
from distgrad.compile.cuda.branch import Branch
from distgrad.compile.cuda.memory import Memory
from distgrad.compile.cuda.nodes import Node
from distgrad.compile.cuda.part import Part
from distgrad.compile.cuda.plan import Plan
from distgrad.compile.program import Program
from distgrad.core import dispatch

graphs = True  # False: the same launches one by one, for a look at each of them


Told = Callable[[int], None]


class Link(NamedTuple):
    """One run of a program among those of a launch.

    ``places`` are those of its outputs. ``beside`` are things that are done on the device between
    its nodes: after so many of them.
    """

    places: Mapping[int, Any]
    beside: Mapping[int, Sequence[Callable[[], Any]]] = {}


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
        self.refused: set[int] = set()  # the ids of nodes that could not be captured
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
        return Memory(self.backend, self.plan)

    def frame(self, places: Mapping[int, Any] | None = None, block: Memory | None = None) -> Frame:
        """The program bound to memory: ``places`` of the outputs in groups, and a ``block``."""
        return self.chain([Link(places or {})], block)

    def chain(self, links: Sequence[Link], block: Memory | None = None) -> Frame:
        """Some runs of the program, one after the other, bound to memory."""
        return Frame(self, links, self.block() if block is None else block)

    def function(self, name: str) -> Any:
        """A kernel of the program."""
        if self._functions is None:
            module = self.backend.xp.RawModule(code=self.plan.source, options=OPTIONS)
            self._functions = {
                name: module.get_function(kernel.name)
                for name, kernel in self.plan.compiled.items()
            }
        return self._functions[name]

    def constant(self, data: np.ndarray) -> Any:
        if id(data) not in self._constants:
            self._constants[id(data)] = self.backend.asarray(data)
        return self._constants[id(data)]


class Frame:
    """Runs of a program bound to memory: ``run(rows)``, for a row of inputs for each of them.

    ``told(number)`` is called as soon as the work that fills a group of outputs of the last run,
    and what is done beside it, has been put on the current stream: an event recorded there is the
    moment when it is full. ``ready()``, if given, is called in the same way for the outputs of the
    last run that stand before those of groups. ``contexts`` are what each run draws in.

    Of a single run, ``frame(arrays)`` gives the outputs, good until the next one.
    """

    def __init__(self, executor: CudaExecutor, links: Sequence[Link], memory: Memory) -> None:
        self.backend = executor.backend
        self._executor, self._plan, self._memory = executor, executor.plan, memory
        self._leaves = any(node.leaf for node in self._plan.nodes)
        self._mail = memory.mail(len(links))
        self.parts = [
            Part(executor, link.places, memory, row)
            for link, row in zip(links, self._mail.rows, strict=True)
        ]
        self._steps: list[_Step] = []
        self._ends: list[int] = []  # of the last run: steps that are done with so many nodes
        for part, link in zip(self.parts, links, strict=True):
            self._lay(part, link)
        # Frames alike have the same kernels, and take as much memory.
        self._kind = tuple(tuple((n, len(f)) for n, f in link.beside.items()) for link in links)
        self._begin()

    def _lay(self, part: Part, link: Link) -> None:
        """Appends what is done in a run."""
        self._ends = []
        for number, node in enumerate((None, *self._plan.nodes)):
            if node is not None:
                self._steps.append(_Step(part, node, number - 1))
            if self._leaves and number in self._plan.joins:
                self._steps.append(_Step(part, _JOIN, number - 1))
            for do in link.beside.get(number, ()):
                self._steps.append(_Step(part, _aside(do), number - 1))
            self._ends.append(len(self._steps))

    def _bind(self) -> None:
        """Looks for all arrays anew."""
        for part in self.parts:
            part.bind()
        self._begin()

    def _begin(self) -> None:
        self._scripts: dict[Any, tuple[list[Callable[[], None]], list[Any]]] = {}
        self._workspaces: list[Any] = []  # that the products of the scripts use
        self._told: Told = lambda number: None
        self._ready: Callable[[], None] = lambda: None

    def __call__(
        self,
        arrays: Sequence[Any],
        told: Told | None = None,
        ready: Callable[[], None] | None = None,
    ) -> list[Any]:
        self.run([arrays], told, ready)
        return self.parts[0].outputs()

    def run(
        self,
        rows: Sequence[Sequence[Any]],
        told: Told | None = None,
        ready: Callable[[], None] | None = None,
        contexts: Sequence[Any] = (),
    ) -> None:
        """Puts all runs on the current stream."""
        for part in self.parts:
            if part.moved:
                self._bind()
                break
        for check in self._plan.checks:
            for arrays in rows:
                check(arrays)
        if told is not None:
            self._told = told
        if ready is not None:
            self._ready = ready
        for part, context in zip(self.parts, contexts, strict=False):
            part.context = context
        try:
            self._mail.start()
            for part, arrays in zip(self.parts, rows, strict=True):
                for view, array in zip(self._plan.inputs, arrays, strict=True):
                    part.row.put(view, array)
            self._replay((told is not None, ready is not None))
            self._mail.send()  # where nothing is launched
        except (RuntimeError, MemoryError) as error:
            known = dispatch.explained(self._plan.program.name, error)
            if known is None:
                raise
            raise known from error

    def _replay(self, key: tuple[bool, bool]) -> None:
        script = self._scripts.get(key)
        if script is None:
            for part in self.parts:
                part.held = {}
            made = self._record(*key)
            self._scripts[key] = made, [part.held for part in self.parts]
            return
        pieces, held = script
        for part, own in zip(self.parts, held, strict=True):
            part.held = own
        for piece in pieces:
            piece()

    def _record(self, tells: bool, looks: bool) -> list[Callable[[], None]]:
        """Makes the pieces of a run, and runs each as soon as it is there."""
        self._workspaces.append(self.backend.blas.open())
        if self._leaves:
            with self.backend.blas.beside():
                self._workspaces.append(self.backend.blas.open())
        if self._kind not in self._memory.warm:
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
        """Numbers of steps after which somebody is told something; the last is that of all."""
        stops: dict[int, list[Callable[[], None]]] = {}
        if looks:
            stops[self._ends[self._plan.ready or -1]] = [lambda: self._ready()]
        for number, end in enumerate(self._plan.ends if tells else ()):
            tell = stops.setdefault(self._ends[min(end + 1, len(self._plan.nodes))], [])
            tell.append(lambda number=number: self._told(number))  # type: ignore[misc]
        stops.setdefault(len(self._steps), [])
        return iter(sorted(stops.items()))

    def _pieces(self, start: int, stop: int, add: Callable[[Callable[[], None]], None]) -> None:
        while start < stop:
            step = self._steps[start]
            if step.alone:
                self._before(start, start, add)
                add(step.by_itself)
                if graphs:
                    step.part.keep(step.node)
                start += 1
                continue
            end = next((i for i in range(start, stop) if self._steps[i].alone), stop)
            launch, end = self._launches(start, end)
            if launch is not None:
                self._before(start, end, add)
                add(launch)
            start = end

    def _before(self, start: int, stop: int, add: Callable[[Callable[[], None]], None]) -> None:
        """Adds what draws the slots of some steps, and sends them with what waits to be sent."""
        first = [step for step in self._steps[start:stop] if step.node.where == "before"]

        def draw() -> None:
            for part, node, _ in first:
                with part.context:
                    node.run(part)
                for view in node.writes:
                    part.row.drawn(view)

        if first:
            add(draw)
        if first or not start:  # inputs wait before the first of all steps
            add(self._mail.send)

    def _launches(self, start: int, stop: int) -> tuple[Callable[[], None] | None, int]:
        """What launches these steps, and where that ends: before one that cannot be captured."""
        steps = self._steps[start:stop]
        if not graphs or not any(step.node.where == "device" for step in steps):
            return functools.partial(self._run, steps), stop
        made = self._capture(steps)
        if isinstance(made, int):
            self._executor.refused.add(id(steps[made].node))
            return (None, start) if made == 0 else self._launches(start, start + made)
        return (functools.partial(self._run, steps) if made is None else made.launch), stop

    def _capture(self, steps: Sequence[_Step]) -> Any:
        """A graph of the steps; or the number of the one that cannot be captured, None for all."""
        stream, held = self._memory.stream, [dict(part.held) for part in self.parts]
        branch = Branch(stream, self._memory.beside, self.backend.blas)
        done = 0
        try:
            with stream, self.parts[0].allocating():
                stream.begin_capture()
                try:
                    for step in steps:
                        if step.node is _JOIN:
                            branch.join()
                        elif step.node.leaf:
                            branch.run(step.do)
                        else:
                            step.do()
                            branch.goes_on()
                        done += 1
                    branch.join()
                except Exception:
                    with contextlib.suppress(RuntimeError):
                        stream.end_capture()
                    raise
                return stream.end_capture()
        except Exception:
            for part, before in zip(self.parts, held, strict=True):
                part.held.clear()
                part.held.update(before)
        if done < len(steps):
            return done
        # Something was asked of the device that did not refuse at once.
        return next((i for i, step in enumerate(steps) if step.node.opaque), None)

    def _run(self, steps: Sequence[_Step]) -> None:
        with self.parts[0].allocating():
            for step in steps:
                step.do()

    def _warm_up(self) -> None:
        """Runs what lies on the device once, with no effect that lasts, on the stream for capture.

        Kernels are loaded, and the pool gets its memory: neither may happen during a capture.
        """
        cupy, stream = self.backend.xp, self._memory.stream
        self._mail.send()
        for part in self.parts:
            part.warming = True
        stream.wait_event(cupy.cuda.get_current_stream().record())
        with stream, self.parts[0].allocating():
            for part, node, number in self._steps:
                if node.where == "host":
                    for view in node.made:
                        part.held[view.buffer] = cupy.zeros(view.shape, view.dtype)
                elif node.where == "device":
                    node.run(part)
                part.drop(node, number)
        cupy.cuda.get_current_stream().wait_event(stream.record())
        for part in self.parts:
            part.warming = False
            part.held.clear()
        self._memory.warm.add(self._kind)


class _Step(NamedTuple):
    """A node of a run, or what is done beside it."""

    part: Part
    node: Node
    number: int  # of the node in its plan

    @property
    def alone(self) -> bool:
        return self.part.alone(self.node)

    def do(self) -> None:
        """Does what is done on the device."""
        if self.node.where == "device":
            self.node.run(self.part)
        self.part.drop(self.node, self.number)

    def by_itself(self) -> None:
        with self.part.context:
            self.node.run(self.part)


_JOIN = Node(lambda arrays: None, (), where="join")


def _aside(do: Callable[[], Any]) -> Node:
    """What is done on the device beside the nodes of a plan."""
    return Node(lambda arrays: do(), ())


def cuda_executor(
    program: Program, arrays: Sequence[Any], groups: Sequence[Sequence[int]] = ()
) -> CudaExecutor:
    """An executor for the GPU that is current; the shapes of ``arrays`` are those of the program.

    Sums over rows and matrix products have an order of their own: within a few units in the last
    place of the eager ones, and the same at every run.
    """
    return CudaExecutor(program, groups)
