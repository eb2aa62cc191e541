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
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from megagrow.checkpoint.sharded import TrainedModel, set_updates
from megagrow.growth.cost import GrowthCost, growth_cost
from megagrow.growth.keys import Source
from megagrow.pipeline.redistribution import shards
from megagrow.pipeline.redistribution.exchange import Route, move, plan_route
from megagrow.pipeline.redistribution.fetches import Holdings, plan_fetches
from megagrow.pipeline.redistribution.ownership import Owned
from megagrow.pipeline.redistribution.shards import KINDS, Kind, Shards
from megagrow.runtime import device, processes
from megagrow.runtime.stopwatch import Stopwatch

PHASES = ("plan", "build", "move", "unpack", "gather")
"""Finding out who needs what; building the new model; sending; copying out; making the weights."""


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
    adjust: Callable[[Shards], None],
    *,
    weights: Source,
    moments: Source | None,
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
        adjust: changes the new one's optimizer state in place once it has been filled.
        weights: where each weight comes from; of none: it stays as it was built.
        moments: where its moments come from; of none, or unset: they are zero.
        staging_bytes: memory for what is being sent and received.

    Raises:
        ValueError: the two models do not fit each other.
    """
    begun = time.monotonic()
    device.reset_memory_peak()
    watch = Stopwatch()
    watch.seconds.update(dict.fromkeys(PHASES, 0.0))
    kinds: tuple[Kind, ...] = ("param",) if moments is None else KINDS
    with watch.phase("plan"):
        old = shards.keep_apart(
            shards.shards_of(take()),
            kinds,
            replica=parallel_state.get_data_parallel_rank(),
            replicas=parallel_state.get_data_parallel_world_size(),
        )
        everyone = _gathered((old.owned, old.frozen))
        release()
        kept = device.memory_bytes()
    with watch.phase("build"):
        built = build()
    with watch.phase("plan"):
        new = shards.shards_of(built.model)
        trained = Holdings([owned for owned, _ in everyone])
        anything = Holdings([(*owned, *frozen) for owned, frozen in everyone])

        def route(have: Holdings, want: Sequence[Owned], source: Source) -> Route:
            fetches = plan_fetches(have, want, processes.rank(), source)
            return plan_route(fetches, staging_bytes=staging_bytes)

        routes: dict[Kind, Route] = {"param": route(anything, new.owned, weights)}
        if moments is not None:
            same = moments is weights and not any(frozen for _, frozen in everyone)
            found = routes["param"] if same else route(trained, new.owned, moments)
            routes |= {"exp_avg": found, "exp_avg_sq": found}
        frozen = route(anything, new.frozen, weights)
    have = [*old.tensors.pop("param"), *old.frozen_tensors]
    move(frozen, have, new.frozen_tensors, watch)
    move(routes["param"], have, new.tensors["param"], watch)
    del have
    for kind in kinds[1:]:
        move(routes[kind], old.tensors.pop(kind), new.tensors[kind], watch)
    with watch.phase("gather"):
        adjust(new)
        set_updates(built.model.optimizer, built.model.updates)
        shards.publish(built.model, built.wrapped)
        processes.barrier()
    return growth_cost(
        seconds=time.monotonic() - begun,
        phases=watch.seconds,
        bytes_moved=_moved([frozen, *routes.values()]),
        kept_bytes=kept,
    )


def _gathered(mine: Any) -> list[Any]:
    """What every process has, by rank."""
    if processes.world_size() == 1:
        return [mine]
    everyone: list[Any] = [None] * processes.world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def _moved(routes: Sequence[Route]) -> int:
    """Bytes that went from one process to another, over all of them."""
    received = sum(route.fetches.received(processes.rank()) for route in routes)
    total = torch.tensor([received * torch.float32.itemsize], device=device.device())
    dist.all_reduce(total)
    return int(total.item())
