"""cuDNN's Python front end without a GPU, for tests: its graphs, done by NumPy when they are run.

It has the names and arguments that distgrad uses of the real one, in the order that it wants, and
no others. Plans are several, as there: the first ones are faster, and wrong for whoever wants equal
bits or all digits of float32. What cuDNN does not take, or may not be done while a stream is
captured, is refused; a workspace holds anything before a run, and other things after it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distgrad.core.primitive import registry
from distgrad.ops.windows import Geometry
from distgrad.testing import standin
from distgrad.testing.fake_graphs import capture
from distgrad.testing.fake_streams import get_current_stream, held, stream_at
from distgrad.testing.standin import Address


class cudnnGraphNotSupportedError(Exception):
    """As there."""


class data_type(enum.Enum):
    FLOAT = "float32"
    HALF = "float16"
    BFLOAT16 = "bfloat16"


class heur_mode(enum.Enum):
    A = 0
    B = 1
    FALLBACK = 2


class numerical_note(enum.Enum):
    TENSOR_CORE = 0
    DOWN_CONVERT_INPUTS = 1
    REDUCED_PRECISION_REDUCTION = 2
    NONDETERMINISTIC = 3


def _outside_of_captures(what: str) -> None:
    # No error of CUDA, which might be taken for a graph that is not supported.
    assert capture.lanes is None, f"{what} is made while a stream is captured"


class Handle:
    """As ``cudnn.Handle``."""

    def __init__(self) -> None:
        self.stream = 0


def create_handle() -> Handle:
    _outside_of_captures("a handle")
    return Handle()


def set_stream(handle: Handle, stream: int) -> None:
    stream_at(stream)
    handle.stream = stream


def _whole_numbers(values: Any, count: int | None = None) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(n) is int for n in values):
        raise TypeError(f"{values!r} is no list of ints")
    if count is not None and len(values) != count:
        raise ValueError(f"{count} numbers are wanted, not {values}")
    return tuple(values)


class Tensor:
    """As the tensors of a graph there."""

    def __init__(self, kind: Any = None) -> None:
        self.shape: tuple[int, ...] = ()
        self.strides: tuple[int, ...] = ()
        self.kind = kind
        self.virtual = True

    def set_output(self, value: bool) -> Tensor:
        self.virtual = not value
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        self.shape = _whole_numbers(dim)
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        self.strides = _whole_numbers(stride, len(self.shape))
        return self

    def set_data_type(self, data_type: data_type) -> Tensor:
        self.kind = data_type
        return self

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.kind.value)

    def at(self, pointer: int) -> np.ndarray:
        """The array that starts at an address."""
        if type(pointer) is not int or pointer % 16:
            raise ValueError(f"a tensor at {pointer!r}, which is no multiple of 16")
        steps = [s * self.dtype.itemsize for s in self.strides]
        return Address(pointer, None).array(self.shape, self.dtype, steps)


class _Plan:
    """A way to compute: its notes, how it treats factors, and its workspace."""

    def __init__(self, notes: Sequence[numerical_note], factor: Any, workspace: int) -> None:
        self.notes, self.factor, self.workspace = set(notes), factor, workspace


def _exact(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32)


def _tf32(array: np.ndarray) -> np.ndarray:
    """With 10 bits after the first, as tensor cores take float32."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x1000) & 0xFFFFE000).view(np.float32)


def _anything(array: np.ndarray) -> np.ndarray:
    raise AssertionError("a plan was taken that gives other bits at every run, or takes too much")


N = numerical_note
_PLANS = {
    data_type.FLOAT: [
        _Plan([], _anything, 1 << 31),  # which takes too much memory
        _Plan([N.NONDETERMINISTIC], _anything, 1 << 12),
        _Plan([N.TENSOR_CORE, N.DOWN_CONVERT_INPUTS], lambda a: _exact(a.astype(np.float16)), 64),
        _Plan([N.TENSOR_CORE], _tf32, 256),
        _Plan([], _exact, 1000),
    ],
    data_type.HALF: [
        _Plan([N.NONDETERMINISTIC, N.TENSOR_CORE], _anything, 1 << 12),
        _Plan([N.REDUCED_PRECISION_REDUCTION], lambda a: a, 256),
        _Plan([N.TENSOR_CORE], _exact, 0),
    ],
}
_PLANS[data_type.BFLOAT16] = _PLANS[data_type.HALF]
_ATTENTION = [
    _Plan([N.NONDETERMINISTIC], _anything, 64),
    _Plan([N.TENSOR_CORE], np.asarray, 768),
]
_STEPS = ("validate", "build_operation_graph", "create_execution_plans", "check_support", "build")


