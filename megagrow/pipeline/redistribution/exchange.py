"""Moving runs of elements between processes: packed, sent in one all-to-all, copied out.

Staging memory is bounded: what does not fit goes in several rounds. The same route serves tensors
of one form any number of times (master weights, first and second moments).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.distributed as dist

from megagrow.kernels import Segments, copy_segments
from megagrow.pipeline.redistribution.fetches import Fetches
from megagrow.pipeline.redistribution.ownership import Integers
from megagrow.runtime import device, processes
from megagrow.runtime.stopwatch import Stopwatch

_FP32_BYTES = 4
_NO_LIMIT = 2**62


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stream:
    """What goes from one process to another, end to end: n runs in the order they are sent."""

    record: Integers
    """[n] index of the source tensor, on the sender."""

    start: Integers
    """[n] first element in it."""

    length: Integers
    """[n] elements."""

    @property
    def total(self) -> int:
        """Elements of the whole stream."""
        return int(self.length.sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Everything that one process sends and receives; made by `plan_route`."""

    fetches: Fetches
    """What it receives, and where to."""

    sends: tuple[_Stream, ...]
    """What each process gets from this one, by rank."""

    quota: int
    """Elements that go from one process to another in one round, at most."""

    rounds: int
    """All-to-alls that it takes, the same on every process."""

    outgoing: torch.Tensor
    """Staging memory for what is sent in a round."""

    incoming: torch.Tensor
    """Staging memory for what is received in a round."""


