"""Buckets and documents as a terminal shows them, and as plain text where there is none."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from megagrow.bucketing.inspection.inspect import QUANTILES, Overview, Shown, shares
from megagrow.units import format_count

_PLAIN_WIDTH = 100
_FIELD_CHARACTERS = 200
_COLOURS = ("green", "cyan", "yellow", "magenta", "red", "blue")


def console(*, columns: int | None = None) -> Console:
    """Standard output: colours on a terminal, none in a pipe or a file.

    Args:
        columns: width; None: that of the terminal, or 100.
    """
    shown = Console(width=columns, highlight=False)
    if columns is None and not shown.is_terminal:
        shown = Console(width=_PLAIN_WIDTH, highlight=False)
    return shown


def table(views: Sequence[Overview], unit: str) -> Table:
    """All buckets in numbers."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 1))
    drawn.add_column("bucket", no_wrap=True, min_width=max(len(view.name) for view in views))
    heads = ("from", "documents", "tokens", "share", "per doc")
    for head in (*heads, *(_quantile_name(each) for each in QUANTILES)):
        drawn.add_column(head, justify="right", no_wrap=True)
    for number, (view, share) in enumerate(zip(views, shares(list(views)), strict=True)):
        drawn.add_row(
            Text(view.name, style=_COLOURS[number % len(_COLOURS)]),
            "" if view.threshold is None else f"{view.threshold:.4g}",
            f"{view.documents:,}",
            format_count(view.tokens),
            f"{share:.1%}",
            f"{view.tokens / view.documents:,.0f}",
            *(f"{each:.4g}" for each in view.quantiles),
        )
    drawn.caption = f"from: lowest score of the bucket; min to max: scores of its documents, {unit}"
    drawn.caption_justify = "left"
    return drawn


def heading(name: str, level: int) -> Rule:
    """The line above a bucket's documents."""
    return Rule(Text(name, style=f"bold {_COLOURS[level % len(_COLOURS)]}"), align="left")


def panel(shown: Shown, level: int, unit: str, fields: Mapping[str, Any] | None, key: str) -> Panel:
    """One document.

    Args:
        shown: the document.
        level: number of its bucket.
        unit: of its score.
        fields: its row in the input file, where that was looked up.
        key: field that holds the text, which is shown already.
    """
    body = Text(printable(shown.text))
    if not shown.whole:
        body.append(" [...]", style="dim")
    for name, value in (fields or {}).items():
        if name == key:
            continue
        line = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        line = line if len(line) <= _FIELD_CHARACTERS else f"{line[:_FIELD_CHARACTERS]} [...]"
        body.append("\n" if name != next(iter(fields or {})) else "\n\n")
        body.append(f"{printable(name)}: ", style="bold dim")
        body.append(printable(line).replace("\n", " "), style="dim")
    head = f"score {shown.score:.4g} {unit}, {shown.tokens:,} tokens"
    where = f"{shown.location.rpartition('/')[2]} row {shown.row:,}, {shown.file} #{shown.number:,}"
    return Panel(
        body,
        title=Text(head),
        title_align="left",
        subtitle=Text(printable(where), style="dim"),
        subtitle_align="left",
        border_style=_COLOURS[level % len(_COLOURS)],
    )


def printable(text: str) -> str:
    """Text that cannot steer the terminal: control characters as visible signs."""
    return "".join(
        sign if sign in "\n\t" or unicodedata.category(sign) not in ("Cc", "Cf", "Cs") else
        chr(0x2400 + ord(sign)) if ord(sign) < 0x20 else "\ufffd"
        for sign in text.replace("\r\n", "\n")
    )  # fmt: skip


def _quantile_name(share: float) -> str:
    return {0.0: "min", 0.5: "median", 1.0: "max"}.get(share, f"{share:.0%}")
