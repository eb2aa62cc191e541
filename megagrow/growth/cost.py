"""What a growth took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
