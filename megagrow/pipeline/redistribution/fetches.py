"""From whom a process of the new layout gets which elements of the old one. Pure numpy.

Each process works out what itself needs; nobody gathers a tensor. An element that several new
layers need comes once, and is duplicated on arrival.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from megagrow.pipeline.redistribution.ownership import Integers, Owned, column_cuts, spans


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spans:
    """Runs of elements of one tensor, on a line that all its strips are laid out on; n of them."""

    start: Integers
    """[n] first element on the line."""

    length: Integers
    """[n] number of elements."""

    place: Integers
    """[n] index of the `Owned` it is part of."""

    offset: Integers
    """[n] its first element, counted from the start of that `Owned`."""

    rank: Integers
    """[n] who holds it."""

    def pieces(self, edges: Integers) -> tuple[Integers, Integers]:
        """The spans cut at `edges`: the span and the number of each piece, in order of spans."""
        low = np.searchsorted(edges, self.start)
        counts = np.searchsorted(edges, self.start + self.length) - low
        span = np.repeat(np.arange(len(counts)), counts)
        before = np.cumsum(counts) - counts
        return span, np.arange(len(span)) + np.repeat(low - before, counts)


class Holdings:
    """What every process holds, to be asked by tensor."""

    def __init__(self, have: Sequence[Sequence[Owned]]) -> None:
        self._world_size = len(have)
        self._by_key: dict[str, list[tuple[Owned, int, int]]] = defaultdict(list)
        for rank, each in enumerate(have):
            for place, owned in enumerate(each):
                self._by_key[owned.block.key].append((owned, rank, place))

    def has(self, key: str) -> bool:
        """Whether anybody holds anything of a tensor."""
        return key in self._by_key

    def of(self, key: str, me: int) -> list[tuple[Owned, int, int]]:
        """What is held of a tensor, its rank and its place there; what `me` prefers last.

        Of equal replicas only that of the next process from `me` on.
        """
        nearest: dict[Owned, tuple[Owned, int, int]] = {}
        found = self._by_key.get(key, [])
        for entry in sorted(found, key=lambda entry: (entry[1] - me) % self._world_size):
            nearest.setdefault(entry[0], entry)
        return list(nearest.values())[::-1]


def plan_fetches(
    have: Holdings,
    want: Sequence[Owned],
    me: int,
    source: Callable[[str], str | None] = lambda key: key,
) -> Fetches:
    """What process `me` of the new layout takes from whom.

    Where several processes hold the same elements (replicas), it takes its own, or else those of
    the next process after it, so that the replicas share the work.

    Args:
        have: what each process held in the old layout.
        want: what `me` holds in the new one.
        me: its rank, the same in both.
        source: the old tensor's key for a new tensor's (growth: that of the layer it copies); None:
            it takes nothing.

    Raises:
        ValueError: an element is wanted that nobody has.
    """
    wanted: dict[str, list[tuple[Owned, int, int]]] = defaultdict(list)
    for place, owned in enumerate(want):
        key = source(owned.block.key)
        if key is not None:
            wanted[key].append((owned, me, place))
    return _joined([_fetch(key, have.of(key, me), uses) for key, uses in wanted.items()])


def _fetch(
    key: str,
    held: Sequence[tuple[Owned, int, int]],
    wanted: Sequence[tuple[Owned, int, int]],
) -> Fetches:
    """What is taken of one tensor. It is cut wherever a holder or a use begins or ends."""
    blocks = [owned.block for owned, _, _ in (*held, *wanted)]
    cuts = column_cuts(blocks)
    rows = max(block.row + block.rows for block in blocks)
    uses = _laid_out(wanted, cuts, rows)
    offers = _laid_out(held, cuts, rows)
    edges = np.unique(
        np.concatenate(
            [uses.start, uses.start + uses.length, offers.start, offers.start + offers.length]
        )
    )
    holder = np.full(len(edges), -1, dtype=np.int64)
    offer, piece = offers.pieces(edges)
    holder[piece] = offer  # of two, the later one stays: it is preferred
    use, piece = uses.pieces(edges)
    order = np.argsort(piece, kind="stable")
    use, piece = use[order], piece[order]
    taken, first = np.unique(piece, return_index=True)
    chosen = holder[taken]
    if (chosen < 0).any():
        start, stop = edges[taken[chosen < 0][0]], edges[taken[chosen < 0][0] + 1]
        raise ValueError(f"no process holds elements {start} to {stop} of {key!r}")
    return Fetches(
        owner=offers.rank[chosen],
        record=offers.place[chosen],
        start=offers.offset[chosen] + edges[taken] - offers.start[chosen],
        length=edges[taken + 1] - edges[taken],
        first=np.append(first, len(piece)),
        target=uses.place[use],
        target_start=uses.offset[use] + edges[piece] - uses.start[use],
    )


def _laid_out(held: Sequence[tuple[Owned, int, int]], cuts: Integers, rows: int) -> _Spans:
    """Runs of elements of a tensor on one line: its strips between `cuts`, one after another."""
    found = [(spans(owned, cuts), rank, place) for owned, rank, place in held]
    sizes = [len(each.start) for each, _, _ in found]

    def joined(parts: list[Integers]) -> Integers:
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    return _Spans(
        start=joined([each.start + rows * cuts[each.strip] for each, _, _ in found]),
        length=joined([each.length for each, _, _ in found]),
        place=np.repeat(np.array([place for _, _, place in found], dtype=np.int64), sizes),
        offset=joined([each.offset for each, _, _ in found]),
        rank=np.repeat(np.array([rank for _, rank, _ in found], dtype=np.int64), sizes),
    )


def _joined(parts: Sequence[Fetches]) -> Fetches:
    """All of them as one, sorted by owner."""
    none = np.zeros(0, dtype=np.int64)

    def column(name: str) -> Integers:
        return np.concatenate([none, *(getattr(part, name) for part in parts)])

    owner, record, start = column("owner"), column("record"), column("start")
    counts = np.concatenate([none, *(np.diff(part.first) for part in parts)])
    order = np.lexsort((start, record, owner))
    first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts[order])])
    # The uses of run i are behind those of all runs before it: gather them in the new order.
    before = (np.cumsum(counts) - counts)[order]
    uses = np.arange(first[-1]) + np.repeat(before - first[:-1], counts[order])
    return Fetches(
        owner=owner[order],
        record=record[order],
        start=start[order],
        length=column("length")[order],
        first=first,
        target=column("target")[uses],
        target_start=column("target_start")[uses],
    )
