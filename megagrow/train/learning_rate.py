"""The learning rate at every point of a run, as a pure function of the stage table.

A schedule is a run of stages: it begins where a stage restarts it and ends where the next one
does. Inside it the rate depends only on the tokens since its beginning, so batch size, layout and
resumption do not change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from megagrow.config.schema import LearningRateConfig, StageConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """One learning-rate schedule."""

    config: LearningRateConfig
    """Its shape."""

    start: int
    """Tokens of the run before it begins."""

    horizon: int
    """Tokens after `start` at which the minimum is reached."""

    def at(self, tokens: int) -> float:
        """Learning rate after `tokens` tokens of the run."""
        config = self.config
        minimum = config.peak / 10 if config.minimum is None else config.minimum
        position = tokens - self.start
        if position < config.warmup:
            return config.peak * position / config.warmup
        if config.decay == "constant":
            return config.peak
        begin = self.horizon - config.decay_tokens if config.decay == "wsd" else config.warmup
        begin = max(begin, config.warmup)
        if position <= begin:
            return config.peak
        if position >= self.horizon:
            return minimum
        progress = (position - begin) / (self.horizon - begin)
        if config.decay == "cosine":
            return minimum + (config.peak - minimum) * 0.5 * (1.0 + math.cos(math.pi * progress))
        return config.peak + (minimum - config.peak) * progress


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRates:
    """The schedules of a run, one per stage (a continuing stage shares its predecessor's)."""

    schedules: tuple[Schedule, ...]
    """Schedule of each stage."""

    def at(self, stage: int, tokens: int, step_tokens: int) -> float:
        """Learning rate of an optimizer step: the schedule's value in the middle of it.

        Args:
            stage: index of the stage the step belongs to.
            tokens: tokens of the run before the step.
            step_tokens: tokens of the step.
        """
        return self.schedules[stage].at(tokens + step_tokens // 2)


def learning_rates(stages: Sequence[StageConfig], stage_tokens: Sequence[int]) -> LearningRates:
    """Joins the stages of a run into schedules.

    Args:
        stages: the stage table.
        stage_tokens: tokens each stage really takes (whole optimizer steps).
    """
    restarts = [
        stage.transition is None or stage.transition.learning_rate == "restart" for stage in stages
    ]
    schedules = []
    for first, start, length in spans(restarts, stage_tokens):
        config = stages[first].learning_rate
        schedules.append(Schedule(config=config, start=start, horizon=config.horizon or length))
    return LearningRates(schedules=tuple(schedules))


def spans(restarts: Sequence[bool], stage_tokens: Sequence[int]) -> list[tuple[int, int, int]]:
    """For every stage, where the schedule in force runs: its first stage, its start, its length.

    Args:
        restarts: whether the stage begins a schedule; the first one does.
        stage_tokens: tokens each stage really takes.

    Returns:
        Index of the stage the schedule begins at, tokens of the run before it, and its tokens up
        to the end of the last stage that continues it.
    """
    starts = [sum(stage_tokens[:index]) for index in range(len(restarts) + 1)]
    first = [index for index, restart in enumerate(restarts) if restart]
    found: list[tuple[int, int, int]] = []
    for begin, end in zip(first, [*first[1:], len(restarts)], strict=True):
        found += [(begin, starts[begin], starts[end] - starts[begin])] * (end - begin)
    return found
