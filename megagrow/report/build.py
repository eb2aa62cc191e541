"""From run folders to a report on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from megagrow.errors import ConfigError
from megagrow.report.comparison import compare, find_baseline, smoothing_scale, unique_names
from megagrow.report.html import page
from megagrow.report.plots import draw_all
from megagrow.report.reader import read
from megagrow.report.style import save_png
from megagrow.report.summary import summary_table
from megagrow.report.table import render

REPORT_FILE = "report.html"
"""Name of the report in its folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A report that was written."""

    path: Path
    """The HTML file."""

    plots: tuple[Path, ...]
    """The PNG files beside it."""

    text: str
    """A short table and the speedups, for a terminal."""


def write_report(
    folders: Sequence[str | os.PathLike[str]],
    *,
    baseline: str | None = None,
    output: str | os.PathLike[str] | None = None,
    smoothing: float = 0.02,
) -> Report:
    """Read runs and write their report: one HTML file and a PNG per plot.

    Args:
        folders: the runs' folders, at least one.
        baseline: name of the run that the others are compared with; where not given, the only one
            that never grew.
        output: folder to write into, made if absent; `report` in the first run where not given.
        smoothing: share of the shortest run's tokens that training losses are averaged over.

    Raises:
        DataError: a run cannot be read.
        ConfigError: no run has the baseline's name, or the output cannot be written.
    """
    if not folders:
        raise ConfigError("no run given; name the folder of at least one")
    if not 0 <= smoothing <= 1:
        raise ConfigError(f"smoothing is a share of the run from 0 to 1, not {smoothing}")
    runs = unique_names([read(folder) for folder in folders])
    scale = smoothing_scale(runs, smoothing)
    comparisons = compare(runs, find_baseline(runs, baseline), scale=scale)
    plots = draw_all(runs, comparisons, scale=scale)
    html = page(runs, comparisons, plots, scale=scale, written=datetime.now())
    folder = runs[0].folder / "report" if output is None else Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_FILE).write_text(html, encoding="utf-8")
        images = [folder / f"{plot.name}.png" for plot in plots]
        for plot, image in zip(plots, images, strict=True):
            save_png(plot.figure, image, plot.title)
    except OSError as error:
        raise ConfigError(
            f"cannot write the report to {folder}: {error.strerror}; choose another --output"
        ) from error
    lines = [render(summary_table(runs, scale=scale), title=False)]
    lines += ["", *(one.statement() for one in comparisons)] if comparisons else []
    lines += [f"Caution: {one.caution}." for one in comparisons if one.caution]
    return Report(path=folder / REPORT_FILE, plots=tuple(images), text="\n".join(lines))
