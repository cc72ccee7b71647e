"""Convolutions and attention through cuDNN's Python front end, beside CuPy, which has neither.

A plan is made once for an operation, its shapes and its layout; it says beforehand how much memory
it needs beside its arrays, so that nothing is allocated while a stream is captured. Only plans that
give the same bits at every run are taken. Where the front end is not installed, or cuDNN has no
such plan, whoever asked does without it.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.backend import cublas

# cudnn.data_type by dtypes; sums are in FLOAT
KINDS = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}
CONVOLUTIONS = tuple(
    f"{kind}convolve{which}" for kind in ("", "depthwise_") for which in ("", "_grad_x", "_grad_w")
)
ROOM = 1 << 30  # bytes of workspace of a convolution, for which there are plans with next to none
CHANNELS = 8  # of images, for which cuDNN's gradients of filters are fast
ALIGNED = 16  # bytes: where an array of a plan may start


class Layout(NamedTuple):
    """An array as cuDNN sees it: batch, channels and space (or batch, heads, steps and size)."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    dtype: str

    @classmethod
    def channels_last(cls, shape: Sequence[int], dtype: str) -> Layout:
        """Images (batch, *space, channels), or filters (out, *size, in), of two axes at least."""
        n, *space, c = shape if len(shape) > 3 else (shape[0], 1, *shape[1:])
        steps = [c * math.prod(space[axis:]) for axis in range(len(space) + 1)]
        return cls((n, c, *space), (steps[0], 1, *steps[1:]), dtype)

    @classmethod
    def steps_first(cls, shape: Sequence[int], dtype: str) -> Layout:
        """Heads (batch, heads, steps, size) that lie as (batch, steps, heads, size) would."""
        b, h, s, d = shape
        return cls((b, h, s, d), (s * h * d, d, h * d, 1), dtype)


class Job(NamedTuple):
    """An operation of the front end: arguments that are arrays, results, and further arguments.

    ``rough`` says that float32 factors may be rounded to TF32.
    """

    operation: str
    given: tuple[tuple[str, Layout], ...]
    made: tuple[Layout, ...]
    options: tuple[tuple[str, Any], ...]
    rough: bool = False


class Convolution(NamedTuple):
    """What computes one of the primitives of a convolution: a result of the shape ``result``.

    Filters lie as (out, *size, in) for cuDNN: ours with their axes in ``order``. They are the
    second argument, or the result if ``makes_filters``.
    """

    job: Job
    order: tuple[int, ...]
    result: tuple[int, ...]
    makes_filters: bool


