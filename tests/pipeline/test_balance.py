from __future__ import annotations

import time
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config import ModelConfig, ParallelConfig
from megagrow.errors import LayoutError
from megagrow.model.shape import model_shape
from megagrow.pipeline.balance import (
    balance,
    imbalance,
    layer_costs,
    layer_ranges,
    layout_for,
    layout_imbalance,
)

costs = st.lists(st.integers(0, 50), min_size=1, max_size=9)
extras = st.integers(0, 60)


def loads(
    layer_costs: list[int], counts: tuple[int, ...], first: float, last: float
) -> list[float]:
    chunk_loads: list[float] = []
    start = 0
    for count in counts:
        chunk_loads.append(sum(layer_costs[start : start + count]))
        start += count
    chunk_loads[0] += first
    chunk_loads[-1] += last
    return chunk_loads


def every_split(layers: int, chunks: int) -> list[tuple[int, ...]]:
    cuts = combinations(range(1, layers), chunks - 1)
    ends = [(0, *cut, layers) for cut in cuts]
    return [tuple(b - a for a, b in pairwise(end)) for end in ends]


def check_against_every_split(layers: list[int], chunks: int, first: int, last: int) -> None:
    """The largest load first, then evenness, against every split there is."""

    def quality(counts: tuple[int, ...]) -> tuple[float, float]:
        chunk_loads = loads(layers, counts, first, last)
        return max(chunk_loads), sum(load * load for load in chunk_loads)

    best = min(quality(split) for split in every_split(len(layers), chunks))
    assert quality(balance(layers, chunks, first, last)) == best


@given(costs, st.data(), extras, extras)
def test_no_split_is_better(layers: list[int], data: st.DataObject, first: int, last: int) -> None:
    check_against_every_split(layers, data.draw(st.integers(1, len(layers))), first, last)


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
    check_against_every_split(layers, 3, first, last)


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=60),
    st.data(),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_no_layer_vanishes_or_doubles(
    layers: list[float], data: st.DataObject, first: float, last: float
) -> None:
    chunks = data.draw(st.integers(1, len(layers)))
    counts = balance(layers, chunks, first, last)
    assert len(counts) == chunks
    assert all(count >= 1 for count in counts)
    ranges = layer_ranges(counts)
    assert [layer for chunk in ranges for layer in chunk] == list(range(len(layers)))
    assert imbalance(layers, counts, first, last) >= 1 - 1e-9


@given(st.integers(1, 60), st.data())
def test_equal_layers_differ_by_one_at_most_and_grow_towards_the_end(
    layers: int, data: st.DataObject
) -> None:
    chunks = data.draw(st.integers(1, layers))
    counts = balance([7] * layers, chunks)
    assert max(counts) - min(counts) <= 1
    assert list(counts) == sorted(counts)


@given(costs, st.data(), st.integers(1, 9))
def test_unit_of_cost_does_not_matter(layers: list[int], data: st.DataObject, unit: int) -> None:
    chunks = data.draw(st.integers(1, len(layers)))
    scaled = [unit * cost for cost in layers]
    assert balance(scaled, chunks, unit * 3, unit * 5) == balance(layers, chunks, 3, 5)


def test_output_layer_takes_the_place_of_layers() -> None:
    assert balance([1] * 8, 2, last_extra=4) == (6, 2)
    assert balance([1] * 8, 2, first_extra=4) == (2, 6)
    assert balance([1] * 8, 2, first_extra=4, last_extra=100) == (7, 1)
    assert imbalance([1] * 8, (6, 2), last_extra=4) == 1.0
    assert imbalance([1] * 8, (4, 4), last_extra=4) == pytest.approx(8 / 6)


def test_uneven_layers() -> None:
    assert balance([9, 1, 1, 1, 9], 3) == (1, 3, 1)
    assert balance([1, 1, 1, 9], 2) == (3, 1)
    assert imbalance([0, 0], (1, 1)) == 1.0


@pytest.mark.parametrize(
    "layers",
    [
        [1.0] * 1000,
        [1.0] * 999 + [500.0],
        [1.01**i for i in range(1000)],
        [(i * 7919) % 101 for i in range(1000)],
    ],
    ids=["equal", "one-heavy", "rising", "mixed"],
)
def test_a_thousand_layers_on_64_stages_within_a_second(layers: list[float]) -> None:
    seconds = []
    for _ in range(3):
        start = time.process_time()
        assert sum(balance(layers, 64, 3.0, 5.0)) == 1000
        seconds.append(time.process_time() - start)
        if seconds[-1] < 1.0:
            break
    assert min(seconds) < 1.0


@pytest.mark.parametrize("chunks", [0, 4, -1])
def test_refuses_chunks_that_cannot_be_filled(chunks: int) -> None:
    with pytest.raises(LayoutError, match=f"3 layers cannot fill {chunks} pipeline chunks; use 1"):
        balance([1, 1, 1], chunks)


@pytest.mark.parametrize("arguments", [([1, -1], 1), ([1, 1], 1, -1.0), ([1, 1], 1, 0, -1.0)])
def test_refuses_negative_costs(arguments: tuple[list[int], int]) -> None:
    with pytest.raises(LayoutError, match="must not be negative"):
        balance(*arguments)


def test_layout_counts_the_output_layer() -> None:
    model = ModelConfig(
        hidden_size=64, num_attention_heads=4, vocab_size=2048, seq_length=32, ffn_hidden_size=192
    )
    shape = model_shape(model, 8)
    layers, output = layer_costs(shape)
    assert len(set(layers)) == 1
    assert 2 < output / layers[0] < 3
    layout = layout_for(shape, ParallelConfig(pipeline=2))
    assert layout == (5, 3)
    assert layout_imbalance(shape, layout) == pytest.approx(
        2 * (3 * layers[0] + output) / (8 * layers[0] + output)
    )
    assert len(layout_for(shape, ParallelConfig(pipeline=2, virtual_pipeline=3))) == 6
    with pytest.raises(LayoutError, match="8 layers cannot fill 16"):
        layout_for(shape, ParallelConfig(pipeline=16))
