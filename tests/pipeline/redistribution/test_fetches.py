from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.pipeline.redistribution.fetches import Fetches, Holdings, plan_fetches
from megagrow.pipeline.redistribution.ownership import Block, Owned
from tests.pipeline.redistribution import holdings

RANKS = 4


def runs(fetches: Fetches) -> list[tuple[int, int, int, int, list[tuple[int, int]]]]:
    """Owner, record, start, length and targets of every run."""
    found = []
    for index, (first, stop) in enumerate(zip(fetches.first, fetches.first[1:], strict=False)):
        targets = zip(fetches.target[first:stop], fetches.target_start[first:stop], strict=True)
        found.append(
            (
                int(fetches.owner[index]),
                int(fetches.record[index]),
                int(fetches.start[index]),
                int(fetches.length[index]),
                [(int(place), int(start)) for place, start in targets],
            )
        )
    return found


def whole(key: str, size: int = 4) -> Owned:
    return Owned(Block(key, 0, 0, size, 1), 0, size)


def test_an_element_that_two_layers_need_comes_once() -> None:
    want = [whole("layers.0.w"), whole("layers.1.w")]
    fetches = plan_fetches(Holdings([[], [whole("layers.0.w")]]), want, 0, lambda _: "layers.0.w")
    assert runs(fetches) == [(1, 0, 0, 4, [(0, 0), (1, 0)])]
    assert (fetches.received(0), fetches.received(1)) == (4, 0)


def test_of_replicas_the_own_one_is_taken_and_else_the_next() -> None:
    have = Holdings([[whole("w")], [whole("w")], [], [whole("w")]])
    owners = [plan_fetches(have, [whole("w")], me).owner.tolist() for me in range(4)]
    assert owners == [[0], [1], [3], [3]]


def test_a_shard_is_cut_where_its_owners_meet() -> None:
    block = Block("w", 0, 0, 10, 1)
    have = Holdings([[Owned(block, 0, 6)], [Owned(block, 6, 10)]])
    fetches = plan_fetches(have, [Owned(block, 3, 8)], 1)
    assert runs(fetches) == [(0, 0, 3, 3, [(0, 0)]), (1, 0, 0, 2, [(0, 3)])]


def test_what_nobody_has_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no process holds elements 2 to 4 of 'w'"):
        plan_fetches(Holdings([[Owned(Block("w", 0, 0, 4, 1), 0, 2)]]), [whole("w")], 0)
    with pytest.raises(ValueError, match="no process holds elements 0 to 4"):
        plan_fetches(Holdings([[whole("other")]]), [whole("w")], 0)


@given(st.data())
def test_any_layout_is_made_from_any_other(data: st.DataObject) -> None:
    tensors = data.draw(holdings.tensors())
    old_layers = data.draw(st.integers(1, 3))
    layer_map = data.draw(st.lists(st.integers(0, old_layers - 1), min_size=1, max_size=6))
    old = data.draw(holdings.layouts(RANKS, old_layers))
    new = data.draw(holdings.layouts(RANKS, len(layer_map)))
    random = np.random.RandomState(0)
    matrices = {
        f"layers.{layer}.{each.name}": random.rand(each.rows, each.columns).astype(np.float32)
        for layer in range(old_layers)
        for each in tensors
    }

    def source(key: str) -> str:
        return re.sub(r"\d+", lambda match: str(layer_map[int(match[0])]), key, count=1)

    have = [old.owned(rank, tensors) for rank in range(RANKS)]
    held = [[holdings.values(owned, matrices[owned.block.key]) for owned in each] for each in have]
    for rank in range(RANKS):
        want = new.owned(rank, tensors)
        filled = [np.full(owned.size, np.nan, dtype=np.float32) for owned in want]
        taken = []
        fetches = plan_fetches(Holdings(have), want, rank, source)
        assert fetches.owner.tolist() == sorted(fetches.owner.tolist())
        for owner, record, start, length, targets in runs(fetches):
            part = held[owner][record][start : start + length]
            taken += [(owner, record, element) for element in range(start, start + length)]
            for place, offset in targets:
                assert np.isnan(filled[place][offset : offset + length]).all()
                filled[place][offset : offset + length] = part
        assert len(taken) == len(set(taken))  # each element comes at most once
        for owned, got in zip(want, filled, strict=True):
            expected = holdings.values(owned, matrices[source(owned.block.key)])
            np.testing.assert_array_equal(got, expected)
