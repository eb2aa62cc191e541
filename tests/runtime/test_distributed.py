"""The harness itself: results in order, failures and hangs told with their place."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.distributed import WorkerError, WorkerTimeoutError, World, run_distributed


def _sum_of_ranks(start: int) -> tuple[int, int, str]:
    import torch
    import torch.distributed as dist

    from megagrow.runtime import processes

    total = torch.tensor([start + processes.rank()])
    dist.all_reduce(total)
    return processes.rank(), int(total), os.environ["OMP_NUM_THREADS"]


def _fail_on(rank: int) -> None:
    from megagrow.runtime import processes

    if processes.rank() == rank:
        raise ValueError("the reason of the failure")
    processes.barrier()


def _die_on(rank: int) -> None:
    from megagrow.runtime import processes

    if processes.rank() == rank:
        os._exit(7)
    time.sleep(60)


def _hang_on(rank: int) -> None:
    from megagrow.runtime import processes

    if processes.rank() == rank:
        time.sleep(60)


def _pid() -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def own_world() -> Iterator[World]:
    """A world to break, apart from the one that other tests share."""
    world = World(2)
    yield world
    world.close()


def test_results_come_in_rank_order_and_processes_are_kept(world2: World) -> None:
    assert world2.run(_sum_of_ranks, 10) == [(0, 21, "1"), (1, 21, "1")]
    assert world2.run(_pid) == world2.run(_pid)


def test_fresh_processes_for_one_function() -> None:
    assert run_distributed(_sum_of_ranks, 2, 1)[1] == (1, 3, "1")


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (_fail_on, WorkerError, "the reason of the failure"),
        (_die_on, WorkerError, "rank 1 died with exit code 7"),
        (_hang_on, WorkerTimeoutError, "_hang_on"),
    ],
)
def test_a_bad_worker_fails_the_test_and_the_world_recovers(
    own_world: World, function: Any, error: type[Exception], message: str
) -> None:
    pids = own_world.run(_pid)
    started = time.monotonic()
    with pytest.raises(error, match=message):
        own_world.run(function, 1, timeout=5)
    assert time.monotonic() - started < 30
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert [result[1] for result in own_world.run(_sum_of_ranks, 0)] == [1, 1]
