"""Jobs on whole tensors, dealt out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from megagrow.growth.dealing import deal
from megagrow.growth.making import Making


def job(name: int, elements: int) -> Making:
    return Making(
        needs={f"old{name}": (elements,)}, makes={f"new{name}": ()}, weights=dict, moments=None
    )


@given(
    sizes=st.lists(st.integers(0, 1000), max_size=40),
    world_size=st.integers(1, 9),
    limit=st.integers(1, 2000),
)
def test_every_job_is_done_once_and_memory_is_bounded(
    sizes: list[int], world_size: int, limit: int
) -> None:
    jobs = [job(name, size) for name, size in enumerate(sizes)]
    rounds = deal(jobs, world_size, limit)
    done = [each for turn in rounds for mine in turn for each in mine]
    assert sorted(id(each) for each in done) == sorted(id(each) for each in jobs)
    for turn in rounds:
        assert len(turn) == world_size
        for mine in turn:
            assert len(mine) <= 1 or sum(each.elements for each in mine) <= limit


def test_processes_share_the_work_of_a_round() -> None:
    (turn,) = deal([job(name, 10) for name in range(8)], world_size=4, limit=100)
    assert [len(mine) for mine in turn] == [2, 2, 2, 2]