def plan_route(fetches: Fetches, *, staging_bytes: int) -> Route:
    """Asks every owner for what this process takes from it; call on every rank.

    Args:
        fetches: what this process takes.
        staging_bytes: memory for what is being sent and received, in fp32.
    """
    world, me = processes.world_size(), processes.rank()
    bounds = np.searchsorted(fetches.owner, np.arange(world + 1))
    asked = [
        np.stack([fetches.record[part], fetches.start[part], fetches.length[part]])
        if rank != me
        else np.zeros((3, 0), dtype=np.int64)
        for rank, part in enumerate(_parts(bounds))
    ]
    sends = tuple(
        _Stream(record=rows[0], start=rows[1], length=rows[2]) for rows in _exchange_tables(asked)
    )
    received = [int(rows[2].sum()) for rows in asked]
    sent = [stream.total for stream in sends]
    half = staging_bytes // (2 * _FP32_BYTES)
    quota, longest = _agreed(min(_quota(received, half), _quota(sent, half)), max(received + sent))
    return Route(
        fetches=fetches,
        sends=sends,
        quota=quota,
        rounds=-(-longest // quota),
        outgoing=_staging(sent, quota),
        incoming=_staging(received, quota),
    )


def _staging(streams: Sequence[int], quota: int) -> torch.Tensor:
    """Room for the first round, which is the largest."""
    size = sum(min(stream, quota) for stream in streams)
    return torch.empty(size, dtype=torch.float32, device=device.device())


def move(
    route: Route,
    sources: Sequence[torch.Tensor],
    targets: Sequence[torch.Tensor],
    watch: Stopwatch,
) -> None:
    """Carries one kind of tensor over; call on every rank.

    Args:
        route: from `plan_route`.
        sources: this process's tensors in the old layout, flat, fp32, one an `Owned`.
        targets: those in the new layout; overwritten.
        watch: phase `move` counts packing and sending, `unpack` copying out, and what stays here.
    """
    me = processes.rank()
    with watch.phase("unpack"):
        _copy_own(route.fetches, me, sources, targets)
    for turn in range(route.rounds):
        window = (turn * route.quota, (turn + 1) * route.quota)
        with watch.phase("move"):
            received = _send(route, window, sources)
        with watch.phase("unpack"):
            _unpack(route.fetches, me, window, received, targets)


def _copy_own(
    fetches: Fetches,
    me: int,
    sources: Sequence[torch.Tensor],
    targets: Sequence[torch.Tensor],
) -> None:
    low, high = np.searchsorted(fetches.owner, (me, me + 1))
    uses = slice(fetches.first[low], fetches.first[high])
    copy_segments(
        Segments(
            source=fetches.record[low:high],
            source_start=fetches.start[low:high],
            length=fetches.length[low:high],
            first=fetches.first[low : high + 1] - fetches.first[low],
            destination=fetches.target[uses],
            destination_start=fetches.target_start[uses],
        ),
        sources,
        targets,
    )


def _send(
    route: Route, window: tuple[int, int], sources: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, list[int]]:
    """Sends the part of every stream inside `window`; what came, and how much from each rank."""
    parts = [(stream, *_cut(stream.length, window)) for stream in route.sends]
    sent = [int(length.sum()) for *_, length in parts]
    fetches, me = route.fetches, processes.rank()
    bounds = np.searchsorted(fetches.owner, np.arange(len(sent) + 1))
    lengths = [
        int(_cut(fetches.length[part], window)[2].sum()) if rank != me else 0
        for rank, part in enumerate(_parts(bounds))
    ]
    outgoing, incoming = route.outgoing[: sum(sent)], route.incoming[: sum(lengths)]
    length = np.concatenate([length for *_, length in parts])
    copy_segments(
        Segments(
            source=np.concatenate([stream.record[which] for stream, which, _, _ in parts]),
            source_start=np.concatenate(
                [stream.start[which] + skip for stream, which, skip, _ in parts]
            ),
            length=length,
            first=np.arange(len(length) + 1),
            destination=np.zeros(len(length), dtype=np.int64),
            destination_start=np.cumsum(length) - length,
        ),
        sources,
        [outgoing],
    )
    dist.all_to_all_single(incoming, outgoing, lengths, sent)
    return incoming, lengths


def _unpack(
    fetches: Fetches,
    me: int,
    window: tuple[int, int],
    received: tuple[torch.Tensor, list[int]],
    targets: Sequence[torch.Tensor],
) -> None:
    incoming, lengths = received
    bounds = np.searchsorted(fetches.owner, np.arange(len(lengths) + 1))
    tables = []
    for rank, part in enumerate(_parts(bounds)):
        if rank != me:
            which, skip, length = _cut(fetches.length[part], window)
            tables.append(np.stack([which + part.start, skip, length]))
    which, skip, length = np.concatenate(tables, axis=1)
    counts = fetches.first[which + 1] - fetches.first[which]
    first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    # The uses of run i are first[i]:first[i + 1] of the fetches' list; gather those of `which`.
    uses = np.arange(first[-1]) + np.repeat(fetches.first[which] - first[:-1], counts)
    copy_segments(
        Segments(
            source=np.zeros(len(which), dtype=np.int64),
            source_start=np.cumsum(length) - length,
            length=length,
            first=first,
            destination=fetches.target[uses],
            destination_start=fetches.target_start[uses] + np.repeat(skip, counts),
        ),
        [incoming],
        targets,
    )


def _quota(streams: Sequence[int], room: int) -> int:
    """The most to take of each stream at once for the sum to be within `room`; at least 1.

    Short streams leave their share to the long ones; `_NO_LIMIT` when all of them fit.
    """
    left = sorted(streams)
    while left and left[0] * len(left) <= room:
        room -= left.pop(0)
    return max(1, room // len(left)) if left else _NO_LIMIT


def _parts(bounds: Integers) -> list[slice]:
    return [slice(int(low), int(high)) for low, high in pairwise(bounds)]


def _cut(length: Integers, window: tuple[int, int]) -> tuple[Integers, Integers, Integers]:
    """The runs, laid end to end, that lie in a window: which, how much to skip, and how long."""
    stop = np.cumsum(length)
    start = stop - length
    low, high = np.maximum(start, window[0]), np.minimum(stop, window[1])
    which = np.flatnonzero(high > low)
    return which, (low - start)[which], (high - low)[which]


def _exchange_tables(tables: Sequence[Integers]) -> list[Integers]:
    """Sends `tables[j]` ([3, n_j]) to rank j; what each rank sent here."""
    here, world, me = device.device(), processes.world_size(), processes.rank()
    counts = torch.tensor([table.shape[1] for table in tables], device=here)
    # Not an all-to-all: NCCL would connect, and keep buffers for, every pair of processes.
    everyone = torch.empty(world * world, dtype=torch.int64, device=here)
    dist.all_gather_into_tensor(everyone, counts)
    coming = everyone.view(world, world)[:, me]
    sent, received = (3 * counts).tolist(), (3 * coming).tolist()
    outgoing = torch.from_numpy(np.concatenate([table.ravel() for table in tables])).to(here)
    incoming = torch.empty(sum(received), dtype=torch.int64, device=here)
    dist.all_to_all_single(incoming, outgoing, received, sent)
    return [part.cpu().numpy().reshape(3, -1) for part in incoming.split(received)]


def _agreed(quota: int, longest: int) -> tuple[int, int]:
    """The smallest quota of all ranks, no more than the longest stream, and that stream."""
    numbers = torch.tensor([-quota, longest], dtype=torch.int64, device=device.device())
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    least, most = numbers.tolist()
    return max(1, min(-least, most)), most
