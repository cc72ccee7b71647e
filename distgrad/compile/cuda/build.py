"""From instructions to launches: which kernel runs a primitive, and where its arrays lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.backend import cudnn
from distgrad.backend.cublas import matrices
from distgrad.backend.cuda_rows import listed
from distgrad.compile.cuda import attention, dnn, fused, pooling, source
from distgrad.compile.cuda.joins import Joins
from distgrad.compile.cuda.nodes import Arrays, Draw, Node, Opaque, Python, launch
from distgrad.compile.cuda.source import Kernel
from distgrad.compile.numpy_exec import c_strides
from distgrad.compile.passes import Fused
from distgrad.compile.program import Apply, Call, Instruction, Program, Read, Slot, Value, Write
from distgrad.compile.steps import Buffer, View
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable


class Build:
    """Makes the nodes of a program, one instruction after the other."""

    def __init__(self, program: Program, copied: set[Read], backend: Any) -> None:
        self.nodes: list[Node] = []
        self._kernels = 0
        self.places: dict[Value, View] = {}
        self.slots: list[View] = []
        self.checks: list[Callable[[Sequence[Any]], None]] = []  # of inputs
        self._program, self._copied, self._backend = program, copied, backend
        self._joins = Joins(program)
        self._reads: list[tuple[Read, Buffer, int]] = []  # and the node before which it stands
        self._barriers: list[tuple[int, Variable | None]] = []
        self._from_inputs: dict[Value, Callable[[Sequence[Any]], Any]] = {}
        for i, value in enumerate(program.inputs):
            self._own(value, Buffer(value.nbytes, "input", i))
            self._from_inputs[value] = lambda arrays, i=i: _on_host(arrays[i])  # type: ignore[misc]
        for instruction in program.instructions:
            for value in instruction.values:
                self._constant(value)
            self._add(instruction)
        for value in program.outputs:
            self._constant(value)

    def late_reads(self) -> set[Read]:
        """Reads whose view of the variable is looked at after the variable may have changed."""
        last: dict[Buffer, int] = {}
        for index, node in enumerate(self.nodes):
            last |= {view.buffer: index for view in node.mentions}
        for value in self._program.outputs:
            last[self.places[value].buffer] = len(self.nodes)
        late = set()
        for read, buffer, made in self._reads:
            for index, variable in self._barriers:
                end = last.get(buffer, -1) + (variable is None)  # a call may write while it reads
                if made <= index < end and (variable is None or variable is read.variable):
                    late.add(read)
        return late - self._copied

    # Places

    def _own(self, value: Value, buffer: Buffer | None = None) -> View:
        """A place of its own, row after row."""
        buffer = buffer or Buffer(value.nbytes)
        view = View(buffer, 0, value.shape, (), value.dtype)
        self.places[value] = view._replace(strides=c_strides(view))
        return self.places[value]

    def part(self, value: Value) -> View | None:
        """A place in what the value is going to be joined to, if there is one."""
        found = self._joins.parts.get(value)
        if found is not None:
            self.places[value] = found
        return found

    def _constant(self, value: Value) -> None:
        if value.constant and value not in self.places:
            data = np.ascontiguousarray(value.data).reshape(value.shape)
            self._own(value, Buffer(data.nbytes, "constant", data))

    def _views(self, inputs: Sequence[Any]) -> list[Any]:
        return [self.places[v] if type(v) is Value else v for v in inputs]

    def _node(self, run: Callable[[Arrays], None], *views: Any, **more: Any) -> None:
        found = tuple(v for v in views if isinstance(v, View))
        self.nodes.append(Node(run, found, **more))

    def _kernel(self, make: Callable[..., Kernel], *args: Any) -> Kernel:
        self._kernels += 1
        return make(f"kernel_{self._kernels - 1}", *args)

    def _copied_to(self, target: View, source: View) -> None:
        if not math.prod(target.shape):
            return  # there is no launch of no blocks
        kernel = self._kernel(fused.copying, target, source)
        self.nodes.append(launch(kernel, (target,)))

    # Instructions

    def _add(self, instruction: Instruction) -> None:
        if isinstance(instruction, Fused):
            for part in instruction.body:
                self._trace_back(part)
            self._add_group(instruction)
        elif isinstance(instruction, Apply):
            self._trace_back(instruction)
            handler = _HANDLERS.get(instruction.name)
            if handler is None or not handler(self, instruction):
                self._opaque(instruction)
        elif isinstance(instruction, Read):
            self._add_read(instruction)
        elif isinstance(instruction, Slot):
            (value,) = instruction.outputs
            view = self._own(value, Buffer(value.nbytes, "slot", len(self.slots)))
            self.slots.append(view)
            self._node(Draw(instruction, view), view, writes=(view,), where="before")
        elif isinstance(instruction, Write):
            self._add_write(instruction)
        elif isinstance(instruction, Call):
            self._add_call(instruction)
        else:
            raise TypeError(f"no plan for {instruction!r}")

    def _add_group(self, group: Fused) -> None:
        outputs = [self.part(value) or self._own(value) for value in group.outputs]
        kernel = self._kernel(fused.compiled, group, self.places)
        self.nodes.append(launch(kernel, tuple(outputs)))

    def _add_read(self, read: Read) -> None:
        (value,) = read.outputs
        buffer = Buffer(value.nbytes, "variable", read.variable)
        view = self._own(value, buffer)
        self._reads.append((read, buffer, len(self.nodes)))
        if read in self._copied:
            self._copied_to(self._own(value), view)

    def _add_write(self, write: Write) -> None:
        (value,), variable = write.inputs, write.variable
        source = self.places[value]
        if source.buffer.owner is variable:  # it would be read and written at a time
            source = self._copy_of(source, source.shape)
        target = source._replace(buffer=Buffer(0, "variable", variable), offset=0)
        target = target._replace(strides=c_strides(target))
        self._node(lambda arrays: variable._recall_loans(), where="before")
        self._barriers.append((len(self.nodes), variable))
        self._copied_to(target, source)

    def _add_call(self, call: Call) -> None:
        if not call.writes and all(v in self._from_inputs for v in call.values):
            makers = [self._from_inputs[v] for v in call.values]
            self.checks.append(lambda arrays: call.run(*[Tensor(make(arrays)) for make in makers]))
            return
        if call.writes:
            self._barriers.append((len(self.nodes), None))
        views = self._views(call.inputs)
        self._node(Python(call, views), *views, where="host")

    def _trace_back(self, apply: Apply) -> None:
        """Notes how whole numbers are made of inputs, for checks that can be made on the host."""
        (first, *_), out = apply.outputs, apply.outputs[0]
        known = all(v in self._from_inputs for v in apply.values) and apply.inputs
        if not known or apply.primitive.multiple or apply.effect or first.dtype.kind not in "iub":
            return
        primitive, params, inputs = apply.primitive, apply.params, apply.inputs

        def made(arrays: Sequence[Any]) -> Any:
            given = [self._from_inputs[v](arrays) if type(v) is Value else v for v in inputs]
            return np.asarray(primitive.kernel(np, *given, **params))

        self._from_inputs[out] = made

    # Primitives

    def _opaque(self, apply: Apply) -> None:
        """A primitive by its kernel over CuPy."""
        views = self._views(apply.inputs)
        made = tuple(self._own(v, Buffer(v.nbytes, "dynamic")) for v in apply.outputs)
        run = Opaque(apply.primitive, apply.params, views, made)
        # What is drawn on the host needs its key there.
        where = "host" if apply.primitive.host or apply.primitive.creates else "device"
        self._node(run, *views, *made, writes=made, where=where, made=made, opaque=True)

    def view(self, apply: Apply) -> bool:
        """A primitive that looks at its argument in another way; a copy where it cannot."""
        (x,), (out,) = apply.inputs, apply.outputs
        if type(x) is not Value:
            return False
        place = self.places[x]
        if not math.prod(place.shape) or not out.nbytes:
            return False
        blank = np.lib.stride_tricks.as_strided(
            np.zeros(1, place.dtype), place.shape, place.strides
        )
        if apply.name == "reshape_to":
            try:
                seen = np.reshape(blank, apply.params["shape"], copy=False)
            except ValueError:  # a copy, and a look at it
                whole = self._own(Value(x.shape, x.dtype))
                self._copied_to(whole, place)
                self.places[out] = whole._replace(shape=out.shape)
                self.places[out] = self.places[out]._replace(strides=c_strides(self.places[out]))
                return True
        else:
            seen = apply.primitive.kernel(np, blank, **apply.params)
        start = seen.__array_interface__["data"][0] - blank.__array_interface__["data"][0]
        self.places[out] = place._replace(
            offset=place.offset + start, shape=seen.shape, strides=seen.strides
        )
        return True

    def join(self, apply: Apply) -> bool:
        """Arrays one after the other: each is copied to its part."""
        (out,) = apply.outputs
        if any(type(v) is not Value for v in apply.inputs) or not out.nbytes:
            return False
        self.places[out] = self._joins.whole(apply)
        for value, part in zip(apply.inputs, self._joins.pieces(apply), strict=True):
            if value.nbytes and self.places[value].buffer is not part.buffer:  # made elsewhere
                self._copied_to(part, self.places[value])
        return True

    def split(self, apply: Apply) -> bool:
        (x,), axis = apply.inputs, apply.params["axis"]
        place, start = self.places[x], 0
        for value in apply.outputs:
            offset = place.offset + start * place.strides[axis]
            self.places[value] = place._replace(offset=offset, shape=value.shape)
            start += value.shape[axis]
        return True

    def _added_up(self, x: Value, out: Value) -> tuple[View, View, Callable[[], None]]:
        """Where terms lie row after row, where their sums go, and what is to be done then.

        Terms of 16 bits are added up in float32.
        """
        place, target = self._whole(x), self._own(out)
        if out.dtype.name in _OWN:
            return place, target, lambda: None
        wide = self._new(out.shape, np.dtype(np.float32))
        place = self._copy_of(place, place.shape, wide.dtype)
        return place, wide, lambda: self._copied_to(target, wide)

    def _whole(self, value: Value) -> View:
        """Where a value lies row after row: a copy, if it does not."""
        place = self.places[value]
        if place.contiguous:
            return place
        own = View(Buffer(value.nbytes), 0, place.shape, c_strides(place), place.dtype)
        self._copied_to(own, place)
        return own

    def added_rows(self, apply: Apply) -> bool:
        """Rows that are added up by their indices: the gradient of an embedding."""
        (g, indices), (out,) = apply.inputs, apply.outputs
        if (
            apply.params["axis"] != 0
            or out.dtype.name not in source.FLOATS
            or not (g.nbytes and out.nbytes)
        ):
            return False
        if type(indices) is not Value:
            return False
        place = self.places[indices]
        given, target, finish = self._added_up(g, out)
        whole = place.contiguous and place.dtype == np.int64
        rows = place if whole else self._copy_of(place, place.shape, np.dtype(np.int64))
        room = listed(out.shape[0], math.prod(place.shape))
        lists = [self._new((room,), np.dtype(np.int32))] if room else []

        def run(arrays: Arrays) -> None:
            arrays.backend.rows.add(*map(arrays.array, (target, given, rows, *lists)))

        self._node(run, given, rows, target, *lists, writes=(target, *lists))
        finish()
        return True

    def uniform(self, apply: Apply) -> bool:
        """Random numbers from a key that changes from run to run, without a look at it."""
        (key,), (out,) = apply.inputs, apply.outputs
        if out.dtype.name not in _OWN or not out.nbytes or type(key) is not Value:
            return False
        place, target = self._whole(key), self._own(out)

        def run(arrays: Arrays) -> None:
            arrays.backend.own.uniform_from(arrays.array(target), arrays.array(place))

        self._node(run, place, target, writes=(target,))
        return True

    def dot(self, apply: Apply) -> bool:
        """A matrix product, by cuBLAS; transposes are no copies."""
        if not multiplied(apply, self._backend.blas):
            return False
        (a, b), (out,) = apply.inputs, apply.outputs
        at_a, at_b = self.places[a], self.places[b]
        if apply.params["transpose_a"]:
            at_a = _swapped(at_a)
        elif len(b.shape) == 2 and len(a.shape) > 2:  # one product of all rows
            at_a = self._flat_rows(at_a)
        if apply.params["transpose_b"]:
            at_b = _swapped(at_b)
        batch = np.broadcast_shapes(at_a.shape[:-2], at_b.shape[:-2])
        at_a, at_b = self._readable(at_a, batch), self._readable(at_b, batch)
        as_a, as_b = _matrices(at_a, batch), _matrices(at_b, batch)
        sizes = math.prod(batch), at_a.shape[-2], at_a.shape[-1], at_b.shape[-1]
        target = self._own(out)

        def run(arrays: Arrays) -> None:
            given = map(arrays.array, (target, at_a, at_b))
            arrays.backend.blas.multiply(*given, sizes, as_a, as_b)

        self._node(run, at_a, at_b, target, writes=(target,), products=math.prod(sizes))
        return True

    def _flat_rows(self, place: View) -> View:
        blank = np.lib.stride_tricks.as_strided(
            np.zeros(1, place.dtype), place.shape, place.strides
        )
        shape = math.prod(place.shape[:-1]), place.shape[-1]
        try:
            strides = np.reshape(blank, shape, copy=False).strides
        except ValueError:
            place = self._copy_of(place, place.shape)
            strides = place.strides[-2:]
        return place._replace(shape=shape, strides=strides)

    def _readable(self, place: View, batch: tuple[int, ...]) -> View:
        """Matrices as cuBLAS takes them."""
        if _matrices(place, batch) is None:
            place = self._copy_of(place, place.shape)
        if _matrices(place, batch) is None:  # leading axes that only partly repeat
            place = self._copy_of(place, (*batch, *place.shape[-2:]))
        return place

    def _copy_of(self, place: View, shape: tuple[int, ...], dtype: Any = None) -> View:
        own = self._new(shape, dtype or place.dtype)
        self._copied_to(own, place)
        return own

    def _new(self, shape: tuple[int, ...], dtype: np.dtype) -> View:
        own = View(Buffer(math.prod(shape) * dtype.itemsize), 0, shape, (), dtype)
        return own._replace(strides=c_strides(own))


_OWN = ("float32", "float64")  # what the kernels of kernels.cu take
_HANDLERS: dict[str, Callable[[Build, Apply], bool]] = {
    **dict.fromkeys(("reshape_to", "permute", "broadcast_to", "getitem"), Build.view),
    "take_grad": Build.added_rows,
    "join": Build.join,
    "split_at": Build.split,
    "random_uniform": Build.uniform,
    "dot": Build.dot,
    **dict.fromkeys(cudnn.CONVOLUTIONS, dnn.convolution),
    "attention": attention.attention,
    "attention_grad": attention.attention_grad,
    "max_windows": pooling.max_windows,
    "max_windows_grad": pooling.max_windows_grad,
}


def multiplied(apply: Apply, blas: Any) -> bool:
    """Whether a product goes to cuBLAS."""
    a, b = apply.inputs
    given = type(a) is Value and type(b) is Value and a.nbytes and b.nbytes
    return bool(given) and a.dtype == b.dtype and blas.takes(a.dtype)


def _on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.get()


def _matrices(place: View, batch: tuple[int, ...]) -> Any:
    return matrices(place.shape, [s // place.dtype.itemsize for s in place.strides], batch)


def _swapped(place: View) -> View:
    *outer, rows, columns = place.shape
    *steps, down, along = place.strides
    return place._replace(shape=(*outer, columns, rows), strides=(*steps, along, down))
