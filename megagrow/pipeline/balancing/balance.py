"""Which layers live on which pipeline chunk, so that no chunk takes longer than it must.

A pipeline is as slow as its slowest chunk: both 1F1B and the interleaved schedule hand activations
on after every chunk, so ranks move in steps of the longest one. With virtual stages, rank r holds
chunks r, r + pipeline, ...; the longest chunk is minimised there too, which bounds the load of
every rank by the number of its chunks times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from megagrow.errors import LayoutError
from megagrow.pipeline.balancing.allotment import EqualLayers
from megagrow.pipeline.balancing.costs import LayerCosts
from megagrow.pipeline.balancing.partition import Row
from megagrow.pipeline.balancing.room import Room


def balance(
    costs: LayerCosts, pipeline: int, virtual: int = 1, room: Room | None = None
) -> tuple[int, ...] | None:
    """Splits layers into contiguous chunks whose largest cost is as small as can be.

    Every chunk gets a layer at least. Where several splits have the smallest largest chunk:

    - Equal layers: the one with the smallest largest rank, then the most even one (least sum of
      squared chunk costs), then one with the shorter chunks first, where 1F1B keeps the most
      activations. Exact with virtual stages and a memory limit.
    - Different layers: the most even one; about the most even where very many have the smallest
      largest chunk, see `Evenness.most_pairs`. Exact with virtual stages or a memory limit.
      With both, the split is within the limit and no better one is within it where the best split
      of all is; otherwise each chunk is given an equal share of its rank's memory, and the
      split is the best within these shares.

    Args:
        costs: of every layer, and of the model's two ends.
        pipeline: pipeline ranks.
        virtual: chunks on each of them.
        room: memory of the ranks; unset: as much as needed.

    Returns:
        The number of layers of each of the pipeline x virtual chunks; None if none was found that
        the ranks have memory for.

    Raises:
        LayoutError: fewer layers than chunks, or no chunk.
    """
    _check_chunks(len(costs.layers), pipeline, virtual)
    whole = costs.whole()
    if _all_equal(costs, room):
        return _equal(whole, pipeline, virtual, room).best()
    row = _row(whole, pipeline * virtual)
    if room is None:
        return row.best()
    if virtual > 1:
        free = row.best()
        if free is not None and room.holds(free):
            return free
    found = _row(whole, pipeline * virtual, room).best()
    return found if found is not None and room.holds(found) else None


def feasible(pipeline: int, virtual: int, room: Room) -> bool:
    """Whether there is a split of a model within `room`, whatever it costs in time.

    With virtual stages and different layers: whether there is one with equal shares, see `balance`.

    Raises:
        LayoutError: fewer layers than chunks, or no chunk.
    """
    layers = room.memory.shape.num_layers
    _check_chunks(layers, pipeline, virtual)
    free = LayerCosts(layers=(0,) * layers)
    if room.layers_are_equal:
        return _equal(free, pipeline, virtual, room).feasible()
    return _row(free, pipeline * virtual, room).feasible()


def layer_ranges(counts: Sequence[int]) -> tuple[range, ...]:
    """The layers (from 0) of each chunk."""
    ends = list(accumulate(counts))
    return tuple(range(end - count, end) for count, end in zip(counts, ends, strict=True))


def _check_chunks(layers: int, pipeline: int, virtual: int) -> None:
    chunks = pipeline * virtual
    if not 1 <= chunks <= layers:
        raise LayoutError(
            f"{layers} layers cannot fill {chunks} pipeline chunks; use 1 to {layers}"
        )


def _all_equal(costs: LayerCosts, room: Room | None) -> bool:
    return len(set(costs.layers)) == 1 and (room is None or room.layers_are_equal)


def _equal(costs: LayerCosts, pipeline: int, virtual: int, room: Room | None) -> EqualLayers:
    chunks, layers = pipeline * virtual, len(costs.layers)
    extras = [0] * chunks
    extras[0] += int(costs.first)
    extras[-1] += int(costs.last)
    return EqualLayers(
        layers=layers,
        cost=int(costs.layers[0]),
        extras=tuple(extras),
        most=(layers,) * pipeline if room is None else room.most_layers(),
    )


def _row(costs: LayerCosts, chunks: int, room: Room | None = None) -> Row:
    return Row(
        layers=tuple(map(int, costs.layers)),
        first=int(costs.first),
        last=int(costs.last),
        chunks=chunks,
        starts=None if room is None else room.starts(),
    )
