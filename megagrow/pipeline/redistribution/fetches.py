"""From whom a process of the new layout gets which elements of the old one. Pure numpy.

Each process works out what itself needs; nobody gathers a tensor. An element that several new
layers need comes once, and is duplicated on arrival.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from megagrow.pipeline.redistribution.ownership import Block, Integers, Owned, column_cuts, spans


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetches:
    """What one process takes from whom: n runs of elements, sorted by owner, to m places."""

    owner: Integers
    """[n] the process that holds them."""

    record: Integers
    """[n] which of its `Owned`."""

    start: Integers
    """[n] first element, counted from the start of that `Owned`."""

    length: Integers
    """[n] number of elements."""

    first: Integers
    """[n + 1] run i goes to the places `first[i]:first[i + 1]`."""

    target: Integers
    """[m] which of the receiver's own `Owned`."""

    target_start: Integers
    """[m] first element, counted from the start of that `Owned`."""

    def received(self, me: int) -> int:
        """Elements that come from other processes."""
        return int(self.length[self.owner != me].sum())


class _Span(NamedTuple):
    """A run of elements of a strip."""

    start: int
    length: int
    place: int
    """Index of the `Owned` it is part of."""
    offset: int
    rank: int = -1


class _Run(NamedTuple):
    owner: int
    record: int
    start: int
    length: int
    targets: tuple[tuple[int, int], ...]


_Strip = tuple[str, int]


class Holdings:
    """What every process holds, to be asked by tensor."""

    def __init__(self, have: Sequence[Sequence[Owned]]) -> None:
        self.world_size = len(have)
        """Number of processes."""
        self._by_key: dict[str, list[tuple[int, int, Owned]]] = defaultdict(list)
        for rank, each in enumerate(have):
            for place, owned in enumerate(each):
                self._by_key[owned.block.key].append((rank, place, owned))

    def of(self, keys: set[str], me: int) -> list[tuple[int, int, Owned]]:
        """Rank, place there and run of all that is held of `keys`, what `me` prefers last."""
        found = [entry for key in keys for entry in self._by_key.get(key, ())]
        return sorted(found, key=lambda entry: (entry[0] - me) % self.world_size, reverse=True)


def plan_fetches(
    have: Holdings,
    want: Sequence[Owned],
    me: int,
    source: Callable[[str], str] = lambda key: key,
) -> Fetches:
    """What process `me` of the new layout takes from whom.

    Where several processes hold the same elements (replicas), it takes its own, or else those of
    the next process after it, so that the replicas share the work.

    Args:
        have: what each process held in the old layout.
        want: what `me` holds in the new one.
        me: its rank, the same in both.
        source: the old tensor's key for a new tensor's (growth: that of the layer it copies).

    Raises:
        ValueError: an element is wanted that nobody has.
    """
    keys = {owned.block.key: source(owned.block.key) for owned in want}
    held = have.of(set(keys.values()), me)
    renamed = [owned._replace(block=_rename(owned.block, keys)) for owned in want]
    blocks = [owned.block for owned in renamed]
    cuts = column_cuts(blocks + [owned.block for _, _, owned in held])
    wanted: dict[_Strip, list[_Span]] = defaultdict(list)
    for place, owned in enumerate(renamed):
        _add(wanted, owned, cuts[owned.block.key], place)
    offered: dict[_Strip, list[_Span]] = defaultdict(list)
    for rank, place, owned in held:
        _add(offered, owned, cuts[owned.block.key], place, rank)
    runs = [run for strip, spans_ in wanted.items() for run in _runs(strip, offered[strip], spans_)]
    return _table(runs)


def _rename(block: Block, keys: dict[str, str]) -> Block:
    return block._replace(key=keys[block.key])


def _add(
    strips: dict[_Strip, list[_Span]], owned: Owned, cuts: Integers, place: int, rank: int = -1
) -> None:
    found = spans(owned, cuts)
    key = owned.block.key
    columns = (found.strip, found.start, found.length, found.offset)
    for strip, start, length, offset in zip(*(array.tolist() for array in columns), strict=True):
        strips[key, strip].append(_Span(start, length, place, offset, rank))


def _runs(strip: _Strip, offered: Sequence[_Span], wanted: Sequence[_Span]) -> list[_Run]:
    """Cuts a strip wherever a holder or a use begins or ends; a run has one of each kind."""
    edges = np.unique(
        [edge for span in (*offered, *wanted) for edge in (span.start, span.start + span.length)]
    )
    holder = np.full(len(edges) - 1, -1, dtype=np.int64)
    for index, span in enumerate(offered):  # those to be preferred come last
        low, high = np.searchsorted(edges, (span.start, span.start + span.length))
        holder[low:high] = index
    uses: list[list[_Span]] = [[] for _ in holder]
    for span in wanted:
        low, high = np.searchsorted(edges, (span.start, span.start + span.length))
        for piece in range(low, high):
            uses[piece].append(span)
    runs = []
    for piece, (start, stop) in enumerate(pairwise(edges.tolist())):
        if not uses[piece]:
            continue
        if holder[piece] < 0:
            raise ValueError(
                f"no process holds elements {start} to {stop} of strip {strip[1]} of {strip[0]!r}"
            )
        span = offered[holder[piece]]
        targets = tuple((use.place, use.offset + start - use.start) for use in uses[piece])
        begin = span.offset + start - span.start
        runs.append(_Run(span.rank, span.place, begin, stop - start, targets))
    return runs


def _table(runs: list[_Run]) -> Fetches:
    runs.sort(key=lambda run: run[:3])
    places = [place for run in runs for place in run.targets]
    counts = [len(run.targets) for run in runs]

    def column(values: Sequence[int]) -> Integers:
        return np.array(values, dtype=np.int64)

    return Fetches(
        owner=column([run.owner for run in runs]),
        record=column([run.record for run in runs]),
        start=column([run.start for run in runs]),
        length=column([run.length for run in runs]),
        first=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(column(counts))]),
        target=column([place for place, _ in places]),
        target_start=column([start for _, start in places]),
    )
