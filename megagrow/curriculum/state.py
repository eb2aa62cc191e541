"""Where a run stands in its data: all that is needed to go on drawing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from megagrow.errors import CheckpointError


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerState:
    """A position in the data, the same on all ranks and for any number of them.

    Only whole numbers: it survives JSON, and nothing in it is rounded.
    """

    stage: int
    """Number of the stage in the stage table, from 0."""

    drawn: Mapping[str, int]
    """Samples each bucket has given in this stage."""

    cursors: Mapping[str, int]
    """The next sample of each bucket, counted since the start of the run over all epochs."""

    @property
    def samples(self) -> int:
        """Samples drawn in this stage, over all buckets."""
        return sum(self.drawn.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`from_dict` reads it back."""
        return {"stage": self.stage, "drawn": dict(self.drawn), "cursors": dict(self.cursors)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SamplerState:
        """The state that :meth:`to_dict` wrote.

        Raises:
            CheckpointError: a key is missing or a value is not a whole number of samples.
        """
        try:
            return cls(
                stage=_count(data["stage"]),
                drawn={str(name): _count(value) for name, value in data["drawn"].items()},
                cursors={str(name): _count(value) for name, value in data["cursors"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"the sampler state in the checkpoint cannot be read ({error!r}): resume from an "
                "older checkpoint"
            ) from error


def initial_state(buckets: Iterable[str]) -> SamplerState:
    """The start of a run: first stage, nothing drawn from any bucket."""
    return SamplerState(stage=0, drawn={}, cursors=dict.fromkeys(sorted(buckets), 0))


def begin_stage(state: SamplerState, stage: int) -> SamplerState:
    """The start of stage number ``stage``: cursors stay, the stage's own counts start at zero."""
    return SamplerState(stage=stage, drawn={}, cursors=dict(state.cursors))


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
