"""The report as one HTML file that needs nothing else: no script, font, image or style outside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import megagrow
from megagrow.report.comparison import Comparison
from megagrow.report.plots import Plot
from megagrow.report.records import RunMetrics
from megagrow.report.style import to_svg
from megagrow.report.summary import (
    config_text,
    growth_table,
    speedup_table,
    stage_table,
    summary_table,
)

TEMPLATE = "report.html.j2"
"""Template beside this file."""


def page(
    runs: Sequence[RunMetrics],
    comparisons: Sequence[Comparison],
    plots: Sequence[Plot],
    *,
    scale: float,
    written: datetime,
) -> str:
    """The whole report as HTML.

    Everything from a run, such as its name and configuration, is escaped by the template engine.

    Args:
        runs: the runs, in the order of their columns.
        comparisons: outcome of `compare`, empty without a baseline.
        plots: what `draw_all` drew, put in as SVG.
        scale: tokens the training losses are smoothed over.
        written: date and time shown.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    tables = [speedup_table(comparisons), stage_table(runs), growth_table(runs)]
    return environment.get_template(TEMPLATE).render(
        title=_title(runs, comparisons),
        version=megagrow.__version__,
        written=written.strftime("%Y-%m-%d %H:%M"),
        runs=runs,
        comparisons=comparisons,
        summary=summary_table(runs, scale=scale),
        tables=[table for table in tables if table.rows],
        plots=[
            {
                "title": plot.title,
                "caption": plot.caption,
                "svg": Markup(to_svg(plot.figure, plot.name, plot.title)),
            }
            for plot in plots
        ],
        configs=[
            {
                "name": run.name,
                "notes": run.notes,
                "text": config_text({**run.config, "versions": dict(run.versions)}),
            }
            for run in runs
        ],
    )


def _title(runs: Sequence[RunMetrics], comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return ", ".join(run.name for run in runs)
    ours = dict.fromkeys(one.run for one in comparisons)
    return f"{', '.join(ours)} against {comparisons[0].baseline}"
