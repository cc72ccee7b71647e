"""Tables for people at a terminal, and the same as plain lines for everything else."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def show(head: Sequence[str], rows: Sequence[Sequence[str]], whole: Sequence[str] = ()) -> None:
    """Prints a table: with lines and colours on a terminal, else in aligned columns.

    Columns named in ``whole`` are the last to be broken where a terminal is narrow.
    """
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name in head:
            table.add_column(Text(name), overflow="fold", no_wrap=name in whole)
        for row in rows:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        Console().print(table)
        return
    lines = [head, *rows] if any(head) else rows
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


_STYLES = {
    "running": "blue",
    "done": "green",
    "preempted": "yellow",
    **dict.fromkeys(("failed", "diverged", "dead", "damaged"), "red"),
}
