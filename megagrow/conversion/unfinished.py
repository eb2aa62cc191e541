"""Checkpoints that are no whole model: what they hold is still masked in part. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megagrow.errors import CheckpointError
from megagrow.growth.width.masks import MASK_TURNS


def refuse_masks(state: Mapping[str, Any], checkpoint: Path) -> None:
    """Raises CheckpointError for a checkpoint in which a mask on what growth added is not 1 yet.

    Nothing but the stage itself knows of masks (`new_output: mask`, `width.mask_tokens`).

    Args:
        state: the checkpoint's `state.json`.
        checkpoint: where it is, for the message.
    """
    number, stages = state["train"]["stage"], state["config"]["stages"]
    transition = stages[number].get("transition") or {}
    channels = (transition.get("width") or {}).get("mask_tokens") or 0
    layers = transition["mask_tokens"] if transition.get("new_output") == "mask" else 0
    needed = max(layers, len(set(MASK_TURNS.values())) * channels)
    if not needed:
        return
    length = state["config"]["model"]["seq_length"]
    steps = [entry["batch"]["global_size"] * length for entry in stages[: number + 1]]
    before = sum(
        -(-entry["tokens"] // step) for entry, step in zip(stages[:number], steps, strict=False)
    )
    done = (state["train"]["step"] - before) * steps[number]
    if done < needed:
        raise CheckpointError(
            f"{checkpoint}: what its last growth added is behind a mask that is not 1 yet ({done} "
            f"of {needed} tokens), which only that stage knows. Take a later checkpoint, or an "
            "earlier one."
        )
