"""Max pooling as one kernel, and its gradient as another; over CuPy it is some for each element of
a window.

A thread makes one number: the largest of a window, or what the windows of an element give it, which
it adds up in their order. The bits are those of the primitives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distgrad.compile.cuda import source
from distgrad.compile.cuda.nodes import launch
from distgrad.compile.cuda.source import FLOATS, Kernel
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import View
from distgrad.ops.windows import Geometry

if TYPE_CHECKING:
    from distgrad.compile.cuda.build import Build

_LARGEST = 16  # elements of a window


def max_windows(build: Build, apply: Apply) -> bool:
    """The largest element of each window."""
    (x,), (out,), geometry = apply.inputs, apply.outputs, apply.params["geometry"]
    if not _fits((x, out), geometry):
        return False
    windows = _Windows(x.shape, geometry)
    type_ = FLOATS[x.dtype.name]
    body = [
        *windows.coordinates("w", windows.counts),
        f"{type_} best = -1.0 / 0.0;",
        *windows.taps("j"),
        f"if ({windows.inside()}) best = larger(best, get(p0[{windows.at}]));",
        "}",
        "put(p1[at], best);",
    ]
    return _made(build, [build._whole(x)], build._own(out), body)


def max_windows_grad(build: Build, apply: Apply) -> bool:
    """What comes for the largest element of each window, at the first place where it stands."""
    (dy, x), (out,), geometry = apply.inputs, apply.outputs, apply.params["geometry"]
    if not _fits((dy, x, out), geometry):
        return False
    windows = _Windows(x.shape, geometry)
    type_, sum_type = FLOATS[x.dtype.name], FLOATS[dy.dtype.name]
    added = source.ROUNDED.get(out.dtype.name, "{}").format(f"sum + get(p0[{windows.window}])")
    body = [
        *windows.coordinates("i", windows.space),
        f"{sum_type} sum = 0;",
        *windows.taps("k"),
        *windows.window_of_tap(),
        f"{type_} best = -1.0 / 0.0;",
        "int first = 0, number = 0;",
        *windows.taps("j"),
        f"const {type_} one = {windows.inside()} ? ({type_})get(p1[{windows.at}]) "
        f": ({type_})(-1.0 / 0.0);",
        "if (one > best || one != one) best = one, first = number;",
        "number++;",
        "}",
        f"if (best == best && first == {windows.number('k')}) sum = {added};",
        "}",
        "put(p2[at], sum);",
    ]
    return _made(build, [build._whole(dy), build._whole(x)], build._own(out), body)


def _fits(values: Sequence[object], geometry: Geometry) -> bool:
    return math.prod(geometry.size) <= _LARGEST and all(
        type(v) is Value and v.dtype.name in FLOATS and v.nbytes > 0 for v in values
    )


def _made(build: Build, given: Sequence[View], target: View, body: Sequence[str]) -> bool:
    size = math.prod(target.shape)
    text = "\n".join([source.over(size) + " {", f"{source.index(size)} rest = at;", *body, "}"])
    arguments = [f"const {source.memory(v.dtype)} *p{i}" for i, v in enumerate(given)]
    arguments.append(f"{source.memory(target.dtype)} *p{len(given)}")
    places = (*given, target)

    def kernel(name: str) -> Kernel:
        return Kernel(name, tuple(arguments), text, *source.flat(size), places)

    build.nodes.append(launch(build._kernel(kernel), (target,)))
    return True


class _Windows:
    """Text about windows over an array (batch, *space, channels), row by row.

    ``i0``, ``i1`` are places in the array, ``w0``, ``w1`` those of windows, ``n`` the sample, ``c``
    the channel.
    """

    def __init__(self, shape: Sequence[int], geometry: Geometry) -> None:
        self.geometry = geometry
        self.space, self.channels = tuple(shape[1:-1]), shape[-1]
        self.counts = geometry.counts(self.space)
        self.axes = range(len(self.space))
        wide = source.index(math.prod(shape))
        moves = zip(geometry.strides, geometry.dilations, geometry.padding, strict=True)
        self._terms = [f"w{a} * {s} + j{a} * {d} - {p[0]}" for a, (s, d, p) in enumerate(moves)]
        self.at = self._place(wide, [f"({term})" for term in self._terms], self.space)
        self.window = self._place(wide, [f"w{a}" for a in self.axes], self.counts)

    def _place(self, wide: str, terms: Sequence[str], sizes: Sequence[int]) -> str:
        place = f"({wide})n"
        for term, size in zip(terms, sizes, strict=True):
            place = f"({place} * {size} + {term})"
        return f"{place} * {self.channels} + c"

    def coordinates(self, name: str, sizes: Sequence[int]) -> list[str]:
        """Takes ``rest`` apart."""
        lines = [f"const int c = rest % {self.channels};", f"rest /= {self.channels};"]
        for axis in reversed(self.axes):
            lines += [f"const int {name}{axis} = rest % {sizes[axis]};", f"rest /= {sizes[axis]};"]
        return [*lines, "const int n = rest;"]

    def taps(self, name: str) -> list[str]:
        """Opens a loop over the elements of a window."""
        names = [f"{name}{axis}" for axis in self.axes]
        loops = [
            f"#pragma unroll\nfor (int {one} = 0; {one} < {size}; {one}++)"
            for one, size in zip(names, self.geometry.size, strict=True)
        ]
        return [*loops, "{"]

    def number(self, name: str) -> str:
        """The number of an element in its window."""
        text = "0"
        for axis in self.axes:
            text = f"({text} * {self.geometry.size[axis]} + {name}{axis})"
        return text

    def inside(self) -> str:
        """Whether element ``j`` of a window is one of the array."""
        texts = ["true"]
        for axis, (term, size) in enumerate(zip(self._terms, self.space, strict=True)):
            if any(self.geometry.padding[axis]):
                texts.append(f"{term} >= 0 && {term} < {size}")
        return " && ".join(texts)

    def window_of_tap(self) -> list[str]:
        """The window in which an element is number ``k``; it goes on to the next where none is."""
        lines = []
        for a in self.axes:
            step, before = self.geometry.strides[a], self.geometry.padding[a][0]
            lines += [
                f"const int t{a} = i{a} + {before} - k{a} * {self.geometry.dilations[a]};",
                f"const int w{a} = t{a} / {step};",
                f"if (t{a} < 0 || t{a} % {step} || w{a} >= {self.counts[a]}) continue;",
            ]
        return lines
