"""Plots over tokens, one panel per bucket, run or quantity: evaluation, mixture, LR, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from megagrow.report.curves import smooth
from megagrow.report.records import FloatArray, RunMetrics
from megagrow.report.style import (
    bucket_colours,
    figure,
    growth_lines,
    legend,
    run_style,
    thin,
    tokens_axis,
)
from megagrow.units import format_count


def evaluation_losses(runs: Sequence[RunMetrics]) -> Figure | None:
    """Held-out loss per bucket: lines of one plot for one run, a plot per bucket for several."""
    buckets = tuple(dict.fromkeys(b for run in runs for e in run.evals for b in e.losses))
    if not any(len(run.evals) > 1 for run in runs) or not buckets:
        return None
    if len(runs) == 1:
        drawn, grid = figure()
        axes, run = grid[0, 0], runs[0]
        for name, colour in bucket_colours(buckets).items():
            axes.plot(*_eval_points(run, name), "o-", markersize=3.5, color=colour, label=name)
        axes.set_ylabel("Evaluation loss (nats per token)")
        tokens_axis(axes)
        growth_lines(axes, [(0, run)], "tokens", label=True)
        axes.legend(title="Bucket" if len(buckets) > 1 else None)
        return drawn
    columns = min(3, len(buckets))
    rows = -(-len(buckets) // columns)
    drawn, grid = figure(1.2 + 2.7 * rows, rows=rows, columns=columns, sharex=True)
    for axes, name in zip(grid.flat, buckets, strict=False):
        for index, run in enumerate(runs):
            points = _eval_points(run, name)
            axes.plot(*points, marker="o", markersize=3, label=run.name, **run_style(index))
        tokens_axis(axes)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(name, pad=16)
        growth_lines(axes, list(enumerate(runs)), "tokens", label=True)
    for axes in list(grid.flat)[len(buckets) :]:
        axes.set_axis_off()
    grid[0, 0].set_ylabel("Evaluation loss (nats per token)")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper right", ncols=min(3, len(runs)))
    return drawn


def _eval_points(run: RunMetrics, bucket: str) -> tuple[FloatArray, FloatArray]:
    points = [(e.tokens, e.losses[bucket]) for e in run.evals if bucket in e.losses]
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def mixtures(runs: Sequence[RunMetrics]) -> Figure | None:
    """Weight of each bucket over tokens, stacked; one row per run."""
    mixed = [(index, run) for index, run in enumerate(runs) if len(run.steps.mixture) > 1]
    if not mixed:
        return None
    colours = bucket_colours(tuple(dict.fromkeys(b for _, run in mixed for b in run.buckets)))
    drawn, grid = figure(1.1 + 2.3 * len(mixed), rows=len(mixed), sharex=True)
    for axes, (index, run) in zip(grid.flat, mixed, strict=True):
        chosen = thin(run.steps.tokens)
        names = [name for name in colours if name in run.steps.mixture]
        axes.stackplot(
            run.steps.tokens[chosen],
            [run.steps.mixture[name][chosen] for name in names],
            colors=[colours[name] for name in names],
            labels=names,
            linewidth=0,
        )
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylabel("Share of data")
        axes.grid(visible=False)
        tokens_axis(axes)
        axes.set_xlim(0, max(float(r.steps.tokens[-1]) for _, r in mixed))
        growth_lines(axes, [(index, run)], "tokens", label=True, colour="white")
        if len(runs) > 1:
            axes.set_title(run.name, pad=16)
        axes.label_outer()
    handles, labels = grid[0, 0].get_legend_handles_labels()
    # Reversed, so that the legend stands in the order of the stack.
    drawn.legend(handles[::-1], labels[::-1], loc="outside right upper", title="Bucket")
    return drawn


def learning_rates(runs: Sequence[RunMetrics], *, scale: float) -> Figure | None:
    """Learning rate, and gradient norm below it, raw and smoothed."""
    return _panels(runs, {"lr": "Learning rate", "grad_norm": "Gradient norm"}, scale=scale)


def throughputs(runs: Sequence[RunMetrics]) -> Figure | None:
    """Tokens per second, MFU (TFLOP/s where no peak is known), depth."""
    known = any(np.isfinite(run.steps.mfu).any() for run in runs)
    speed = {"mfu": "MFU"} if known else {"tflops_per_device": "TFLOP/s per device"}
    return _panels(runs, {"tokens_per_second": "Tokens per second"} | speed | {"layers": "Layers"})


def _panels(
    runs: Sequence[RunMetrics], labels: Mapping[str, str], *, scale: float = 0.0
) -> Figure | None:
    """One panel per quantity over tokens, lines per run, growths marked."""
    keys = [key for key in labels if any(np.isfinite(getattr(r.steps, key)).any() for r in runs)]
    if not keys:
        return None
    drawn, grid = figure(1.0 + 1.75 * len(keys), rows=len(keys), sharex=True)
    for place, (axes, key) in enumerate(zip(grid.flat, keys, strict=True)):
        for index, run in enumerate(runs):
            _draw_quantity(axes, run, key, run_style(index) | {"linewidth": 1.4}, scale)
        axes.set_ylabel(labels[key])
        _scale_panel(axes, runs, key)
        tokens_axis(axes)
        growth_lines(axes, list(enumerate(runs)), "tokens", label=place == 0)
        axes.label_outer()
    drawn.align_ylabels()
    legend(grid[0, 0], runs)
    return drawn


def _draw_quantity(
    axes: Axes, run: RunMetrics, key: str, style: Mapping[str, Any], scale: float
) -> None:
    good = np.isfinite(getattr(run.steps, key))
    tokens, values = run.steps.tokens[good], getattr(run.steps, key)[good]
    chosen = thin(tokens)
    if key == "grad_norm":  # the one that jumps from step to step
        axes.plot(tokens[chosen], values[chosen], color=style["color"], alpha=0.22, linewidth=0.7)
        values = smooth(values, tokens, scale=scale)
    steps = "steps-pre" if key == "layers" else "default"
    axes.plot(tokens[chosen], values[chosen], label=run.name, drawstyle=steps, **style)


def _scale_panel(axes: Axes, runs: Sequence[RunMetrics], key: str) -> None:
    if key == "grad_norm":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return
    axes.set_ylim(0, axes.dataLim.y1 * 1.12 or 1)
    if key == "layers":
        depths = np.unique(np.concatenate([run.steps.layers for run in runs]))
        if len(depths) <= 6:
            axes.yaxis.set_major_locator(FixedLocator(depths[np.isfinite(depths)].tolist()))
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    elif key == "mfu":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif key == "tokens_per_second":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    elif key == "lr":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _exponent(value)))


def _exponent(value: float) -> str:
    """6e-4 rather than 0.0006 or 6e-04."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return "0" if value == 0 else f"{float(mantissa):g}e{int(exponent)}"