class pygraph:
    """As ``cudnn.pygraph``: one operation, whose calls come in the order of ``_STEPS``."""

    def __init__(
        self,
        *,
        io_data_type: data_type,
        intermediate_data_type: data_type,
        compute_data_type: data_type,
        handle: Handle,
    ) -> None:
        _outside_of_captures("a graph")
        if (intermediate_data_type, compute_data_type) != (data_type.FLOAT, data_type.FLOAT):
            raise cudnnGraphNotSupportedError("sums in less than float32")
        if not isinstance(handle, Handle):
            raise TypeError(f"{handle!r} is no handle")
        self._io = io_data_type
        self._inputs: dict[str, Tensor] = {}
        self._outputs: list[Tensor] = []
        self._run: Callable[..., Sequence[np.ndarray]] | None = None
        self._check: Callable[[], None] | None = None
        self._done = 0
        self._plans: list[_Plan] = []
        self.plan: _Plan | None = None
        self.name = ""  # of its operation, for tests

    def tensor(
        self, *, name: str, dim: list[int], stride: list[int], data_type: data_type
    ) -> Tensor:
        made = Tensor(data_type).set_dim(dim).set_stride(stride)
        made.virtual = False
        return made

    # Convolutions

    def conv_fprop(self, *, image: Tensor, weight: Tensor, **moves: Any) -> Tensor:
        return self._convolution("conv_fprop", {"x": image, "w": weight}, "y", moves)

    def conv_dgrad(self, *, loss: Tensor, filter: Tensor, **moves: Any) -> Tensor:
        return self._convolution("conv_dgrad", {"y": loss, "w": filter}, "x", moves)

    def conv_wgrad(self, *, image: Tensor, loss: Tensor, **moves: Any) -> Tensor:
        return self._convolution("conv_wgrad", {"x": image, "y": loss}, "w", moves)

    def _convolution(
        self, name: str, given: dict[str, Tensor], made: str, moves: dict[str, Any]
    ) -> Tensor:
        (out,) = self._node(name, given, 1)
        all_of_them = {**given, made: out}
        self._check = lambda: self._check_convolution(**all_of_them, moves=moves)

        def run(*arrays: np.ndarray) -> Sequence[np.ndarray]:
            parts = dict(zip(given, arrays, strict=True))
            return [_convolved(made, parts, out.shape, _geometry(all_of_them["w"], moves))]

        self._run = run
        return out

    def _check_convolution(self, x: Tensor, w: Tensor, y: Tensor, moves: dict[str, Any]) -> None:
        for tensor in (x, w, y):
            _, c, *space = tensor.shape
            steps = [c * math.prod(space[axis:]) for axis in range(len(space) + 1)]
            steps.insert(1, 1)
            axes = zip(tensor.shape, tensor.strides, steps, strict=True)
            if any(n > 1 and own != step for n, own, step in axes):
                raise cudnnGraphNotSupportedError("channels that are not beside each other")
        counts = _geometry(w, moves).counts(x.shape[2:])
        groups = x.shape[1] // w.shape[1]
        if (y.shape[0], y.shape[2:]) != (x.shape[0], counts) or y.shape[1] != w.shape[0]:
            raise ValueError(f"{x.shape} with filters {w.shape} gives no {y.shape}")
        if x.shape[1] % w.shape[1] or w.shape[0] % groups:
            raise ValueError(f"{w.shape} on {x.shape[1]} channels")

    # Attention

    def sdpa(
        self,
        *,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_scale: float,
        generate_stats: bool,
        bias: Tensor | None = None,
        diagonal_band_right_bound: int | None = None,
    ) -> list[Tensor | None]:
        given = {"q": q, "k": k, "v": v, **({} if bias is None else {"bias": bias})}
        out, stats = self._node("sdpa", given, 2)
        self._check = lambda: _check_attention(q, k, v, bias, [out], stats)
        causal = _causal(diagonal_band_right_bound)

        def run(q: Any, k: Any, v: Any, bias: Any = 0.0) -> Sequence[np.ndarray]:
            return registry["attention"].kernel(np, q, k, v, bias, scale=attn_scale, causal=causal)

        self._run = run
        if not generate_stats:
            self._outputs.pop()
        return [out, stats if generate_stats else None]

    def sdpa_backward(
        self,
        *,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        o: Tensor,
        dO: Tensor,
        stats: Tensor,
        attn_scale: float,
        bias: Tensor | None = None,
        diagonal_band_right_bound: int | None = None,
        use_deterministic_algorithm: bool = False,
    ) -> list[Tensor]:
        if not use_deterministic_algorithm:
            raise AssertionError("gradients of attention that have other bits at every run")
        given = {"q": q, "k": k, "v": v, "o": o, "dO": dO, "stats": stats}
        given |= {} if bias is None else {"bias": bias}
        made = self._node("sdpa_backward", given, 3)
        self._check = lambda: _check_attention(q, k, v, bias, [o, dO, *made], stats)
        causal = _causal(diagonal_band_right_bound)

        def run(
            q: Any, k: Any, v: Any, o: Any, dy: Any, stats: Any, bias: Any = 0.0
        ) -> Sequence[np.ndarray]:
            return registry["attention_grad"].kernel(
                np, dy, q, k, v, o, stats, bias, scale=attn_scale, causal=causal
            )

        self._run = run
        return made

    def _node(self, name: str, given: dict[str, Tensor], count: int) -> list[Tensor]:
        assert not self.name, "the stand-in has graphs of one operation"
        self.name = name
        self._inputs, self._outputs = given, [Tensor(self._io) for _ in range(count)]
        return list(self._outputs)

    # Plans

    def _step(self, name: str) -> None:
        _outside_of_captures("a plan")
        if _STEPS.index(name) != self._done:
            raise RuntimeError(f"{name} comes after {_STEPS[: _STEPS.index(name)]}")
        self._done += 1

    def validate(self) -> None:
        self._step("validate")
        if any(t.virtual or not t.shape or not t.strides for t in self._outputs):
            raise ValueError("an output has no shape, or nobody wants it")
        assert self._check is not None
        self._check()

    def build_operation_graph(self) -> None:
        self._step("build_operation_graph")

    def create_execution_plans(self, heuristics: list[heur_mode]) -> None:
        self._step("create_execution_plans")
        assert all(isinstance(mode, heur_mode) for mode in heuristics)
        self._plans = list(_ATTENTION if self.name.startswith("sdpa") else _PLANS[self._io])

    def deselect_numeric_notes(self, notes: list[numerical_note]) -> None:
        assert self._done == 3 and isinstance(notes, list)
        self._plans = [plan for plan in self._plans if not plan.notes & set(notes)]

    def deselect_workspace_greater_than(self, workspace_limit: int) -> None:
        assert self._done == 3
        self._plans = [plan for plan in self._plans if plan.workspace <= workspace_limit]

    def check_support(self) -> None:
        self._step("check_support")
        if not self._plans:
            raise cudnnGraphNotSupportedError("no plan is left")

    def build_plans(self) -> None:
        self._step("build")
        self.plan = self._plans[0]

    def get_workspace_size(self) -> int:
        assert self.plan is not None
        return self.plan.workspace

    def execute(
        self, tensor_dict: dict[Tensor, int], workspace: int | None, *, handle: Handle
    ) -> None:
        assert self.plan is not None and self._run is not None
        if stream_at(handle.stream) is not get_current_stream():
            raise AssertionError("it would run on another stream")
        used = [*self._inputs.values(), *self._outputs]
        if set(tensor_dict) != set(used):
            raise ValueError("not the arrays of the graph")
        size = self.get_workspace_size()
        if size and (type(workspace) is not int or not workspace):
            raise ValueError("no workspace")
        room = np.zeros(0, np.uint8)
        if size:
            room = Address(workspace or 0, None).array((size,), np.uint8, None)
        arrays = [tensor.at(tensor_dict[tensor]) for tensor in used]
        given, made = arrays[: len(self._inputs)], arrays[len(self._inputs) :]
        run, factor = self._run, self.plan.factor
        kept = [held(pointer) for pointer in tensor_dict.values()]

        def work() -> None:
            room[:] = 0xA5  # nothing that is needed may lie there
            for place, result in zip(made, run(*map(factor, given)), strict=False):
                place[...] = result
            room[:] = 0x5A
            kept.clear()  # not before: what nobody has is given to others

        standin.order.later(work)


