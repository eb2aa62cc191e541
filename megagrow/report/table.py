"""Tables for a terminal, through `rich`."""

from __future__ import annotations

from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from megagrow.report.summary import Table


def render(table: Table, *, title: bool = True) -> str:
    """A table as plain text, as wide as its content; the first column left, the others right."""
    drawn = RichTable(
        box=box.SIMPLE_HEAD,
        title=Text(table.title) if title else None,
        title_justify="left",
        pad_edge=False,
        show_edge=False,
    )
    for index, head in enumerate(table.head):
        drawn.add_column(Text(head), justify="left" if index == 0 else "right", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    cells = [table.head, *table.rows]
    width = sum(max(cell_len(row[i]) for row in cells) + 2 for i in range(len(table.head)))
    console = Console(file=StringIO(), width=max(width, cell_len(table.title)), color_system=None)
    with console.capture() as capture:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())
