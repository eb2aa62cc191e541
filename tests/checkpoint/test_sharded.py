"""A checkpoint holds everything, under any layout, and gives it to any other."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megagrow.checkpoint import sharded
from megagrow.config import RunConfig
from megagrow.growth.keys import weight_source
from megagrow.growth.plan import GrowthPlan, copy_plan
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import config_of, stage

LAYERS, STEPS = 4, 2
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}
MOMENTS = ("optimizer.state.exp_avg.", "optimizer.state.exp_avg_sq.")
MASTER = "optimizer.state.param."


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layout to load and save under."""

    ranks: int
    parallel: dict[str, Any]
    kind: str = "fp32"


KINDS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "tied": {"model": {"style": "gpt2", "num_query_groups": 4}},
}
CASES = {
    "one": Case(ranks=1, parallel={}),
    "tp2": Case(ranks=2, parallel={"tensor": 2, "sequence_parallel": True}),
    "pp2": Case(ranks=2, parallel={"pipeline": 2, "virtual_pipeline": 2}),
    "dp2": Case(ranks=2, parallel={}),
    "dp2-replicated": Case(ranks=2, parallel={"distributed_optimizer": False}),
    "dp2-overlap-bf16": Case(ranks=2, parallel=OVERLAP, kind="bf16"),
    "dp2-replicated-bf16": Case(ranks=2, parallel={"distributed_optimizer": False}, kind="bf16"),
    "pp2-tied": Case(ranks=2, parallel={"pipeline": 2}, kind="tied"),
    "tp2-pp2": Case(ranks=4, parallel={"tensor": 2, "pipeline": 2}),
    "tp2-dp2-tied": Case(ranks=4, parallel={"tensor": 2}, kind="tied"),
    "pp2-dp2-bf16": Case(ranks=4, parallel={"pipeline": 2, **OVERLAP}, kind="bf16"),
}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


def make_config(
    buckets: Path, output: Path, case: Case, layers: int = LAYERS, steps: int = STEPS
) -> RunConfig:
    rows = stage(layers, steps, parallel=case.parallel)
    return config_of(buckets, output, rows, **KINDS[case.kind])


