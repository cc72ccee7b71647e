"""Small kernels that need nothing of each other as one launch: each has some of its blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from distgrad.compile.cuda import source
from distgrad.compile.cuda.nodes import Node, launch
from distgrad.compile.cuda.source import Kernel
from distgrad.compile.steps import Buffer

_ARRAYS = 256  # of a launch: 2 of the 4 KB that its arguments may have
_BEGINNING = ("variable", "constant", "input")  # what is there before anything has run


def gathered(nodes: Sequence[Node], patient: bool = True) -> list[Node]:
    """The nodes with small kernels put off until somebody needs one of them, and then as one.

    What depends on nothing that is computed comes first: copies of the weights in half precision.
    Unless ``patient`` nothing is put off that somebody outside waits for.
    """
    found: list[Node] = []
    waiting: list[Node] = []

    def launch_all() -> None:
        group: list[Node] = []
        for node in waiting:
            if group and sum(len(other.mentions) for other in (*group, node)) > _ARRAYS:
                found.append(_as_one(group))
                group = []
            group.append(node)
        if group:
            found.append(_as_one(group))
        waiting.clear()

    for node in _brought_forward(nodes):
        if node.where == "host" or not _beside(waiting, node):
            launch_all()
        if _small(node):
            waiting.append(node)
            if not patient and any(view.buffer.kind == "output" for view in node.writes):
                launch_all()
        else:
            found.append(node)
    launch_all()
    return found


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

    Two that write one buffer write other parts of it: a value is written once, a variable is not.
    """
    reads, writes = _buffers(node)
    variables = {id(view.buffer.owner) for view in node.writes if view.buffer.kind == "variable"}
    for other in group:
        other_reads, other_writes = _buffers(other)
        if reads & other_writes or writes & other_reads or variables & other_writes:
            return False
    return True


def _buffers(node: Node) -> tuple[set[Any], set[Any]]:
    """What a node reads, and what it writes: buffers, or variables."""
    writes = {_memory(view.buffer) for view in node.writes}
    return {_memory(view.buffer) for view in node.mentions} - writes, writes


def _memory(buffer: Buffer) -> Any:
    return id(buffer.owner) if buffer.kind == "variable" else buffer


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
