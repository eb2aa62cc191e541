from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config import RunConfig
from megagrow.errors import LayoutError
from megagrow.plan.schedule import make_plan
from megagrow.plan.world import smallest_world_size, world_sizes
from tests.plan.configs import config_of, stage

layouts = st.fixed_dictionaries(
    {
        "tensor": st.sampled_from([1, 2, 4]),
        "pipeline": st.sampled_from([1, 2, 4]),
        "global": st.sampled_from([4, 8, 12, 16]),
        "micro": st.sampled_from([1, 2, 4]),
        "interleaved": st.booleans(),
    }
)


def table(*rows: dict[str, Any]) -> RunConfig | None:
    stages = []
    for row in rows:
        virtual = 2 if row["interleaved"] and row["pipeline"] > 1 else 1
        micro_batches, rest = divmod(row["global"], row["micro"])
        if rest or (virtual > 1 and micro_batches % row["pipeline"]):
            return None
        parallel = {key: row[key] for key in ("tensor", "pipeline")}
        batch = {"global_size": row["global"], "micro_size": row["micro"]}
        stages.append(stage(8, parallel={**parallel, "virtual_pipeline": virtual}, batch=batch))
    return config_of(*stages)


def runs_on(config: RunConfig, size: int) -> bool:
    """The rules, stage by stage, as a trainer would meet them."""
    for row in config.stages:
        parallel = row.parallel
        replicas, rest = divmod(size, parallel.tensor * parallel.pipeline)
        if rest:
            return False
        micro_batches, rest = divmod(row.batch.global_size, row.batch.micro_size * replicas)
        if rest or (parallel.virtual_pipeline > 1 and micro_batches % parallel.pipeline):
            return False
    return True


@given(layouts, layouts)
def test_suitable_sizes_are_exactly_those_that_run(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    config = table(first, second)
    if config is None:
        return
    suitable = [size for size in range(1, 16 * 16 + 1) if runs_on(config, size)]
    assert world_sizes(config) == suitable
    for size in range(1, 33):
        if size in suitable:
            assert make_plan(config, size).world_size == size
        else:
            with pytest.raises(LayoutError, match=r"^stage 'stage[01]': "):
                make_plan(config, size)
    if suitable:
        plan = make_plan(config)
        assert plan.world_size == smallest_world_size(config) == suitable[0]
        assert not plan.world_size_given


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (3, "stage 'small': 3 processes are no multiple of tensor 1 x pipeline 2 = 2; "
            "start 2 or 4 processes"),
        (6, "stage 'small': global_size 8 is no multiple of micro_size 2 x data parallel 3 = 6 "
            "(nearest global_size: 6); start 4 or 8 processes, which suit every stage"),
        (32, "= 32 (nearest global_size: 32); start 8 processes, which suit every stage"),
        (0, "0 processes are no multiple of"),
    ],
)  # fmt: skip
def test_refused_world_size(size: int, message: str) -> None:
    config = config_of(stage(2, name="small"), stage(4, name="large"), parallel={"pipeline": 2})
    with pytest.raises(LayoutError) as error:
        make_plan(config, size)
    assert message in str(error.value)


def test_the_stage_at_fault_is_the_one_named() -> None:
    config = config_of(stage(2, name="small"), stage(4, name="large", parallel={"pipeline": 4}))
    with pytest.raises(LayoutError, match=r"^stage 'large': 2 processes .* = 4; start 4 processes"):
        make_plan(config, 2)


def test_interleaved_schedule_needs_whole_groups() -> None:
    config = config_of(stage(4, parallel={"pipeline": 2, "virtual_pipeline": 2}))
    with pytest.raises(LayoutError) as error:
        make_plan(config, 8)
    assert (
        "stage 'stage0': the interleaved schedule needs micro-batches divisible by pipeline 2, and "
        "data parallel 4 leaves 1 (nearest global_size: 16); start 4 processes"
    ) in str(error.value)


def test_stages_that_cannot_meet() -> None:
    config = config_of(
        stage(4, name="wide", parallel={"pipeline": 4}),
        stage(4, name="odd", batch={"global_size": 3, "micro_size": 3}),
    )
    with pytest.raises(
        LayoutError, match=r"no number of processes .*'wide': 4, 8, 16; .*'odd': 1\)"
    ):
        make_plan(config)
    with pytest.raises(LayoutError, match=r"^stage 'odd': .*; no number of processes suits every"):
        make_plan(config, 4)


def test_derived_ffn_width_must_split() -> None:
    model = {"hidden_size": 96, "ffn_hidden_size": None, "num_attention_heads": 6,
             "vocab_padding": 6}  # fmt: skip
    config = config_of(stage(2, parallel={"tensor": 3}), model=model)
    with pytest.raises(LayoutError) as error:
        make_plan(config)
    assert str(error.value) == (
        "stage 'stage0': the FFN width 256 is not divisible by tensor parallel 3; set "
        "model.ffn_hidden_size to 255, or tensor to 2"
    )
