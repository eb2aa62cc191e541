"""What a growth took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist

from megagrow.runtime import device


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthCost:
    """What one growth took, on the slowest or fullest process."""

    seconds: float
    """From the last step of the old model to the new one being ready."""

    phases: Mapping[str, float]
    """Seconds of its parts, in order."""

    bytes_moved: int
    """In memory: bytes that went from one process to another, over all of them. Through a
    checkpoint: bytes written, of which about as many are read, once per stacked copy."""

    kept_bytes: int
    """Memory in use when nothing but its optimizer shards was left of the old model; through a
    checkpoint, nothing at all."""

    peak_bytes: int
    """Highest memory use meanwhile (see `runtime.device.memory_peak_bytes`)."""


def growth_cost(
    *, seconds: float, phases: Mapping[str, float], bytes_moved: int, kept_bytes: int
) -> GrowthCost:
    """The cost of a growth that has ended, from what each process measured; call on every rank.

    Args:
        seconds: what it took here.
        phases: its parts here, the same ones everywhere.
        bytes_moved: what all processes together moved.
        kept_bytes: what was in use here between the old model and the new one.
    """
    measured = [seconds, kept_bytes, device.memory_peak_bytes(), *phases.values()]
    worst = torch.tensor(measured, dtype=torch.float64, device=device.device())
    dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    slowest, kept, peak, *parts = worst.tolist()
    return GrowthCost(
        seconds=slowest,
        phases=dict(zip(phases, parts, strict=True)),
        bytes_moved=bytes_moved,
        kept_bytes=int(kept),
        peak_bytes=int(peak),
    )
