"""The estimate of what a growth moves, against what growths really moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megagrow.plan.growth_traffic import growth_traffic
from megagrow.plan.schedule import make_plan
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import config_of, stage

CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any], str]] = {
    "dp2": (2, {}, {}, "copy"),
    "dp2-to-pp2": (2, {}, {"pipeline": 2}, "copy"),
    "tp2-to-dp2-reset": (2, {"tensor": 2}, {}, "reset"),
    "replicated": (2, {"distributed_optimizer": False}, {"pipeline": 2}, "copy"),
    "pp2-dp2-to-tp2-interleaved": (
        4,
        {"pipeline": 2},
        {"tensor": 2, "pipeline": 2, "virtual_pipeline": 2},
        "copy",
    ),
}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize(("ranks", "old", "new", "optimizer"), CASES.values(), ids=CASES)
def test_the_plan_says_about_what_a_run_then_moves(
    request: pytest.FixtureRequest,
    buckets: Path,
    tmp_path: Path,
    ranks: int,
    old: dict[str, Any],
    new: dict[str, Any],
    optimizer: str,
    style: str,
) -> None:
    model = (
        {"num_query_groups": 4} if style == "llama" else {"style": "gpt2", "num_query_groups": 4}
    )
    config = config_of(
        buckets,
        tmp_path,
        stage(2, 1, parallel=old),
        stage(4, 1, parallel=new, transition={"optimizer": optimizer}),
        model=model,
    )
    plan = make_plan(config, ranks)
    expected = growth_traffic(*plan.stages)
    assert expected is not None
    world: World = request.getfixturevalue(f"world{ranks}")
    (growth,) = layouts.train(world, config).of("growth")
    # Buffers are padded, which moves where shards meet by a few elements.
    assert growth["bytes_moved"] == pytest.approx(expected.moved, rel=0.05, abs=4096)


def test_a_stage_with_the_same_model_moves_nothing(buckets: Path, tmp_path: Path) -> None:
    config = config_of(buckets, tmp_path, stage(2), stage(2, mixture={"hard": 1.0}))
    assert growth_traffic(*make_plan(config, 2).stages) is None


def test_a_large_world_is_sampled(buckets: Path, tmp_path: Path) -> None:
    rows = (stage(2, batch={"global_size": 512}), stage(4, batch={"global_size": 512}))
    found = []
    for ranks in (64, 256):
        config = config_of(buckets, tmp_path, *rows)
        traffic = growth_traffic(*make_plan(config, ranks).stages)
        assert traffic is not None
        found.append(traffic.moved)
    assert found[1] == pytest.approx(found[0], rel=0.2)  # nearly all of it, in both
