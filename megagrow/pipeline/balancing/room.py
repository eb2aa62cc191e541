"""How much of a model the memory of each pipeline rank has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from megagrow.model.memory import Held, MemoryModel

Bytes = NDArray[np.int64]

STRIDES = (32, 4, 1)
"""Of every so many ends one is searched; the next, finer search begins with what that found."""


@dataclass(frozen=True)
class Room:
    """A memory limit, and the estimate that is held against it."""

    memory: MemoryModel
    """The estimate for a model under a layout."""

    limit: int
    """Bytes that no rank may exceed."""

    def holds(self, layout: Sequence[int]) -> bool:
        """Whether every rank of a split is within the limit."""
        return max(rank.total for rank in self.memory.ranks(layout)) <= self.limit

    @property
    def layers_are_equal(self) -> bool:
        """Whether all layers take the same memory."""
        return len(set(self._parts)) == 1

    def most_layers(self) -> tuple[int, ...]:
        """The most layers that each pipeline rank has room for, where layers are equal."""
        layers = np.arange(1, len(self._parts) + 1, dtype=np.int64)
        weights, kept = self._parts[0]
        held = Held(layers=layers, parameters=layers * weights, kept=layers * kept, widest=kept)
        return tuple(map(int, np.sum(self.memory.totals(held) <= self.limit, axis=1)))

    def starts(self) -> NDArray[np.int64]:
        """[chunks, layers + 1]: for each end of a chunk, the first layer it has room to begin with.

        Of several chunks on a rank, each is given an equal share of the rank's room: a split within
        these shares is within the limit (to some bytes), but there may be others.
        """
        virtual, places = self.memory.parallel.virtual_pipeline, np.arange(len(self._parts) + 1)
        if self.layers_are_equal:
            share = np.array(self.most_layers())[:, None] // virtual
            return np.tile(np.maximum(places - share, 0), (virtual, 1))
        # Starts never fall from one end to the next: those of some ends bound those in between.
        ends = places[[0, -1]]
        low, high = np.array([[0, 0]]), ends[None]
        for stride in STRIDES:
            more = np.append(places[:-1:stride], places[-1])
            before = np.searchsorted(ends, more, side="right") - 1
            after = np.minimum(high[:, np.searchsorted(ends, more)], more)
            ends, low = more, self._search(more, low[:, before], after)
            high = low
        return np.tile(low, (virtual, 1))

    def _search(self, ends: Bytes, low: Bytes, high: Bytes) -> NDArray[np.int64]:
        """[pipeline, ends]: the first start there is room for, of those from `low` to `high`."""
        shape = (self.memory.parallel.pipeline, len(ends))
        low, high = np.broadcast_to(low, shape), np.broadcast_to(high, shape)
        while np.any(low < high):  # halves what is left, for all ends at once
            middle = (low + high) // 2
            fits = self._bare.totals(self._held(middle, ends)) <= self.limit
            # Where low is high, that is it, even if it is an end with room for no layer.
            low, high = (
                np.where(fits | (low == high), low, middle + 1),
                np.where(fits, middle, high),
            )
        return low

    def _held(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Held:
        """A rank whose every chunk takes as much as layers `[start, end)`."""
        virtual = self.memory.parallel.virtual_pipeline
        weights, kept = self._sums
        return Held(
            layers=(ends - starts) * virtual,
            parameters=(weights[ends] - weights[starts]) * virtual,
            kept=(kept[ends] - kept[starts]) * virtual,
            widest=self._widest(starts, ends) if self._widest_counts else 0,
        )

    def _widest(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Bytes:
        """The largest activations of a layer in each `[start, end)`; any where that is empty.

        Two overlapping windows whose length is a power of two cover any range.
        """
        lengths = ends - starts
        powers = self._powers[lengths]
        rows = powers * self._windows.shape[1]
        windows = self._windows.ravel()
        second = np.maximum(ends - (1 << powers), 0)
        return np.asarray(np.maximum(windows[rows + starts], windows[rows + second]))

    @cached_property
    def _parts(self) -> list[tuple[int, int]]:
        """Weights and activations of every layer."""
        return list(
            zip(self.memory.layer_parameters(), self.memory.layer_activations(), strict=True)
        )

    @cached_property
    def _sums(self) -> tuple[Bytes, Bytes]:
        weights, kept = zip(*self._parts, strict=True)
        return np.array([0, *accumulate(weights)]), np.array([0, *accumulate(kept)])

    @property
    def _widest_counts(self) -> bool:
        """Only where a whole layer is computed again does the estimate look at the widest."""
        return self.memory.parallel.recompute == "full"

    @cached_property
    def _bare(self) -> MemoryModel:
        """The same estimate of a rank's total, which does not look at the model's layers again."""
        return replace(self.memory, shape=replace(self.memory.shape, layers=()))

    @cached_property
    def _powers(self) -> NDArray[np.int64]:
        """[length]: the largest power of two within it, as exponent."""
        return np.frexp(np.maximum(np.arange(len(self._parts) + 1), 1))[1].astype(np.int64) - 1

    @cached_property
    def _windows(self) -> Bytes:
        """[log2 length, layer]: the largest activations among that many layers from there on.

        Behind the last layer they are 0.
        """
        rows = [np.array([*(kept for _, kept in self._parts), 0])]
        while 2 ** len(rows) <= len(self._parts):
            half = 2 ** (len(rows) - 1)
            shifted = np.concatenate((rows[-1][half:], np.zeros(half, dtype=np.int64)))
            rows.append(np.maximum(rows[-1], shifted))
        return np.array(rows)
