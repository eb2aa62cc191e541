"""Whether a checkpoint belongs to a configuration: what may change between two starts of a run.

Free to change: names and folders, the parallel layout and micro batch, the way of the state in a
growth, evaluation, logging, checkpointing and limits, and the stages that have not begun, as far as
they do not move the end of the learning-rate schedule in force. Everything else decides the losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from megagrow.config.schema import ModelConfig, StageConfig, TransitionConfig
from megagrow.errors import CheckpointError
from megagrow.train.learning_rate import spans

RUN_KEYS = ("seed", "precision", "model", "optimizer")
DATA_KEYS = ("buckets", "validation_fraction")
STAGE_KEYS = ("layers", "tokens", "mixture", "mixture_end", "trainable")


def check_identity(
    saved: Mapping[str, Any], current: Mapping[str, Any], stage: int, where: str
) -> None:
    """Raises CheckpointError if the checkpoint at `where` is of another run.

    Args:
        saved: the configuration in the checkpoint, as plain data.
        current: the configuration of this start, as plain data.
        stage: index of the stage the checkpoint lies in.
        where: the checkpoint, for the message.
    """
    try:
        before = _identity(saved, stage)
    except (KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{where}: the configuration in it is damaged: {error!r}. Resume another checkpoint "
            "with --resume FOLDER."
        ) from None
    found = list(_differences(before, _identity(current, stage), ""))
    if found:
        listed = "\n  ".join(found[:8] + (["..."] if len(found) > 8 else []))
        raise CheckpointError(
            f"{where} is of another configuration:\n  {listed}\n"
            "Set these back, or give the run a new name or output folder to start afresh."
            f"{_horizon_hint(saved, current, stage)}"
        )


def _identity(config: Mapping[str, Any], stage: int) -> dict[str, Any]:
    """The part of a configuration that decides the losses up to the end of `stage`.

    Keys that an older version did not know have the value that does what it did.
    """
    model = _complete(ModelConfig, config["model"])
    stages = [
        _complete(StageConfig, {"model": model, **entry}) for entry in config["stages"][: stage + 1]
    ]
    horizons = _horizons(config)
    return {
        **{key: config[key] for key in RUN_KEYS},
        "initialise_from": "a checkpoint" if config.get("initialise_from") else "nothing",
        "model": model,
        "data": {key: config["data"][key] for key in DATA_KEYS},
        "stages": [
            {
                **{key: entry[key] for key in STAGE_KEYS},
                "model": {
                    key: value
                    for key, value in _complete(ModelConfig, entry["model"]).items()
                    if value != model[key]
                },
                "transition": _without_way(entry["transition"]),
                "learning_rate": {**entry["learning_rate"], "horizon": horizon},
                "batch": {"global_size": entry["batch"]["global_size"]},
            }
            for entry, (_, horizon) in zip(stages, horizons, strict=False)
        ],
    }


def _without_way(transition: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A transition but for the way the state takes: the same bits arrive."""
    if transition is None:
        return None
    known = _complete(TransitionConfig, transition)
    return {key: value for key, value in known.items() if key != "through"}


def _complete(kind: type, saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved section with the defaults of keys that it does not have."""
    plain = {entry.name: entry.default for entry in fields(kind) if entry.default is not MISSING}
    return {**plain, **saved}


def _horizons(config: Mapping[str, Any]) -> list[tuple[int, int | None]]:
    """For every stage, where its schedule begins (a stage) and ends (tokens after that).

    With the keys of the stages up to the current one this is the whole schedule: they say its
    shape and its start. Without `horizon`, it takes its end from stages that may not have begun.
    A constant schedule has no end.
    """
    stages = config["stages"]
    length = config["model"]["seq_length"]
    steps = [entry["batch"]["global_size"] * length for entry in stages]
    tokens = [-(-entry["tokens"] // step) * step for entry, step in zip(stages, steps, strict=True)]
    restarts = [
        (entry["transition"] or {}).get("learning_rate") in (None, "restart", "rewind")
        for entry in stages
    ]
    found: list[tuple[int, int | None]] = []
    for first, _, total in spans(restarts, tokens):
        rate = stages[first]["learning_rate"]
        found.append((first, None if rate["decay"] == "constant" else rate["horizon"] or total))
    return found


def _horizon_hint(saved: Mapping[str, Any], current: Mapping[str, Any], stage: int) -> str:
    """How to change later stages and keep the schedule, where its end is what differs."""
    before, now = _horizons(saved), _horizons(current)
    if len(now) <= stage or before[stage] == now[stage] or before[stage][1] is None:
        return ""
    first, horizon = before[stage]
    return (
        "\nWithout `horizon`, a schedule ends with the last stage that continues it: to change such"
        f" stages and keep it, set stages.{first}.learning_rate.horizon={horizon}."
    )


def _differences(saved: Any, current: Any, path: str) -> Iterator[str]:
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        for key in sorted({*saved, *current}):
            inner = f"{path}.{key}" if path else str(key)
            if key not in saved or key not in current:
                yield f"{inner}: {saved.get(key, 'absent')} -> {current.get(key, 'absent')}"
            else:
                yield from _differences(saved[key], current[key], inner)
    elif _is_list(saved) and _is_list(current) and len(saved) == len(current):
        for index, (old, new) in enumerate(zip(saved, current, strict=True)):
            yield from _differences(old, new, f"{path}.{index}")
    elif _is_list(saved) and _is_list(current):
        yield f"{path}: {len(saved)} in the checkpoint, {len(current)} now"
    elif saved != current:
        yield f"{path}: {saved} in the checkpoint, {current} now"


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
