"""Which layers live on which pipeline chunk, so that no chunk takes longer than it must.

A pipeline is as slow as its slowest chunk: both 1F1B and the interleaved schedule hand activations
on after every chunk, so ranks move in steps of the longest one. With virtual stages, rank r holds
chunks r, r + pipeline, ...; the longest chunk is minimised there too, which bounds the load of
every rank by the number of its chunks times that. Pure Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import inf

from megagrow.config.schema import ParallelConfig
from megagrow.errors import LayoutError
from megagrow.model.flops import layer_flops_per_token, output_flops_per_token
from megagrow.model.shape import ModelShape

Spread = tuple[float, float]
"""Cost above the optimum, then the sum of squared chunk costs: what evenness minimises."""


def balance(
    costs: Sequence[float], chunks: int, first_extra: float = 0.0, last_extra: float = 0.0
) -> tuple[int, ...]:
    """Splits layers into contiguous chunks whose largest cost is as small as can be.

    Of the splits that reach it, the most even one (least sum of squared chunk costs); of those, one
    with the shorter chunks first, where 1F1B keeps the most activations.

    Args:
        costs: cost of every layer, in any unit, none negative.
        chunks: number of chunks; each gets at least one layer.
        first_extra: cost on the first chunk besides its layers (the embedding).
        last_extra: cost on the last chunk besides its layers (the output layer).

    Returns:
        The number of layers of each chunk.

    Raises:
        LayoutError: fewer layers than chunks, no chunk, or a negative cost.
    """
    if not 1 <= chunks <= len(costs):
        raise LayoutError(
            f"{len(costs)} layers cannot fill {chunks} pipeline chunks; use 1 to {len(costs)}"
        )
    if min(first_extra, last_extra, *costs) < 0:
        raise LayoutError("a layer's cost must not be negative")
    sums = [0, *accumulate(costs)]
    # Extra cost is a step at either end of the running sums: every chunk's cost is a difference.
    low = [0, *(value + first_extra for value in sums[1:])]
    high = [*low[:-1], low[-1] + last_extra]
    bound = _least_bound(low, high, chunks)
    return _most_even(low, high, chunks, bound)


def imbalance(
    costs: Sequence[float],
    counts: Sequence[int],
    first_extra: float = 0.0,
    last_extra: float = 0.0,
) -> float:
    """Largest chunk cost over the mean: 1.0 is perfect, 1.25 leaves a fifth of the time idle."""
    loads = [sum(costs[layers.start : layers.stop]) for layers in layer_ranges(counts)]
    loads[0] += first_extra
    loads[-1] += last_extra
    total = sum(loads)
    return max(loads) * len(loads) / total if total else 1.0


def layer_ranges(counts: Sequence[int]) -> tuple[range, ...]:
    """The layers (from 0) of each chunk."""
    ends = list(accumulate(counts))
    return tuple(range(end - count, end) for count, end in zip(counts, ends, strict=True))


def layer_costs(shape: ModelShape) -> tuple[list[int], int]:
    """Training FLOPs per token of every layer and of the output layer (the last chunk's extra).

    The embedding is a look-up and costs none.
    """
    layers = [layer_flops_per_token(layer, shape).total for layer in shape.layers]
    return layers, output_flops_per_token(shape).total


def layout_for(shape: ModelShape, parallel: ParallelConfig) -> tuple[int, ...]:
    """Layers of each of the pipeline x virtual chunks of `shape`, balanced by FLOPs.

    Raises:
        LayoutError: fewer layers than chunks.
    """
    costs, output = layer_costs(shape)
    return balance(costs, parallel.pipeline * parallel.virtual_pipeline, last_extra=output)


def layout_imbalance(shape: ModelShape, layout: Sequence[int]) -> float:
    """`imbalance` of a layout of `shape`, by FLOPs."""
    costs, output = layer_costs(shape)
    return imbalance(costs, layout, last_extra=output)


def _least_bound(low: Sequence[float], high: Sequence[float], chunks: int) -> float:
    """The smallest possible largest cost: dynamic program over chunks, O(layers x chunks).

    `best[j]`, the optimum of the first j layers, grows with j, and the cost of the chunk after it
    shrinks: where they cross only moves right, so one sweep finds it for every end.
    """
    layers = len(low) - 1
    best = [inf, *high[1:]]
    for done in range(1, chunks):
        following = [inf] * (layers + 1)
        start = done
        for end in range(done + 1, layers + 1):
            while start + 1 < end and best[start] < high[end] - low[start]:
                start += 1
            options = range(max(start - 1, done), start + 1)
            following[end] = min(max(best[i], high[end] - low[i]) for i in options)
        best = following
    return best[layers]


def _most_even(
    low: Sequence[float], high: Sequence[float], chunks: int, bound: float
) -> tuple[int, ...]:
    """The split within `bound` that has the least sum of squared chunk costs.

    The cost of a chunk is convex in its length, so the best start of the last chunk only moves
    right with its end: divide and conquer, O(layers log(layers) x chunks).
    """
    layers = len(low) - 1
    best: list[Spread] = [(inf, inf), *(_spread(high[end], bound) for end in range(1, layers + 1))]
    starts: list[list[int]] = []
    for done in range(1, chunks):
        following: list[Spread] = [(inf, inf)] * (layers + 1)
        start_of = [0] * (layers + 1)
        # Ends still to be settled, with the first and last start that can be theirs.
        open_ranges = [(done + 1, layers, done, layers - 1)]
        while open_ranges:
            first, last, left, right = open_ranges.pop()
            if first > last:
                continue
            end = (first + last) // 2
            for start in range(left, min(right, end - 1) + 1):
                over, squares = _spread(high[end] - low[start], bound)
                option = (best[start][0] + over, best[start][1] + squares)
                if option < following[end]:
                    following[end], start_of[end] = option, start
            open_ranges.append((first, end - 1, left, start_of[end]))
            open_ranges.append((end + 1, last, start_of[end], right))
        best = following
        starts.append(start_of)
    counts: list[int] = []
    end = layers
    for start_of in reversed(starts):
        counts.append(end - start_of[end])
        end = start_of[end]
    return (end, *reversed(counts))


def _spread(cost: float, bound: float) -> Spread:
    return max(0.0, cost - bound), cost * cost
