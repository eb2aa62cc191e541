"""The heads and FFN widths of models whose layers differ, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from megagrow.report.records import RunMetrics, StageRecord
from megagrow.report.style import figure, run_style

SIZES = {"num_attention_heads": "Query heads", "ffn_hidden_size": "FFN width"}
"""What is drawn, and its label."""


def layer_profiles(runs: Sequence[RunMetrics]) -> Figure | None:
    """Sizes over layers, one line for each profile that a run had: later ones bolder."""
    if not any(stage.layer_sizes for run in runs for stage in run.stages):
        return None
    drawn, grid = figure(4.4, rows=len(SIZES), sharex=True)
    for axes, (size, label) in zip(grid.flat, SIZES.items(), strict=True):
        for index, run in enumerate(runs):
            _draw(axes, run, index, size, alone=len(runs) == 1)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.label_outer()
    grid[-1, 0].set_xlabel("Layer")
    drawn.align_ylabels()
    handles, labels = grid[0, 0].get_legend_handles_labels()
    if len(labels) > 1:
        drawn.legend(handles, labels, loc="outside upper right", ncols=min(3, len(labels)))
    return drawn


def _draw(axes: Axes, run: RunMetrics, index: int, size: str, *, alone: bool) -> None:
    stages = _profiles(run)
    for place, stage in enumerate(stages, 1):
        sizes = np.array(stage.layer_sizes[size], dtype=np.float64)
        edges = np.arange(len(sizes) + 1) - 0.5
        name = stage.name if alone else run.name
        last = place == len(stages)
        axes.stairs(
            sizes, edges, baseline=None, label=name if alone or last else None,
            linewidth=1.8 if last else 1.0, alpha=1.0 if last else 0.5,
            **run_style(place - 1 if alone else index),
        )  # fmt: skip


def _profiles(run: RunMetrics) -> list[StageRecord]:
    """The stages at whose start the layers changed."""
    found: list[StageRecord] = []
    for stage in run.stages:
        if stage.layer_sizes and (not found or found[-1].layer_sizes != stage.layer_sizes):
            found.append(stage)
    return found
