"""The distribution of the scores, with the thresholds between the levels."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from megagrow.bucketing.fitting.fit import SampleScores
from megagrow.bucketing.levels import Levels
from megagrow.report.style import INK, STYLE

_BINS = 120
_OUTLIERS = 0.002
"""Share of the documents at either end that the axis leaves out."""


def plot_scores(path: Path, sample: SampleScores, levels: Levels, unit: str) -> None:
    """Draws how the sample's tokens are spread over the scores, one colour for each level.

    Args:
        path: the PNG to write.
        sample: scores and sizes of the sampled documents.
        levels: names and thresholds.
        unit: of the scores.
    """
    low, high = np.quantile(sample.scores, [_OUTLIERS, 1 - _OUTLIERS]).tolist()
    cuts = [low, *levels.thresholds, high]
    edges = np.linspace(min(cuts), max(max(cuts), min(cuts) + 1e-6), _BINS + 1)
    colours = mpl.colormaps["viridis"](np.linspace(0.85, 0.15, len(levels.names)))
    number = levels.of(sample.scores)
    shown = np.clip(sample.scores, edges[0], edges[-1])
    weights = sample.tokens / sample.tokens.sum()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.hist(
            [shown[number == level] for level in range(len(levels.names))],
            bins=edges.tolist(),
            weights=[weights[number == level] for level in range(len(levels.names))],
            stacked=True,
            color=colours,
            label=[
                f"{name}, {weights[number == level].sum():.0%} of the tokens"
                for level, name in enumerate(levels.names)
            ],
        )
        for threshold in levels.thresholds:
            axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
            axes.annotate(
                f" {threshold:.4g}", (threshold, 1), xycoords=("data", "axes fraction"), va="top"
            )
        axes.set_xlabel(f"difficulty ({unit})")
        axes.set_ylabel("share of the tokens")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(f"Scores of {sample.scores.size:,} sampled documents")
        axes.legend()
        FigureCanvasAgg(figure).print_png(str(path))
