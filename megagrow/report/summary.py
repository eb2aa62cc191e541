"""The facts of a report as rows of text, for the HTML page and the terminal alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from megagrow.config.schema import ParallelConfig
from megagrow.report.comparison import Comparison, percent
from megagrow.report.curves import training_curve
from megagrow.report.records import FloatArray, GrowthRecord, RunMetrics, StageRecord
from megagrow.units import format_bytes, format_count, format_duration, format_flops

NONE = "\N{EN DASH}"
"""Shown where there is nothing to show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of text."""

    title: str
    """What it is about."""

    head: tuple[str, ...]
    """Column titles."""

    rows: tuple[tuple[str, ...], ...]
    """Rows, each as long as `head`."""

    note: str = ""
    """What the reader must know about it."""


def summary_table(runs: Sequence[RunMetrics], *, scale: float) -> Table:
    """One column per run: what it is, what it took, how good it got."""
    facts = [_facts(run, scale) for run in runs]
    labels = dict.fromkeys(label for fact in facts for label in fact)
    return Table(
        title="Summary",
        head=("", *(run.name for run in runs)),
        rows=tuple((label, *(fact.get(label, NONE) for fact in facts)) for label in labels),
        note="Losses in nats per token. Tokens per "
        "second over the whole run count evaluations, saves and growth.",
    )


def _facts(run: RunMetrics, scale: float) -> dict[str, str]:
    steps = run.steps
    curve = training_curve(steps, scale=scale)
    last_eval = run.evals[-1] if run.evals else None
    planned = ""
    if run.end_reason != "completed" and run.total_tokens > steps.tokens[-1]:
        planned = f" of {format_count(run.total_tokens)}"
    facts = {
        "State": _state(run),
        "Depth": _arrows(run.stages, lambda stage: str(stage.layers), " layers")
        or f"{steps.layers[-1]:.0f} layers",
        "Parameters": _arrows(run.stages, lambda stage: format_count(stage.parameters)) or NONE,
        "Steps": f"{steps.step[-1]:,.0f}",
        "Tokens": format_count(float(steps.tokens[-1])) + planned,
        "Training compute": format_flops(float(steps.flops[-1])),
        "Training loss, smoothed": f"{curve.loss[-1]:.4f}" if len(curve.loss) else NONE,
        "Final evaluation loss": f"{last_eval.loss:.4f}" if last_eval else NONE,
    }
    for bucket in run.buckets:
        loss = last_eval.losses.get(bucket) if last_eval else None
        facts[f"  {bucket}"] = NONE if loss is None else f"{loss:.4f}"
    facts["Wall time"] = format_duration(run.wall_seconds)
    if run.wall_seconds > 0:
        facts["Tokens per second"] = format_count(float(steps.tokens[-1]) / run.wall_seconds)
    if np.isfinite(steps.mfu).any():
        facts["MFU (median)"] = f"{np.nanmedian(steps.mfu):.1%}"
        facts["Peak per device"] = _peak(run)
    if run.world_size is not None:
        facts["Processes"] = f"{run.world_size} x {run.device or 'unknown device'}"
    return facts


def _state(run: RunMetrics) -> str:
    state = run.end_reason.replace("_", " ") if run.end_reason else "running or killed"
    if run.resumes:
        state += f", resumed {len(run.resumes)}x"
    return state


def _peak(run: RunMetrics) -> str:
    if run.peak_tflops is None:
        return NONE
    source = f" ({run.peak_source})" if run.peak_source else ""
    return f"{run.peak_tflops:g} TFLOP/s{source}"


def _arrows(stages: Sequence[StageRecord], show: Any, unit: str = "") -> str:
    """Values along the stages, repeated ones once: `2 → 4 → 8 layers`."""
    values: list[str] = []
    for stage in stages:
        value = show(stage)
        if not values or values[-1] != value:
            values.append(value)
    return " \N{RIGHTWARDS ARROW} ".join(values) + (unit if values else "")


def stage_table(runs: Sequence[RunMetrics]) -> Table:
    """One row per stage of every run."""
    rows = []
    for run in runs:
        for index, stage in enumerate(run.stages):
            later = run.stages[index + 1 : index + 2]
            end = later[0].step if later else math.inf
            within = (run.steps.step > stage.step) & (run.steps.step <= end)
            rows.append(
                (
                    run.name,
                    stage.name,
                    str(stage.layers),
                    format_count(stage.parameters),
                    format_count(stage.total_tokens),
                    _share(run, stage, later[0] if later else None),
                    ", ".join(f"{name} {weight:.0%}" for name, weight in stage.mixture.items()),
                    _parallel(stage.parallel),
                    _median(run.steps.tokens_per_second[within]),
                )
            )
    return Table(
        title="Stages",
        head=(
            "Run",
            "Stage",
            "Layers",
            "Parameters",
            "Tokens",
            "Share of compute",
            "Mixture at start",
            "Parallel layout",
            "Tokens/s (median)",
        ),
        rows=tuple(rows),
        note="Share of compute is of the FLOPs the run has done so far.",
    )


def _parallel(parallel: Mapping[str, Any]) -> str:
    """The parallel sizes, and what else is not as it is by default."""
    usual = asdict(ParallelConfig())
    return ", ".join(
        f"{key} {value}"
        for key, value in parallel.items()
        if key in ("tensor", "pipeline") or key not in usual or usual[key] != value
    )


def _share(run: RunMetrics, stage: StageRecord, later: StageRecord | None) -> str:
    total = float(run.steps.flops[-1])
    end = later.flops if later else total
    return f"{(end - stage.flops) / total:.1%}" if total > 0 else NONE


def _median(values: FloatArray) -> str:
    finite = values[np.isfinite(values)]
    return format_count(float(np.median(finite))) if len(finite) else NONE


def growth_table(runs: Sequence[RunMetrics]) -> Table:
    """One row per growth of every run."""
    rows = []
    for run in runs:
        for growth in run.growths:
            before, after = loss_around(run, growth.step)
            rows.append(
                (
                    run.name,
                    f"{growth.step:,}",
                    f"{growth.from_layers} \N{RIGHTWARDS ARROW} {growth.to_layers}",
                    growth.operator,
                    growth.optimizer,
                    format_duration(growth.seconds),
                    _bytes(growth.bytes_moved),
                    _bytes(growth.peak_bytes),
                    _loss(before),
                    _loss(after),
                )
            )
    return Table(
        title="Growth events",
        head=(
            "Run",
            "Step",
            "Layers",
            "Operator",
            "Optimizer",
            "Pause",
            "Moved",
            "Peak memory",
            "Loss before",
            "Loss after",
        ),
        rows=tuple(rows),
        note="Losses of the last step before and the first step after, not smoothed; where the "
        "mixture changed at the same boundary, they are of different text.",
    )


def loss_around(run: RunMetrics, step: int) -> tuple[float, float]:
    """Training loss of the last step before a boundary at `step` and the first after it."""
    index = int(np.searchsorted(run.steps.step, step, side="right"))
    loss = run.steps.loss
    before = float(loss[index - 1]) if index > 0 else math.nan
    after = float(loss[index]) if index < len(loss) else math.nan
    return before, after


def speedup_table(comparisons: Sequence[Comparison]) -> Table:
    """One row per comparison."""
    rows = []
    for one in comparisons:
        result = one.result
        along = NONE
        if len(result.speedup):
            low, high = float(result.speedup.min()), float(result.speedup.max())
            along = f"{percent(low)} to {percent(high)}"
        rows.append(
            (
                one.run,
                one.measure,
                _loss(result.final_loss),
                format_flops(result.scratch_final_flops),
                NONE
                if result.grown_final_flops is None
                else format_flops(result.grown_final_flops),
                NONE if result.at_final is None else percent(result.at_final),
                along,
            )
        )
    baseline = comparisons[0].baseline if comparisons else ""
    return Table(
        title="Speedup at equal loss",
        head=(
            "Run",
            "Measured on",
            f"Final loss of {baseline}",
            f"Compute of {baseline}",
            "Compute of the run",
            "Speedup",
            "Along the curve",
        ),
        rows=tuple(rows),
        note="Speedup = FLOPs of the baseline / FLOPs of the run \N{MINUS SIGN} 1 when each first "
        "had that loss. A grown run is charged for the small models it grew from. Along the "
        "curve: from a tenth of the baseline's compute on.",
    )


def _loss(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else NONE


def _bytes(value: float) -> str:
    return format_bytes(value) if math.isfinite(value) else NONE


def config_text(config: Mapping[str, Any]) -> str:
    """A run's configuration as YAML."""
    import yaml

    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)


def growth_label(growth: GrowthRecord) -> str:
    """A growth in a plot: `2→4`."""
    if growth.to_layers == growth.from_layers:
        return "wider"
    return f"{growth.from_layers}\N{RIGHTWARDS ARROW}{growth.to_layers}"