def convolution(
    name: str, first: Sequence[int], second: Sequence[int], dtype: np.dtype, params: dict[str, Any]
) -> Convolution | None:
    """A primitive on arguments of these shapes; None where windows and a product do better.

    Those are filters of one element that leave nothing out, where the product alone is all of it;
    gradients of filters with more padding on one side, of which some plans of cuDNN 9.19 give
    wrong numbers; and those for few channels, whose plans with equal bits are ten times slower.
    """
    geometry, depthwise = params["geometry"], name.startswith("depthwise_")
    count = len(geometry.size)
    if count > 3 or dtype.name not in KINDS:
        return None
    what = name.removeprefix("depthwise_")
    if what == "convolve":
        x, w = tuple(first), tuple(second)
        y = (x[0], *geometry.counts(x[1:-1]), w[-2] * w[-1] if depthwise else w[-1])
    elif what == "convolve_grad_x":
        y, w, x = tuple(first), tuple(second), tuple(params["shape"])
    else:
        x, y = tuple(first), tuple(second)
        w = (*geometry.size, x[-1], y[-1] // max(x[-1], 1) if depthwise else y[-1])
    if not all(map(math.prod, (x, w, y))):
        return None
    still = set(geometry.strides) == {1} and not any(map(sum, geometry.padding))
    if math.prod(geometry.size) == 1 and still and not depthwise:
        return None
    uneven = any(before != after for before, after in geometry.padding)
    few = w[-2] < CHANNELS and not depthwise
    if what == "convolve_grad_w" and (uneven or few):
        return None
    order = (count, count + 1, *range(count)) if depthwise else (count + 1, *range(count + 1))
    filters = (w[-2] * w[-1], *w[:-2], 1) if depthwise else (w[-1], *w[:-1])
    image, weight, result = (Layout.channels_last(s, dtype.name) for s in (x, filters, y))
    before, after = zip(*geometry.padding, strict=True)
    moves = {"pre_padding": before, "post_padding": after}
    moves |= {"stride": geometry.strides, "dilation": geometry.dilations}
    if count == 1:  # along an axis of one before it
        moves = {name: (int(name in ("stride", "dilation")), *n) for name, n in moves.items()}
    options = tuple((name, tuple(numbers)) for name, numbers in moves.items())
    rough = dtype == np.float32 and cublas.tensor_float_32
    if what == "convolve":
        job = Job("conv_fprop", (("image", image), ("weight", weight)), (result,), options, rough)
        return Convolution(job, order, y, False)
    if what == "convolve_grad_x":
        job = Job("conv_dgrad", (("loss", result), ("filter", weight)), (image,), options, rough)
        return Convolution(job, order, x, False)
    job = Job("conv_wgrad", (("image", image), ("loss", result)), (weight,), options, rough)
    return Convolution(job, order, w, True)


def attention(arrays: Sequence[Layout], bias: Layout | None, *, scale: float, causal: bool) -> Job:
    """Averages of v by q and k, laid out with the steps first, and what their gradients need."""
    q, k, v = arrays
    o = Layout.steps_first((*q.shape[:-1], v.shape[-1]), q.dtype)
    given = [("q", q), ("k", k), ("v", v), *_bias(bias)]
    options = [("attn_scale", scale), ("generate_stats", True), *_band(causal)]
    return Job("sdpa", tuple(given), (o, _stats(q)), tuple(options))


def attention_grad(
    arrays: Sequence[Layout],
    bias: Layout | None,
    made: Sequence[Layout] = (),
    *,
    scale: float,
    causal: bool,
) -> Job:
    """The gradients of q, k and v by that of o, laid out as ``made`` or with the steps first.

    ``arrays`` are those of the gradient that comes, of q, k, v and o. The plan takes q, k, v, o,
    the gradient, what ``attention`` left for it, and the bias.
    """
    dy, q, k, v, o = arrays
    given = [("q", q), ("k", k), ("v", v), ("o", o), ("dO", dy), ("stats", _stats(q)), *_bias(bias)]
    made = made or [Layout.steps_first(array.shape, q.dtype) for array in (q, k, v)]
    options = [("attn_scale", scale), ("use_deterministic_algorithm", True), *_band(causal)]
    return Job("sdpa_backward", tuple(given), tuple(made), tuple(options))


def _bias(bias: Layout | None) -> list[tuple[str, Layout]]:
    return [] if bias is None else [("bias", bias)]


def _stats(q: Layout) -> Layout:
    b, h, s, _ = q.shape
    return Layout((b, h, s, 1), (h * s, s, 1, 1), "float32")


def _band(causal: bool) -> list[tuple[str, Any]]:
    return [("diagonal_band_right_bound", 0)] if causal else []


class _Plan(NamedTuple):
    graph: Any
    tensors: tuple[Any, ...]  # in the order of the arguments and results of its job
    workspace: int  # bytes


class _Here:
    """What a thread has on one device."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle  # None where cuDNN does not work
        self.plans: dict[Job, _Plan | None] = {}


class Dnn:
    """cuDNN on the current device of each thread, and on its current stream."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._per_thread = threading.local()
        self.wanted = True  # False: as if the front end were not there
        self.declined: dict[Job, str] = {}  # and what was said
        self.by_primitive: dict[str, Callable[..., Any]] = {
            name: functools.partial(self._convolve, name) for name in CONVOLUTIONS
        }

    @functools.cached_property
    def _front_end(self) -> Any:
        """The module; None where it is not installed, or finds no cuDNN."""
        try:
            import cudnn

            cudnn.backend_version()
        except (ImportError, OSError, RuntimeError):
            return None
        return cudnn

    def version(self) -> str:
        """That of cuDNN; "none" where it is not used."""
        if self._front_end is None or not self.wanted:
            return "none"
        number = self._front_end.backend_version()
        return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"

    # Plans

    def takes(self, job: Job) -> bool:
        """Whether there is a plan; it is made if need be, which no capture allows."""
        return self.wanted and self._front_end is not None and self._plan(job) is not None

    def workspace(self, job: Job) -> int:
        """Bytes that a job needs beside its arrays."""
        return self._planned(job).workspace

    def run(self, job: Job, arrays: Sequence[Any], workspace: Any) -> None:
        """Does it, on arguments and results of the layouts of the job."""
        plan, here = self._planned(job), self._here()
        self._front_end.set_stream(here.handle, self._cupy.cuda.get_current_stream().ptr)
        places = dict(zip(plan.tensors, (array.data.ptr for array in arrays), strict=True))
        room = None if workspace is None else workspace.data.ptr
        plan.graph.execute(places, room, handle=here.handle)

    def _here(self) -> _Here:
        device = self._cupy.cuda.runtime.getDevice()
        known: dict[int, _Here] = self._per_thread.__dict__.setdefault("devices", {})
        if device not in known:
            try:
                known[device] = _Here(self._front_end.create_handle())
            except RuntimeError:
                known[device] = _Here(None)
        return known[device]

    def _planned(self, job: Job) -> _Plan:
        plan = self._plan(job)
        assert plan is not None, "whoever runs a job has asked whether there is a plan"
        return plan

    def _plan(self, job: Job) -> _Plan | None:
        here = self._here()
        if job not in here.plans and here.handle is not None:
            try:
                here.plans[job] = self._make(job, here.handle)
            except (self._front_end.cudnnGraphNotSupportedError, RuntimeError) as error:
                here.plans[job] = None
                self.declined[job] = str(error)
        return here.plans.get(job)

    def _make(self, job: Job, handle: Any) -> _Plan:
        front_end, graph, tensors = self._front_end, *graph_of(self._front_end, job, handle)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([front_end.heur_mode.A, front_end.heur_mode.FALLBACK])
        avoided = [getattr(front_end.numerical_note, name) for name in _avoided(job)]
        graph.deselect_numeric_notes(avoided)
        if job.operation.startswith("conv_"):
            graph.deselect_workspace_greater_than(ROOM)
        graph.check_support()
        graph.build_plans()
        return _Plan(graph, tensors, graph.get_workspace_size())

    # The kernels of primitives that run one by one

    def _convolve(
        self, name: str, plain: Any, first: Any, second: Any, *, out: Any = None, **params: Any
    ) -> Any:
        more = {} if out is None else {"out": out}
        found = None
        if first.dtype == second.dtype:
            found = convolution(name, first.shape, second.shape, first.dtype, params)
        if found is None or not self.takes(found.job):
            return plain(first, second, **params, **more)
        cupy, dtype = self._cupy, first.dtype
        if not found.makes_filters:
            result = cupy.empty(found.result, dtype)
            self._run_whole(found.job, first, second.transpose(found.order), result)
            return result
        filters = cupy.empty([found.result[axis] for axis in found.order], dtype)
        self._run_whole(found.job, first, second, filters)
        turned = filters.transpose(tuple(np.argsort(found.order).tolist()))
        if out is None:
            return cupy.ascontiguousarray(turned)
        out[...] = turned
        return out

    def _run_whole(self, job: Job, first: Any, second: Any, result: Any) -> None:
        """A job on arrays of whatever strides, with a workspace of its own."""
        given = [self._cupy.ascontiguousarray(array) for array in (first, second)]
        given = [a.copy() if a.data.ptr % ALIGNED else a for a in given]
        nbytes = self.workspace(job)
        workspace = self._cupy.empty((nbytes,), np.uint8) if nbytes else None
        self.run(job, (*given, result), workspace)


def graph_of(front_end: Any, job: Job, handle: Any = None) -> tuple[Any, tuple[Any, ...]]:
    """The graph of a job, and its tensors in the order of arguments and results."""
    types = {name: getattr(front_end.data_type, kind) for name, kind in KINDS.items()}
    graph = front_end.pygraph(
        io_data_type=types[job.made[0].dtype],
        intermediate_data_type=types["float32"],
        compute_data_type=types["float32"],
        handle=handle,
    )
    given = {
        name: graph.tensor(
            name=name,
            dim=list(layout.shape),
            stride=list(layout.strides),
            data_type=types[layout.dtype],
        )
        for name, layout in job.given
    }
    options = {key: list(v) if isinstance(v, tuple) else v for key, v in job.options}
    results = getattr(graph, job.operation)(**given, **options)
    made = list(results)[: len(job.made)] if isinstance(results, (list, tuple)) else [results]
    for tensor, layout in zip(made, job.made, strict=True):
        tensor.set_output(True).set_dim(list(layout.shape)).set_stride(list(layout.strides))
        tensor.set_data_type(types[layout.dtype])
    return graph, (*given.values(), *made)


def _avoided(job: Job) -> list[str]:
    """What a plan must not do; attention has an argument for equal bits besides.

    TF32 is done by tensor cores, so that without it none may be used for float32.
    """
    notes = ["NONDETERMINISTIC"]
    if job.operation.startswith("conv_"):
        notes.append("REDUCED_PRECISION_REDUCTION")
    if job.made[0].dtype == "float32":
        notes.append("DOWN_CONVERT_INPUTS")
        if not job.rough:
            notes.append("TENSOR_CORE")
    return notes
