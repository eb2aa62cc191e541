"""Random layouts for tests: who holds what of some tensors, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from megagrow.pipeline.redistribution.ownership import Block, Owned

Split = str
"""How tensor-parallel ranks share a tensor: `rows`, `columns` or not at all (`whole`)."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of every layer."""

    name: str
    rows: int
    columns: int
    split: Split


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A parallel layout, small."""

    tensor: int
    pipeline: int
    data: int
    sharded: bool
    """Whether data-parallel ranks share the optimizer state, or each has all of it."""
    stage_of: tuple[int, ...]
    """The pipeline rank of every layer."""

    def owned(self, rank: int, tensors: Sequence[Tensor]) -> list[Owned]:
        """What a rank holds: its blocks end to end, cut evenly where the state is sharded."""
        tensor = rank % self.tensor
        data = rank // self.tensor % self.data
        pipeline = rank // (self.tensor * self.data)
        blocks = [
            self._block(f"layers.{layer}.{each.name}", each, tensor)
            for layer, stage in enumerate(self.stage_of)
            if stage == pipeline
            for each in tensors
        ]
        if not self.sharded:
            return [Owned(block, 0, block.size) for block in blocks]
        size = -(-sum(block.size for block in blocks) // self.data)
        found, before = [], 0
        for block in blocks:
            low = max(0, data * size - before)
            high = min(block.size, (data + 1) * size - before)
            if low < high:
                found.append(Owned(block, low, high))
            before += block.size
        return found

    def _block(self, key: str, whole: Tensor, tensor: int) -> Block:
        rows, columns = whole.rows, whole.columns
        if whole.split == "rows":
            rows //= self.tensor
            return Block(key, row=tensor * rows, column=0, rows=rows, columns=columns)
        if whole.split == "columns":
            columns //= self.tensor
            return Block(key, row=0, column=tensor * columns, rows=rows, columns=columns)
        return Block(key, row=0, column=0, rows=rows, columns=columns)

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return self.tensor * self.pipeline * self.data


def values(owned: Owned, whole: NDArray[np.float32]) -> NDArray[np.float32]:
    """The elements of `owned`, cut from the tensor the plain way."""
    block = owned.block
    part = whole[block.row : block.row + block.rows, block.column : block.column + block.columns]
    return part.reshape(-1)[owned.start : owned.stop]


@st.composite
def tensors(draw: st.DrawFn) -> list[Tensor]:
    """A few tensors whose sides 4 divides where they are split."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        split = draw(st.sampled_from(["rows", "columns", "whole"]))
        side = st.sampled_from([4, 8, 12])
        rows = draw(side if split == "rows" else st.integers(1, 9))
        columns = draw(side if split == "columns" else st.integers(1, 9))
        found.append(Tensor(name=f"t{number}", rows=rows, columns=columns, split=split))
    return found


@st.composite
def layouts(draw: st.DrawFn, ranks: int, layers: int) -> Layout:
    """A layout of `ranks` processes; layers lie anywhere, as interleaved stages have them."""
    tensor = draw(st.sampled_from([size for size in (1, 2, 4) if ranks % size == 0]))
    rest = ranks // tensor
    pipeline = draw(st.sampled_from([size for size in (1, 2, 4) if rest % size == 0]))
    stages = draw(st.lists(st.integers(0, pipeline - 1), min_size=layers, max_size=layers))
    return Layout(
        tensor=tensor,
        pipeline=pipeline,
        data=rest // pipeline,
        sharded=draw(st.booleans()),
        stage_of=tuple(stages),
    )
