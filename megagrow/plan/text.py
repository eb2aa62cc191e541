"""Short text for the numbers of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from megagrow.config.schema import LearningRateConfig, TransitionConfig
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.timing import Experiment
from megagrow.model.shape import ModelShape
from megagrow.units import format_count

LONGEST_LAYOUT = 8
"""Chunks up to which a layout is written out one by one."""


def flops(value: float) -> str:
    """FLOPs: `3.75e+13`."""
    return f"{value:.3g}"


def layout(counts: Sequence[int]) -> str:
    """Layers per pipeline chunk: `3 1`; runs of a long one as count x layers: `2x9 60x10`."""
    if len(counts) <= LONGEST_LAYOUT:
        return " ".join(map(str, counts))
    runs = [(layers, len(list(group))) for layers, group in groupby(counts)]
    return " ".join(f"{count}x{layers}" for layers, count in runs)


def layer_map(sources: Sequence[int | None]) -> str:
    """Old layers of the new ones, runs and repeats joined: `0-5 x4`, `0-2, 3-5 x7`, `0, new x2`."""
    runs: list[tuple[int, int] | None] = []
    for source in sources:
        last = runs[-1] if runs else None
        if source is None:
            runs.append(None)
        elif last is not None and source == last[1] + 1:
            runs[-1] = (last[0], source)
        else:
            runs.append((source, source))
    parts: list[str] = []
    for run, group in groupby(runs):
        count = len(list(group))
        span = "new" if run is None else str(run[0]) if run[0] == run[1] else f"{run[0]}-{run[1]}"
        parts.append(span if count == 1 else f"{span} x{count}")
    return ", ".join(parts)


def widths(shape: ModelShape) -> str:
    """The widths of a model: `hidden 768, 12 heads, FFN 3072`, or from least to most of a layer."""

    def span(sizes: Sequence[int]) -> str:
        low, high = min(sizes), max(sizes)
        return str(low) if low == high else f"{low} to {high}"

    heads = span([layer.num_attention_heads for layer in shape.layers])
    inner = span([layer.ffn_hidden_size for layer in shape.layers])
    return f"hidden {shape.hidden_size}, {heads} heads, FFN {inner}"


def growth(transition: TransitionConfig, plan: GrowthPlan, shape: ModelShape) -> str:
    """Operators and what they do: `stack 2 -> 4, new ones zero, noise 20%`.

    Args:
        transition: what was asked for.
        plan: what comes of it in depth.
        shape: the grown model.
    """
    parts = []
    if plan.operator != "none":
        parts.append(f"{plan.operator} {plan.old_layers} -> {plan.new_layers}")
    if transition.width is not None:
        parts.append(f"{transition.width.operator} to {widths(shape)}")
    if plan.zeroed:
        parts.append("new ones zero")
    if plan.masked:
        parts.append(f"new ones masked for {format_count(transition.mask_tokens)}")
    if plan.noise:
        parts.append(f"noise {_percent(plan.noise)}")
    return ", ".join(parts)


def moments(transition: TransitionConfig) -> str:
    """What happens to the optimizer: `copy`, `scale 0.5 0.25`."""
    return " ".join(
        [transition.optimizer, *(f"{factor:g}" for factor in transition.moment_scale or ())]
    )


def rate_policy(transition: TransitionConfig) -> str:
    """What happens to the schedule: `restart`, `rewind to 20M`, `rewarm_new x1.3 in 2M`."""
    if transition.learning_rate == "rewind":
        to = transition.rewind_to
        return "rewind to " + ("the peak" if to is None else format_count(to))
    if transition.learning_rate == "rewarm_new":
        rise = format_count(transition.rewarm_tokens)
        return f"rewarm_new x{transition.rewarm_factor:g} in {rise}"
    return transition.learning_rate


def experiment(run: Experiment) -> str:
    """`1.1B parameters, grown x4 after 10B of 97.5B tokens, 49.1% faster`."""
    return (
        f"{format_count(run.parameters)} parameters, grown x{run.factor} after "
        f"{format_count(run.base_tokens)} and trained on {format_count(run.tokens)} tokens, "
        f"{_percent(run.speedup)} faster"
    )


def mixture(start: Mapping[str, float], end: Mapping[str, float] | None) -> str:
    """Shares in percent: `easy 80>50 hard 20>50`, the arrow only where the mixture moves."""
    parts = []
    for name in dict.fromkeys((*start, *(end or {}))):
        first = _percent(start.get(name, 0.0))
        last = first if end is None else _percent(end.get(name, 0.0))
        parts.append(f"{name} {first}" if first == last else f"{name} {first}->{last}")
    return ", ".join(parts)


def learning_rate(rate: LearningRateConfig) -> str:
    """A schedule in a few words: `2e-3 -> 2e-4 cosine, warmup 100K`."""
    minimum = rate.peak / 10 if rate.minimum is None else rate.minimum
    fall = f" over {format_count(rate.decay_tokens)}" if rate.decay == "wsd" else ""
    shape = (
        f"{rate.peak:g} constant"
        if rate.decay == "constant"
        else f"{rate.peak:g} -> {minimum:g} {rate.decay}{fall}"
    )
    horizon = "" if rate.horizon is None else f", horizon {format_count(rate.horizon)}"
    return f"{shape}, warmup {format_count(rate.warmup)}{horizon}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