@pytest.fixture(scope="module")
def starts(
    world1: World, buckets: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A checkpoint of each kind, from one process that trained two steps."""
    found = {}
    for kind in KINDS:
        config = make_config(
            buckets, tmp_path_factory.mktemp(kind), Case(ranks=1, parallel={}, kind=kind)
        )
        found[kind] = layouts.train(world1, config).checkpoint(STEPS)
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_loaded_and_saved_again_it_is_the_same(
    request: pytest.FixtureRequest,
    world1: World,
    starts: dict[str, Path],
    buckets: Path,
    tmp_path: Path,
    case: Case,
) -> None:
    again = tmp_path / "again"
    again.mkdir()
    world: World = request.getfixturevalue(f"world{case.ranks}")
    seen = world.run(_save_again, make_config(buckets, tmp_path, case), starts[case.kind], again)
    assert seen == [({float(STEPS)}, [])] * case.ranks
    before, after = layouts.tensors(world1, starts[case.kind], again)
    assert layouts.differing(before, after) == []
    assert all(before[key].any() for key in before if key.startswith(MOMENTS))


def _save_again(config: RunConfig, checkpoint: Path, target: Path) -> tuple[set[float], list[str]]:
    """Adam's step counts, and the weights that are not those of the optimizer."""
    from tests.train import parts

    run = parts.open_run(config)
    engine, state = parts.restored(run, checkpoint)
    stale = []
    for name, parameter in parts.parameters(engine).items():
        main = getattr(parameter, "main_param", None)
        if main is None or main.numel() != parameter.numel():
            continue  # fp32, or another rank has a part of it
        if not torch.equal(main.view(-1).to(parameter.dtype), parameter.view(-1)):
            stale.append(name)
    sharded.save(engine.trained(state.updates), target)
    return parts.adam_steps(engine), stale


def test_fp32_weights_are_stored_once(world1: World, starts: dict[str, Path]) -> None:
    fp32, bf16 = layouts.tensors(world1, starts["fp32"], starts["bf16"])
    assert [key for key in fp32 if key.startswith(MASTER)] == []
    masters = {key.removeprefix(MASTER): bf16[key] for key in bf16 if key.startswith(MASTER)}
    assert len(masters) > 30
    for key, master in masters.items():
        assert master.dtype == torch.float32
        assert torch.equal(master.bfloat16(), bf16[key])
        assert not torch.equal(master, bf16[key].float()) or "norm" in key


def test_what_is_saved_is_current_where_the_gather_is_put_off(
    world1: World, world2: World, buckets: Path, tmp_path: Path
) -> None:
    """No evaluation comes between the last update and the save."""
    data = {"validation_fraction": 0.0}
    saved = []
    for name, parallel in (("plain", {}), ("overlap", OVERLAP)):
        rows = stage(2, 2, parallel=parallel)
        outcome = layouts.train(world2, config_of(buckets, tmp_path / name, rows, data=data))
        saved.append(outcome.checkpoint(2))
    plain, overlap = layouts.tensors(world1, *saved)
    assert layouts.differing(plain, overlap) == []


@pytest.mark.parametrize("moments", ["copy", "reset"])
@pytest.mark.parametrize(
    ("ranks", "parallel", "plan"),
    [
        (1, {}, copy_plan("stack", LAYERS, [*range(LAYERS)] * 3)),
        (2, {"pipeline": 2}, copy_plan("stack", LAYERS, [*range(LAYERS)] * 2)),
        (2, {}, copy_plan("any", LAYERS, [3, 3, 3, 0, 1])),
        (2, {"tensor": 2}, copy_plan("any", LAYERS, [2])),
    ],
    ids=["threefold", "pp2-twofold", "dp2-any", "tp2-one-layer"],
)
def test_growth_reads_the_layers_of_the_plan(
    request: pytest.FixtureRequest,
    world1: World,
    starts: dict[str, Path],
    buckets: Path,
    tmp_path: Path,
    ranks: int,
    parallel: dict[str, Any],
    plan: GrowthPlan,
    moments: str,
) -> None:
    grown = tmp_path / "grown"
    grown.mkdir()
    case = Case(ranks=ranks, parallel=parallel)
    config = make_config(buckets, tmp_path, case, layers=plan.new_layers)
    world: World = request.getfixturevalue(f"world{ranks}")
    steps = world.run(_load_grown, config, starts["fp32"], grown, plan, moments)
    assert steps == [{7.0}] * ranks  # the number it was given
    old, new = layouts.tensors(world1, starts["fp32"], grown)
    layers = set()
    for key, value in new.items():
        match = re.search(r"layers\.(\d+)\.", key)
        source = key
        if match is not None:
            layers.add(int(match[1]))
            layer = plan.layer_map[int(match[1])]
            source = re.sub(r"layers\.\d+\.", f"layers.{layer}.", key)
        if moments == "reset" and key.startswith(MOMENTS):
            assert not value.any(), key
        else:
            assert torch.equal(value, old[source]), key
    assert layers == set(range(plan.new_layers))


def _load_grown(
    config: RunConfig, checkpoint: Path, target: Path, plan: GrowthPlan, moments: Any
) -> set[float]:
    from tests.train import parts

    run = parts.open_run(config)
    engine, _ = parts.fresh(run)
    weights = weight_source(plan)
    sharded.load(
        engine.trained(7),
        checkpoint,
        weights=weights,
        moments=weights if moments == "copy" else lambda _: None,
    )
    sharded.save(engine.trained(7), target)
    return parts.adam_steps(engine)


def test_a_model_that_never_stepped_can_be_saved(
    world1: World, world2: World, buckets: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "first", tmp_path / "again"]
    for folder in folders:
        folder.mkdir()
    config = make_config(buckets, tmp_path, Case(ranks=2, parallel={}))
    assert world2.run(_save_fresh, config, *folders) == [{0.0}] * 2
    first, again = layouts.tensors(world1, *folders)
    assert layouts.differing(first, again) == []
    assert [key for key in first if key.startswith(MOMENTS) and first[key].any()] == []


def _save_fresh(config: RunConfig, first: Path, again: Path) -> set[float]:
    from tests.train import parts

    run = parts.open_run(config)
    engine, _ = parts.fresh(run)
    sharded.save(engine.trained(0), first)
    sharded.load(engine.trained(0), first)
    sharded.save(engine.trained(0), again)
    return parts.adam_steps(engine)


def test_it_loads_with_and_without_transformer_engine(
    world1: World, starts: dict[str, Path], buckets: Path, tmp_path: Path
) -> None:
    """Transformer Engine's layers add an object to the state that no other layer has."""
    target = tmp_path / "again"
    target.mkdir()
    config = make_config(buckets, tmp_path, Case(ranks=1, parallel={}))
    assert world1.run(_save_with_extra_state, config, starts["fp32"], target) == [["mine"]]
    before, after = layouts.tensors(world1, starts["fp32"], target)
    assert layouts.differing(before, after) == []
    files = [path.read_bytes() for path in target.iterdir() if path.is_file()]
    assert [each for each in files if b"_extra_state" in each] == []


def _save_with_extra_state(config: RunConfig, checkpoint: Path, target: Path) -> list[Any]:
    from megatron.core.dist_checkpointing.mapping import ShardedObject

    from tests.train import parts

    class LikeTransformerEngine(torch.nn.Module):
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module
            self.extra: list[Any] = []

        def sharded_state_dict(self, **kwargs: Any) -> dict[str, Any]:
            state = self.module.sharded_state_dict(**kwargs)
            key = "decoder.layers.0._extra_state"
            return {**state, key: ShardedObject(key, "mine", (1,), (0,))}

        def load_state_dict(self, state: Any, strict: bool = True) -> Any:
            self.extra.append(state.pop("decoder.layers.0._extra_state"))
            return self.module.load_state_dict(state, strict=strict)

    run = parts.open_run(config)
    engine, _ = parts.fresh(run)
    trained = engine.trained(STEPS)
    module = LikeTransformerEngine(trained.chunks[0])
    model = replace(trained, chunks=[module])
    sharded.load(model, checkpoint)
    sharded.save(model, target)
    return module.extra


class _LikeFusedAdam(torch.optim.SGD):
    """Keeps its step count where Transformer Engine's and Apex's Adam do: in its groups."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            if group["params"]:
                group["step"] = group.get("step", 0) + 1


def test_a_fused_adam_goes_on_with_its_step_count() -> None:
    groups = [{"params": [torch.zeros(1, requires_grad=True)]}, {"params": []}]
    adam = _LikeFusedAdam(groups, lr=1.0)
    optimizer: Any = SimpleNamespace(chained_optimizers=[SimpleNamespace(optimizer=adam)])
    sharded.set_updates(optimizer, 4)
    adam.step()
    assert [group.get("step") for group in adam.param_groups] == [5, None]
    sharded.set_updates(optimizer, 0)
    adam.step()
    assert [group.get("step") for group in adam.param_groups] == [1, None]


def test_a_model_of_another_depth_is_refused(
    world1: World, starts: dict[str, Path], buckets: Path, tmp_path: Path
) -> None:
    config = make_config(buckets, tmp_path, Case(ranks=1, parallel={}), layers=LAYERS + 2)
    assert "layers.4" in world1.run(_load_wrong, config, starts["fp32"])[0]


def _load_wrong(config: RunConfig, checkpoint: Path) -> str:
    from tests.train import parts

    try:
        parts.restored(parts.open_run(config), checkpoint)
    except BaseException as error:  # torch's CheckpointException is no Exception
        return repr(error)
    return ""


@pytest.mark.parametrize(
    ("ranks", "parallel", "exact"),
    [(1, {}, True), (2, {"pipeline": 2}, True), (2, {"tensor": 2}, False), (2, OVERLAP, False)],
    ids=["one", "pp2", "tp2", "dp2"],
)
def test_training_goes_on_as_if_never_stopped(
    request: pytest.FixtureRequest,
    world1: World,
    buckets: Path,
    tmp_path: Path,
    ranks: int,
    parallel: dict[str, Any],
    exact: bool,
) -> None:
    """Bit for bit where the layout adds up in the same order; steps are not clipped."""
    sections = {
        "optimizer": {"clip_grad": 0.0},
        "checkpoint": {"interval": layouts.STEP, "keep": 9},
    }
    rows = [stage(2, 4, mixture={"easy": 1.0})]
    whole = layouts.train(world1, config_of(buckets, tmp_path / "whole", *rows, **sections))
    rows = [stage(2, 4, mixture={"easy": 1.0}, parallel=parallel)]
    config = config_of(buckets, tmp_path / "resumed", *rows, **sections)
    world: World = request.getfixturevalue(f"world{ranks}")
    resumed = layouts.train(world, config, str(whole.checkpoint(2)))
    assert [record["step"] for record in resumed.of("step")] == [3, 4]
    if exact:
        assert resumed.losses == whole.losses[2:]
    assert resumed.losses == pytest.approx(whole.losses[2:], rel=5e-7)
    assert resumed.samples == whole.samples[2:]
