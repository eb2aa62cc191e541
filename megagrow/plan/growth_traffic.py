"""What the plan says of the state that a growth, or a new layout, moves between processes."""

from __future__ import annotations

from dataclasses import dataclass

from megagrow.growth.keys import moment_source, weight_source
from megagrow.growth.moments import moment_policy
from megagrow.pipeline.redistribution.traffic import Placement, traffic
from megagrow.plan.schedule import StagePlan, rebuilds

_FP32_BYTES = 4

LINK_GB_PER_SECOND = 25.0
"""What a device is assumed to receive: half of a 400 Gbit/s port, as all-to-all reaches on many
nodes. Inside a node it is several times that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthTraffic:
    """Bytes of optimizer state that a growth in memory fills and moves; an estimate."""

    filled: int
    """In the new layout, by the process that holds most."""

    moved: int
    """Between processes, all together."""

    most_received: int
    """By the process that receives most."""

    @property
    def seconds(self) -> float:
        """Time of sending, at `LINK_GB_PER_SECOND`."""
        return self.most_received / (LINK_GB_PER_SECOND * 1e9)


def growth_traffic(old: StagePlan, new: StagePlan) -> GrowthTraffic | None:
    """What entering `new` after `old` moves; None where the model stays where it is."""
    transition, growth = new.config.transition, new.growth
    if transition is None or growth is None or not rebuilds(old, new):
        return None
    weights = weight_source(growth)
    moments = moment_source(growth, moment_policy(transition), weights)
    if new.widens or growth.operator == "learned":
        return _whole_tensors(old, new, 1 if moments is None else 3)
    before, after = _placement(old), _placement(new)
    kinds = [traffic(before, after, weights)]
    if moments is not None:
        kinds += [kinds[0] if moments is weights else traffic(before, after, moments)] * 2
    return GrowthTraffic(
        filled=_FP32_BYTES * sum(kind.most_held for kind in kinds),
        moved=_FP32_BYTES * sum(kind.received for kind in kinds),
        most_received=_FP32_BYTES * sum(kind.most_received for kind in kinds),
    )


def _whole_tensors(old: StagePlan, new: StagePlan, kinds: int) -> GrowthTraffic:
    """Where every tensor is made whole: the old ones are gathered, the new ones scattered.

    Each process makes an equal part, and has that much of what it needs itself.
    """
    world = new.data_parallel * new.config.parallel.tensor * new.config.parallel.pipeline
    held = max(rank.optimizer for rank in new.memory) // 3
    gathered = old.parameters.total * _FP32_BYTES // world
    received = kinds * (gathered + held) * (world - 1) // world
    return GrowthTraffic(filled=kinds * held, moved=received * world, most_received=received)


def _placement(stage: StagePlan) -> Placement:
    return Placement(
        shape=stage.shape,
        parallel=stage.config.parallel,
        layout=stage.layout,
        data_parallel=stage.data_parallel,
    )
