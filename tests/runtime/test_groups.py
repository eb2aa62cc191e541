"""Parallel groups set up, torn down and set up anew in the same processes."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import pytest

from megagrow.errors import LayoutError
from megagrow.runtime import groups
from tests.distributed import World


def _place(layout: dict[str, Any]) -> tuple[Any, ...]:
    from megatron.core import parallel_state

    groups.set_up(**layout)
    return (
        (parallel_state.get_tensor_model_parallel_rank(), groups.tensor_size()),
        (groups.pipeline_rank(), groups.pipeline_size()),
        (groups.data_rank(), groups.data_size()),
        (groups.is_first_stage(), groups.is_last_stage()),
    )


def _rebuild(rounds: int) -> list[tuple[int, int, int]]:
    import torch.distributed as dist

    from tests.runtime import tiny_gpt

    counts = []
    for _ in range(rounds):
        for trial in (
            tiny_gpt.Trial(),
            tiny_gpt.Trial(pipeline=2),
            tiny_gpt.Trial(tensor=2, sequence_parallel=True),
        ):
            tiny_gpt.train(trial, steps=1)
            groups.tear_down()
        gc.collect()
        counts.append(
            (
                len(os.listdir("/proc/self/fd")),
                threading.active_count() + len(os.listdir("/proc/self/task")),
                len(dist.distributed_c10d._world.pg_map),
            )
        )
    return counts


def _set_up_twice() -> str:
    groups.set_up()
    try:
        groups.set_up()
    except LayoutError as error:
        return str(error)
    return ""


def test_places(world4: World) -> None:
    places = world4.run(_place, {"tensor": 2, "pipeline": 2})
    assert places == [
        ((0, 2), (0, 2), (0, 1), (True, False)),
        ((1, 2), (0, 2), (0, 1), (True, False)),
        ((0, 2), (1, 2), (0, 1), (False, True)),
        ((1, 2), (1, 2), (0, 1), (False, True)),
    ]
    assert [place[2] for place in world4.run(_place, {"pipeline": 2})] == [
        (0, 2),
        (1, 2),
        (0, 2),
        (1, 2),
    ]


def test_many_layouts_in_the_same_processes_leak_nothing(world2: World) -> None:
    for counts in world2.run(_rebuild, 5):
        descriptors, threads, process_groups = zip(*counts, strict=True)
        assert descriptors[-1] <= descriptors[1]
        assert threads[-1] <= threads[1]
        assert process_groups[-1] == 1


def test_second_set_up_is_refused(world2: World) -> None:
    assert all("tear_down" in message for message in world2.run(_set_up_twice))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"tensor": 3, "pipeline": 1}, "multiple of 3"),
        ({"tensor": 2, "pipeline": 4}, "tensor=2 x pipeline=4 = 8"),
        ({"tensor": 0, "pipeline": 1}, "tensor=0"),
        ({"tensor": 1, "pipeline": 1, "virtual": 2}, "pipeline to 2 or more"),
    ],
)
def test_layouts_that_do_not_fit(layout: dict[str, int], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        groups.check(4, **layout)


def _ensure() -> list[bool]:
    from megatron.core import parallel_state

    groups.ensure(tensor=2)
    first = parallel_state.get_tensor_model_parallel_group()
    groups.ensure(tensor=2)
    same = parallel_state.get_tensor_model_parallel_group() is first
    groups.ensure(pipeline=2)
    return [same, groups.sizes() == (1, 2, None)]


def test_groups_of_the_same_sizes_stay(world2: World) -> None:
    assert world2.run(_ensure) == [[True, True]] * 2
