"""Cutting a row of layers into chunks whose largest cost is as small as can be. Pure numpy.

The smallest bound is searched for: whether chunks within a bound can hold all layers is one sweep
over the chunks, which keeps the places that each can end at. Of the splits within the smallest
bound, `evenness` finds the most even.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from megagrow.pipeline.balancing.evenness import Evenness, Places, Spans


@dataclass(frozen=True)
class Row:
    """Layers in order, and the chunks they are cut into. Costs are whole numbers."""

    layers: tuple[int, ...]
    """Cost of each layer; their total is below 2**51."""

    first: int
    """What the first chunk costs besides its layers."""

    last: int
    """What the last chunk costs besides its layers."""

    chunks: int
    """How many, each with a layer at least."""

    starts: NDArray[np.int64] | None = None
    """[chunks, layers + 1]: with its end here, the first layer that the chunk has memory to begin
    with, never falling from one end to the next; unset: there is memory for any."""

    def best(self) -> tuple[int, ...] | None:
        """Layers of each chunk; None if there is not memory for all.

        The smallest largest cost; of those the least sum of squared costs (in double precision),
        or, where that would take long, about the least: see `Evenness.most_pairs`.
        """
        if not self.feasible():
            return None
        bound = self._least_bound()
        reached = self._reached(bound)
        assert reached is not None
        return Evenness(self._low, self._high, self._starts(bound), reached).best()

    def feasible(self) -> bool:
        """Whether there is memory for all layers."""
        return self._reached(self._total) is not None

    @cached_property
    def _sums(self) -> list[int]:
        return [0, *accumulate(self.layers)]

    @cached_property
    def _low(self) -> Places:
        """A chunk costs `_high` of its end less `_low` of its start."""
        low = np.array(self._sums, dtype=np.int64)
        low[1:] += self.first
        return low

    @cached_property
    def _high(self) -> Places:
        high = self._low.copy()
        high[-1] += self.last
        return high

    @property
    def _total(self) -> int:
        return int(self._high[-1])

    @cached_property
    def _farthest(self) -> list[Places]:
        """Of each chunk: with its start here, the last end that it has memory for."""
        places = np.arange(len(self.layers) + 1)
        if self.starts is None:
            return [np.full_like(places, places[-1])] * self.chunks
        return [np.searchsorted(row, places, side="right") - 1 for row in self.starts]

    @cached_property
    def _too_large(self) -> list[list[int]]:
        """Of each chunk: the layers that it has no memory for, even alone."""
        places = np.arange(len(self.layers))
        return [np.flatnonzero(row[:-1] == places).tolist() for row in self._farthest]

    def _least_bound(self) -> int:
        """The smallest possible largest cost: exact, because costs are whole numbers.

        A layer's cost at least: below, there would be more places that no chunk can start at.
        """
        return bisect_left(
            range(self._total),
            True,
            lo=max(self.layers),
            key=lambda bound: self._reached(bound) is not None,
        )

    def _reached(self, bound: int) -> list[Spans] | None:
        """The places that each chunk can start at; None if the last one cannot end the model.

        Args:
            bound: what a chunk may cost; no layer costs more.
        """
        sums, layers = self._sums, len(self.layers)
        reached: list[Spans] = [[(0, 0)]]
        for chunk in range(self.chunks - 1):
            room = bound - (self.first if chunk == 0 else 0)
            last_end = layers - (self.chunks - 1 - chunk)  # leaves each chunk ahead a layer
            spans: Spans = []
            farthest, too_large = self._farthest[chunk], self._too_large[chunk]
            for begin, stop in _without(reached[-1], too_large) if too_large else reached[-1]:
                # Any place from here to the farthest will do: each chunk may be shorter.
                end = bisect_right(sums, sums[stop] + room) - 1
                end = min(end, last_end, int(farthest[stop]))
                if spans and begin <= spans[-1][1]:
                    spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
                elif begin < end:
                    spans.append((begin + 1, end))
            if not spans:
                return None
            reached.append(spans)
        return reached if reached[-1][-1][1] >= self._starts_of_last(bound) else None

    def _starts_of_last(self, bound: int) -> int:
        """The first place that the last chunk can start at."""
        cost = int(np.searchsorted(self._low, self._total - bound))
        return cost if self.starts is None else max(cost, int(self.starts[-1, -1]))

    def _starts(self, bound: int) -> list[Places]:
        """For every chunk and every end of it, the earliest start within the bound and memory."""
        inner = np.searchsorted(self._low, self._high - bound)
        outer = np.where(self._high <= bound, 0, len(self._low))  # the first begins at 0
        starts = [outer, *[inner] * (self.chunks - 1)]
        if self.starts is None:
            return starts
        return [np.maximum(cost, memory) for cost, memory in zip(starts, self.starts, strict=True)]


def _without(spans: Spans, holes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """What is left of spans where places are taken out."""
    for begin, stop in spans:
        for hole in holes[bisect_left(holes, begin) : bisect_right(holes, stop)]:
            if begin < hole:
                yield begin, hole - 1
            begin = hole + 1
        if begin <= stop:
            yield begin, stop
