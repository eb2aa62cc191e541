"""`combine_segments`: runs of elements that are weighted sums of others, with noise if asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from megagrow.kernels import native, reference
from megagrow.kernels.tables import (
    Integers,
    check_columns,
    check_first,
    check_runs,
    check_tensors,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """Which runs of elements are sums of which others: n sums of m terms, by rows (CSR).

    Raises:
        ValueError: columns of another dtype, shape or length, or a row index that goes back.
    """

    destination: Integers
    """[n] which of `destinations`."""

    destination_start: Integers
    """[n] first element there."""

    length: Integers
    """[n] number of elements; 0 is allowed."""

    first: Integers
    """[n + 1] sum i has the terms `first[i]:first[i + 1]`, added in this order; none gives 0."""

    source: Integers
    """[m] which of `sources`."""

    source_start: Integers
    """[m] first element there."""

    weight: NDArray[np.float32]
    """[m] factor of each term."""

    def __post_init__(self) -> None:
        runs = {
            "destination": self.destination,
            "destination_start": self.destination_start,
            "length": self.length,
        }
        count = check_columns("Combination", runs)
        terms = {"source": self.source, "source_start": self.source_start}
        members = check_columns("Combination", terms)
        check_first("Combination", self.first, count, members)
        if self.weight.dtype != np.float32 or self.weight.shape != (members,):
            raise ValueError(f"Combination.weight must be float32 [{members}], one for each term")


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Normal noise added to sums. Element j of sum i gets `std[i] * normal(seed, start[i] + j)`.

    `normal` is a pure function (Philox4x32-10 and Box-Muller, `megagrow.kernels.normal`): give a
    parameter's elements consecutive counters, and the noise is the same however they are sharded.

    Raises:
        ValueError: columns of another dtype or shape.
    """

    seed: int
    """Key of the generator, from 0 to 2^64 - 1."""

    std: NDArray[np.float32]
    """[n] standard deviation; 0 leaves a sum as it is."""

    start: NDArray[np.uint64]
    """[n] counter of the first element; counters wrap at 2^64."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"the seed of the noise is {self.seed}: it must be from 0 to 2^64 - 1")
        for name, column, dtype in (
            ("std", self.std, np.float32),
            ("start", self.start, np.uint64),
        ):
            if column.dtype != dtype or column.shape != self.std.shape or column.ndim != 1:
                raise ValueError(f"Noise.{name} must be {np.dtype(dtype)} [n], one for each sum")


def combine_segments(
    combination: Combination,
    sources: Sequence[Tensor],
    destinations: Sequence[Tensor],
    *,
    noise: Noise | None = None,
    threads: int | None = None,
) -> None:
    """Writes every sum to its destination, in one pass.

    Every product and every sum is rounded to float32, in the order given, without fused
    multiply-add; the result is rounded to the destination's dtype at the end.

    Args:
        combination: what is the sum of what. No destination may overlap another one or a source.
        sources: flat contiguous tensors, all of one dtype: float32, bfloat16 or float16.
        destinations: likewise, on the same device; the dtype may be another.
        noise: what to add to the sums before the last rounding.
        threads: workers on a CPU; by default `torch.get_num_threads()`.

    Raises:
        ValueError: a run that leaves its tensor, or tensors other than described.
        RuntimeError: the GPU reported an error.
    """
    check_tensors(sources, destinations)
    length = combination.length
    if noise is not None and noise.std.shape != length.shape:
        raise ValueError(f"noise is for {len(noise.std)} sums, but there are {len(length)}")
    start = combination.destination_start
    check_runs("destination", combination.destination, start, length, destinations)
    lengths = np.repeat(length, np.diff(combination.first))
    check_runs("source", combination.source, combination.source_start, lengths, sources)
    if not len(length):
        return
    module = native.module_for(destinations[0].device)
    if module is None:
        reference.combine_segments(combination, sources, destinations, noise=noise)
    else:
        native.combine_segments(module, combination, sources, destinations, noise, threads)
