from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megagrow.errors import LayoutError
from megagrow.model.shape import model_shape
from megagrow.pipeline.balancing.layer_times import LayerTimes, timed_settings
from megagrow.plan.render import render, to_dict
from megagrow.plan.schedule import StagePlan, make_plan
from tests.plan.configs import config_of, stage

BIG_HEAD = {"vocab_size": 2048}  # an output layer as dear as two layers and a bit
PAIR: dict[str, Any] = {"pipeline": 2}


def named(planned: StagePlan) -> dict[str, tuple[int, ...]]:
    return {split.name: split.layout for split in planned.splits}


def test_growth_is_weighed_against_the_old_layout_and_the_even_one() -> None:
    plan = make_plan(config_of(stage(4, parallel=PAIR), stage(8, parallel=PAIR), model=BIG_HEAD))
    first, grown = plan.stages
    assert named(first) == {"even": (2, 2), "chosen": (3, 1)}
    assert named(grown) == {"even": (4, 4), "kept": (6, 2), "chosen": (5, 3)}
    even, kept, chosen = grown.splits
    assert chosen.imbalance <= min(even.imbalance, kept.imbalance)
    assert chosen.peak_bytes == grown.peak_memory.total
    assert (grown.layout, grown.imbalance) == (chosen.layout, chosen.imbalance)


def test_rebalancing_alone_is_a_stage() -> None:
    plan = make_plan(
        config_of(
            stage(8, name="even", parallel={**PAIR, "balance": "even"}),
            stage(8, name="balanced", parallel=PAIR, transition={"operator": "none"}),
            stage(8, name="given", parallel={**PAIR, "layers_per_chunk": [7, 1]}),
            stage(8, name="other", parallel={"pipeline": 4}),
            model=BIG_HEAD,
        ),
        4,
    )
    even, balanced, given, other = plan.stages
    assert [each.layout for each in plan.stages[:3]] == [(4, 4), (5, 3), (7, 1)]
    assert named(balanced)["kept"] == even.layout
    assert balanced.splits[1].imbalance == even.imbalance > balanced.imbalance
    assert not balanced.grows
    assert named(given)["kept"] == (5, 3)
    assert "kept" not in named(other)  # four chunks where there were two
    shown = render(plan)
    rows = [line.split() for line in shown.splitlines()]
    assert ["balanced", "kept", f"{even.imbalance:.3f}"] in [row[:3] for row in rows]
    assert ["even", "chosen,", "even"] in [row[:3] for row in rows]
    assert ["given", "chosen,", "given"] in [row[:3] for row in rows]
    found = to_dict(plan)["stages"][1]
    assert (found["balanced_by"], found["times_device"]) == ("flops", None)
    assert found["splits"]["kept"]["layout"] == [4, 4]
    assert found["splits"]["chosen"]["imbalance"] == found["imbalance"]


def test_no_pipeline_no_table() -> None:
    assert "max/mean" not in render(make_plan(config_of(stage(4))))


def test_memory_limit_is_shown_and_names_the_stage_it_stops() -> None:
    shown = render(make_plan(config_of(stage(4, parallel={**PAIR, "memory_limit": "1GiB"}))))
    assert any(line.split()[3:] and "1 GiB" in line for line in shown.splitlines())
    config = config_of(stage(4, name="small", parallel={**PAIR, "memory_limit": "1MB"}))
    with pytest.raises(LayoutError, match=r"^stage 'small': no split of 4 layers over 2 pipeline"):
        make_plan(config)


def test_measured_times_make_another_plan(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    parallel = {**PAIR, "balance": "times", "layer_times": str(file)}
    config = config_of(stage(8, parallel=parallel))
    with pytest.raises(LayoutError, match=r"^stage 'stage0': layer times .*No such file"):
        make_plan(config)
    shape = model_shape(config.model, 8)
    (first,) = config.stages
    settings = timed_settings(shape, precision="bf16", micro_size=2, parallel=first.parallel)
    times = LayerTimes(
        settings=settings, device="abacus", rounds=1, layers={shape.layers[0]: 1.0},
        embedding=0.0, output=4.0,
    )  # fmt: skip
    file.write_text(times.to_json())
    plan = make_plan(config)
    (planned,) = plan.stages
    assert planned.layout == (6, 2)
    assert "chosen, times (abacus) " in render(plan)
    assert to_dict(plan)["stages"][0]["times_device"] == "abacus"
    assert planned.imbalance == 1.0
    assert planned.splits[0].imbalance == pytest.approx(8 / 6)
