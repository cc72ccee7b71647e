"""Pooling over windows of two axes, and its gradients, in machine code, 16 channels at a time.

Elements outside an image are never read or written: what stands for them lies in memory to work in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from distgrad.compile.llvm.blocks import Code, Int, each_vector
from distgrad.compile.llvm.ir import Emitter
from distgrad.compile.llvm.layers import Layer, fill, wide, zeros

_LOWEST = "splat (float 0xFFF0000000000000)"
_ZERO = "zeroinitializer"


def work(layer: Layer) -> int:
    """Floats that a call works in."""
    return 2 * wide(layer.channels)


@functools.cache
def largest(layer: Layer) -> int:
    """A function of x ``[n, h, w, c]``, a place for y, work, and n."""
    code = Code(["x", "y", "work"], ["samples"])

    def write(at: Int, lanes: int, x: list[str], y: str) -> None:
        values = [code.load(code.at(p, at), lanes) for p in x]
        code.store(functools.reduce(code.fmax, values), code.at(y, at), lanes)

    with _windows(code, layer, _LOWEST, "%x", "%y") as window:
        each_vector(code, layer.channels, lambda at, lanes: write(at, lanes, window.x, window.y))
    return code.native().address


@functools.cache
def largest_grad(layer: Layer) -> int:
    """A function of dy, x, a place for dx, work, and n: dy at the first maximum of a window."""
    code = Code(["dy", "x", "dx", "work"], ["samples"])

    def write(at: Int, lanes: int, x: list[str], dx: list[str], dy: str) -> None:
        values = [code.load(code.at(p, at), lanes) for p in x]
        most = functools.reduce(code.fmax, values)
        given = code.load(code.at(dy, at), lanes)
        taken = ""
        for value, target in zip(values, dx, strict=True):
            here = code.equal(value, most)
            first = code.less(here, taken) if taken else here
            taken = code.either(taken, here) if taken else here
            add(code.where(first, given, _ZERO), code.at(target, at), lanes)

    add = _adding(code, layer)
    with _windows(code, layer, _LOWEST, "%x", "%dy", "%dx") as (x, dx, dy, _, _):
        each_vector(code, layer.channels, lambda at, lanes: write(at, lanes, x, dx, dy))
    return code.native().address


@functools.cache
def rectified(layer: Layer) -> int:
    """A function of x ``[n, h, w, c]``, a bias ``[c]``, places for y and places, work, and n."""
    code = Code(["x", "bias", "y", "place", "work"], ["samples"])

    def write(at: Int, lanes: int, x: list[str], y: str, output: Int) -> None:
        bias = code.load(code.at("%bias", at), lanes)
        values = [code.fadd(code.load(code.at(p, at), lanes), bias) for p in x]
        most = functools.reduce(code.fmax, values)
        place = none = f"splat (i8 {len(x)})"
        for number, value in reversed(list(enumerate(values))):
            place = code.byte_where(code.equal(value, most), f"splat (i8 {number})", place)
        place = code.byte_where(code.positive(most), place, none)
        code.store(code.fmax(most, _ZERO), code.at(y, at), lanes)
        code.store_bytes(place, code.byte_at("%place", code.add(output, at)), lanes)

    with _windows(code, layer, _LOWEST, "%x", "%y") as (x, _, y, output, _):
        each_vector(code, layer.channels, lambda at, lanes: write(at, lanes, x, y, output))
    return code.native().address


@functools.cache
def rectified_grad(layer: Layer) -> int:
    """A function of dy ``[n, *counts, c]``, places, a place for dx, work, and n."""
    code = Code(["dy", "place", "dx", "work"], ["samples"])

    def write(at: Int, lanes: int, dx: list[str], dy: str, output: Int) -> None:
        given = code.load(code.at(dy, at), lanes)
        place = code.load_bytes(code.byte_at("%place", code.add(output, at)), lanes)
        for number, target in enumerate(dx):
            add(code.where(code.is_byte(place, number), given, _ZERO), code.at(target, at), lanes)

    add = _adding(code, layer)
    with _windows(code, layer, _ZERO, "", "%dy", "%dx") as (_, dx, dy, output, _):
        each_vector(code, layer.channels, lambda at, lanes: write(at, lanes, dx, dy, output))
    return code.native().address


@functools.cache
def mean(layer: Layer) -> int:
    """A function of x ``[n, h, w, c]``, a place for y, work, and n; padding does not count."""
    code = Code(["x", "y", "work"], ["samples"])

    def write(at: Int, lanes: int, window: _Window, members: str) -> None:
        values = [code.load(code.at(p, at), lanes) for p in window.x]
        total = functools.reduce(code.fadd, values)
        code.store(code.fdiv(total, members), code.at(window.y, at), lanes)

    with _windows(code, layer, _ZERO, "%x", "%y") as window:
        members = window.members(code)
        each_vector(code, layer.channels, lambda at, lanes: write(at, lanes, window, members))
    return code.native().address


@functools.cache
def mean_grad(layer: Layer) -> int:
    """A function of dy ``[n, *counts, c]``, a place for dx, work, and n."""
    code = Code(["dy", "dx", "work"], ["samples"])

    def write(at: Int, lanes: int, window: _Window, members: str) -> None:
        share = code.fdiv(code.load(code.at(window.y, at), lanes), members)
        for target in window.dx:
            add(share, code.at(target, at), lanes)

    add = _adding(code, layer)
    with _windows(code, layer, _ZERO, "", "%dy", "%dx") as window:
        members = window.members(code)
        each_vector(code, layer.channels, lambda at, lanes: write(at, lanes, window, members))
    return code.native().address


def _adding(code: Code, layer: Layer) -> Callable[[str, str, int], None]:
    """What puts a term into a gradient: the only one, or one of those of several windows."""
    if apart(layer):
        return code.store

    def add(value: str, target: str, lanes: int) -> None:
        code.store(code.fadd(code.load(target, lanes), value), target, lanes)

    return add


def apart(layer: Layer) -> bool:
    """Whether no element is in two windows."""
    return all(k <= s for k, s in zip(layer.size, layer.strides, strict=True))


def _whole(layer: Layer) -> bool:
    """Whether each element is in one window."""
    counts = zip(layer.counts, layer.size, layer.strides, layer.space, strict=True)
    return not layer.padded and all(k == s and c * k == n for c, k, s, n in counts)


class _Window(NamedTuple):
    """One window: its elements in ``x`` and in ``dx``; where it is in ``y``, and how far in.

    ``inside`` are bits, of the elements that may lie in the padding.
    """

    x: list[str]
    dx: list[str]
    y: str
    output: Int
    inside: list[str]

    def members(self, code: Code) -> str:
        """How many of its elements lie in the image, in all lanes."""
        if not self.inside:
            return Emitter(1).number(max(len(self.x), len(self.dx)), "float").text
        ones: list[Int] = [code.op(f"zext i1 {bit} to i64") for bit in self.inside]
        return code.all_lanes(code.op(f"sitofp i64 {functools.reduce(code.add, ones)} to float"))


@contextmanager
def _windows(
    code: Code, layer: Layer, outside: str, x: str, y: str, dx: str = ""
) -> Iterator[_Window]:
    """All windows, one after the other.

    ``dx`` is made zero where no window writes it; what is in no image has the value ``outside``.
    """
    c, (high, across), counts = layer.channels, layer.space, layer.counts
    trash = code.at("%work", wide(c))
    if layer.padded:
        fill(code, "%work", wide(c), outside)
        zeros(code, trash, wide(c))
    with code.loop("%samples") as n:
        image = code.mul(n, high * across * c)
        if dx and not _whole(layer):
            zeros(code, code.at(dx, image), high * across * c)
        with code.loop(counts[0]) as i, code.loop(counts[1]) as j:
            read: list[str] = []
            written: list[str] = []
            bits: list[str] = []
            top = code.add(code.mul(i, layer.strides[0]), -layer.padding[0][0])
            left = code.add(code.mul(j, layer.strides[1]), -layer.padding[1][0])
            corner = code.mul(code.add(code.mul(top, across), left), c)
            bases = [code.at(b, code.add(image, corner)) if b else "" for b in (x, dx)]
            for k in range(layer.size[0]):
                for m in range(layer.size[1]):
                    inside = ""
                    if layer.padded:
                        inside = code.both(
                            code.within(code.add(top, k), high),
                            code.within(code.add(left, m), across),
                        )
                        bits.append(inside)
                    for base, other, found in zip(
                        bases, ("%work", trash), (read, written), strict=True
                    ):
                        if base:
                            pointer = code.at(base, (k * across + m) * c)
                            found.append(code.pick(inside, pointer, other) if inside else pointer)
            output = code.add(code.mul(n, counts[0]), i)
            output = code.mul(code.add(code.mul(output, counts[1]), j), c)
            yield _Window(read, written, code.at(y, output), output, bits)
