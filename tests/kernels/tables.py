"""Random tables and data for the kernels' tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from megagrow.kernels import Combination, Segments

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def column(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@dataclass
class Places:
    """Hands out runs of elements of a few tensors, one behind the other, with gaps."""

    used: list[int]

    def take(self, tensor: int, gap: int, length: int) -> tuple[int, int]:
        index = tensor % len(self.used)
        start = self.used[index] + gap
        self.used[index] = start + length
        return index, start


# A gap of a few elements moves everything behind it to another alignment.
RUN = st.tuples(st.integers(0, 2), st.integers(0, 40))
LENGTHS = st.one_of(st.integers(0, 80), st.integers(0, 5000), st.sampled_from([2048, 4096, 2047]))


@dataclass
class Drawn:
    """One draw: the one side, the other side, rows from one to the other."""

    one: np.ndarray
    one_start: np.ndarray
    length: np.ndarray
    first: np.ndarray
    many: np.ndarray
    many_start: np.ndarray
    one_sizes: list[int]
    many_sizes: list[int]

    def segments(self) -> Segments:
        return Segments(
            source=self.one,
            source_start=self.one_start,
            length=self.length,
            first=self.first,
            destination=self.many,
            destination_start=self.many_start,
        )

    def combination(self, weight: np.ndarray) -> Combination:
        return Combination(
            destination=self.one,
            destination_start=self.one_start,
            length=self.length,
            first=self.first,
            source=self.many,
            source_start=self.many_start,
            weight=weight,
        )


@st.composite
def tables(draw: st.DrawFn) -> Drawn:
    """Runs of any length and alignment, each with up to five partners, none overlapping."""
    rows = draw(st.lists(st.tuples(LENGTHS, RUN, st.lists(RUN, max_size=5)), max_size=6))
    one, many = Places([0, 0]), Places([0, 0, 0])
    ones = [one.take(*run, length) for length, run, _ in rows]
    manys = [[many.take(*run, length) for run in runs] for length, _, runs in rows]
    flat = [place for places in manys for place in places]
    return Drawn(
        one=column(*(index for index, _ in ones)),
        one_start=column(*(start for _, start in ones)),
        length=column(*(length for length, _, _ in rows)),
        first=np.concatenate([column(0), np.cumsum(column(*map(len, manys)), dtype=np.int64)]),
        many=column(*(index for index, _ in flat)),
        many_start=column(*(start for _, start in flat)),
        one_sizes=[size + 3 for size in one.used],
        many_sizes=[size + 3 for size in many.used],
    )


def any_bits(sizes: Sequence[int], dtype: torch.dtype, seed: int) -> list[Tensor]:
    """Tensors of random bits: every kind of number, infinities and NaN included."""
    generator = np.random.default_rng(seed)
    width = np.int32 if dtype == torch.float32 else np.int16
    low, high = np.iinfo(width).min, np.iinfo(width).max
    arrays = [generator.integers(low, high, size, dtype=width, endpoint=True) for size in sizes]
    return [torch.from_numpy(array).view(dtype) for array in arrays]


def same_bits(ours: Sequence[Tensor], theirs: Sequence[Tensor], *, nan: bool = False) -> bool:
    """Whether all bits agree; with `nan`, any NaN is as good as another (torch has several)."""
    for a, b in zip(ours, theirs, strict=True):
        equal = a.view(INTEGERS[a.dtype]) == b.view(INTEGERS[b.dtype])
        if not bool((equal | (a.isnan() & b.isnan()) if nan else equal).all()):
            return False
    return True
