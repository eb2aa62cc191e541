"""Who holds which elements of which tensor. Pure Python and numpy.

Every process of a layout holds some *blocks* (rectangles: tensor-parallel slices) of the model's
tensors, and of the optimizer state of a block the whole, or the run of elements that the
distributed optimizer gave it. To compare two layouts, a tensor is cut into *strips* of whole
columns, as narrow as both need: inside a strip each block is one run of elements, unless the other
layout cuts its columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


class Block(NamedTuple):
    """A rectangle of a tensor, seen as a matrix: the first dimension by all others."""

    key: str
    """Name of the whole tensor, the same in every layout (its key in a checkpoint)."""

    row: int
    """First row."""

    column: int
    """First column."""

    rows: int
    """Number of rows."""

    columns: int
    """Number of columns."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.rows * self.columns


class Owned(NamedTuple):
    """A run of a block's elements, counted row by row, that a process holds the state of."""

    block: Block
    """The block."""

    start: int
    """First element."""

    stop: int
    """One past the last element."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class Spans:
    """Where the elements of one `Owned` lie in the strips of its tensor; n runs."""

    strip: Integers
    """[n] index of the strip."""

    start: Integers
    """[n] first element, counted in the strip row by row."""

    length: Integers
    """[n] number of elements."""

    offset: Integers
    """[n] the same run's first element, counted from the start of the `Owned`."""


def column_cuts(blocks: Iterable[Block]) -> Integers:
    """Where to cut a tensor into strips so that each of its `blocks` is made of whole ones."""
    edges: set[int] = set()
    for block in blocks:
        edges.update((block.column, block.column + block.columns))
    return np.array(sorted(edges), dtype=np.int64)


def spans(owned: Owned, cuts: Integers) -> Spans:
    """The runs of elements that `owned` is in the strips between `cuts`.

    Args:
        owned: a run of elements of a block.
        cuts: the columns at which the block's tensor is cut, both edges of the block among them.
    """
    block = owned.block
    first, last = np.searchsorted(cuts, (block.column, block.column + block.columns))
    if last - first == 1:
        return Spans(
            strip=np.array([first], dtype=np.int64),
            start=np.array([block.row * block.columns + owned.start], dtype=np.int64),
            length=np.array([owned.size], dtype=np.int64),
            offset=np.zeros(1, dtype=np.int64),
        )
    row = np.arange(owned.start // block.columns, -(-owned.stop // block.columns))[:, None]
    left = row * block.columns + (cuts[first:last] - block.column)[None]
    width = np.diff(cuts[first : last + 1])[None]
    low = np.maximum(left, owned.start)
    length = np.minimum(left + width, owned.stop) - low
    start = (block.row + row) * width + (low - left)
    strip = np.broadcast_to(np.arange(first, last)[None], low.shape)
    there = length > 0
    return Spans(
        strip=strip[there],
        start=start[there],
        length=length[there],
        offset=(low - owned.start)[there],
    )


def total(owned: Sequence[Owned]) -> int:
    """Elements in all of them together."""
    return sum(each.size for each in owned)
