"""The plots of a report. Each function returns a matplotlib `Figure`, or None for no data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from megagrow.report.comparison import Comparison, percent
from megagrow.report.curves import LossCurve, training_curve
from megagrow.report.panels import evaluation_losses, learning_rates, mixtures, throughputs
from megagrow.report.profiles import layer_profiles
from megagrow.report.records import RunMetrics
from megagrow.report.style import (
    INK,
    STYLE,
    figure,
    growth_lines,
    legend,
    run_style,
    thin,
    tokens_axis,
)
from megagrow.units import format_count, format_flops


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A plot with its words."""

    name: str
    """File name without ending."""

    title: str
    """What it shows."""

    caption: str
    """How to read it."""

    figure: Figure
    """The drawing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Maker:
    """How a plot is made."""

    name: str
    """File name without ending."""

    title: str
    """What it shows."""

    caption: str
    """How to read it."""

    draw: Callable[[], Figure | None]
    """Draws it; None for no data."""


def draw_all(
    runs: Sequence[RunMetrics], comparisons: Sequence[Comparison], *, scale: float
) -> list[Plot]:
    """Every plot the runs have data for.

    Args:
        runs: the runs, whose order gives their colours.
        comparisons: outcome of `compare`.
        scale: tokens to smooth training losses over.
    """
    plots = []
    for maker in (*_loss_makers(runs, comparisons, scale), *_course_makers(runs, scale)):
        with mpl.rc_context(STYLE):
            drawn = maker.draw()
        if drawn is not None:
            plots.append(
                Plot(name=maker.name, title=maker.title, caption=maker.caption, figure=drawn)
            )
    return plots


_MARKS = " Dashed verticals: growth, with the depths before and after."


def _smoothing(scale: float) -> str:
    return f"Faint: every step. Bold: moving average over {format_count(scale)} tokens."


def _loss_makers(
    runs: Sequence[RunMetrics], comparisons: Sequence[Comparison], scale: float
) -> tuple[_Maker, ...]:
    """The plots of training loss, and of the speedup that follows from it."""
    compute = " Compute is cumulative: small models are charged."
    return (
        _Maker(
            name="loss_flops",
            title="Training loss against compute",
            caption=_smoothing(scale) + compute + _MARKS,
            draw=lambda: loss_against_flops(runs, scale=scale),
        ),
        _Maker(
            name="speedup",
            title="Speedup at equal loss",
            caption="FLOPs of the baseline / FLOPs of the run \N{MINUS SIGN} 1 when each first had "
            "the loss on the x axis, which falls to the right. Dot: the baseline's final loss.",
            draw=lambda: speedup_curves(runs, comparisons),
        ),
        _Maker(
            name="loss_tokens",
            title="Training loss against tokens",
            caption=_smoothing(scale) + _MARKS,
            draw=lambda: loss_against_tokens(runs, scale=scale),
        ),
    )


def _course_makers(runs: Sequence[RunMetrics], scale: float) -> tuple[_Maker, ...]:
    """The plots of how the runs went, over tokens."""
    return (
        _Maker(
            name="eval",
            title="Evaluation loss per bucket",
            caption="Held-out text of each difficulty bucket." + _MARKS,
            draw=lambda: evaluation_losses(runs),
        ),
        _Maker(
            name="mixture",
            title="Data mixture",
            caption="Share of each difficulty bucket in what the model reads." + _MARKS,
            draw=lambda: mixtures(runs),
        ),
        _Maker(
            name="lr",
            title="Learning rate and gradient norm",
            caption="Gradient norm before clipping. " + _smoothing(scale) + _MARKS,
            draw=lambda: learning_rates(runs, scale=scale),
        ),
        _Maker(
            name="throughput",
            title="Throughput and depth",
            caption="Tokens per second of the whole job: a deeper model reads more slowly and "
            "works as hard.",
            draw=lambda: throughputs(runs),
        ),
        _Maker(
            name="layers",
            title="Sizes of the layers",
            caption="Layer-wise scaling: query heads and FFN width from input to output.",
            draw=lambda: layer_profiles(runs),
        ),
    )


def loss_against_tokens(runs: Sequence[RunMetrics], *, scale: float) -> Figure | None:
    """Training loss over tokens, raw and smoothed."""
    drawn, grid = figure()
    axes = grid[0, 0]
    curves = _draw_losses(axes, runs, "tokens", scale)
    if not curves:
        return None
    _limit_loss(axes, curves)
    tokens_axis(axes)
    growth_lines(axes, list(enumerate(runs)), "tokens", label=True)
    legend(axes, runs)
    return drawn


def loss_against_flops(runs: Sequence[RunMetrics], *, scale: float) -> Figure | None:
    """Training loss over cumulative FLOPs (logarithmic), raw and smoothed."""
    drawn, grid = figure()
    axes = grid[0, 0]
    curves = _draw_losses(axes, runs, "flops", scale)
    if not curves:
        return None
    _limit_loss(axes, curves)
    axes.set_xscale("log")
    last = max(float(curve.flops[-1]) for curve in curves)
    # From the first hundredth of the compute on: before it no model has learnt anything.
    axes.set_xlim(last / 100, last * 1.15)
    _flops_ticks(axes, last / 100, last * 1.15)
    axes.set_xlabel("Training compute, cumulative")
    growth_lines(axes, list(enumerate(runs)), "flops", label=True)
    legend(axes, runs)
    return drawn


def _draw_losses(axes: Axes, runs: Sequence[RunMetrics], x: str, scale: float) -> list[LossCurve]:
    curves = []
    for index, run in enumerate(runs):
        raw, bold = training_curve(run.steps), training_curve(run.steps, scale=scale)
        if not len(raw.loss):
            continue
        style = run_style(index)
        across = getattr(raw, x)
        chosen = thin(across)
        axes.plot(across[chosen], raw.loss[chosen], color=style["color"], alpha=0.22, linewidth=0.7)
        axes.plot(across[chosen], bold.loss[chosen], label=run.name, **style)
        curves.append(bold)
    axes.set_ylabel("Training loss (nats per token)")
    return curves


def _limit_loss(axes: Axes, curves: Sequence[LossCurve]) -> None:
    """Cut off the fall of the first steps, which would flatten everything after it."""
    low = min(float(curve.loss.min()) for curve in curves)
    settled = [float(curve.loss[curve.tokens >= 0.05 * curve.tokens[-1]].max()) for curve in curves]
    high = max(settled)
    room = 0.06 * (high - low) or 0.1
    axes.set_ylim(low - room, high + room)


def speedup_curves(runs: Sequence[RunMetrics], comparisons: Sequence[Comparison]) -> Figure | None:
    """Speedup over the loss at which it was taken, one line per run and kind of loss."""
    drawable = [one for one in comparisons if len(one.result.speedup)]
    if not drawable:
        return None
    drawn, grid = figure()
    axes = grid[0, 0]
    places = {run.name: index for index, run in enumerate(runs)}
    for one in drawable:
        result = one.result
        style = run_style(places[one.run])
        if one.measure == "training loss" and len({c.measure for c in drawable}) > 1:
            style |= {"linestyle": (0, (1.5, 1.2))}
        label = f"{one.run}, {one.measure}"
        if result.at_final is not None:
            label += f": {percent(result.at_final)}"
            axes.plot([result.final_loss], [result.at_final], "o", color=style["color"], zorder=4)
        axes.plot(result.loss, result.speedup, label=label, **style)
    axes.axhline(0.0, color=INK, linewidth=0.9)
    axes.margins(x=0.05, y=0.12)
    axes.invert_xaxis()
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("Loss (nats per token)")
    axes.set_ylabel(f"Speedup over {comparisons[0].baseline}")
    axes.legend(title="Speedup at the final loss", alignment="left")
    return drawn


def _flops_ticks(axes: Axes, low: float, high: float) -> None:
    """Ticks at 1, 2, 5 of each decade, or at decades only where there are many."""
    many = np.log10(high / low) > 4
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if many else (1.0, 2.0, 5.0), numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_flops(value)))
    axes.xaxis.set_minor_locator(NullLocator())
