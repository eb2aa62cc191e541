"""Growth without a disk: optimizer shards go straight from their old owners to the new ones.

Of the old model only fp32 master weights and moments are kept, one shard a process; the new model
is built beside them and filled run by run, one kind of tensor after another. An element that
several new layers copy is sent once and duplicated on arrival. Weights are made from the master
weights, by the optimizer's own cast and all-gather.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist

from megagrow.checkpoint.sharded import TrainedModel, set_updates
from megagrow.growth.cost import GrowthCost, growth_cost
from megagrow.growth.keys import source_key
from megagrow.growth.plan import GrowthPlan
from megagrow.pipeline.redistribution import shards
from megagrow.pipeline.redistribution.exchange import Route, move, plan_route
from megagrow.pipeline.redistribution.fetches import Holdings, plan_fetches
from megagrow.pipeline.redistribution.shards import KINDS, Kind, Shards
from megagrow.runtime import device, processes
from megagrow.runtime.stopwatch import Stopwatch

PHASES = ("plan", "build", "move", "unpack", "gather")
"""Finding out who needs what; building the new model; sending; copying out; making the weights."""

_FP32_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltModel:
    """A new model, ready to be filled."""

    model: TrainedModel
    """What is filled."""

    wrapped: Sequence[Any]
    """Its chunks in their DistributedDataParallel."""


def grow(
    take: Callable[[], TrainedModel],
    release: Callable[[], None],
    build: Callable[[], BuiltModel],
    *,
    growth: GrowthPlan,
    moments: Literal["copy", "reset"],
    staging_bytes: int,
) -> GrowthCost:
    """Carries a live model over into another one; call on every rank.

    Peak memory is the new model's and optimizer's, the old optimizer's shards, and staging; before
    the new model is built, the old one's and, in fp32 with several replicas, a copy of its weight
    shards. On NCCL, the communicator's own buffers are not in it.

    Args:
        take: gives the old model.
        release: frees it.
        build: makes the new one, its optimizer state included, under any layout.
        growth: which old layer each new one copies.
        moments: `reset` leaves Adam's moments zero.
        staging_bytes: memory for what is being sent and received.

    Raises:
        ValueError: the plan is more than a copy, or the two models do not fit each other.
    """
    begun = time.monotonic()
    device.reset_memory_peak()
    watch = Stopwatch()
    watch.seconds.update(dict.fromkeys(PHASES, 0.0))
    layer_map = growth.layer_map
    kinds: tuple[Kind, ...] = KINDS if moments == "copy" else ("param",)
    with watch.phase("plan"):
        old = shards.keep_apart(shards.shards_of(take()), kinds)
        held = _all_owned(old)
        release()
        kept = device.memory_bytes()
    with watch.phase("build"):
        built = build()
    with watch.phase("plan"):
        new = shards.shards_of(built.model)
        fetches = plan_fetches(
            held, new.owned, processes.rank(), lambda key: source_key(key, layer_map)
        )
        route = plan_route(fetches, staging_bytes=staging_bytes)
    for kind in kinds:
        move(route, old.tensors.pop(kind), new.tensors[kind], watch)
    with watch.phase("gather"):
        set_updates(built.model.optimizer, built.model.updates)
        shards.publish(built.model, built.wrapped)
        processes.barrier()
    return growth_cost(
        seconds=time.monotonic() - begun,
        phases=watch.seconds,
        bytes_moved=_moved(route, len(kinds)),
        kept_bytes=kept,
    )


def _all_owned(mine: Shards) -> Holdings:
    """What every process holds."""
    everyone: list[Any] = [mine.owned]
    if processes.world_size() > 1:
        everyone = [None] * processes.world_size()
        dist.all_gather_object(everyone, mine.owned)
    return Holdings(everyone)


def _moved(route: Route, kinds: int) -> int:
    """Bytes that went from one process to another, over all of them."""
    received = route.fetches.received(processes.rank()) * kinds * _FP32_BYTES
    total = torch.tensor([received], dtype=torch.int64, device=device.device())
    dist.all_reduce(total)
    return int(total.item())
