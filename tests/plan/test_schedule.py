from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.errors import DataError
from megagrow.model.flops import flops_per_token, parameters
from megagrow.model.shape import model_shape
from megagrow.pipeline.balancing.costs import flops_costs
from megagrow.plan.schedule import RunPlan, make_plan
from tests.plan.configs import config_of, stage

DEPTHS = st.lists(st.integers(0, 2), min_size=1, max_size=4)
STAGES = DEPTHS.flatmap(
    lambda doublings: st.tuples(
        st.just([2 ** sum(doublings[: index + 1]) for index in range(len(doublings))]),
        st.lists(st.integers(1, 20_000), min_size=len(doublings), max_size=len(doublings)),
        st.lists(st.sampled_from([4, 8, 24]), min_size=len(doublings), max_size=len(doublings)),
    )
)


def plan_of(table: tuple[list[int], list[int], list[int]]) -> RunPlan:
    return make_plan(
        config_of(
            *(
                stage(layers, tokens, batch={"global_size": batch})
                for layers, tokens, batch in zip(*table, strict=True)
            )
        )
    )


@given(STAGES)
def test_stages_follow_one_another(table: tuple[list[int], list[int], list[int]]) -> None:
    plan = plan_of(table)
    first = plan.stages[0]
    assert (first.first_step, first.first_token, first.first_flops) == (0, 0, 0)
    for before, after in pairwise(plan.stages):
        assert after.first_step == before.end_step
        assert after.first_token == before.end_token
        assert after.first_flops == before.end_flops
    assert plan.steps == sum(stage.steps for stage in plan.stages)
    assert plan.tokens == sum(stage.tokens for stage in plan.stages)
    assert plan.flops == sum(stage.flops for stage in plan.stages)


@given(STAGES)
def test_tokens_are_whole_steps_and_no_more_than_needed(
    table: tuple[list[int], list[int], list[int]],
) -> None:
    for planned in plan_of(table).stages:
        wanted = planned.config.tokens
        assert planned.tokens == planned.steps * planned.config.batch.global_size * 32
        assert wanted <= planned.tokens < wanted + planned.step_tokens


@given(STAGES, st.data())
def test_positions_at_any_step(
    table: tuple[list[int], list[int], list[int]], data: st.DataObject
) -> None:
    plan = plan_of(table)
    step = data.draw(st.integers(0, plan.steps - 1))
    current = plan.stage_at(step)
    assert current.first_step <= step < current.end_step
    assert plan.tokens_at(step + 1) - plan.tokens_at(step) == current.step_tokens
    flops = plan.flops_at(step + 1) - plan.flops_at(step)
    assert flops == current.step_tokens * current.flops_per_token.total


@given(STAGES)
def test_positions_at_every_boundary(table: tuple[list[int], list[int], list[int]]) -> None:
    plan = plan_of(table)
    for index, planned in enumerate(plan.stages):
        assert plan.stage_at(planned.first_step) is planned
        assert plan.stage_at(planned.end_step - 1) is planned
        assert plan.tokens_at(planned.first_step) == planned.first_token
        if index + 1 < len(plan.stages):
            assert plan.stage_at(planned.end_step) is plan.stages[index + 1]
    assert plan.stage_at(plan.steps) is plan.stages[-1]
    assert plan.tokens_at(plan.steps) == plan.tokens
    assert plan.flops_at(plan.steps) == plan.flops
    for step in (-1, plan.steps + 1):
        with pytest.raises(ValueError, match=f"step {step} is not in this run"):
            plan.stage_at(step)


def test_one_stage_by_hand() -> None:
    config = config_of(stage(4, 1000, parallel={"pipeline": 2}))
    plan = make_plan(config, world_size=4)
    (planned,) = plan.stages
    assert (planned.step_tokens, planned.steps, planned.tokens) == (8 * 32, 4, 1024)
    assert (planned.data_parallel, planned.micro_batches) == (2, 2)
    shape = model_shape(config.model, 4)
    assert planned.shape == shape
    assert planned.parameters == parameters(shape)
    assert planned.flops == 1024 * flops_per_token(shape).total
    assert sum(planned.layout) == 4
    assert planned.imbalance == flops_costs(shape).imbalance(planned.layout)
    assert len(planned.memory) == 2
    assert planned.peak_memory.total == max(rank.total for rank in planned.memory)
    assert (planned.growth, planned.timing, planned.grows) == (None, None, False)
    assert plan.world_size_given


def test_growth_of_each_stage() -> None:
    plan = make_plan(
        config_of(
            stage(2),
            stage(4, transition={"optimizer": "copy"}),
            stage(4, mixture={"hard": 1.0}),
            stage(8),
        )
    )
    growths = [planned.growth for planned in plan.stages[1:]]
    maps = [growth.layer_map for growth in growths if growth is not None]
    assert maps == [(0, 1, 0, 1), (0, 1, 2, 3), (0, 1, 2, 3, 0, 1, 2, 3)]
    assert [planned.grows for planned in plan.stages] == [False, True, False, True]
    assert [planned.timing is None for planned in plan.stages] == [True, False, True, False]


def test_timing_counts_the_tokens_at_the_new_depth() -> None:
    joined = make_plan(config_of(stage(2), stage(4, 5120), stage(8)))
    split = make_plan(config_of(stage(2), stage(4, 2560), stage(4, 2560), stage(8)))
    alone = make_plan(config_of(stage(2), stage(4, 5120)))
    assert joined.stages[1].timing == split.stages[1].timing == alone.stages[1].timing


def share(value: Any) -> dict[str, float]:
    return {"easy": 1 - value, "hard": value}


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 50_000))
def test_bucket_tokens_are_the_integral_of_the_mixture(
    start: float, end: float, other: float, tokens: int
) -> None:
    plan = make_plan(
        config_of(
            stage(2, tokens, mixture=share(start), mixture_end=share(end)),
            stage(4, mixture=share(other)),
        )
    )
    slices = 1000
    middle = [(index + 0.5) / slices for index in range(slices)]
    ramp = sum(start + (end - start) * at for at in middle) / slices
    hard = plan.stages[0].tokens * ramp + plan.stages[1].tokens * other
    assert plan.bucket_tokens["hard"] == pytest.approx(hard, abs=1e-3)
    assert sum(plan.bucket_tokens.values()) == pytest.approx(plan.tokens)


def test_bucket_that_comes_or_goes_on_the_way() -> None:
    plan = make_plan(config_of(stage(2, 3328, mixture={"easy": 1}, mixture_end={"hard": 1})))
    assert plan.bucket_tokens == {"easy": 1664.0, "hard": 1664.0}


def test_epochs() -> None:
    plan = make_plan(config_of(stage(2, 2560, mixture={"easy": 0.75, "hard": 0.25})))
    assert plan.epochs({"easy": 1920, "hard": 1280}) == {"easy": 1.0, "hard": 0.5}
    for sizes in ({"easy": 1920, "hard": 0}, {"easy": 1920}):
        with pytest.raises(
            DataError, match=r"bucket 'hard' is empty, and the run draws 640 tokens"
        ):
            plan.epochs(sizes)


def test_bucket_that_is_never_drawn_may_be_empty() -> None:
    plan = make_plan(config_of(stage(2, mixture={"easy": 1.0, "hard": 0.0})))
    assert plan.epochs({"easy": plan.tokens})["hard"] == 0.0
