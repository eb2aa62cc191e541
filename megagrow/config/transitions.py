"""Which keys of a transition go together. Which depths an operator joins, the plan knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from megagrow.config.schema import StageConfig, TransitionConfig
from megagrow.config.source import KeyPath, Source

_OWNED: tuple[tuple[str, str, str], ...] = (
    ("pattern", "operator", "pattern"),
    ("positions", "operator", "random"),
    ("insert", "operator", "random"),
    ("mask_tokens", "new_output", "mask"),
    ("moment_scale", "optimizer", "scale"),
    ("rewind_to", "learning_rate", "rewind"),
    ("rewarm_factor", "learning_rate", "rewarm_new"),
    ("rewarm_tokens", "learning_rate", "rewarm_new"),
)
"""Keys that only one value of another key reads."""

_ADDS_NOTHING = ("none", "first")
"""Operators that add no layer."""


def check_transitions(stages: Sequence[StageConfig], source: Source) -> None:
    """Raises ConfigError for the first keys that contradict each other."""
    grown = False
    for index, stage in enumerate(stages):
        path: KeyPath = ("stages", index)
        grown = grown or _adds(stage.transition)
        if stage.trainable != "all" and not grown:
            raise source.error(
                (*path, "trainable"),
                f"{stage.trainable} is what a growth adds, and none comes before the end of this "
                "transition; remove the key",
            )
        if stage.transition is not None:
            for key, message in _refusals(stages[index - 1], stage, stage.transition):
                raise source.error((*path, *key), message)


def _adds(transition: TransitionConfig | None) -> bool:
    return transition is not None and transition.operator not in _ADDS_NOTHING


def _refusals(
    previous: StageConfig, stage: StageConfig, transition: TransitionConfig
) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong with a transition: the key and why."""
    yield from _depths(previous.layers, stage.layers, transition.operator)
    for key, owner, value in _OWNED:
        if getattr(transition, key) != _default(key) and getattr(transition, owner) != value:
            yield ("transition", key), f"is read by {owner}: {value} alone; set that, or remove it"
    yield from _values(transition)
    if not _adds(transition):
        for key, value in (
            ("optimizer", "keep_old_zero_new"),
            ("learning_rate", "rewarm_new"),
            ("new_output", "zero"),
            ("new_output", "mask"),
        ):
            if getattr(transition, key) == value:
                yield (
                    ("transition", key),
                    f"{value} is about new layers, and {transition.operator} adds none",
                )
        if transition.noise:
            yield ("transition", "noise"), f"{transition.operator} takes no noise; remove the key"
    if transition.learning_rate in ("continue", "rewind", "rewarm_new") and (
        stage.learning_rate != previous.learning_rate
    ):
        yield (
            ("learning_rate",),
            f"a stage that goes on with the schedule ({transition.learning_rate}) cannot change "
            "it; set the keys on the stage that starts it, or set transition.learning_rate to "
            "restart",
        )


def _depths(before: int, after: int, operator: str) -> Iterator[tuple[KeyPath, str]]:
    if after < before and operator != "first":
        yield (
            ("layers",),
            f"{before} -> {after} layers: only the operator `first` makes a model shallower",
        )
    if after <= before and operator not in _ADDS_NOTHING:
        yield (
            ("transition", "operator"),
            f"{operator} needs more layers than {before}; remove the key",
        )
    if after > before and operator in _ADDS_NOTHING:
        yield (
            ("transition", "operator"),
            f"{before} -> {after} layers need a growth operator such as stack",
        )


def _values(transition: TransitionConfig) -> Iterator[tuple[KeyPath, str]]:
    operator, scale = transition.operator, transition.moment_scale
    if operator == "pattern" and transition.pattern is None:
        yield ("transition", "pattern"), "is missing; for example 12-345x7-6"
    if operator == "expand" and transition.new_output == "mask":
        yield (
            ("transition", "new_output"),
            "expand makes the new outputs zero; nothing to mask",
        )
    if not 0 <= transition.noise <= 1:
        yield ("transition", "noise"), f"is a share from 0 to 1, not {transition.noise:g}"
    if transition.new_output == "mask" and transition.mask_tokens < 1:
        yield ("transition", "mask_tokens"), "a mask needs the tokens it takes to rise; set it"
    if transition.optimizer == "scale" and (
        scale is None or len(scale) != 2 or not all(0 <= factor < 1e6 for factor in scale)
    ):
        yield (
            ("transition", "moment_scale"),
            "scale needs two factors, of the first and of the second moment, such as [0.5, 0.25]",
        )
    if not 0 < transition.rewarm_factor < 1e6:
        yield ("transition", "rewarm_factor"), f"must be above 0, not {transition.rewarm_factor:g}"


def _default(key: str) -> Any:
    return TransitionConfig.__dataclass_fields__[key].default
