from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.config import BatchConfig, ModelConfig, ParallelConfig
from megagrow.errors import LayoutError
from megagrow.model.layer import LayerShape
from megagrow.model.memory import Held, MemoryModel
from megagrow.model.shape import model_shape
from megagrow.pipeline.balancing.balance import balance, feasible, layer_ranges
from megagrow.pipeline.balancing.costs import LayerCosts
from megagrow.pipeline.balancing.room import Room

Quality = tuple[float, ...]

some_costs = st.one_of(
    st.lists(st.integers(0, 50), min_size=1, max_size=9),
    st.tuples(st.integers(0, 50), st.integers(1, 9)).map(lambda drawn: [drawn[0]] * drawn[1]),
)
extras = st.integers(0, 60)


def costs_of(layers: list[int], first: float = 0, last: float = 0) -> LayerCosts:
    return LayerCosts(layers=tuple(layers), first=first, last=last)


def split(layers: list[int], chunks: int, first: float = 0, last: float = 0) -> tuple[int, ...]:
    counts = balance(costs_of(layers, first, last), chunks)
    assert counts is not None
    return counts


def every_split(layers: int, chunks: int) -> Iterator[tuple[int, ...]]:
    for cut in combinations(range(1, layers), chunks - 1):
        yield tuple(b - a for a, b in pairwise((0, *cut, layers)))


def quality(costs: LayerCosts, counts: tuple[int, ...], pipeline: int) -> Quality:
    """What is made small, in order: chunk, rank (equal layers with virtual stages), evenness."""
    loads = costs.loads(counts)
    squares = sum(load * load for load in loads)
    if len(set(costs.layers)) > 1:
        return max(loads), squares
    return max(loads), max(sum(loads[rank::pipeline]) for rank in range(pipeline)), squares


def best_of(
    costs: LayerCosts, pipeline: int, virtual: int = 1, room: Room | None = None
) -> Quality | None:
    splits = every_split(len(costs.layers), pipeline * virtual)
    allowed = (counts for counts in splits if room is None or room.holds(counts))
    return min((quality(costs, counts, pipeline) for counts in allowed), default=None)


