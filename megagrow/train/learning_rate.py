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

    @property
    def minimum(self) -> float:
        """Learning rate at the end of the decay."""
        return self.config.peak / 10 if self.config.minimum is None else self.config.minimum

    def at(self, tokens: int) -> float:
        """Learning rate after `tokens` tokens of the run."""
        config, minimum = self.config, self.minimum
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
class Rewarming:
    """A higher rate for the layers that a growth added (SPARKLING, arXiv 2602.02472).

    It rises linearly from the old layers' rate to `factor` times that, and then goes down to the
    same minimum as theirs, as the same share of the way.
    """

    start: int
    """Tokens of the run before it."""

    tokens: int
    """Tokens it rises over."""

    factor: float
    """Of the rate where the rise ends."""

    def at(self, schedule: Schedule, tokens: int) -> float:
        """Learning rate of the new layers after `tokens` tokens of the run."""
        rate, position = schedule.at(tokens), tokens - self.start
        if position < self.tokens:
            return rate * (1 + (self.factor - 1) * position / self.tokens)
        top, low = schedule.at(self.start + self.tokens), schedule.minimum
        if top <= low:
            return rate
        return low + (rate - low) * (self.factor * top - low) / (top - low)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRates:
    """The schedules of a run, one per stage (a continuing stage shares its predecessor's)."""

    schedules: tuple[Schedule, ...]
    """Schedule of each stage."""

    rewarmings: tuple[Rewarming | None, ...]
    """What the layers of the last growth have on top in each stage."""

    def at(self, stage: int, tokens: int, step_tokens: int) -> float:
        """Learning rate of an optimizer step: the schedule's value in the middle of it.

        Args:
            stage: index of the stage the step belongs to.
            tokens: tokens of the run before the step.
            step_tokens: tokens of the step.
        """
        return self.schedules[stage].at(tokens + step_tokens // 2)

    def of_added(self, stage: int, tokens: int, step_tokens: int) -> float:
        """Likewise of the layers that the last growth added."""
        rewarming, schedule = self.rewarmings[stage], self.schedules[stage]
        middle = tokens + step_tokens // 2
        return schedule.at(middle) if rewarming is None else rewarming.at(schedule, middle)


def learning_rates(stages: Sequence[StageConfig], stage_tokens: Sequence[int]) -> LearningRates:
    """Joins the stages of a run into schedules.

    Args:
        stages: the stage table.
        stage_tokens: tokens each stage really takes (whole optimizer steps).
    """
    schedules = []
    for first, start, length in spans(list(map(_begins, stages)), stage_tokens):
        config, transition = stages[first].learning_rate, stages[first].transition
        skipped = 0
        if transition is not None and transition.learning_rate == "rewind":
            skipped = config.warmup if transition.rewind_to is None else transition.rewind_to
        schedules.append(
            Schedule(
                config=config, start=start - skipped, horizon=config.horizon or length + skipped
            )
        )
    rewarmings = (_rewarming(stages, stage_tokens, index) for index in range(len(stages)))
    return LearningRates(schedules=tuple(schedules), rewarmings=tuple(rewarmings))


def _begins(stage: StageConfig) -> bool:
    """Whether a stage does not simply go on with the schedule."""
    return stage.transition is None or stage.transition.learning_rate in ("restart", "rewind")


def rewarm_stage(stages: Sequence[StageConfig], index: int) -> int | None:
    """The stage whose `rewarm_new` holds in stage `index`; None: none does.

    It holds until a stage grows, restarts or rewinds.
    """
    for place in range(index, 0, -1):
        transition = stages[place].transition
        if transition is None or transition.learning_rate == "rewarm_new":
            return place
        if transition.learning_rate != "continue" or transition.operator != "none":
            return None
    return None


def _rewarming(
    stages: Sequence[StageConfig], stage_tokens: Sequence[int], index: int
) -> Rewarming | None:
    place = rewarm_stage(stages, index)
    transition = None if place is None else stages[place].transition
    if transition is None:
        return None
    return Rewarming(
        start=sum(stage_tokens[:place]),
        tokens=transition.rewarm_tokens,
        factor=transition.rewarm_factor,
    )


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
