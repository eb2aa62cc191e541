"""Splitting equal layers: only how many each chunk gets matters, not which.

Exact with virtual stages and a limit for every rank, because the limits are nested: layers per
chunk within layers per rank. Pure Python.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualLayers:
    """Equal layers to be dealt out to the chunks of a pipeline. Costs are whole numbers."""

    layers: int
    """How many."""

    cost: int
    """Of each."""

    extras: tuple[int, ...]
    """What each of the pipeline x virtual chunks costs besides its layers."""

    most: tuple[int, ...]
    """Layers that each pipeline rank has memory for."""

    def best(self) -> tuple[int, ...] | None:
        """Layers of each chunk; None if the ranks have not memory for all.

        The smallest largest chunk; of those the smallest largest rank; of those the least sum of
        squared chunk costs; of those one with the shorter chunks first.
        """
        if not self.feasible():
            return None
        total = self.layers * self.cost + sum(self.extras)
        # Every split is within the total: the smallest bound that one is within.
        chunk_bound = bisect_left(range(total), True, key=lambda bound: self._fits(bound, total))
        rank_bound = bisect_left(
            range(total), True, key=lambda bound: self._fits(chunk_bound, bound)
        )
        return self._most_even(self._chunk_caps(chunk_bound), self._rank_caps(rank_bound))

    def feasible(self) -> bool:
        """Whether the ranks have memory for all layers, with one on each chunk at least."""
        virtual = len(self.extras) // len(self.most)
        return min(self.most) >= virtual and sum(self.most) >= self.layers

    def _fits(self, chunk_bound: int, rank_bound: int) -> bool:
        chunk_caps, rank_caps = self._chunk_caps(chunk_bound), self._rank_caps(rank_bound)
        pipeline = len(self.most)
        if min(chunk_caps) < 1 or min(rank_caps) < len(self.extras) // pipeline:
            return False
        rooms = (min(cap, sum(chunk_caps[rank::pipeline])) for rank, cap in enumerate(rank_caps))
        return sum(rooms) >= self.layers

    def _chunk_caps(self, bound: int) -> list[int]:
        return [self._cap(bound - extra) for extra in self.extras]

    def _rank_caps(self, bound: int) -> list[int]:
        pipeline = len(self.most)
        extras = (sum(self.extras[rank::pipeline]) for rank in range(pipeline))
        return [
            min(most, self._cap(bound - extra))
            for most, extra in zip(self.most, extras, strict=True)
        ]

    def _cap(self, room: int) -> int:
        """Layers whose cost is within `room`."""
        if room < 0:
            return -1
        return min(self.layers, room // self.cost) if self.cost else self.layers

    def _most_even(self, chunk_caps: Sequence[int], rank_caps: Sequence[int]) -> tuple[int, ...]:
        """The next layer always to the chunk with the least cost that has room.

        That is exact for a sum of convex functions under nested limits (Federgruen and Groenevelt,
        Operations Research 34, 1986).
        """
        pipeline = len(self.most)
        counts = [1] * len(chunk_caps)
        on_rank = [len(counts) // pipeline] * pipeline
        loads = [(self.cost + extra, -chunk) for chunk, extra in enumerate(self.extras)]
        heapq.heapify(loads)
        for _ in range(self.layers - len(counts)):
            while True:
                load, place = loads[0]
                chunk = -place
                if (
                    counts[chunk] < chunk_caps[chunk]
                    and on_rank[chunk % pipeline] < rank_caps[chunk % pipeline]
                ):
                    break
                heapq.heappop(loads)  # full for good
            counts[chunk] += 1
            on_rank[chunk % pipeline] += 1
            heapq.heapreplace(loads, (load + self.cost, place))
        return tuple(counts)
