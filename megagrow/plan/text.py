"""Short text for the numbers of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from megagrow.config.schema import LearningRateConfig
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


def layer_map(sources: Sequence[int]) -> str:
    """Old layers of the new ones, runs and repeats joined: `0-5 x4`, `0-2, 3-5 x7`."""
    runs: list[list[int]] = []
    for source in sources:
        if runs and source == runs[-1][1] + 1:
            runs[-1][1] = source
        else:
            runs.append([source, source])
    parts: list[str] = []
    for (first, last), group in groupby(runs, key=tuple):
        count = len(list(group))
        span = str(first) if first == last else f"{first}-{last}"
        parts.append(span if count == 1 else f"{span} x{count}")
    return ", ".join(parts)


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
