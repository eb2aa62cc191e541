"""The pipeline layout that a stage asks for, and what would help where memory is short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from megagrow.errors import LayoutError
from megagrow.model.memory import MemoryModel
from megagrow.pipeline.balancing.balance import balance, feasible
from megagrow.pipeline.balancing.costs import LayerCosts, even_costs, flops_costs
from megagrow.pipeline.balancing.layer_times import read_layer_times
from megagrow.pipeline.balancing.room import Room
from megagrow.units import format_bytes


def layout_for(memory: MemoryModel, costs: LayerCosts | None = None) -> tuple[int, ...]:
    """Layers of each of the pipeline x virtual chunks of a stage, as its `parallel` asks.

    Args:
        memory: the stage's model, layout and batch.
        costs: of the model, if they are at hand; unset: `costs_for`.

    Raises:
        LayoutError: fewer layers than chunks, a split that `memory_limit` has no room for, or a
            file of times that does not fit the model.
    """
    parallel = memory.parallel
    room = None if parallel.memory_limit is None else Room(memory, parallel.memory_limit)
    if parallel.layers_per_chunk is not None:
        if room is not None and not room.holds(parallel.layers_per_chunk):
            raise LayoutError(_too_full(room, parallel.layers_per_chunk))
        return parallel.layers_per_chunk
    if parallel.balance == "even":
        costs = even_costs(memory.shape.num_layers)
    elif costs is None:
        costs = costs_for(memory)
    layout = balance(costs, parallel.pipeline, parallel.virtual_pipeline, room)
    if layout is None:
        assert room is not None
        raise LayoutError(_no_room(room))
    return layout


def costs_for(memory: MemoryModel) -> LayerCosts:
    """What `parallel.balance` has a stage's model cost: measured times, or FLOPs (`even` too).

    Raises:
        LayoutError: the file of times is not there, or is of another model.
    """
    parallel = memory.parallel
    if parallel.balance != "times" or parallel.layer_times is None:
        return flops_costs(memory.shape, parallel.recompute)
    times = read_layer_times(parallel.layer_times)
    return times.costs(
        memory.shape,
        precision=memory.precision,
        micro_size=memory.batch.micro_size,
        parallel=parallel,
    )


def even_layout(layers: int, chunks: int) -> tuple[int, ...]:
    """As equal numbers of layers as there can be, the shorter chunks first.

    Raises:
        LayoutError: fewer layers than chunks, or no chunk.
    """
    layout = balance(even_costs(layers), chunks)
    assert layout is not None  # only memory can be short
    return layout


def kept_layout(old: Sequence[int], layers: int) -> tuple[int, ...]:
    """An old layout stretched to `layers`: every chunk keeps its share of them.

    Args:
        old: layers of each chunk.
        layers: layers of the new model, no fewer than the old one had.
    """
    total = sum(old)
    ends = [end * layers // total for end in accumulate(old, initial=0)]
    return tuple(end - start for start, end in pairwise(ends))


def _too_full(room: Room, layout: Sequence[int]) -> str:
    fullest = max(room.memory.ranks(layout), key=lambda rank: rank.total)
    return (
        f"layers_per_chunk {list(layout)} needs {format_bytes(fullest.total)} on pipeline rank "
        f"{fullest.pipeline_rank}, {format_bytes(fullest.total - room.limit)} more than the "
        f"memory_limit of {format_bytes(room.limit)}; {_mend(room)}"
    )


def _no_room(room: Room) -> str:
    parallel = room.memory.parallel
    chunks = f"{parallel.pipeline} pipeline ranks"
    if parallel.virtual_pipeline > 1:
        chunks += f" x {parallel.virtual_pipeline} chunks"
    least = _least_limit(room)
    return (
        f"no split of {room.memory.shape.num_layers} layers over {chunks} was found within the "
        f"memory_limit of {format_bytes(room.limit)}: the leanest needs {format_bytes(least)} on "
        f"its fullest rank, {format_bytes(least - room.limit)} too much; {_mend(room)}"
    )


def _mend(room: Room) -> str:
    """What would bring the need below the limit, each tried by itself."""
    enough = [name for name, memory in _leaner(room.memory) if _fits(Room(memory, room.limit))]
    if enough:
        return f"one of these would be enough: {', '.join(enough)}"
    return "no single change is enough: combine several, use more processes, or raise the limit"


def _leaner(memory: MemoryModel) -> Iterator[tuple[str, MemoryModel]]:
    """Settings that need less memory, and what a user would call them."""
    parallel, shape, batch = memory.parallel, memory.shape, memory.batch

    def changed(**keys: Any) -> MemoryModel:
        return replace(memory, parallel=replace(parallel, layers_per_chunk=None, **keys))

    if parallel.layers_per_chunk is not None:
        yield "the balancer's split (remove layers_per_chunk)", changed()
    if memory.data_parallel > 1 and not parallel.distributed_optimizer:
        yield "distributed_optimizer true", changed(distributed_optimizer=True)
    if batch.micro_size > 1:
        yield "micro_size 1", replace(changed(), batch=replace(batch, micro_size=1))
    splits = parallel.tensor > 1 and shape.seq_length % parallel.tensor == 0
    if splits and not parallel.sequence_parallel:
        yield "sequence_parallel true", changed(sequence_parallel=True)
    if parallel.recompute != "full":
        yield "recompute full", changed(recompute="full")
    wider, virtual = 2 * parallel.pipeline, parallel.virtual_pipeline
    groups = batch.global_size // (batch.micro_size * memory.data_parallel) % wider == 0
    if wider * virtual <= shape.num_layers and (virtual == 1 or groups):
        yield f"pipeline {wider} with twice the processes", changed(pipeline=wider)


def _fits(room: Room) -> bool:
    parallel = room.memory.parallel
    return feasible(parallel.pipeline, parallel.virtual_pipeline, room)


def _least_limit(room: Room) -> int:
    """The smallest memory limit that a split is found for, to a thousandth.

    Args:
        room: one whose limit is too small.
    """
    low, high = room.limit, 2 * room.limit
    while not _fits(replace(room, limit=high)):
        low, high = high, 2 * high
    while high - low > high // 1000:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(replace(room, limit=middle)) else (middle, high)
    return high
