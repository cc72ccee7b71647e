"""The shapes of a convolution or a pooling over two axes, and what their kernels share."""

from __future__ import annotations

from typing import NamedTuple

from distgrad.compile.llvm.blocks import LANES, Code, Int, each_vector

Pair = tuple[int, int]


class Layer(NamedTuple):
    """Channels in and out, sizes in, those of windows, their steps, and (before, after) padding.

    With ``depthwise`` each channel makes one channel by itself, by filters ``[k, m, c]``. An
    image has ``pixel`` channels, if these are some of them, one after the other.
    """

    channels: int
    outputs: int
    space: Pair
    size: Pair
    strides: Pair
    padding: tuple[Pair, Pair]
    depthwise: bool = False
    pixel: int = 0

    @property
    def counts(self) -> Pair:
        """How many windows there are."""
        (h, w), (p, q), (k, m), (s, t) = self.space, self.padding, self.size, self.strides
        return (h + sum(p) - k) // s + 1, (w + sum(q) - m) // t + 1

    @property
    def filters(self) -> int:
        """The elements of the filters."""
        k, m = self.size
        return k * m * self.channels * (1 if self.depthwise else self.outputs)

    @property
    def padded(self) -> bool:
        return self.padding != ((0, 0), (0, 0))


def wide(size: int) -> int:
    """A size with room for whole vectors."""
    return -(-size // LANES) * LANES


def zeros(code: Code, target: str, size: Int) -> None:
    """Makes ``size`` floats zero."""
    fill(code, target, size, "zeroinitializer")


def fill(code: Code, target: str, size: Int, value: str) -> None:
    """Gives ``size`` floats the value of a vector's lanes."""
    each_vector(code, size, lambda at, lanes: code.store(value, code.at(target, at), lanes))


def swapped(code: Code, source: str, target: str, count: int, rows: int, columns: int) -> None:
    """Writes ``count`` matrices as their transposes."""
    with code.loop(count) as k:
        given = code.at(source, code.mul(k, rows * columns))
        made = code.at(target, code.mul(k, rows * columns))
        with code.loop(columns) as j, code.loop(rows) as i:
            code.move(
                code.at(given, code.add(code.mul(i, columns), j)),
                code.at(made, code.add(code.mul(j, rows), i)),
            )


def copy_padded(
    code: Code, source: str, target: str, space: Pair, edges: tuple[Pair, Pair], depth: int
) -> None:
    """An image into the middle of a larger one, whose edges are left as they are."""
    _copy_rows(code, source, target, space, edges, depth, True)


def copy_inner(
    code: Code, source: str, target: str, space: Pair, edges: tuple[Pair, Pair], depth: int
) -> None:
    """The middle of a larger image, without its edges."""
    _copy_rows(code, source, target, space, edges, depth, False)


def _copy_rows(
    code: Code,
    source: str,
    target: str,
    space: Pair,
    edges: tuple[Pair, Pair],
    depth: int,
    into: bool,
) -> None:
    (high, across), ((top, _), (left, right)) = space, edges
    row = (left + across + right) * depth
    with code.loop(high) as y:
        small = code.mul(y, across * depth)
        large = code.add(code.mul(y, row), top * row + left * depth)
        given = code.at(source, small if into else large)
        made = code.at(target, large if into else small)

        def write(at: Int, lanes: int) -> None:
            code.store(code.load(code.at(given, at), lanes), code.at(made, at), lanes)

        each_vector(code, across * depth, write)
