"""Growth in flight: what the grown model is made of, and that all of it trains."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from megagrow.config import RunConfig
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import config_of, stage

OLD, NEW, STEPS = 2, 4, 2
GPT2 = {"style": "gpt2", "num_query_groups": 4}  # tied embeddings, biases


@dataclass(frozen=True, kw_only=True)
class Case:
    """A growth: on how many processes, from which layout to which."""

    ranks: int
    old: dict[str, Any]
    new: dict[str, Any]
    optimizer: str = "copy"
    precision: str = "fp32"
    model: tuple[tuple[str, Any], ...] = ()

    @property
    def start(self) -> tuple[Any, ...]:
        """What the small model must agree in."""
        return self.precision, self.model


OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}
CASES = {
    "one": Case(ranks=1, old={}, new={}),
    "one-reset": Case(ranks=1, old={}, new={}, optimizer="reset"),
    "tp2-to-sequence": Case(
        ranks=2, old={"tensor": 2}, new={"tensor": 2, "sequence_parallel": True}
    ),
    "pp2-to-interleaved": Case(
        ranks=2, old={"pipeline": 2}, new={"pipeline": 2, "virtual_pipeline": 2}
    ),
    "pp2-tied": Case(ranks=2, old={"pipeline": 2}, new={"pipeline": 2}, model=tuple(GPT2.items())),
    "dp2-overlap-to-dp2": Case(ranks=2, old=OVERLAP, new={}),
    "dp2-to-replicated-reset": Case(
        ranks=2, old={}, new={"distributed_optimizer": False}, optimizer="reset"
    ),
    "dp2-to-pp2-bf16": Case(ranks=2, old={}, new={"pipeline": 2}, precision="bf16"),
    "replicated-to-dp2-bf16": Case(
        ranks=2, old={"distributed_optimizer": False}, new={}, precision="bf16"
    ),
    "dp4-to-tp2-pp2": Case(
        ranks=4, old={}, new={"tensor": 2, "pipeline": 2, "sequence_parallel": True}
    ),
    "pp2-dp2-to-tp2-dp2-reset": Case(
        ranks=4, old={"pipeline": 2}, new={"tensor": 2}, optimizer="reset"
    ),
    "pp2-dp2-to-interleaved": Case(
        ranks=4, old={"pipeline": 2}, new={"pipeline": 2, "virtual_pipeline": 2, **OVERLAP}
    ),
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one rank saw of a growth."""

    adam_steps: set[float]
    unregistered: str
    still: str
    loss_before: float
    loss_after: float
    live_models: int


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A growth that was carried out."""

    case: Case
    old: dict[str, torch.Tensor]
    new: dict[str, torch.Tensor]
    reports: list[Report]


def make_config(
    buckets: Path, output: Path, case: Case, layers: int = NEW, through: str = "memory"
) -> RunConfig:
    small = stage(OLD, STEPS, parallel=case.old)
    transition = {"optimizer": case.optimizer, "through": through}
    large = stage(layers, 2, parallel=case.new, transition=transition)
    return config_of(
        buckets, output, small, large, precision=case.precision, model=dict(case.model)
    )


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


@pytest.fixture(scope="module")
def starts(
    world1: World, buckets: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[Any, ...], Path]:
    """Checkpoints of small models that one process has trained."""
    found = {}
    for case in CASES.values():
        if case.start not in found:
            one = Case(ranks=1, old={}, new={}, precision=case.precision, model=case.model)
            config = make_config(buckets, tmp_path_factory.mktemp("start"), one)
            found[case.start] = layouts.train(world1, config).checkpoint(STEPS)
    return found


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def grown(
    request: pytest.FixtureRequest,
    starts: dict[tuple[Any, ...], Path],
    buckets: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Grown:
    case: Case = request.param
    world: World = request.getfixturevalue(f"world{case.ranks}")
    config = make_config(buckets, tmp_path_factory.mktemp("grown"), case)
    target, reports = grow(world, config, starts[case.start])
    old, new = layouts.tensors(request.getfixturevalue("world1"), starts[case.start], target)
    return Grown(case=case, old=old, new=new, reports=reports)


def grow(world: World, config: RunConfig, start: Path) -> tuple[Path, list[Report]]:
    """Grows the model of a checkpoint; the folder of the new model, and what every rank saw."""
    target = Path(config.output) / "after"
    target.mkdir(parents=True)
    return target, world.run(_grow, config, start, target)


def _grow(config: RunConfig, checkpoint: Path, target: Path) -> Report:
    import gc
    import weakref

    from megatron.core import parallel_state

    from megagrow.checkpoint import sharded
    from megagrow.train.transition import enter_stage
    from tests.train import parts

    run = parts.open_run(config)
    engine, state = parts.restored(run, checkpoint)
    loss_before = parts.validation_loss(run, engine)
    old_chunks = [weakref.ref(chunk) for chunk in engine.chunks]
    engine, state = enter_stage(run, engine, state)
    gc.collect()
    live = sum(chunk() is not None for chunk in old_chunks)
    sharded.save(engine.trained(state.updates), target)
    adam_steps = parts.adam_steps(engine)
    loss_after = parts.validation_loss(run, engine)
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    (batch,) = parts.batches(run, state, 1)
    unregistered = _message(partial(parts.check_registered, engine, group))
    still = _message(partial(parts.check_moves, engine, partial(parts.step, engine, batch, 0.5)))
    return Report(
        adam_steps=adam_steps,
        unregistered=unregistered,
        still=still,
        loss_before=loss_before,
        loss_after=loss_after,
        live_models=live,
    )


def _message(check: Any) -> str:
    try:
        check()
    except AssertionError as error:
        return str(error)
    return ""


def sources(new: dict[str, torch.Tensor], prefix: str) -> dict[str, str]:
    """For each tensor of the grown model under `prefix`, the old one it should equal."""
    return {
        key: re.sub(r"layers\.(\d+)\.", lambda match: f"layers.{int(match[1]) % OLD}.", key)
        for key in new
        if key.startswith(prefix)
    }


def differing(grown: Grown, prefix: str) -> list[str]:
    """Tensors under `prefix` that are not bit for bit what they should be."""
    pairs = sources(grown.new, prefix)
    assert len(pairs) > 20, f"no tensors under {prefix}: {sorted(grown.new)}"
    return [new for new, old in pairs.items() if not torch.equal(grown.new[new], grown.old[old])]


WEIGHTS = ("decoder.", "embedding.", "output_layer.")


def test_layer_j_is_old_layer_j_mod_l(grown: Grown) -> None:
    weights = {key: value for key, value in grown.new.items() if key.startswith(WEIGHTS)}
    layers = {int(match[1]) for key in weights if (match := re.search(r"layers\.(\d+)\.", key))}
    assert layers == set(range(NEW))
    old_keys = {key for key in grown.old if key.startswith(WEIGHTS)}
    assert set(sources(weights, "").values()) == old_keys  # all of the old model is in the new one
    wrong = [
        new
        for new, old in sources(weights, "").items()
        if not torch.equal(weights[new], grown.old[old])
    ]
    assert wrong == []


def test_master_weights_grow_alike(grown: Grown) -> None:
    master = "optimizer.state.param."
    if grown.case.precision == "bf16":
        assert differing(grown, master) == []
    else:  # the weights are their own master: stored once
        assert [key for key in grown.new if key.startswith(master)] == []


def test_moments_follow_the_policy(grown: Grown) -> None:
    for moment in ("exp_avg", "exp_avg_sq"):
        prefix = f"optimizer.state.{moment}."
        if grown.case.optimizer == "copy":
            assert differing(grown, prefix) == []
        else:
            left = [key for key in sources(grown.new, prefix) if grown.new[key].any()]
            assert left == []
            assert len(sources(grown.new, prefix)) > 20


def test_adam_counts_its_steps_by_the_policy(grown: Grown) -> None:
    expected = {float(STEPS)} if grown.case.optimizer == "copy" else {0.0}
    assert [report.adam_steps for report in grown.reports] == [expected] * grown.case.ranks


def test_every_parameter_is_in_one_optimizer_group(grown: Grown) -> None:
    assert [report.unregistered for report in grown.reports] == [""] * grown.case.ranks


def test_the_first_step_moves_every_parameter(grown: Grown) -> None:
    assert [report.still for report in grown.reports] == [""] * grown.case.ranks


def test_the_old_model_is_freed(grown: Grown) -> None:
    assert [report.live_models for report in grown.reports] == [0] * grown.case.ranks


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_holds_one_model_at_a_time(
    world2: World, buckets: Path, tmp_path: Path, precision: str
) -> None:
    """Also after training, with every hook and callback in place that overlap needs."""
    rows = [stage(2, 1), stage(4, 1), stage(4, 1, parallel={"overlap_param_gather": False})]
    config = config_of(buckets, tmp_path, *rows, parallel=OVERLAP, precision=precision)
    assert world2.run(_run_and_count, config) == [[0, 0]] * 2


def _run_and_count(config: RunConfig) -> list[int]:
    """Runs; after each transition, how many chunks of the models before are alive."""
    import gc
    import weakref

    from megagrow.train import loop

    old: list[Any] = []
    alive = []
    enter_stage = loop.enter_stage

    def enter_and_count(run: Any, engine: Any, state: Any) -> Any:
        old.extend(weakref.ref(chunk) for chunk in engine.chunks)
        entered = enter_stage(run, engine, state)
        gc.collect()
        alive.append(sum(chunk() is not None for chunk in old))
        return entered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "enter_stage", enter_and_count)
        layouts.run(config)
    return alive


def test_stacking_changes_the_function_and_it_stays_finite(grown: Grown) -> None:
    for report in grown.reports:
        assert math.isfinite(report.loss_after)
        # A wrong exchange of the grown weights shows in the first digit, this in the third.
        assert 1e-4 < abs(report.loss_after - report.loss_before) < 0.5
    assert len({(report.loss_before, report.loss_after) for report in grown.reports}) == 1


@pytest.mark.parametrize(
    ("ranks", "old", "new"),
    [
        (1, {}, {"recompute": "full"}),
        (2, {"pipeline": 2}, {}),
        (2, OVERLAP, {"tensor": 2}),
        (2, {"distributed_optimizer": False}, {"pipeline": 2}),
    ],
    ids=["one", "pp2-to-dp2", "dp2-overlap-to-tp2", "replicated-to-pp2"],
)
def test_a_new_layout_alone_changes_nothing(
    request: pytest.FixtureRequest,
    world1: World,
    starts: dict[tuple[Any, ...], Path],
    buckets: Path,
    tmp_path: Path,
    ranks: int,
    old: dict[str, Any],
    new: dict[str, Any],
) -> None:
    case = Case(ranks=ranks, old=old, new=new)
    config = make_config(buckets, tmp_path, case, layers=OLD)
    target, reports = grow(request.getfixturevalue(f"world{ranks}"), config, starts[case.start])
    before, after = layouts.tensors(world1, starts[case.start], target)
    assert layouts.differing(before, after) == []
    # The sum over the replicas' losses may have another order.
    assert reports[0].loss_after == pytest.approx(reports[0].loss_before, rel=2e-7)
    if ranks == 1:
        assert reports[0].loss_after == reports[0].loss_before


@pytest.mark.parametrize("policy", ["restart", "continue"])
def test_the_learning_rate_follows_the_policy(
    world1: World, buckets: Path, tmp_path: Path, policy: str
) -> None:
    transition = {"optimizer": "reset", "learning_rate": policy}
    rate = {"peak": 8e-3, "warmup": 2 * layouts.STEP, "decay": "linear", "minimum": 0.0}
    stages = (stage(OLD, 3), stage(NEW, 3, transition=transition))
    config = config_of(buckets, tmp_path, *stages, learning_rate=rate)
    rates = [record["lr"] for record in layouts.train(world1, config).of("step")]
    # Middles of the steps: warmup 1/4, 3/4; then down to 0 at the end of the schedule.
    again = [0.25, 0.75, 0.5]
    on = [0.25, 0.75, 7 / 8, 5 / 8, 3 / 8, 1 / 8]
    expected = again + again if policy == "restart" else on
    assert rates == pytest.approx([8e-3 * share for share in expected])


@pytest.mark.parametrize("through", ["memory", "checkpoint"])
def test_unregistered_layers_turn_these_tests_red(
    world1: World,
    starts: dict[tuple[Any, ...], Path],
    buckets: Path,
    tmp_path: Path,
    through: str,
) -> None:
    case = CASES["one"]
    target = tmp_path / "after"
    target.mkdir()
    config = make_config(buckets, tmp_path, case, through=through)
    reports = world1.run(_grow_without_registration, config, starts[case.start], target)
    old, new = layouts.tensors(world1, starts[case.start], target)
    broken = Grown(case=case, old=old, new=new, reports=reports)
    test_layer_j_is_old_layer_j_mod_l(broken)  # the weights are there, and do not train
    with pytest.raises(AssertionError, match=r"decoder\.layers\.3"):
        test_every_parameter_is_in_one_optimizer_group(broken)
    with pytest.raises(AssertionError, match=r"decoder\.layers\.3"):
        test_the_first_step_moves_every_parameter(broken)
    named = set(re.findall(r"decoder\.layers\.(\d)", reports[0].unregistered))
    assert named == {str(layer) for layer in range(OLD, NEW)}
    assert set(re.findall(r"decoder\.layers\.(\d)", reports[0].still)) == named


def _grow_without_registration(config: RunConfig, checkpoint: Path, target: Path) -> Report:
    """`_grow` with a product in which layers beyond the old depth never reach the optimizer."""
    from megatron.core.transformer.transformer_layer import TransformerLayer

    from megagrow.train import engine

    build_model = engine.build_model

    def build_frozen(*args: Any) -> list[torch.nn.Module]:
        chunks = build_model(*args)
        for chunk in chunks:
            for module in chunk.modules():
                if isinstance(module, TransformerLayer) and module.layer_number > OLD:
                    module.requires_grad_(False)
        return chunks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "build_model", build_frozen)
        return _grow(config, checkpoint, target)
