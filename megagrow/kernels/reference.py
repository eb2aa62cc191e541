"""Both kernels in plain torch: what runs where csrc is not built, and what it is tested against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megagrow.kernels.normal import normals

if TYPE_CHECKING:
    from megagrow.kernels.combination import Combination, Noise
    from megagrow.kernels.segments import Segments


def copy_segments(
    segments: Segments,
    sources: Sequence[Tensor],
    destinations: Sequence[Tensor],
    *,
    scale: NDArray[np.float32] | None = None,
) -> None:
    """`megagrow.kernels.copy_segments` without its checks, one torch copy for each destination."""
    first = segments.first.tolist()
    runs = _runs(segments.source, segments.source_start, segments.length, sources)
    for row, source in enumerate(runs):
        for member in range(first[row], first[row + 1]):
            start = int(segments.destination_start[member])
            tensor = destinations[int(segments.destination[member])]
            target = tensor[start : start + source.numel()]
            if scale is None or scale[member] == 1:
                target.copy_(source)
            else:
                target.copy_(source.float() * float(scale[member]))


def combine_segments(
    combination: Combination,
    sources: Sequence[Tensor],
    destinations: Sequence[Tensor],
    *,
    noise: Noise | None = None,
) -> None:
    """`megagrow.kernels.combine_segments` without its checks, one torch sum after the other."""
    first = combination.first.tolist()
    starts = combination.destination_start
    targets = _runs(combination.destination, starts, combination.length, destinations)
    for row, target in enumerate(targets):
        total = torch.zeros(target.shape, dtype=torch.float32, device=target.device)
        for member in range(first[row], first[row + 1]):
            start = int(combination.source_start[member])
            tensor = sources[int(combination.source[member])]
            term = tensor[start : start + target.numel()].float() * float(
                combination.weight[member]
            )
            total = term if member == first[row] else total + term
        if noise is not None and noise.std[row] != 0:
            drawn = normals(noise.seed, int(noise.start[row]), target.numel())
            total = total + torch.from_numpy(drawn).to(target.device) * float(noise.std[row])
        target.copy_(total)


def _runs(
    index: NDArray[np.int64],
    start: NDArray[np.int64],
    length: NDArray[np.int64],
    tensors: Sequence[Tensor],
) -> list[Tensor]:
    rows = zip(index.tolist(), start.tolist(), length.tolist(), strict=True)
    return [tensors[which][begin : begin + count] for which, begin, count in rows]
