"""What a configuration can do but probably does not mean to: warnings, never errors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from megagrow.config.schema import CheckpointConfig, RunConfig
from megagrow.growth.timing import GROWTH_FACTOR
from megagrow.units import format_count


def warnings(config: RunConfig, stage_tokens: Sequence[int]) -> tuple[str, ...]:
    """Warnings about a run.

    Args:
        config: the run.
        stage_tokens: tokens each stage really takes.
    """
    return (
        *_schedule_warnings(config, stage_tokens),
        *_growth_warnings(config),
        *_frozen_warnings(config),
        *_unread_warnings(config),
    )


def _schedule_warnings(config: RunConfig, stage_tokens: Sequence[int]) -> list[str]:
    """Learning-rate schedules that end before they have taken their shape."""
    stages = config.stages
    starts = [
        index
        for index, stage in enumerate(stages)
        if stage.transition is None or stage.transition.learning_rate == "restart"
    ]
    found = []
    for first, end in pairwise([*starts, len(stages)]):
        rate, name = stages[first].learning_rate, stages[first].name
        length = sum(stage_tokens[first:end])
        span = f"the schedule that starts at stage {name!r} lasts {format_count(length)} tokens"
        if not length:
            continue  # a base model, not trained
        if rate.warmup >= length:
            found.append(f"{span}, all of them warmup ({format_count(rate.warmup)})")
        elif rate.decay == "wsd":
            fall_starts = (rate.horizon or length) - rate.decay_tokens
            if fall_starts < rate.warmup:
                fall = format_count(rate.decay_tokens)
                found.append(f"{span}, too few for its warmup and a final fall over {fall}")
    return found


def _growth_warnings(config: RunConfig) -> list[str]:
    found = []
    for before, after in pairwise(config.stages):
        if after.layers == before.layers:
            continue
        if before.layers == 1:
            found.append(
                f"stage {after.name!r} grows from a single layer, which lost to training from "
                "scratch in the G_stack paper"
            )
        if after.layers > GROWTH_FACTOR * before.layers:
            found.append(
                f"stage {after.name!r} grows {after.layers / before.layers:.3g}-fold; the G_stack "
                f"paper found 2 to {GROWTH_FACTOR} best"
            )
    return found


def _frozen_warnings(config: RunConfig) -> list[str]:
    """Stages that freeze layers right after their growth has reshaped them."""
    return [
        f"stage {stage.name!r} freezes layers that its growth gives new heads or channels "
        "(transition.width), so that these never learn; set trainable to all"
        for stage in config.stages
        if stage.trainable != "all"
        and stage.transition is not None
        and stage.transition.width is not None
    ]


def _unread_warnings(config: RunConfig) -> list[str]:
    """Keys of one way to grow in a run whose transitions all go the other way."""
    ways = {stage.transition.through for stage in config.stages if stage.transition is not None}
    checkpoint, found = config.checkpoint, []
    if ways == {"memory"} and checkpoint.growth_scratch is not None:
        found.append(
            "checkpoint.growth_scratch has no effect: every transition goes through memory; remove "
            "it, or set transition.through to checkpoint"
        )
    whole = any(
        stage.transition is not None
        and (stage.transition.width is not None or stage.transition.operator in ("lesa", "learned"))
        for stage in config.stages
    )
    if (
        ways == {"checkpoint"}
        and not whole
        and checkpoint.growth_staging != CheckpointConfig().growth_staging
    ):
        found.append(
            "checkpoint.growth_staging has no effect: every transition goes through a checkpoint; "
            "remove it, or set transition.through to memory"
        )
    return found
