"""Jobs on whole tensors, dealt out to processes that hold shards: gathered, made, scattered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from megagrow.conversion.distributed import CheckpointReader
from megagrow.growth.making import Making, Sizes
from megagrow.pipeline.redistribution.exchange import Route, move, plan_route
from megagrow.pipeline.redistribution.fetches import Holdings, plan_fetches
from megagrow.pipeline.redistribution.ownership import Block, Owned
from megagrow.pipeline.redistribution.shards import Kind, Shards
from megagrow.runtime import device, failure, processes
from megagrow.runtime.stopwatch import Stopwatch

Gather = Callable[[Kind, Sizes], dict[str, Tensor]]
"""Gives each process the whole old fp32 tensors that it asks for; every rank calls it."""


def deal(jobs: Sequence[Making], world_size: int, limit: int) -> list[list[list[Making]]]:
    """Rounds of jobs for every process: heavy ones first, each to who has least.

    Args:
        jobs: all of them, the same on every process.
        world_size: processes.
        limit: elements that a process may hold at a time; a job that has more goes alone.

    Returns:
        For each round and rank, its jobs.
    """
    rounds: list[list[list[Making]]] = []
    loads: list[int] = []
    for job in sorted(jobs, key=lambda job: -job.elements):
        least = min(range(world_size), key=lambda rank: loads[rank]) if rounds else 0
        if not rounds or (loads[least] and loads[least] + job.elements > limit):
            rounds.append([[] for _ in range(world_size)])
            loads, least = [0] * world_size, 0
        rounds[-1][least].append(job)
        loads[least] += job.elements
    return rounds


def make(
    jobs: Sequence[Making],
    kind: Kind,
    new: Shards,
    gather: Gather,
    *,
    staging_bytes: int,
    watch: Stopwatch,
) -> int:
    """Fills the tensors of a new model that jobs make; call on every rank.

    Args:
        jobs: all of them, the same on every process.
        kind: master weights, or a moment.
        new: this process's shards of the new model; those that no job makes are left alone.
        gather: where old tensors come from.
        staging_bytes: memory for whole tensors and for what is being sent and received, beyond one
            job's.
        watch: phase `make` counts the making, `move` and `unpack` what comes before and after.

    Returns:
        Elements that this process received of what was made.
    """
    working = [job for job in jobs if kind == "param" or job.moments is not None]
    received = 0
    for turn in deal(working, processes.world_size(), staging_bytes // torch.float32.itemsize):
        mine = turn[processes.rank()]
        given = gather(kind, {key: size for job in mine for key, size in job.needs.items()})
        with watch.phase("make"), torch.no_grad(), failure.together():
            made = _made(mine, kind, given)
        del given
        received += _scatter(made, kind, new, staging_bytes, watch)
    return received


class GatherShards:
    """Whole tensors from the old model's shards.

    Of a tensor that nobody has, a moment of a frozen weight, zeros.

    Args:
        have: what every process holds of one kind.
        sources: what this one does.
        staging_bytes: memory for what is being sent and received.
        watch: counts the moving.
    """

    def __init__(
        self, have: Holdings, sources: Sequence[Tensor], *, staging_bytes: int, watch: Stopwatch
    ) -> None:
        self._have, self._sources = have, sources
        self._staging_bytes, self._watch = staging_bytes, watch
        self.received = 0
        """Elements that this process has received."""

    def __call__(self, kind: Kind, sizes: Sizes) -> dict[str, Tensor]:
        """The tensors of these sizes; every rank calls it."""
        tensors = {key: torch.zeros(size, device=device.device()) for key, size in sizes.items()}
        route = _route(self._have, [_whole(*each) for each in sizes.items()], self._staging_bytes)
        move(route, self._sources, [each.view(-1) for each in tensors.values()], self._watch)
        self.received += route.fetches.received(processes.rank())
        return tensors


def gather_checkpoint(folder: Path) -> Gather:
    """Whole tensors from a checkpoint that every process sees; zeros of one that is not there."""
    reader = CheckpointReader(folder, masters=True)
    stored = set(reader.keys())

    def gather(kind: Kind, sizes: Sizes) -> dict[str, Tensor]:
        prefix = "" if kind == "param" else f"optimizer.state.{kind}."
        here = device.device()
        return {
            key: reader.tensor(prefix + key).to(here, torch.float32)
            if prefix + key in stored
            else torch.zeros(size, device=here)
            for key, size in sizes.items()
        }

    return gather


def _made(mine: Sequence[Making], kind: Kind, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for job in mine:
        if kind == "param":
            made |= job.weights(given)
        elif job.moments is not None:
            made |= job.moments(kind, given)
    return made


def _scatter(
    made: Mapping[str, Tensor],
    kind: Kind,
    new: Shards,
    staging_bytes: int,
    watch: Stopwatch,
) -> int:
    mine = [_whole(key, tuple(tensor.shape)) for key, tensor in made.items()]
    holdings = Holdings(processes.gather_objects(mine))
    sources = [tensor.float().contiguous().view(-1) for tensor in made.values()]
    targets = [(new.owned, new.tensors[kind])]
    if kind == "param":
        targets.append((new.frozen, list(new.frozen_tensors)))
    received = 0
    for owned, tensors in targets:
        route = _route(holdings, owned, staging_bytes)
        move(route, sources, tensors, watch)
        received += route.fetches.received(processes.rank())
    return received


def _route(have: Holdings, want: Sequence[Owned], staging_bytes: int) -> Route:
    fetches = plan_fetches(have, want, processes.rank(), lambda key: key if have.has(key) else None)
    return plan_route(fetches, staging_bytes=staging_bytes)


def _whole(key: str, size: tuple[int, ...]) -> Owned:
    rows, columns = size[0], prod(size[1:])
    return Owned(Block(key, 0, 0, rows, columns), 0, rows * columns)