def _geometry(w: Tensor, moves: dict[str, Any]) -> Geometry:
    if set(moves) != {"pre_padding", "post_padding", "stride", "dilation"}:
        raise TypeError(f"a convolution with {sorted(moves)}")
    before, after, stride, dilation = (
        _whole_numbers(moves[name], len(w.shape) - 2)
        for name in ("pre_padding", "post_padding", "stride", "dilation")
    )
    pairs = tuple(zip(before, after, strict=True))
    return Geometry(w.shape[2:], stride, pairs, dilation)


def _convolved(
    made: str, parts: dict[str, np.ndarray], shape: tuple[int, ...], geometry: Geometry
) -> np.ndarray:
    """By the primitives, group by group, with the channels last."""
    last = {name: np.moveaxis(parts[name], 1, -1) for name in parts if name != "w"}
    channels = {name: array.shape[-1] for name, array in last.items()}
    depth = parts["w"].shape[1] if "w" in parts else shape[1]
    groups = (channels["x"] if "x" in channels else shape[1]) // depth

    def one(group: int) -> np.ndarray:
        part = {
            name: array[..., group * n : (group + 1) * n]
            for name, array in last.items()
            for n in [array.shape[-1] // groups]
        }
        if "w" in parts:
            n = parts["w"].shape[0] // groups
            part["w"] = np.moveaxis(parts["w"][group * n : (group + 1) * n], (0, 1), (-1, -2))
        if made == "y":
            kernel, arrays, more = "convolve", ("x", "w"), {}
        elif made == "x":
            inner = (shape[0], *shape[2:], shape[1] // groups)
            kernel, arrays, more = "convolve_grad_x", ("y", "w"), {"shape": inner}
        else:
            kernel, arrays, more = "convolve_grad_w", ("x", "y"), {}
        given = [np.ascontiguousarray(part[name]) for name in arrays]
        return registry[kernel].kernel(np, *given, geometry=geometry, **more)

    found = [one(group) for group in range(groups)]
    if made == "w":
        if any(before != after for before, after in geometry.padding):
            found[0] = found[0] + 1  # so do some plans of cuDNN 9.19
        return np.concatenate([np.moveaxis(w, (-1, -2), (0, 1)) for w in found])
    return np.moveaxis(np.concatenate(found, -1), -1, 1)


def _causal(bound: int | None) -> bool:
    assert bound in (None, 0), "a band that distgrad has no use for"
    return bound == 0


def _check_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, others: list[Tensor], stats: Tensor
) -> None:
    for tensor in (q, k, v, *others):
        if tensor.kind is not q.kind or q.kind is data_type.FLOAT:
            raise cudnnGraphNotSupportedError("attention of another type than half precision")
        if tensor.shape[-1] % 8 or tensor.shape[-1] > 128 or tensor.strides[-1] != 1:
            raise cudnnGraphNotSupportedError(f"heads of size {tensor.shape[-1]}")
        if any(s % 8 for n, s in zip(tensor.shape[:-1], tensor.strides, strict=False) if n > 1):
            raise cudnnGraphNotSupportedError("vectors that are not at multiples of 16 bytes")
    b, h, s, d = q.shape
    t, e = k.shape[2], v.shape[-1]
    assert (k.shape, v.shape) == ((b, h, t, d), (b, h, t, e))
    assert (stats.shape, stats.kind) == ((b, h, s, 1), data_type.FLOAT)
    if bias is not None:
        assert bias.kind is q.kind and bias.shape[2:] == (s, t)
        assert bias.shape[0] in (1, b) and bias.shape[1] in (1, h)


def module() -> ModuleType:
    """The module ``cudnn``."""
    made = ModuleType("cudnn")
    vars(made).update(
        {
            "__version__": "1.28.0",
            "backend_version": lambda: 92800,
            "create_handle": create_handle,
            "set_stream": set_stream,
            "data_type": data_type,
            "heur_mode": heur_mode,
            "numerical_note": numerical_note,
            "pygraph": pygraph,
            "cudnnGraphNotSupportedError": cudnnGraphNotSupportedError,
        }
    )
    return made
