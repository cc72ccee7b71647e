"""Small kernels that do not wait for each other, as one launch: of a block each has its share."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distgrad.compile.cuda import source
from distgrad.compile.cuda.nodes import Node, launch
from distgrad.compile.cuda.source import Kernel
from distgrad.compile.steps import Buffer

_ARRAYS = 256  # of a launch: 2 of the 4 KB that its arguments may have
_BEGINNING = ("variable", "constant", "input")  # what is there before anything has run


def gathered(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in an order in which small kernels are neighbours, and neighbours as one.

    What depends on nothing that is computed comes first: copies of the weights in half precision.
    """
    nodes = _brought_forward(nodes)
    found: list[Node] = []
    group: list[Node] = []
    for node in nodes:
        if group and not (_small(node) and _beside(group, node)):
            found.append(_as_one(group))
            group = []
        if _small(node):
            group.append(node)
        else:
            found.append(node)
    return [*found, _as_one(group)] if group else found


def _brought_forward(nodes: Sequence[Node]) -> list[Node]:
    written = {view.buffer.kind for node in nodes for view in node.writes}
    if "variable" in written or any(node.where == "host" for node in nodes):
        return list(nodes)  # Python code, and writes to variables, have their order

    def later(node: Node) -> bool:
        made = {view.buffer for view in node.writes}
        reads = {view.buffer for view in node.mentions} - made
        return not (_small(node) and all(buffer.kind in _BEGINNING for buffer in reads))

    return sorted(nodes, key=later)


def _small(node: Node) -> bool:
    kernel = node.kernel
    return kernel is not None and kernel.single and kernel.threads == source.FLAT


def _beside(group: Sequence[Node], node: Node) -> bool:
    """Whether a node neither needs what the group writes nor writes what it reads.

    Two that write one buffer write other parts of it: a value is written once.
    """
    if sum(len(other.mentions) for other in (*group, node)) > _ARRAYS:
        return False
    reads, writes = _buffers(node)
    for other in group:
        other_reads, other_writes = _buffers(other)
        if reads & other_writes or writes & other_reads:
            return False
    return True


def _buffers(node: Node) -> tuple[set[Buffer], set[Buffer]]:
    """The buffers that a node reads, and those that it writes."""
    writes = {view.buffer for view in node.writes}
    return {view.buffer for view in node.mentions} - writes, writes


def _as_one(group: Sequence[Node]) -> Node:
    if len(group) == 1:
        return group[0]
    kernels = [node.kernel for node in group if node.kernel is not None]
    arguments: list[str] = []
    lines, start = ["const unsigned int all = block;"], 0
    for kernel in kernels:
        shift = len(arguments)
        arguments += [_renumbered(text, shift) for text in kernel.arguments]
        lines += [
            f"if (all >= {start} && all < {start + kernel.blocks}) {{",
            f"const unsigned int block = all - {start}, blocks = {kernel.blocks};",
            _renumbered(kernel.body, shift),
            "}",
        ]
        start += kernel.blocks
    places = tuple(view for kernel in kernels for view in kernel.places)
    body = "\n".join(lines)
    made = Kernel(kernels[0].name, tuple(arguments), body, start, source.FLAT, places)
    return launch(made, tuple(view for node in group for view in node.writes))


def _renumbered(text: str, shift: int) -> str:
    return re.sub(r"\b(w?p)(\d+)\b", lambda m: f"{m[1]}{int(m[2]) + shift}", text)
