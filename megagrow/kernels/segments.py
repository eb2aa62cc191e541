"""`copy_segments`: many runs of elements, each read once and written to all its destinations.

The traffic is `(1 + g)` times the bytes for g destinations; g torch copies move `2 g` times.
"""

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
class Segments:
    """Which runs of elements go where: n segments to m destinations, by rows (CSR).

    Raises:
        ValueError: columns of another dtype, shape or length, or a row index that goes back.
    """

    source: Integers
    """[n] which of `sources`."""

    source_start: Integers
    """[n] first element there."""

    length: Integers
    """[n] number of elements; 0 is allowed."""

    first: Integers
    """[n + 1] segment i is written to the destinations `first[i]:first[i + 1]`."""

    destination: Integers
    """[m] which of `destinations`."""

    destination_start: Integers
    """[m] first element there."""

    def __post_init__(self) -> None:
        runs = {"source": self.source, "source_start": self.source_start, "length": self.length}
        count = check_columns("Segments", runs)
        writes = {"destination": self.destination, "destination_start": self.destination_start}
        check_first("Segments", self.first, count, check_columns("Segments", writes))

    @property
    def fan_out(self) -> Integers:
        """[n] number of destinations of each segment."""
        return np.diff(self.first)


def copy_segments(
    segments: Segments,
    sources: Sequence[Tensor],
    destinations: Sequence[Tensor],
    *,
    scale: NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> None:
    """Writes every segment to all its destinations, cast to their dtype.

    An element is read once. Without a scale, or where it is 1, equal dtypes are copied bit by bit;
    otherwise `destination = cast(float32(source) * scale)`, rounded to the nearest even as torch's
    `.to()` does. On a GPU the work is queued on the current stream.

    Args:
        segments: what goes where. No destination may overlap another one or a source.
        sources: flat contiguous tensors, all of one dtype: float32, bfloat16 or float16.
        destinations: likewise, on the same device; the dtype may be another.
        scale: [m] factor of each destination.
        threads: workers on a CPU; by default `torch.get_num_threads()`.

    Raises:
        ValueError: a run that leaves its tensor, or tensors other than described.
        RuntimeError: the GPU reported an error.
    """
    check_tensors(sources, destinations)
    if scale is not None and (
        scale.dtype != np.float32 or scale.shape != segments.destination.shape
    ):
        raise ValueError(
            f"scale is {scale.dtype} {scale.shape}: "
            f"it must be float32 [{len(segments.destination)}], one factor for each destination"
        )
    length = segments.length
    check_runs("source", segments.source, segments.source_start, length, sources)
    lengths = np.repeat(length, segments.fan_out)
    check_runs(
        "destination", segments.destination, segments.destination_start, lengths, destinations
    )
    if not len(lengths):
        return
    module = native.module_for(destinations[0].device)
    if module is None:
        reference.copy_segments(segments, sources, destinations, scale=scale)
    else:
        native.copy_segments(module, segments, sources, destinations, scale, threads)
