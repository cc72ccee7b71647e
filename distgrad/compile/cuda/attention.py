"""Small attention as one kernel, and its gradients as another: what cuDNN does not take.

A block keeps the keys and values of a head in shared memory and works on some queries, a warp on
one at a time: a lane has every 32nd key, then every 32nd number of the average. Gradients of keys
are the same thing with queries and keys exchanged, in other blocks of the launch. Nothing is added
up by several blocks: the order depends on the shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from distgrad.compile.cuda import dnn, source
from distgrad.compile.cuda.nodes import launch
from distgrad.compile.cuda.source import Kernel
from distgrad.compile.passes.attention import Takes
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import View

if TYPE_CHECKING:
    from distgrad.compile.cuda.build import Build

_KINDS = ("float32", "float16", "bfloat16")
_SHARED = 48 << 10  # bytes that a block may have without asking for more
_LONGEST = 256  # queries or keys: a lane has eight
_WIDEST = 64  # numbers of a query or a value: a lane has two
_WORK = 1 << 26  # multiplications: beyond, two products of cuBLAS are faster (a guess)
_WARPS = 8
_ROWS = 32  # queries or keys of a block


class _Sizes(NamedTuple):
    groups: int  # heads of all samples
    s: int  # queries
    t: int  # keys
    d: int
    e: int

    @classmethod
    def of(cls, q: Sequence[int], v: Sequence[int]) -> _Sizes:
        """Of the shapes of queries and values."""
        return cls(math.prod(q[:-2]), q[-2], v[-2], q[-1], v[-1])

    def fit(self) -> bool:
        most = max(self.s, self.t)
        shared = 4 * (most * (self.d + self.e + 2) + 2 * self.s)
        return (
            shared <= _SHARED
            and most <= _LONGEST
            and max(self.d, self.e) <= _WIDEST
            and self.groups * self.s * self.t * (self.d + self.e) <= _WORK
        )


def takes(cudnn: Any) -> Takes:
    """Which attention is one operation: what cuDNN has plans for, and what is small."""
    by_cudnn = dnn.takes(cudnn)

    def taken(q: Value, k: Value, v: Value, bias: Any, **more: Any) -> bool:
        return by_cudnn(q, k, v, bias, **more) or _fits(q, k, v, bias)

    return taken


def _fits(q: Value, k: Value, v: Value, bias: Any) -> bool:
    kinds = {array.dtype.name for array in (q, k, v)}
    return (
        len(q.shape) in (3, 4)
        and len(kinds) == 1
        and kinds <= set(_KINDS)
        and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        and all(array.nbytes for array in (q, k, v))
        and (type(bias) is not Value or (bias.dtype == q.dtype and dnn.spans(bias, q, k)))
        and _Sizes.of(q.shape, v.shape).fit()
    )


def attention(build: Build, apply: Apply) -> bool:
    """Averages of values, and what their gradients need."""
    if dnn.attention(build, apply):
        return True
    q, k, v, bias = apply.inputs
    if not _fits(q, k, v, bias):
        return False
    o, stats = apply.outputs
    made = [dnn.steps_first(build, o), build._own(stats)]
    given = [build.places[value] for value in (q, k, v, bias) if type(value) is Value]
    kernel = build._kernel(_Forward(given, made, **apply.params).kernel)
    build.nodes.append(launch(kernel, tuple(made)))
    return True


def attention_grad(build: Build, apply: Apply) -> bool:
    """The gradients of queries, keys and values."""
    if dnn.attention_grad(build, apply):
        return True
    dy, q, k, v, o, stats, bias = apply.inputs
    if not _fits(q, k, v, bias):
        return False
    made = [build.part(value) or dnn.steps_first(build, value) for value in apply.outputs]
    values = (q, k, v, bias, dy, o, stats)
    given = [build.places[value] for value in values if type(value) is Value]
    kernel = build._kernel(_Backward(given, made, **apply.params).kernel)
    build.nodes.append(launch(kernel, tuple(made)))
    return True


class _Writer:
    """Writes a kernel: ``given`` are the places of queries, keys, values, and more."""

    def __init__(
        self, given: Sequence[View], made: Sequence[View], *, scale: float, causal: bool
    ) -> None:
        self.places = (*given, *made)
        self.first_made = len(given)
        self.sizes = _Sizes.of(given[0].shape, given[2].shape)
        self.batch = given[0].shape[:-2]
        self.scale, self.causal = f"{scale!r}f", causal

    def kernel(self, name: str) -> Kernel:
        arguments = tuple(
            f"{'const ' if number < self.first_made else ''}{source.memory(view.dtype)} *p{number}"
            for number, view in enumerate(self.places)
        )
        body, blocks = self.write()
        lanes = "const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;\n"
        threads = 32 * _WARPS
        return Kernel(name, arguments, lanes + body, blocks, threads, self.places, single=False)

    def write(self) -> tuple[str, int]:
        raise NotImplementedError

    # Pieces of text. ``g`` is the head, and what is called a row is a query or a key.

    def at(self, number: int, row: str, column: str, shape: Sequence[int] = ()) -> str:
        """The number of an array in a row of the head."""
        view = self.places[number]
        *_, rows, columns = shape = tuple(shape or view.shape)
        where = f"((g * {rows} + {row}) * {columns} + {column})"
        return f"p{number}[{source.place(view, shape, where)}]"

    def shared(self, name: str, number: int, rows: int, width: int) -> str:
        """Fills ``name`` with all rows of an array; rows begin at other banks."""
        return (
            f"for (unsigned int i = threadIdx.x; i < {rows * width}; i += {32 * _WARPS})\n"
            f"{name}[i / {width} * {width + 1} + i % {width}] = "
            f"get({self.at(number, f'i / {width}', f'i % {width}')});"
        )

    def own(self, name: str, number: int, row: str, width: int) -> str:
        """A row, of which each lane has every 32nd number."""
        count = -(-width // 32)
        return (
            f"float {name}[{count}];\n"
            f"for (unsigned int i = 0, c = lane; i < {count}; i++, c += 32)\n"
            f"{name}[i] = c < {width} ? (float)get({self.at(number, row, 'c')}) : 0.0f;"
        )

    def products(self, name: str, own: str, shared: str, rows: int, width: int) -> str:
        """The products of a lane's rows in shared memory with the one row that all have."""
        place = f"{shared}[mine * {width + 1} + all]"
        return self._added_up(name, own, place, width, rows)

    def average(self, name: str, weights: str, shared: str, rows: int, width: int) -> str:
        """The sum of the rows in shared memory, with weights of which each lane has its own."""
        place = f"{shared}[all * {width + 1} + mine]"
        return self._added_up(name, weights, place, rows, width)

    def _added_up(self, name: str, given: str, place: str, terms: int, results: int) -> str:
        """Sums over ``all`` numbers that the lanes have: each lane gets its results, ``mine``."""
        count = -(-results // 32)
        return (
            f"float {name}[{count}] = {{}};\n"
            "#pragma unroll\n"  # else numbers that are found by i would lie in memory
            f"for (int i = 0; i < {-(-terms // 32)}; i++)\n"
            f"for (int c = 0, all = 32 * i; c < 32 && all < {terms}; c++, all++) {{\n"
            f"const float x = __shfl_sync(~0u, {given}[i], c);\n"
            f"for (int j = 0, mine = lane; j < {count}; j++, mine += 32) if (mine < {results})\n"
            f"{name}[j] = fma(x, {place}, {name}[j]);\n"
            "}"
        )

    def stored(self, name: str, number: int, row: str, width: int) -> str:
        return (
            f"for (unsigned int i = 0, c = lane; i < {-(-width // 32)}; i++, c += 32)\n"
            f"if (c < {width}) put({self.at(number, row, 'c')}, {name}[i]);"
        )

    def counts(self, query: str, key: str) -> str:
        """Whether a key counts for a query; either may be beyond the last one."""
        inside = f"{query} < {self.sizes.s} && {key} < {self.sizes.t}"
        return f"{inside} && {key} <= {query}" if self.causal else inside

    def scored(self, product: str, bias: bool, query: str, key: str) -> str:
        text = f"{product} * {self.scale}"
        if not bias:
            return text
        shape = (*self.batch, self.sizes.s, self.sizes.t)
        return f"{text} + get({self.at(3, query, key, shape)})"


class _Forward(_Writer):
    def write(self) -> tuple[str, int]:
        groups, s, t, d, e = self.sizes
        biased = self.first_made == 4
        o, stats = self.first_made, self.first_made + 1
        chunks, lanes = -(-s // _ROWS), -(-t // 32)
        on = self.counts("s", "key")
        lines = [
            f"const unsigned int g = block / {chunks}, first = block % {chunks} * {_ROWS};",
            f"__shared__ float ks[{t * (d + 1)}], vs[{t * (e + 1)}];",
            self.shared("ks", 1, t, d),
            self.shared("vs", 2, t, e),
            "__syncthreads();",
            f"for (unsigned int s = first + warp; s < {s} && s < first + {_ROWS}; "
            f"s += {_WARPS}) {{",
            self.own("q", 0, "s", d),
            self.products("score", "q", "ks", t, d),
            "float most = -1.0f / 0.0f, total = 0;",
            f"for (unsigned int j = 0, key = lane; j < {lanes}; j++, key += 32) {{",
            f"score[j] = {on} ? {self.scored('score[j]', biased, 's', 'key')} : -1.0f / 0.0f;",
            "most = larger(most, score[j]);",
            "}",
            "most = whole<Max, 32>(most, ks);",
            f"for (int j = 0; j < {lanes}; j++) total += score[j] = exp(score[j] - most);",
            "total = whole<Sum, 32>(total, ks);",
            f"for (int j = 0; j < {lanes}; j++) score[j] /= total;",
            self.average("sum", "score", "vs", t, e),
            self.stored("sum", o, "s", e),
            f"if (!lane) put({self.at(stats, 's', '0')}, most + log(total));",
            "}",
        ]
        return "\n".join(lines), groups * chunks


class _Backward(_Writer):
    def write(self) -> tuple[str, int]:
        groups, s, t, d, e = self.sizes
        self.biased = self.first_made == 7
        self.dy, self.o, self.stats = range(self.first_made - 3, self.first_made)
        by_query, by_key = -(-s // _ROWS), -(-t // _ROWS)
        most = max(s, t)
        lines = [
            f"__shared__ float left[{most * (d + 1)}], right[{most * (e + 1)}];",
            f"if (block < {groups * by_query}) {{",
            f"const unsigned int g = block / {by_query}, first = block % {by_query} * {_ROWS};",
            *self._queries(),
            "} else {",
            f"const unsigned int own = block - {groups * by_query};",
            f"const unsigned int g = own / {by_key}, first = own % {by_key} * {_ROWS};",
            *self._keys(),
            "}",
        ]
        return "\n".join(lines), groups * (by_query + by_key)

    def _queries(self) -> list[str]:
        """The gradients of some queries, beside all keys."""
        _, s, t, d, e = self.sizes
        weight = self.scored("score[j]", self.biased, "s", "key")
        return [
            self.shared("left", 1, t, d),
            self.shared("right", 2, t, e),
            "__syncthreads();",
            f"for (unsigned int s = first + warp; s < {s} && s < first + {_ROWS}; "
            f"s += {_WARPS}) {{",
            self.own("q", 0, "s", d),
            self.own("dy", self.dy, "s", e),
            self.own("o", self.o, "s", e),
            self.products("score", "q", "left", t, d),
            self.products("less", "dy", "right", t, e),
            "float along = 0;",
            f"for (int i = 0; i < {-(-e // 32)}; i++) along += dy[i] * o[i];",
            "along = whole<Sum, 32>(along, left);",
            f"const float top = get({self.at(self.stats, 's', '0')});",
            f"for (unsigned int j = 0, key = lane; j < {-(-t // 32)}; j++, key += 32)",
            f"score[j] = {self.counts('s', 'key')} ? exp({weight} - top) * (less[j] - along) * "
            f"{self.scale} : 0.0f;",
            self.average("sum", "score", "left", t, d),
            self.stored("sum", self.first_made, "s", d),
            "}",
        ]

    def _keys(self) -> list[str]:
        """The gradients of some keys and their values, beside all queries."""
        _, s, t, d, e = self.sizes
        weight = self.scored("score[j]", self.biased, "s", "key")
        return [
            f"__shared__ float along[{s}], tops[{s}];",
            self.shared("left", 0, s, d),
            self.shared("right", self.dy, s, e),
            "__syncthreads();",
            f"for (unsigned int s = warp; s < {s}; s += {_WARPS}) {{",
            self.own("o", self.o, "s", e),
            "float sum = 0;",
            f"for (unsigned int i = 0, c = lane; i < {-(-e // 32)}; i++, c += 32)",
            f"if (c < {e}) sum += right[s * {e + 1} + c] * o[i];",
            "sum = whole<Sum, 32>(sum, left);",
            f"if (!lane) along[s] = sum, tops[s] = get({self.at(self.stats, 's', '0')});",
            "}",
            "__syncthreads();",
            f"for (unsigned int key = first + warp; key < {t} && key < first + {_ROWS}; "
            f"key += {_WARPS}) {{",
            self.own("k", 1, "key", d),
            self.own("v", 2, "key", e),
            self.products("score", "k", "left", s, d),
            self.products("less", "v", "right", s, e),
            f"for (unsigned int j = 0, s = lane; j < {-(-s // 32)}; j++, s += 32) {{",
            f"score[j] = {self.counts('s', 'key')} ? exp({weight} - tops[s]) : 0.0f;",
            f"less[j] = s < {s} ? score[j] * (less[j] - along[s]) * {self.scale} : 0.0f;",
            "}",
            self.average("dk", "less", "left", s, d),
            self.average("dv", "score", "right", s, e),
            self.stored("dk", self.first_made + 1, "key", d),
            self.stored("dv", self.first_made + 2, "key", e),
            "}",
        ]
