from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, combinations, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megagrow.pipeline.balancing.evenness import Evenness
from megagrow.pipeline.balancing.partition import Row


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A short row, often with chunks that have no memory for one layer or another."""
    chunks = draw(st.integers(1, 4))
    count = draw(st.integers(chunks, 9))
    starts = []
    for _ in range(chunks):
        drawn = draw(st.lists(st.integers(0, count), min_size=count + 1, max_size=count + 1))
        often = draw(st.integers(1, 4))  # each limit only now and then, or nothing would fit
        wanted = [start if index % often == 0 else 0 for index, start in enumerate(drawn)]
        starts.append([min(s, e) for e, s in enumerate(accumulate(wanted, max))])
    return Row(
        layers=tuple(draw(st.lists(st.integers(0, 30), min_size=count, max_size=count))),
        first=draw(st.integers(0, 30)),
        last=draw(st.integers(0, 30)),
        chunks=chunks,
        starts=np.array(starts, dtype=np.int64),
    )


def loads(row: Row, ends: tuple[int, ...]) -> list[int]:
    found = [sum(row.layers[start:end]) for start, end in pairwise((0, *ends))]
    found[0] += row.first
    found[-1] += row.last
    return found


def splits(row: Row) -> Iterator[tuple[int, ...]]:
    """The ends of the chunks of every split that there is memory for."""
    assert row.starts is not None
    for cut in combinations(range(1, len(row.layers)), row.chunks - 1):
        ends = (*cut, len(row.layers))
        if all(
            start >= earliest[end]
            for earliest, (start, end) in zip(row.starts, pairwise((0, *ends)), strict=True)
        ):
            yield ends


def quality(row: Row, ends: tuple[int, ...]) -> tuple[int, int]:
    costs = loads(row, ends)
    return max(costs), sum(cost * cost for cost in costs)


@given(rows())
def test_no_split_that_there_is_memory_for_is_better(row: Row) -> None:
    best = min((quality(row, ends) for ends in splits(row)), default=None)
    found = row.best()
    assert row.feasible() is (best is not None)
    if found is None:
        assert best is None
    else:
        assert tuple(accumulate(found)) in splits(row)
        assert quality(row, tuple(accumulate(found))) == best


@given(rows())
def test_places_that_chunks_can_start_at_are_those_of_a_plain_search(row: Row) -> None:
    assert row.starts is not None
    layers, places = len(row.layers), {0}
    found = row._reached(sum(row.layers) + row.first + row.last)
    for chunk in range(row.chunks):
        if found is not None:
            spans = found[chunk]
            assert sum(stop - begin + 1 for begin, stop in spans) == len(places)
            assert {place for begin, stop in spans for place in range(begin, stop + 1)} == places
        ends = range(1, layers - (row.chunks - 1 - chunk) + 1)
        places = {e for e in ends if any(row.starts[chunk][e] <= s < e for s in places)}
    assert (found is not None) is (layers in places)


costs = st.one_of(st.integers(1, 30), st.integers(1, 400))


@given(st.lists(costs, min_size=8, max_size=80), st.integers(2, 8), st.integers(0, 300))
def test_few_pairs_give_a_split_with_the_same_largest_cost(
    layers: list[int], chunks: int, last: int
) -> None:
    row = Row(layers=tuple(layers), first=0, last=last, chunks=chunks)
    exact = row.best()
    assert exact is not None
    bound = max(loads(row, tuple(accumulate(exact))))
    reached = row._reached(bound)
    assert reached is not None
    rough = Evenness(row._low, row._high, row._starts(bound), reached, most_pairs=1).best()
    assert sum(rough) == len(layers)
    assert min(rough) >= 1
    largest, squares = quality(row, tuple(accumulate(rough)))
    assert largest == bound
    assert squares >= quality(row, tuple(accumulate(exact)))[1]
