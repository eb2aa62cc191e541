"""Cutting a row of layers into chunks whose largest cost is as small as can be. Pure numpy.

The smallest bound is searched for: whether chunks within a bound can hold all layers is one sweep
that makes every chunk as long as it may be. The most even split within it is a dynamic program over
the chunks' ends, all ends of a chunk at once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
"""One entry for every end that a chunk can have: 0 layers, 1 layer, ..., all layers."""


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

        The smallest largest cost; of those the least sum of squared costs (in double precision).
        """
        bound = self._least_bound()
        return None if bound is None else self._most_even(bound)

    def feasible(self) -> bool:
        """Whether there is memory for all layers."""
        return self.starts is None or self._reaches(self._total)

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

    def _least_bound(self) -> int | None:
        """The smallest possible largest cost: exact, because costs are whole numbers."""
        bounds = range(self._total)
        least = bisect_left(bounds, True, key=self._holds)
        if self.starts is None or self._reaches(least):
            return least
        if not self._reaches(self._total):
            return None
        return bisect_left(bounds, True, lo=least, key=self._reaches)

    def _holds(self, bound: int) -> bool:
        """Whether chunks of at most `bound`, as long as they may be, hold all layers."""
        sums, layers, end = self._sums, len(self.layers), 0
        for chunk in range(self.chunks):
            left = self.chunks - 1 - chunk
            room = bound - (self.first if chunk == 0 else 0) - (0 if left else self.last)
            longest = bisect_right(sums, sums[end] + room) - 1
            if longest <= end:
                return False
            end = min(longest, layers - left)
        return end == layers

    def _reaches(self, bound: int) -> bool:
        """Whether chunks of at most `bound`, and with memory for them, hold all layers."""
        places = np.arange(len(self.layers) + 1)
        reached = places == 0
        for starts in self._starts(bound):
            before = np.concatenate(([0], np.cumsum(reached)))
            # Any place from the start on and before the end will do.
            reached = before[places] > before[np.minimum(starts, places)]
        return bool(reached[-1])

    def _starts(self, bound: int) -> list[Places]:
        """For every chunk and every end of it, the earliest start within the bound and memory."""
        inner = np.searchsorted(self._low, self._high - bound)
        outer = np.where(self._high <= bound, 0, len(self._low))  # the first begins at 0
        starts = [outer, *[inner] * (self.chunks - 1)]
        if self.starts is None:
            return starts
        return [np.maximum(cost, memory) for cost, memory in zip(starts, self.starts, strict=True)]

    def _most_even(self, bound: int) -> tuple[int, ...]:
        """The split within `bound` with the least sum of squared chunk costs."""
        starts = self._starts(bound)
        bands = self._bands(starts)
        low, high = self._low.astype(np.float64), self._high.astype(np.float64)
        best = np.zeros(1)
        choices: list[Places] = []
        for earliest, ((begin, stop), (first, last)) in zip(starts, pairwise(bands), strict=True):
            ends, places = np.arange(first, last + 1)[:, None], np.arange(begin, stop + 1)
            cost = high[first : last + 1, None] - low[begin : stop + 1]
            allowed = (places < ends) & (places >= earliest[first : last + 1, None])
            options = np.where(allowed, best + cost * cost, np.inf)
            choice = options.argmin(axis=1)  # of equals the earliest place: longer chunks last
            best = options[np.arange(len(choice)), choice]
            choices.append(choice)
        counts, end = [], len(self.layers)
        for choice, (begin, _), (first, _) in zip(
            reversed(choices), reversed(bands[:-1]), reversed(bands[1:]), strict=True
        ):
            start = begin + int(choice[end - first])
            counts.append(end - start)
            end = start
        return tuple(reversed(counts))

    def _bands(self, starts: Sequence[Places]) -> list[tuple[int, int]]:
        """First and last end that each chunk can have in the most even split, 0 in front."""
        layers, chunks = len(self.layers), self.chunks
        latest = [0]
        for chunk, earliest in enumerate(starts, 1):
            far = int(np.searchsorted(earliest, latest[-1], side="right")) - 1
            latest.append(min(far, layers - (chunks - chunk)))
        first = [layers]
        for chunk in reversed(range(chunks)):
            first.append(max(int(starts[chunk][first[-1]]), chunk))
        bands = list(zip(reversed(first), latest, strict=True))
        squares = self._example(starts, bands)
        if squares is None or chunks == 1:
            return bands
        return [bands[0], *self._narrowed(bands[1:-1], squares), bands[-1]]

    def _example(self, starts: Sequence[Places], bands: Sequence[tuple[int, int]]) -> float | None:
        """Sum of squares of some split near the ideal one; None if this way leads to none."""
        place, squares, cost_left = 0, 0.0, self._total
        for chunk, earliest in enumerate(starts, 1):
            ahead = self.chunks - chunk
            heavy_end = int(self._high[-1] - self._low[-2])
            share = cost_left / (ahead + 1)
            if ahead and heavy_end > share:  # the last chunk cannot have less than its one layer
                share = (cost_left - heavy_end) / ahead
            near = int(np.searchsorted(self._high, self._low[place] + share))
            if near > 0 and 2 * (self._low[place] + share) < self._high[near - 1 : near + 1].sum():
                near -= 1
            far = int(np.searchsorted(earliest, place, side="right")) - 1
            least, most = max(place + 1, bands[chunk][0]), min(far, bands[chunk][1])
            if least > most:
                return None
            end = min(max(near, least), most)
            cost = int(self._high[end] - self._low[place])
            squares += float(cost) ** 2
            place, cost_left = end, cost_left - cost
        return squares

    def _narrowed(self, bands: Sequence[tuple[int, int]], squares: float) -> list[tuple[int, int]]:
        """The ends that leave both sides of them a chance of at most `squares` in sum.

        Chunks cannot have less in sum of squares than equal ones, or than equal ones beside the
        least that the model's first or last chunk can cost. That is convex in the end: those left
        over are in one piece.
        """
        done = np.arange(1, self.chunks)[:, None]
        cost = self._high.astype(np.float64)
        least = _least_squares(cost, done, float(self._high[1])) + _least_squares(
            cost[-1] - cost, self.chunks - done, float(self._high[-1] - self._low[-2])
        )
        possible = least <= squares * (1 + 1e-9)
        narrowed = []
        for (first, last), row in zip(bands, possible, strict=True):
            inside = np.flatnonzero(row[first : last + 1])
            narrowed.append((first + int(inside[0]), first + int(inside[-1])))
        return narrowed


def _least_squares(
    cost: NDArray[np.float64], chunks: NDArray[np.int64], end: float
) -> NDArray[np.float64]:
    """[chunks, costs]: the least sum of squares of that many, one of which is at least `end`."""
    beside = np.maximum(cost - end, 0.0) ** 2 / np.maximum(chunks - 1, 1)
    return np.where(cost / chunks >= end, cost**2 / chunks, end**2 + beside)
