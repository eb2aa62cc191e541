"""Which keys of a transition go together. Which depths an operator joins, the plan knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
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
    ("lesa", "operator", "lesa"),
    ("learned", "operator", "learned"),
)
"""Keys that only one value of another key reads."""

_WIDTH_OWNED = {
    "alpha": "split",
    "scale_norms": "split",
    "snr_db": "hyperclone",
    "fan_out": "rms_preserving",
    "fan_in": "rms_preserving",
    "mask_tokens": "random",
}
"""Keys of `transition.width` that only one operator reads."""

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
            for key, message in refusals(stages[index - 1], stage, stage.transition):
                raise source.error((*path, *key), message)


def _adds(transition: TransitionConfig | None) -> bool:
    return transition is not None and transition.operator not in _ADDS_NOTHING


def refusals(
    previous: StageConfig, stage: StageConfig, transition: TransitionConfig
) -> Iterator[tuple[KeyPath, str]]:
    """What is wrong with a transition: the key, from its stage on, and why.

    Args:
        previous: the stage before.
        stage: the stage that it leads into.
        transition: its transition.
    """
    yield from _depths(previous, stage, transition.operator)
    yield from _widths(previous, stage, transition)
    if transition.operator == "learned":
        yield from _learned(stage, transition)
    for key, owner, value in _OWNED:
        if getattr(transition, key) != _default(key) and getattr(transition, owner) != value:
            yield ("transition", key), f"is read by {owner}: {value} alone; set that, or remove it"
    yield from _values(transition)
    if not _adds(transition):
        if transition.optimizer == "keep_old_zero_new" and transition.width is None:
            yield (
                ("transition", "optimizer"),
                f"keep_old_zero_new is about new weights, and {transition.operator} adds none",
            )
        for key, value in (
            ("learning_rate", "rewarm_new"),
            ("new_output", "zero"),
            ("new_output", "mask"),
        ):
            if getattr(transition, key) == value:
                yield (
                    ("transition", key),
                    f"{value} is about new layers, and operator {transition.operator} adds none",
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


def _depths(
    previous: StageConfig, stage: StageConfig, operator: str
) -> Iterator[tuple[KeyPath, str]]:
    before, after = previous.layers, stage.layers
    widens = operator == "learned" and stage.model != previous.model
    if after < before and operator != "first":
        yield (
            ("layers",),
            f"{before} -> {after} layers: only the operator `first` makes a model shallower",
        )
    if after <= before and operator not in _ADDS_NOTHING and not widens:
        yield (
            ("transition", "operator"),
            f"{operator} needs more layers than {before}; remove the key",
        )
    if after > before and operator in _ADDS_NOTHING:
        yield (
            ("transition", "operator"),
            f"{before} -> {after} layers need a growth operator such as stack",
        )


def _widths(
    previous: StageConfig, stage: StageConfig, transition: TransitionConfig
) -> Iterator[tuple[KeyPath, str]]:
    width = transition.width
    if transition.operator == "learned":
        if width is not None:
            yield ("transition", "width"), "learned grows the width itself; remove the key"
        return
    if _equal_but_for_layers(previous, stage):
        if width is None:
            return  # whether the layers fit, the plan knows
        if not _layers_may_differ(previous, stage):
            yield (
                ("transition", "width"),
                f"{width.operator} makes the model wider, and this stage's has the widths of the "
                "stage before; set other ones in its model, or remove the key",
            )
            return
    if width is None:
        yield (
            ("transition",),
            "the model of this stage has other widths than that of the stage before (a stage's "
            "model is the run's, with its own keys in place); set width.operator, such as "
            "hyperclone, or give both stages the same widths",
        )
        return
    for key, operator in _WIDTH_OWNED.items():
        if getattr(width, key) is not None and width.operator != operator:
            yield (
                ("transition", "width", key),
                f"is read by {operator} alone; set that operator, or remove it",
            )
    if width.alpha is not None and (not 0 < width.alpha < 1 or width.alpha == 0.5):
        yield (
            ("transition", "width", "alpha"),
            f"is a share between 0 and 1, and not one half, with which copies would stay equal; "
            f"not {width.alpha:g}",
        )
    if width.mask_tokens is not None and width.mask_tokens < 1:
        yield ("transition", "width", "mask_tokens"), "must be above 0; remove it for no mask"
    if width.mask_tokens is not None and stage.model.style != "llama":
        yield (
            ("transition", "width", "mask_tokens"),
            "masked channels need norms that nothing is subtracted in, those of the llama style; "
            "remove it",
        )
    if width.fan_out == width.fan_in == "zero":
        yield (
            ("transition", "width", "fan_in"),
            "with fan_out zero too, new channels would get no gradient; set either to copy",
        )
    if transition.optimizer in ("keep_old_zero_new", "scale") and width.operator == "double":
        yield (
            ("transition", "optimizer"),
            f"{transition.optimizer} is not defined for double, in which each half is as old as "
            "the other; copy makes the moments what their gradients would have; use that or reset",
        )


def _equal_but_for_layers(previous: StageConfig, stage: StageConfig) -> bool:
    """Whether two models are one but for their layer-wise scaling."""
    return replace(stage.model, layer_scaling=None) == replace(previous.model, layer_scaling=None)


def _layers_may_differ(previous: StageConfig, stage: StageConfig) -> bool:
    before, after = previous.model.layer_scaling, stage.model.layer_scaling
    return before != after or (after is not None and stage.layers != previous.layers)


def _learned(stage: StageConfig, transition: TransitionConfig) -> Iterator[tuple[KeyPath, str]]:
    """What has no meaning where every new layer is a sum of all old ones."""
    for key, value in (
        ("optimizer", "reset"),
        ("learning_rate", transition.learning_rate.replace("rewarm_new", "restart")),
        ("new_output", "copy"),
        ("noise", 0.0),
    ):
        if getattr(transition, key) != value:
            yield (
                ("transition", key),
                f"learned makes every layer of all old ones, so none is new or has moments to take "
                f"over; set it to {value}",
            )
    if stage.trainable != "all":
        yield ("trainable",), "learned makes every layer anew; set it to all"
    asked = transition.learned
    steps = None if asked is None else asked.steps
    rate = None if asked is None else asked.learning_rate
    if steps is not None and steps < 1:
        yield ("transition", "learned", "steps"), f"must be at least 1, not {steps}"
    if rate is not None and rate <= 0:
        yield ("transition", "learned", "learning_rate"), f"must be above 0, not {rate:g}"


def _values(transition: TransitionConfig) -> Iterator[tuple[KeyPath, str]]:
    operator, scale = transition.operator, transition.moment_scale
    epochs = None if transition.lesa is None else transition.lesa.epochs
    if epochs is not None and epochs < 1:
        yield ("transition", "lesa", "epochs"), f"must be at least 1, not {epochs}"
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
