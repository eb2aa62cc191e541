from __future__ import annotations

import pytest
import torch

from megagrow.pipeline.redistribution.exchange import move, plan_route
from megagrow.pipeline.redistribution.fetches import Holdings, plan_fetches
from megagrow.pipeline.redistribution.ownership import Block, Owned
from megagrow.runtime import processes
from megagrow.runtime.stopwatch import Stopwatch
from tests.distributed import World

SIZE = 1000
WHOLE = Owned(Block("w", 0, 0, SIZE, 1), 0, SIZE)


def _hand_over(staging_bytes: int) -> tuple[int, int, bool]:
    """Rank 0 has a tensor that rank 1 gets: rounds, bytes of staging, and whether it arrived."""
    me = processes.rank()
    values = torch.arange(SIZE, dtype=torch.float32)
    sources, targets = ([values], []) if me == 0 else ([], [torch.zeros(SIZE)])
    fetches = plan_fetches(Holdings([[WHOLE], []]), [WHOLE] if me else [], me)
    route = plan_route(fetches, staging_bytes=staging_bytes)
    move(route, sources, targets, Stopwatch())
    staged = (route.outgoing.nbytes, route.incoming.nbytes)
    return route.rounds, sum(staged), all(torch.equal(each, values) for each in targets)


@pytest.mark.parametrize(
    ("staging_bytes", "rounds"),
    [(1 << 20, 1), (8 * SIZE, 1), (8 * SIZE - 8, 2), (800, 10)],
)
def test_it_takes_no_more_rounds_than_the_staging_memory_asks_for(
    world2: World, staging_bytes: int, rounds: int
) -> None:
    for found, staged, arrived in world2.run(_hand_over, staging_bytes):
        assert (found, arrived) == (rounds, True)
        assert staged <= staging_bytes // 2  # one way here: the other half is for the other way
