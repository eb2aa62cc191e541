"""How much of a model the memory of each pipeline rank has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from megagrow.model.memory import Held, MemoryModel

Bytes = NDArray[np.int64]


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
        parallel, layers = self.memory.parallel, len(self._parts)
        ends = np.tile(np.arange(layers + 1), (parallel.pipeline, 1))
        low, high = np.zeros_like(ends), ends.copy()  # halve what is left, for all ends at once
        while np.any(low < high):
            middle = (low + high) // 2
            fits = self.memory.totals(self._held(middle, ends)) <= self.limit
            low, high = np.where(fits, low, middle + 1), np.where(fits, middle, high)
        return np.tile(low, (parallel.virtual_pipeline, 1))

    def _held(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Held:
        """A rank whose every chunk takes as much as layers `[start, end)`."""
        virtual = self.memory.parallel.virtual_pipeline
        weights, kept = self._sums
        return Held(
            layers=(ends - starts) * virtual,
            parameters=(weights[ends] - weights[starts]) * virtual,
            kept=(kept[ends] - kept[starts]) * virtual,
            widest=self._widest(starts, ends),
        )

    def _widest(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Bytes:
        """The largest activations of a layer in each `[start, end)`; 0 where that is empty.

        Two overlapping windows whose length is a power of two cover any range.
        """
        lengths = ends - starts
        powers = np.frexp(np.maximum(lengths, 1))[1] - 1
        found = np.maximum(
            self._windows[powers, np.minimum(starts, len(self._parts) - 1)],
            self._windows[powers, np.maximum(ends - (1 << powers), 0)],
        )
        return np.where(lengths > 0, found, 0)

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

    @cached_property
    def _windows(self) -> Bytes:
        """[log2 length, layer]: the largest activations among that many layers from there on."""
        rows = [np.array([kept for _, kept in self._parts])]
        while 2 ** len(rows) <= len(self._parts):
            half = 2 ** (len(rows) - 1)
            shifted = np.concatenate((rows[-1][half:], np.zeros(half, dtype=np.int64)))
            rows.append(np.maximum(rows[-1], shifted))
        return np.array(rows)
