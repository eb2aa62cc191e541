"""Runs whose layers differ, from the configuration on: trained, grown, stopped and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from megagrow.checkpoint.store import read_state
from megagrow.config import RunConfig
from megagrow.conversion.exporting import find_checkpoint, stored_model
from megagrow.model.shape import model_shape
from megagrow.plan.schedule import make_plan
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import LENGTH, STEP, config_of, stage
from tools.grow_checkpoint import main

CROWN = {
    "variant": "crown",
    "ffn_multipliers": [0.5, 3.0, 0.5],
    "qkv_multipliers": [0.5, 1.0, 0.5],
    "frame_multipliers": [2.0, 0.5],
    "queries_per_group": 2,
    "head_multiple": 4,
    "ffn_multiple": 16,
}
MODEL: dict[str, Any] = {
    "num_attention_heads": 16, "num_query_groups": None, "ffn_hidden_size": None,
    "layer_scaling": CROWN,
}  # fmt: skip
RESHAPE = {"width": {"operator": "random", "shrink": "first"}, "optimizer": "copy"}
PP2, TP2 = {"pipeline": 2}, {"tensor": 2, "sequence_parallel": True}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


def config(
    buckets: Path, output: Path, before: dict[str, Any], after: dict[str, Any], through: str
) -> RunConfig:
    """4 layers, then the profile of 8, two steps each."""
    rows = (
        stage(4, 2, parallel=before),
        stage(
            8, 2, parallel=after, transition={"operator": "stack", "through": through, **RESHAPE}
        ),
    )
    return config_of(buckets, output, *rows, model=MODEL)


def test_growth_reshapes_every_layer_to_the_profile_of_the_new_depth(
    world1: World, world2: World, world4: World, buckets: Path, tmp_path: Path
) -> None:
    one = layouts.train(world1, config(buckets, tmp_path / "one", {}, {}, "memory"))
    shapes = [planned.shape.layers for planned in make_plan(
        config(buckets, tmp_path / "plan", {}, {}, "memory"), 1
    ).stages]  # fmt: skip
    pairs = [(shapes[0][layer % 4], shapes[1][layer]) for layer in range(8)]
    for size in ("num_attention_heads", "num_query_groups", "ffn_hidden_size"):
        changes = {getattr(new, size) - getattr(old, size) for old, new in pairs}
        assert min(changes) < 0 < max(changes), size
    same = layouts.train(world2, config(buckets, tmp_path / "dp2", {}, PP2, "memory"))
    assert same.losses == pytest.approx(one.losses, rel=5e-7)
    runs = [
        layouts.train(world4, config(buckets, tmp_path / through, PP2, {**TP2, **PP2}, through))
        for through in ("memory", "checkpoint")
    ]
    assert runs[0].losses == pytest.approx(one.losses, rel=5e-7)
    assert runs[0].losses == runs[1].losses
    assert layouts.differing(*layouts.tensors(world1, *(run.checkpoint(4) for run in runs))) == []
    assert one.losses[-1] < one.losses[0]


@pytest.mark.parametrize("parallel", [TP2, PP2], ids=["tp2", "pp2"])
def test_gradients_are_those_of_one_process(
    world1: World, world2: World, buckets: Path, tmp_path: Path, parallel: dict[str, Any]
) -> None:
    """By the first moments after one step, which are a tenth of them."""
    sections: dict[str, Any] = {"model": MODEL, "optimizer": {"clip_grad": 0.0}}
    one, two = (
        layouts.train(
            world, config_of(buckets, tmp_path / name, stage(4, 1, parallel=here), **sections)
        )
        for name, world, here in (("one", world1, {}), ("two", world2, parallel))
    )
    assert two.losses == pytest.approx(one.losses, rel=5e-7)
    expected, found = layouts.tensors(world1, one.checkpoint(1), two.checkpoint(1))
    moments = [key for key in expected if key.startswith("optimizer.state.exp_avg.")]
    assert len(moments) > 20
    for key in moments:
        assert expected[key].any(), key
        scale = float(expected[key].abs().max())
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5 * scale, msg=key)


def test_growth_in_flight_is_growth_on_disk(
    world1: World, world2: World, buckets: Path, tmp_path: Path
) -> None:
    run = config(buckets, tmp_path / "run", {}, {}, "memory")
    base = layouts.train(world1, config_of(buckets, tmp_path / "base", stage(4, 1), model=MODEL))
    flight, disk = tmp_path / "flight", tmp_path / "disk"
    flight.mkdir()
    world2.run(layouts.grow_and_save, run, base.checkpoint(1), flight)
    arguments = ["--layers", "8", "--width", "random", "--shrink", "first"]
    assert main([str(base.folder), *arguments, "--seed", "5", "--output", str(disk)]) == 0
    one, other = layouts.tensors(world1, flight, find_checkpoint(disk))
    weights = [key for key in one if not key.startswith("optimizer.")]
    assert len(weights) > 50
    assert [key for key in weights if not torch.equal(one[key], other[key])] == []


def test_a_wider_model_of_the_same_profile_is_made_on_disk(
    world1: World, buckets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = layouts.train(world1, config_of(buckets, tmp_path / "base", stage(4, 1), model=MODEL))
    wider = ["--hidden-size", "64", "--heads", "32", "--width", "random", "--output"]
    assert main([str(base.folder), *wider, str(tmp_path / "wide")]) == 0
    state = read_state(tmp_path / "wide")
    model, layers = stored_model(state, tmp_path / "wide")
    expected = make_plan(
        config_of(
            buckets, tmp_path, stage(4, 1),
            model={**MODEL, "hidden_size": 64, "num_attention_heads": 32, "kv_channels": 2},
        ), 1,
    ).stages[0].shape  # fmt: skip
    assert model_shape(model, layers) == expected
    capsys.readouterr()
    assert main([str(base.folder), "--heads", "8", *wider[4:], str(tmp_path / "no")]) == 2
    assert "hidden_size 32 / kv_channels 2 = 16, not 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "step", [pytest.param(2, marks=pytest.mark.slow), 3], ids=["before-growth", "after-growth"]
)
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    world2: World, buckets: Path, tmp_path: Path, step: int
) -> None:
    """Also under another layout."""

    def run(name: str, after: dict[str, Any]) -> RunConfig:
        made = config(buckets, tmp_path / name, PP2, after, "memory")
        return replace(made, checkpoint=replace(made.checkpoint, interval=STEP))

    whole = layouts.train(world2, run("whole", TP2))
    start = str(whole.checkpoint(step))
    again = layouts.train(world2, run("again", TP2), resume=start)
    assert again.losses == whole.losses[step:]
    assert again.norms == whole.norms[step:]
    moved = layouts.train(world2, run("moved", PP2), resume=start)
    assert moved.losses == pytest.approx(whole.losses[step:], rel=5e-7)


def test_a_run_without_a_reshape_is_refused_before_it_starts(buckets: Path, tmp_path: Path) -> None:
    from megagrow.errors import ConfigError

    rows = (stage(4, 1), stage(8, 1, transition={"operator": "stack"}))
    plain = config_of(buckets, tmp_path, *rows, model=MODEL)
    with pytest.raises(ConfigError, match=r"To reshape layers, set an operator in width"):
        make_plan(plain, 1)
    grows_only = {"operator": "stack", "width": {"operator": "random"}}
    rows = (stage(4, 1), stage(8, 1, transition=grows_only))
    narrow = config_of(buckets, tmp_path, *rows, model=MODEL)
    with pytest.raises(ConfigError, match=r"set width\.shrink \(--shrink\) to first"):
        make_plan(narrow, 1)
    double = {"operator": "stack", "width": {"operator": "double"}}
    rows = (stage(4, 1), stage(8, 1, transition=double))
    with pytest.raises(ConfigError, match=r"hidden_size must go from 32 to 64, not 32$"):
        make_plan(config_of(buckets, tmp_path, *rows, model=MODEL), 1)
    listed = {"layer_scaling": {"variant": "table", "table": {"ffn_hidden_size": [64] * 8}}}
    idle = {"operator": "stack", "width": {"operator": "split"}}
    rows = (stage(4, 1), stage(8, 1, model=listed, transition=idle))
    with pytest.raises(ConfigError, match=r"width\.operator split has nothing to do"):
        make_plan(config_of(buckets, tmp_path, *rows, model={"ffn_hidden_size": 64}), 1)
    rows = (stage(4, 1), stage(8, 1, transition={"operator": "learned"}))
    with pytest.raises(ConfigError, match=r"LiGO: layers of the old model must be of one shape"):
        make_plan(config_of(buckets, tmp_path, *rows, model=MODEL), 1)
    rows = (stage(4, 1), stage(6, 1, transition={"operator": "lesa"}))
    with pytest.raises(ConfigError, match=r"lesa predicts a matrix from those of the neighbours"):
        make_plan(config_of(buckets, tmp_path, *rows, model=MODEL), 1)


def test_a_stage_that_freezes_what_was_just_reshaped_is_warned_of(
    buckets: Path, tmp_path: Path
) -> None:
    grown = stage(8, 2, transition={"operator": "stack", **RESHAPE}, trainable="new")
    plan = make_plan(config_of(buckets, tmp_path, stage(4, 1), grown, model=MODEL), 1)
    assert any("freezes layers that its growth gives new heads" in each for each in plan.warnings)


def test_tables_that_fit_grow_without_a_reshape(
    world1: World, world2: World, buckets: Path, tmp_path: Path
) -> None:
    """Stacked layers keep their sizes where the second table repeats the first."""
    table = {"num_attention_heads": [4, 8], "ffn_hidden_size": [48, 96]}
    twice = {key: sizes * 2 for key, sizes in table.items()}
    rows = [
        stage(2, 2, model={"layer_scaling": {"variant": "table", "table": table}}),
        stage(
            4, 2,
            model={"layer_scaling": {"variant": "table", "table": twice}},
            transition={"operator": "stack", "optimizer": "copy"},
        ),
    ]  # fmt: skip
    plain = {"num_attention_heads": 8, "num_query_groups": None, "ffn_hidden_size": 64}
    one, two = (
        layouts.train(
            world,
            config_of(
                buckets,
                tmp_path / name,
                *({**row, "parallel": parallel} for row in rows),
                model=plain,
            ),
        )
        for name, world, parallel in (("one", world1, {}), ("two", world2, PP2))
    )
    assert two.losses == pytest.approx(one.losses, rel=5e-7)
    assert one.of("step")[-1]["layers"] == 4


def test_the_plan_counts_the_flops_there_are(world1: World, buckets: Path, tmp_path: Path) -> None:
    run = config_of(buckets, tmp_path, stage(4, 1), model=MODEL)
    counted = world1.run(layouts.count_flops, run)[0]
    planned = make_plan(run, 1).stages[0]
    assert counted == planned.flops_per_token.total * 8 * LENGTH
