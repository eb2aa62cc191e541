"""The most even of the splits whose largest cost is as small as can be. Pure numpy.

A dynamic program over the chunks' ends, all ends of a chunk at once. It stays small because most
ends cannot be part of the answer: a split near the ideal one is made first, and ends that no better
split can have are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
"""One entry for every end that a chunk can have: 0 layers, 1 layer, ..., all layers."""

Floats = NDArray[np.float64]

Spans = list[tuple[int, int]]
"""Ends in rising order, each span with its first and its last one."""

MOST_PAIRS = 1_000_000
"""Pairs of a chunk's start and end, over all chunks, that the dynamic program may look at."""

_DETOURS = np.array([0.0, *(0.005 * 2.0**power for power in range(8))])
"""How far from the ideal a chunk's cost may lie, as a fraction of it, in the bounds below."""


@dataclass(frozen=True)
class Evenness:
    """Splits within a bound on every chunk's cost, and within memory."""

    low: Places
    """A chunk costs `high` of its end less this of its start."""

    high: Places
    """See `low`; its last entry is the cost of the whole model."""

    starts: Sequence[Places]
    """Of each chunk: with its end here, the first start that is within the bound and memory."""

    reached: Sequence[Spans]
    """The ends that the chunks in front of each chunk can have; 0 alone before the first."""

    most_pairs: int = MOST_PAIRS
    """Where the ends that are left make more pairs than this, only ends near the split that was
    made first are looked at: the result is then about the most even."""

    def best(self) -> tuple[int, ...]:
        """Layers of each chunk: the least sum of squared costs (in double precision)."""
        bands = self._bands()
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        best = np.zeros(1)
        choices: list[Places] = []
        for earliest, ((begin, stop), (first, last)) in zip(
            self.starts, pairwise(bands), strict=True
        ):
            ends, places = np.arange(first, last + 1)[:, None], np.arange(begin, stop + 1)
            cost = high[first : last + 1, None] - low[begin : stop + 1]
            allowed = (places < ends) & (places >= earliest[first : last + 1, None])
            options = np.where(allowed, best + cost * cost, np.inf)
            choice = options.argmin(axis=1)  # of equals the earliest place: longer chunks last
            best = options[np.arange(len(choice)), choice]
            choices.append(choice)
        counts, end = [], len(low) - 1
        for choice, (begin, _), (first, _) in zip(
            reversed(choices), reversed(bands[:-1]), reversed(bands[1:]), strict=True
        ):
            start = begin + int(choice[end - first])
            counts.append(end - start)
            end = start
        return tuple(reversed(counts))

    def _bands(self) -> Spans:
        """First and last end that each chunk can have in the most even split, 0 in front."""
        chunks, layers = len(self.starts), len(self.low) - 1
        first = [layers]
        for chunk in reversed(range(chunks)):
            first.append(max(int(self.starts[chunk][first[-1]]), chunk))
        latest = [*(spans[-1][1] for spans in self.reached), layers]
        bands = list(zip(reversed(first), latest, strict=True))
        if chunks == 1:
            return bands
        guide = self._guide()
        inner = self._narrowed(bands[1:-1], guide)
        bands = [bands[0], *inner, bands[-1]]
        pairs = sum((b - a + 1) * (d - c + 1) for (a, b), (c, d) in pairwise(bands))
        if pairs <= self.most_pairs:
            return bands
        reach = max(1, int((self.most_pairs / chunks) ** 0.5) // 2)
        return [
            (max(begin, place - reach), min(stop, place + reach))
            for (begin, stop), place in zip(bands, guide, strict=True)
        ]

    def _guide(self) -> list[int]:
        """The ends of some split near the ideal one, 0 in front.

        It goes from the last chunk to the first, so that every chunk has a place left to start at.
        """
        heavy = self._parts > self._level
        counted = np.concatenate(([0], np.cumsum(heavy)))
        summed = np.concatenate(([0], np.cumsum(np.where(heavy, self._parts, 0))))
        end = len(self.low) - 1
        ends = [end]
        for chunk in reversed(range(1, len(self.starts))):
            light = chunk + 1 - int(counted[end])
            # A layer above the level has a chunk of its own; the others share what is left.
            share = float(self.high[end] - summed[end]) / light if light > 0 else self._level
            ideal = float(self.high[end]) - share
            near = int(np.searchsorted(self.low[:end], ideal))
            if 0 < near < end and 2 * ideal < self.low[near - 1] + self.low[near]:
                near -= 1
            end = _nearest(self.reached[chunk], int(self.starts[chunk][end]), end - 1, near)
            ends.append(end)
        return [0, *reversed(ends)]

    def _narrowed(self, bands: Spans, guide: Sequence[int]) -> Spans:
        """The ends that leave both sides of them a chance of no more squares than the guide has."""
        costs = (self.high[guide[1:]] - self.low[guide[:-1]]).astype(np.float64)
        squares = float((costs * costs).sum())
        done = np.arange(1, len(self.starts), dtype=np.float64)
        least = self._least_squares(self._parts, done)
        ahead = self._least_squares(self._parts[::-1], len(self.starts) - done)
        possible = least + ahead[:, ::-1] <= squares * (1 + 1e-9)
        narrowed = []
        for (first, last), row in zip(bands, possible, strict=True):
            inside = np.flatnonzero(row[first : last + 1])
            narrowed.append((first + int(inside[0]), first + int(inside[-1])))
        return narrowed

    def _least_squares(self, parts: Floats, chunks: Floats) -> Floats:
        """[chunks, layers + 1]: no split of so many first layers has less in sum of squares.

        For any level t, a chunk of cost x that holds a layer of cost c has
        `x**2 >= 2*t*x - t**2 + max(0, c - t)**2`, and so has one with several such layers with the
        sum of their last terms. Added up over the chunks, that is the bound; the best level counts.
        """
        cost = np.concatenate(([0.0], np.cumsum(parts)))
        least = np.zeros((len(chunks), len(cost)))
        for detour in np.concatenate((-_DETOURS[_DETOURS < 1], _DETOURS[1:])):
            level = self._level * (1 + detour)
            over = np.concatenate(([0.0], np.cumsum(np.maximum(parts - level, 0.0) ** 2)))
            np.maximum(least, over + 2 * level * cost - level**2 * chunks[:, None], out=least)
        return least

    @cached_property
    def _parts(self) -> Floats:
        """Of every layer, with the model's ends on the first and the last one."""
        return np.diff(self.high).astype(np.float64)

    @cached_property
    def _level(self) -> float:
        """What chunks cost in the ideal split: equal, but for layers that cost more by themselves.

        Any level would do for right answers; this one leaves out most.
        """
        left, chunks = float(self._parts.sum()), len(self.starts)
        for cost in -np.sort(-self._parts)[: chunks - 1]:
            if cost * chunks <= left:
                break
            left, chunks = left - cost, chunks - 1
        return left / chunks


def _nearest(spans: Spans, least: int, most: int, near: int) -> int:
    """Of the places in spans from `least` to `most`, the one that is nearest."""
    inside = ((max(begin, least), min(stop, most)) for begin, stop in spans)
    places = (min(max(near, begin), stop) for begin, stop in inside if begin <= stop)
    return min(places, key=lambda place: abs(place - near))
