"""Randomness that depends on (seed, step, place) and on nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.runtime.seeds import seed_for
from tests.distributed import World

_PARTS = st.lists(st.one_of(st.text(), st.integers()), max_size=4)


@given(st.integers(), _PARTS)
def test_seed_for_is_stable_and_fits_63_bits(seed: int, parts: list[str | int]) -> None:
    value = seed_for(seed, *parts)
    assert value == seed_for(seed, *parts)
    assert 0 <= value < 2**63


@given(st.integers(), _PARTS, st.integers(), _PARTS)
def test_different_parts_give_different_seeds(
    seed: int, parts: list[str | int], other_seed: int, other_parts: list[str | int]
) -> None:
    if (seed, parts) != (other_seed, other_parts):
        assert seed_for(seed, *parts) != seed_for(other_seed, *other_parts)


def test_seed_for_is_the_same_on_every_machine() -> None:
    assert seed_for(1234, "decoder.layers.weight", 3) == PINNED
    assert (
        len({seed_for(1, "a", "bc"), seed_for(1, "ab", "c"), seed_for(1, 1), seed_for(1, "1")}) == 4
    )


PINNED = 3379966787910331709


def _draw(layout: dict[str, int], seed: int, step: int, before: int) -> tuple[Any, ...]:
    import random

    import numpy as np
    import torch
    from megatron.core import tensor_parallel

    from megagrow.runtime import groups, seeds

    groups.set_up(**layout)
    torch.rand(before)
    seeds.seed_step(seed, step)
    default = torch.rand(2).tolist()
    with tensor_parallel.get_cuda_rng_tracker().fork():
        forked = torch.rand(2).tolist()
    drawn = (default, forked, random.random(), float(np.random.rand()))
    groups.tear_down()
    return drawn


def test_same_seed_and_step_draw_the_same(world2: World) -> None:
    first = world2.run(_draw, {}, 7, 3, 0)
    assert world2.run(_draw, {}, 7, 3, 5) == first
    assert world2.run(_draw, {}, 7, 4, 0) != first
    assert world2.run(_draw, {}, 8, 3, 0) != first


@pytest.mark.parametrize("layout", [{}, {"pipeline": 2}], ids=["replicas", "stages"])
def test_replicas_and_stages_draw_differently(world2: World, layout: dict[str, int]) -> None:
    first, second = world2.run(_draw, layout, 7, 3, 0)
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_a_tensor_group_agrees_outside_its_split_regions(world2: World) -> None:
    first, second = world2.run(_draw, {"tensor": 2}, 7, 3, 0)
    assert first[0] == second[0]
    assert first[1] != second[1]
