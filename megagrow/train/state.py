"""Where a run stands: everything beside the tensors that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megagrow.curriculum.state import SamplerState
from megagrow.errors import CheckpointError


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainState:
    """A point between two optimizer steps."""

    step: int
    """Optimizer steps done in the run, skipped ones included."""

    stage: int
    """Index of the stage whose model is live; at a boundary, the stage that ends there."""

    updates: int
    """Updates since the optimizer's moments were zero: Adam's step count."""

    skipped: int
    """Steps skipped in a row because loss or gradient was not finite."""

    sampler: SamplerState
    """Position in every bucket."""

    def to_dict(self) -> dict[str, Any]:
        """JSON types that `from_dict` reads back."""
        return {
            "step": self.step,
            "stage": self.stage,
            "updates": self.updates,
            "skipped": self.skipped,
            "sampler": self.sampler.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> TrainState:
        """The state saved in a checkpoint.

        Raises:
            CheckpointError: `data` lacks a key or holds a wrong type; names `where`.
        """
        try:
            numbers = {key: _count(data[key]) for key in ("step", "stage", "updates", "skipped")}
            return cls(sampler=SamplerState.from_dict(data["sampler"]), **numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{where}: the training state is damaged: {error!r}. Resume another checkpoint "
                "with --resume FOLDER."
            ) from None


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