@given(some_costs, st.data(), extras, extras)
def test_no_split_is_better(layers: list[int], data: st.DataObject, first: int, last: int) -> None:
    chunks = data.draw(st.integers(1, len(layers)))
    pipeline = data.draw(st.sampled_from([p for p in range(1, chunks + 1) if chunks % p == 0]))
    costs = costs_of(layers, first, last)
    found = balance(costs, pipeline, chunks // pipeline)
    assert found is not None
    assert quality(costs, found, pipeline) == best_of(costs, pipeline, chunks // pipeline)


@pytest.mark.parametrize(
    ("layers", "first", "last"),
    [
        ([5, 4, 19, 1], 12, 2),
        ([1, 16, 20, 1], 8, 5),
        ([1, 1, 16, 7, 5], 2, 6),
        ([6, 17, 6, 2, 2], 1, 17),
        ([3, 6, 16, 3], 5, 0),
        ([0, 17, 5, 7], 3, 6),
    ],
)
def test_largest_load_counts_before_evenness(layers: list[int], first: int, last: int) -> None:
    """Three chunks each, where the most even split is not the one with the smallest maximum."""
    costs = costs_of(layers, first, last)
    assert quality(costs, split(layers, 3, first, last), 3) == best_of(costs, 3)


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=60),
    st.data(),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_no_layer_vanishes_or_doubles(
    layers: list[float], data: st.DataObject, first: float, last: float
) -> None:
    pipeline = data.draw(st.integers(1, len(layers)))
    virtual = data.draw(st.integers(1, len(layers) // pipeline))
    costs = LayerCosts(layers=tuple(layers), first=first, last=last)
    counts = balance(costs, pipeline, virtual)
    assert counts is not None
    assert len(counts) == pipeline * virtual
    assert all(count >= 1 for count in counts)
    held = [layer for chunk in layer_ranges(counts) for layer in chunk]
    assert held == list(range(len(layers)))
    assert costs.imbalance(counts) >= 1 - 1e-9


@given(st.integers(2, 120), st.data())
def test_a_long_row_is_cut_as_well_as_a_plain_dynamic_program_cuts_it(
    layers: int, data: st.DataObject
) -> None:
    """Lengths at which the search for evenness leaves out ends that cannot be part of the best."""
    chunks = data.draw(st.integers(1, min(layers, 12)))
    most = data.draw(st.sampled_from([30, 400]))
    heavy = st.integers(1, most) | st.integers(1, 9)  # some layers cost as much as a chunk
    row = data.draw(st.lists(heavy, min_size=layers, max_size=layers))
    costs = costs_of(row, data.draw(extras), data.draw(st.integers(0, 300)))
    best: list[tuple[float, float] | None] = [(0, 0)] + [None] * layers
    bound = max(costs.loads(split(row, chunks, costs.first, costs.last)))
    for chunk in range(chunks):
        following: list[tuple[float, float] | None] = [None] * (layers + 1)
        for end in range(1, layers + 1):
            load = costs.last if chunk == chunks - 1 else 0
            load += costs.first if chunk == 0 else 0
            for start in reversed(range(end)):
                load += row[start]
                if load > bound:
                    break
                before = best[start]
                if before is not None:
                    option = (max(before[0], load), before[1] + load * load)
                    old = following[end]
                    following[end] = option if old is None or option[1] < old[1] else old
        best = following
    optimum = best[layers]
    assert optimum is not None
    loads = costs.loads(split(row, chunks, costs.first, costs.last))
    assert sum(load * load for load in loads) == optimum[1]


@given(st.integers(1, 60), st.data())
def test_equal_layers_differ_by_one_at_most_and_grow_towards_the_end(
    layers: int, data: st.DataObject
) -> None:
    counts = split([7] * layers, data.draw(st.integers(1, layers)))
    assert max(counts) - min(counts) <= 1
    assert list(counts) == sorted(counts)


@given(some_costs, st.data(), st.integers(1, 9))
def test_unit_of_cost_does_not_matter(layers: list[int], data: st.DataObject, unit: int) -> None:
    chunks = data.draw(st.integers(1, len(layers)))
    scaled = [unit * cost for cost in layers]
    assert split(scaled, chunks, unit * 3, unit * 5) == split(layers, chunks, 3, 5)
    seconds = [cost / 1024 for cost in layers]
    assert split(seconds, chunks, 3 / 1024, 5 / 1024) == split(layers, chunks, 3, 5)  # type: ignore[arg-type]


def test_output_layer_takes_the_place_of_layers() -> None:
    assert split([1] * 8, 2, last=4) == (6, 2)
    assert split([1] * 8, 2, first=4) == (2, 6)
    assert split([1] * 8, 2, first=4, last=100) == (7, 1)
    assert costs_of([1] * 8, last=4).imbalance((6, 2)) == 1.0
    assert costs_of([1] * 8, last=4).imbalance((4, 4)) == pytest.approx(8 / 6)


def test_uneven_layers() -> None:
    assert split([9, 1, 1, 1, 9], 3) == (1, 3, 1)
    assert split([1, 1, 1, 9], 2) == (3, 1)
    assert costs_of([0, 0]).imbalance((1, 1)) == 1.0


def test_virtual_stages_share_the_work_between_ranks() -> None:
    """Of the splits with no chunk above 3, the first rank takes what the loaded last one cannot."""
    counts = balance(costs_of([1] * 9, last=1), 2, 2)
    assert counts is not None
    loads = costs_of([1] * 9, last=1).loads(counts)
    assert max(loads) == 3
    assert loads[0] + loads[2] == loads[1] + loads[3] == 5


@pytest.mark.parametrize("chunks", [0, 4, -1])
def test_refuses_chunks_that_cannot_be_filled(chunks: int) -> None:
    with pytest.raises(LayoutError, match=f"3 layers cannot fill {chunks} pipeline chunks; use 1"):
        split([1, 1, 1], chunks)


@pytest.mark.parametrize("arguments", [([1, -1],), ([1, 1], -1.0), ([1, 1], 0, -1.0)])
def test_refuses_negative_costs(arguments: tuple[list[int]]) -> None:
    with pytest.raises(LayoutError, match="must not be negative"):
        costs_of(*arguments)


@st.composite
def rooms(draw: st.DrawFn, different: bool, virtual: int) -> Room:
    """A small model on a pipeline, and a limit between what it can and what it cannot do with."""
    pipeline = draw(st.integers(2, 3))
    layers = draw(st.integers(pipeline * virtual, 9))
    model = ModelConfig(
        hidden_size=32, num_attention_heads=4, ffn_hidden_size=64, vocab_size=128, seq_length=16,
        tie_embeddings=draw(st.booleans()),
    )  # fmt: skip
    shape = model_shape(model, layers)
    if different:
        widths = draw(st.lists(st.integers(1, 8), min_size=layers, max_size=layers))
        row: list[LayerShape] = [
            replace(layer, ffn_hidden_size=32 * width)
            for layer, width in zip(shape.layers, widths, strict=True)
        ]
        shape = replace(shape, layers=tuple(row))
    memory = MemoryModel(
        shape=shape,
        parallel=ParallelConfig(
            pipeline=pipeline,
            virtual_pipeline=virtual,
            recompute=draw(st.sampled_from(["none", "full"])),
        ),
        batch=BatchConfig(global_size=12, micro_size=draw(st.sampled_from([1, 2]))),
        data_parallel=1,
    )
    splits = list(every_split(layers, pipeline * virtual))
    needs = sorted(max(rank.total for rank in memory.ranks(counts)) for counts in splits)
    limit = draw(st.sampled_from(needs)) - draw(st.sampled_from([0, 1]))
    return Room(memory, limit)


@settings(deadline=None, max_examples=30)
@given(room=rooms(True, 1))
def test_earliest_starts_are_those_of_the_estimate(room: Room) -> None:
    """At every limit at which one of them changes on the first rank."""
    weights, kept = room.memory.layer_parameters(), room.memory.layer_activations()
    ends = range(1, len(kept) + 1)

    def need(rank: int, start: int, end: int) -> int:
        held = Held(
            layers=end - start,
            parameters=sum(weights[start:end]),
            kept=sum(kept[start:end]),
            widest=max(kept[start:end]),
        )
        return room.memory.rank(rank, held).total

    for limit in {1, *(need(0, start, end) for end in ends for start in range(end))}:
        for rank, row in enumerate(replace(room, limit=limit).starts()):
            for end in ends:
                fitting = (start for start in range(end) if need(rank, start, end) <= limit)
                assert row[end] == min(fitting, default=end)


@pytest.mark.parametrize(("different", "virtual"), [(False, 1), (False, 2), (True, 1)])
@settings(deadline=None)
@given(data=st.data())
def test_no_split_within_the_memory_limit_is_better(
    different: bool, virtual: int, data: st.DataObject
) -> None:
    room = data.draw(rooms(different, virtual))
    parallel, layers = room.memory.parallel, room.memory.shape.num_layers
    cost = data.draw(st.integers(1, 9))
    row = data.draw(st.lists(st.integers(0, 9), min_size=layers, max_size=layers))
    costs = costs_of(row if different else [cost] * layers, data.draw(extras), data.draw(extras))
    found = balance(costs, parallel.pipeline, virtual, room)
    best = best_of(costs, parallel.pipeline, virtual, room)
    assert feasible(parallel.pipeline, virtual, room) is (best is not None)
    if found is None:
        assert best is None
    else:
        assert room.holds(found)
        assert quality(costs, found, parallel.pipeline) == best


@settings(deadline=None)
@given(data=st.data())
def test_different_layers_on_virtual_stages_stay_within_the_limit(data: st.DataObject) -> None:
    room = data.draw(rooms(True, 2))
    parallel, layers = room.memory.parallel, room.memory.shape.num_layers
    row = data.draw(st.lists(st.integers(0, 9), min_size=layers, max_size=layers))
    costs = costs_of(row, last=data.draw(extras))
    found = balance(costs, parallel.pipeline, 2, room)
    free = balance(costs, parallel.pipeline, 2)
    assert free is not None
    if room.holds(free):
        assert found == free
    if found is not None:
        assert room.holds(found)
        assert sum(found) == layers


def test_frozen_layers_weigh_less() -> None:
    costs = LayerCosts(layers=(1.0,) * 6, first=0.5, last=1.0)
    top = costs.partly_trained({4, 5}, embedding=False, output=False)
    assert (top.layers, top.first, top.last) == ((1, 1, 1, 1, 3, 3), 0.5, 2.0)
    middle = costs.partly_trained({2, 4}, embedding=False, output=True)
    assert (middle.layers, middle.last) == ((1, 1, 3, 2, 3, 2), 3.0)
    tied = costs.partly_trained({5}, embedding=True, output=True)
    assert (tied.layers, tied.first) == ((2, 2, 2, 2, 2, 3), 1.5)
    assert balance(costs, 2) == (3, 3)
    assert balance(top, 2) == (5, 1)
