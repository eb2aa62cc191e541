"""The look of the plots, and writing them as PNG and as SVG that fits into a page.

Colours of runs are those of Okabe and Ito, told apart also by the colour-blind. Buckets go from
easy to hard, so they take a sequential map (viridis), light to dark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from megagrow.report.records import FloatArray, RunMetrics
from megagrow.report.summary import growth_label
from megagrow.units import format_count

INK = "#1b1f24"
"""Text and axes. In SVG it becomes the page's own text colour, so it is used for nothing else."""

RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""One colour per run, in the order the runs were given."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)))
"""Line styles: the second six runs are dashed, the third dotted, and so on."""

STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a run or bucket may have a dollar sign in its name
    "svg.fonttype": "path",
    "svg.hashsalt": "megagrow",
}
"""matplotlib settings of every figure."""


MAX_POINTS = 1500
"""Points a line is thinned to: about as many as a plot is dots wide."""


def figure(
    height: float = 4.2, *, rows: int = 1, columns: int = 1, sharex: bool = False
) -> tuple[Figure, Any]:
    """A figure with its axes, without the global state of pyplot.

    Returns: the figure and a 2-D array of `rows` x `columns` axes.
    """
    drawn = Figure(figsize=(8.0, height), layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.subplots(rows, columns, squeeze=False, sharex=sharex)


def run_style(index: int) -> dict[str, Any]:
    """Colour and line style of the run at `index`."""
    turn, place = divmod(index, len(RUN_COLOURS))
    return {"color": RUN_COLOURS[place], "linestyle": DASHES[turn % len(DASHES)]}


def bucket_colours(buckets: tuple[str, ...]) -> dict[str, Any]:
    """Colour of each bucket, light for the first (easiest) to dark for the last."""
    colours = mpl.colormaps["viridis"]
    last = max(1, len(buckets) - 1)
    return {name: colours(0.8 - 0.65 * index / last) for index, name in enumerate(buckets)}


def thin(values: FloatArray) -> Any:
    """Which points to draw: all, or `MAX_POINTS` spread evenly, the last always among them."""
    if len(values) <= MAX_POINTS:
        return slice(None)
    return np.unique(np.linspace(0, len(values) - 1, MAX_POINTS).round().astype(np.int64))


def legend(axes: Axes, runs: Sequence[RunMetrics]) -> None:
    """Name the lines where there is more than one run."""
    if len(runs) > 1:
        axes.legend()


def tokens_axis(axes: Axes) -> None:
    """Label the x axis in tokens: 20M, 2.5B."""
    axes.set_xlabel("Training tokens")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.set_xlim(left=0)


def growth_lines(
    axes: Axes,
    runs: list[tuple[int, RunMetrics]],
    x: str,
    *,
    label: bool,
    colour: str | None = None,
) -> None:
    """Mark every growth with a vertical line in its run's colour, labelled above the axes.

    Args:
        axes: where to draw; its x limits must be set.
        runs: the runs with their places, which give their colours.
        x: `tokens` or `flops`, what the x axis shows.
        label: whether to write the depths above the lines.
        colour: of the lines, where the run's colour would not stand out.
    """
    marks = [
        (float(getattr(growth, x)), growth_label(growth), run_style(index)["color"])
        for index, run in runs
        for growth in run.growths
    ]
    level, previous = 0, None
    for place, text, hue in sorted(marks):
        axes.axvline(place, color=colour or hue, linewidth=1.1, linestyle=(0, (4, 2)), alpha=0.8)
        if not label:
            continue
        # Labels closer than a label is wide climb a step instead of overlapping.
        across = axes.transAxes.inverted().transform(axes.transData.transform((place, 0)))[0]
        level = level + 1 if previous is not None and across - previous < 0.055 else 0
        previous = across
        axes.annotate(
            text,
            (place, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3 + 11 * (level % 3)),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=hue,
            annotation_clip=True,
        )


def save_png(drawn: Figure, path: Path, title: str) -> None:
    """Write a figure as PNG on white, with its title, which a page has in a heading instead."""
    with mpl.rc_context(STYLE):
        heading = drawn.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        drawn.savefig(path, facecolor="white")
        heading.set_visible(False)
        heading.set_in_layout(False)


def to_svg(drawn: Figure, name: str, title: str) -> str:
    """A figure as an SVG element to put into HTML.

    Its ids start with `name`, so that several fit on one page; it refers to nothing outside; ink
    takes the colour of the page's text.
    """
    out = StringIO()
    with mpl.rc_context(STYLE):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn.savefig(out, format="svg", transparent=True, metadata=metadata)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href=")#', rf"\g<1>#{name}-", svg).replace("xlink:href", "href")
    svg = svg.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1).strip()
