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
from megagrow.growth.dealing import Gather, GatherShards, make
from megagrow.growth.keys import Source, without
from megagrow.growth.making import Making
from megagrow.pipeline.redistribution import shards
from megagrow.pipeline.redistribution.exchange import Route, move, plan_route
from megagrow.pipeline.redistribution.fetches import Holdings, plan_fetches
from megagrow.pipeline.redistribution.ownership import Owned
from megagrow.pipeline.redistribution.shards import KINDS, Kind, Shards
from megagrow.runtime import device, processes
from megagrow.runtime.stopwatch import Stopwatch

Learn = Callable[[Shards, Gather], None]
"""Told the new model's shards, and where the old one's whole tensors come from."""

PHASES = ("plan", "build", "move", "unpack", "learn", "make", "gather")
"""Finding out who needs what; building the new model; sending; copying out; learning how to make,
and making, what is no copy of an old tensor; making the model's weights of the master weights."""


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
    jobs: Sequence[Making] = (),
    learn: Learn | None = None,
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
        jobs: what makes the tensors that are no copies; the others are as above says.
        learn: what the jobs need to have learned first.
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
        everyone = processes.gather_objects((old.owned, old.frozen))
        release()
        kept = device.memory_bytes()
    with watch.phase("build"):
        built = build()
    with watch.phase("plan"):
        new = shards.shards_of(built.model)
    filling = _Filling(old, everyone, new, jobs, learn, staging_bytes, watch)
    received = filling.fill(kinds, weights, moments)
    with watch.phase("gather"):
        adjust(new)
        set_updates(built.model.optimizer, built.model.updates)
        shards.publish(built.model, built.wrapped)
        processes.barrier()
    return growth_cost(
        seconds=time.monotonic() - begun,
        phases=watch.seconds,
        bytes_moved=_moved(received),
        kept_bytes=kept,
    )


class _Filling:
    """Old shards -> new ones, of one kind after another; an old kind is freed when it has moved."""

    def __init__(
        self,
        old: Shards,
        everyone: Sequence[tuple[Sequence[Owned], Sequence[Owned]]],
        new: Shards,
        jobs: Sequence[Making],
        learn: Learn | None,
        staging_bytes: int,
        watch: Stopwatch,
    ) -> None:
        self._old, self._new, self._jobs, self._learn = old, new, jobs, learn
        self._made = {key for job in jobs for key in job.makes}
        self._trained = Holdings([owned for owned, _ in everyone])
        self._anything = Holdings([(*owned, *frozen) for owned, frozen in everyone])
        self._partly_frozen = any(frozen for _, frozen in everyone)
        self._staging_bytes, self._watch = staging_bytes, watch
        self._received = 0

    def fill(self, kinds: Sequence[Kind], weights: Source, moments: Source | None) -> int:
        """Fills weights, and moments if asked; elements that came from other processes."""
        with self._watch.phase("plan"):
            route = self._route(self._anything, self._new.owned, weights)
            frozen = self._route(self._anything, self._new.frozen, weights)
            found = route
            if moments is not None and (moments is not weights or self._partly_frozen):
                found = self._route(self._trained, self._new.owned, moments)
        have = [*self._old.tensors.pop("param"), *self._old.frozen_tensors]
        self._move(frozen, have, self._new.frozen_tensors)
        self._move(route, have, self._new.tensors["param"])
        self._make("param", self._anything, have)
        del have, route, frozen
        for kind in kinds[1:]:
            have = self._old.tensors.pop(kind)
            self._move(found, have, self._new.tensors[kind])
            self._make(kind, self._trained, have)
            del have
        return self._received

    def _route(self, have: Holdings, want: Sequence[Owned], source: Source) -> Route:
        copies = without(source, self._made)
        fetches = plan_fetches(have, want, processes.rank(), copies)
        return plan_route(fetches, staging_bytes=self._staging_bytes)

    def _move(
        self, route: Route, have: Sequence[torch.Tensor], want: Sequence[torch.Tensor]
    ) -> None:
        move(route, have, want, self._watch)
        self._received += route.fetches.received(processes.rank())

    def _make(self, kind: Kind, have: Holdings, sources: Sequence[torch.Tensor]) -> None:
        staging, watch = self._staging_bytes, self._watch
        if kind == "param" and self._learn is not None:
            # By its own watch: what moves meanwhile is part of the learning.
            apart = GatherShards(have, sources, staging_bytes=staging, watch=Stopwatch())
            with watch.phase("learn"):
                self._learn(self._new, apart)
            self._received += apart.received
        gather = GatherShards(have, sources, staging_bytes=staging, watch=watch)
        self._received += make(
            self._jobs, kind, self._new, gather, staging_bytes=staging, watch=watch
        )
        self._received += gather.received


def _moved(received: int) -> int:
    """Bytes that went from one process to another, over all of them."""
    total = torch.tensor([received * torch.float32.itemsize], device=device.device())
    dist.all_reduce(total)
    return int(total.item())
