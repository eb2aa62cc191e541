"""Runs that begin with the weights of another checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from megagrow.checkpoint import sharded
from megagrow.checkpoint.keys import MOMENTS
from megagrow.config import RunConfig
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import Outcome, config_of, stage

BF16 = {"precision": "bf16"}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


@pytest.fixture(scope="module")
def base(world1: World, buckets: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return layouts.train(
        world1, config_of(buckets, tmp_path_factory.mktemp("base"), stage(2, 2), **BF16)
    )


def _begin(config: RunConfig, folder: Path) -> None:
    from megagrow.train.pretrain import _begin as begin
    from tests.train import parts

    engine, state = begin(parts.open_run(config), None)
    assert (state.step, state.updates) == (0, 0)
    sharded.save(engine.trained(0), folder)


def test_weights_are_the_checkpoint_s_and_moments_zero(
    world1: World, world2: World, buckets: Path, base: Outcome, tmp_path: Path
) -> None:
    parallel = {"tensor": 2}
    source = {"initialise_from": str(base.folder), **BF16}
    config = config_of(buckets, tmp_path / "run", stage(2, 1, parallel=parallel), **source)
    (tmp_path / "begun").mkdir()
    world2.run(_begin, config, tmp_path / "begun")
    before, after = layouts.tensors(world1, base.checkpoint(2), tmp_path / "begun")
    assert {key.startswith(MOMENTS) for key in layouts.differing(before, after)} == {True}
    assert not any(value.any() for key, value in after.items() if key.startswith(MOMENTS))


def test_such_a_run_trains_and_resumes(
    world2: World, buckets: Path, base: Outcome, tmp_path: Path
) -> None:
    config = config_of(
        buckets,
        tmp_path / "run",
        stage(2, 1),
        stage(4, 1),
        initialise_from=str(base.folder),
        **BF16,
    )
    run = layouts.train(world2, config)
    fresh = layouts.train(world2, config_of(buckets, tmp_path / "fresh", stage(2, 1), **BF16))
    assert run.losses[0] < fresh.losses[0]  # it has learned something
    assert layouts.train(world2, config, resume="auto").losses == run.losses


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": {"ffn_hidden_size": 96}}, "model.ffn_hidden_size: 64 there, 96 here"),
        ({"layers": 4}, "layers: 2 there, 4 in stage 'stage0'"),
        ({"initialise_from": "nowhere"}, "nowhere is neither a run nor a checkpoint"),
    ],
)
def test_another_model_is_refused(
    world1: World,
    buckets: Path,
    base: Outcome,
    tmp_path: Path,
    keys: dict[str, object],
    message: str,
) -> None:
    layers = keys.pop("layers", 2)
    assert isinstance(layers, int)
    sections = {"initialise_from": str(base.folder), **BF16, **keys}
    config = config_of(buckets, tmp_path, stage(layers, 1), **sections)
    assert world1.run(_refusal, config)[0].count(message) == 1


def _refusal(config: RunConfig) -> str:
    from megagrow.errors import CheckpointError
    from megagrow.train.pretrain import _begin as begin
    from tests.train import parts

    with pytest.raises(CheckpointError) as error:
        begin(parts.open_run(config), None)
    return str(error.value)


def test_sizes_that_are_said_or_follow_are_the_same(
    world2: World, buckets: Path, base: Outcome, tmp_path: Path
) -> None:
    said = {"kv_channels": 8, "tie_embeddings": False}
    config = config_of(
        buckets, tmp_path / "run", stage(2, 1), initialise_from=str(base.folder), model=said, **BF16
    )
    assert layouts.train(world2, config).of("step")


def test_a_published_model_grows_at_once(
    world2: World, buckets: Path, base: Outcome, tmp_path: Path
) -> None:
    """A first stage without tokens; what is new is known, and what is kept loses nothing."""
    grown = {"operator": "stack", "new_output": "zero"}
    config = config_of(
        buckets,
        tmp_path / "run",
        stage(2, 0),
        stage(4, 2, trainable="new", transition=grown),
        initialise_from=str(base.folder),
        **BF16,
    )
    run = layouts.train(world2, config)
    (growth,) = run.of("growth")
    assert growth["flops"] == 0
    assert growth["losses"] == pytest.approx(base.of("eval")[-1]["losses"], rel=1e-3)
    assert [record["stage"] for record in run.of("step")] == ["stage1"] * 2
