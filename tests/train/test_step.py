"""One optimizer step: what it reports, and that a bad one leaves nothing behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from megagrow.config import RunConfig
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import config_of, stage

LAYOUTS = {
    "dp2": {},
    "dp2-overlap": {"overlap_grad_reduce": True, "overlap_param_gather": True},
    "dp2-replicated": {"distributed_optimizer": False},
    "tp2": {"tensor": 2, "sequence_parallel": True},
    "pp2": {"pipeline": 2},
}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


def make_config(
    buckets: Path, output: Path, parallel: dict[str, Any] | None = None, **sections: Any
) -> RunConfig:
    return config_of(buckets, output, stage(2, 4, parallel=parallel or {}), **sections)


@pytest.mark.parametrize("bad", ["loss", "gradient"])
@pytest.mark.parametrize(
    ("parallel", "precision"),
    [*((parallel, "fp32") for parallel in LAYOUTS.values()), ({}, "bf16")],
    ids=[*LAYOUTS, "dp2-bf16"],
)
def test_a_bad_step_on_one_rank_leaves_every_rank_untouched(
    world2: World,
    buckets: Path,
    tmp_path: Path,
    parallel: dict[str, Any],
    precision: str,
    bad: str,
) -> None:
    config = make_config(buckets, tmp_path, parallel, precision=precision)
    for rank in world2.run(_bad_step, config, bad):
        assert rank["updated"] == [True, False, True]
        assert math.isfinite(rank["loss"]) == (bad == "gradient")
        assert not math.isfinite(rank["norm"])  # not a number where it was not looked at
        assert rank["changed"] == []
        # The next step is the one that would have been, to the last bit.
        assert rank["recovered"] == rank["expected"]
        assert rank["differing"] == []


def _bad_step(config: RunConfig, bad: str) -> dict[str, Any]:
    from megagrow.runtime import groups, processes
    from tests.train import parts

    def begin() -> tuple[Any, Any]:
        run = parts.open_run(config)
        engine, state = parts.fresh(run)
        first, second = parts.batches(run, state, 2)
        results.append(parts.step(engine, first))
        return engine, second

    results: list[Any] = []
    engine, batch = begin()
    before = _tensors(engine)
    hook = _poison(engine, bad) if processes.rank() == 1 else None
    results.append(parts.step(engine, batch))
    if hook is not None:
        hook.remove()
    after = _tensors(engine)
    results.append(parts.step(engine, batch))
    final = _tensors(engine)
    updated = [result.updated for result in results]
    _, refused, recovered = results
    engine.release()
    groups.tear_down()
    engine, batch = begin()
    expected = parts.step(engine, batch)
    return {
        "updated": updated,
        "loss": refused.loss,
        "norm": refused.grad_norm,
        "changed": _differing(before, after),
        "recovered": (recovered.loss, recovered.grad_norm),
        "expected": (expected.loss, expected.grad_norm),
        "differing": _differing(final, _tensors(engine)),
    }


def _poison(engine: Any, bad: str) -> Any:
    """Makes the loss, or one gradient, of this rank not finite."""
    module = engine.chunks[-1].module
    if bad == "loss":
        # Its gradients stay finite, so only the loss tells.
        return module.register_forward_hook(lambda *call: call[-1] + math.inf)
    parameter = next(module.parameters())
    return parameter.register_hook(lambda gradient: gradient * math.inf)


def _tensors(engine: Any) -> dict[str, Any]:
    """Copies of this rank's weights, master weights, moments and step counts."""
    import torch

    from tests.train import parts

    found = dict(parts.values(engine))
    for part in engine.optimizer.chained_optimizers:
        for number, (parameter, state) in enumerate(part.optimizer.state.items()):
            found[f"master.{number}"] = parameter.detach().clone()
            for name, value in state.items():
                found[f"{name}.{number}"] = torch.as_tensor(value).clone()
    return found


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    import torch

    assert one.keys() == other.keys()
    assert any(name.startswith("exp_avg_sq.") for name in one)
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_the_gradient_norm_is_torchs(world1: World, buckets: Path, tmp_path: Path) -> None:
    config = make_config(buckets, tmp_path, optimizer={"clip_grad": 0.0})
    reported, recomputed, _ = world1.run(_norms, config)[0]
    assert reported == pytest.approx(recomputed, rel=1e-6)


@pytest.mark.parametrize("parallel", LAYOUTS.values(), ids=LAYOUTS)
def test_the_gradient_norm_is_that_of_one_process(
    world1: World, world2: World, buckets: Path, tmp_path: Path, parallel: dict[str, Any]
) -> None:
    alone = world1.run(_norms, make_config(buckets, tmp_path))[0][0]
    norms = [norm for norm, _, _ in world2.run(_norms, make_config(buckets, tmp_path, parallel))]
    assert norms[0] == norms[1] == pytest.approx(alone, rel=1e-6)


def test_clipping_scales_gradients_to_the_limit_and_reports_the_norm_before(
    world1: World, buckets: Path, tmp_path: Path
) -> None:
    results = {
        limit: world1.run(_norms, make_config(buckets, tmp_path, optimizer={"clip_grad": limit}))[0]
        for limit in (0.0, 0.5, 100.0)
    }
    reported = {norm for norm, _, _ in results.values()}
    assert len(reported) == 1
    assert reported.pop() > 1.0
    assert results[0.5][1] == pytest.approx(0.5, rel=1e-4)
    assert results[0.0][1] == results[100.0][1]  # 0 means never
    assert results[0.0][2] == results[100.0][2] != results[0.5][2]


def _norms(config: RunConfig) -> tuple[float, float, float]:
    """Reported norm, torch's norm of the gradients the update saw, and the loss after two steps."""
    import torch

    from tests.train import parts

    run = parts.open_run(config)
    engine, state = parts.fresh(run)
    first, second, third = parts.batches(run, state, 3)
    result = parts.step(engine, first)
    gradients = [parameter.main_grad for parameter in parts.parameters(engine).values()]
    seen = float(torch.nn.utils.get_total_norm(gradients))
    parts.step(engine, second)
    return result.grad_norm, seen, parts.step(engine, third).loss


def test_the_learning_rate_reaches_every_group(
    world1: World, buckets: Path, tmp_path: Path
) -> None:
    config = make_config(buckets, tmp_path, optimizer={"weight_decay": 0.0})
    moves = world1.run(_moves, config, [0.0, 1e-3, 4e-3])[0]
    assert set(moves[0.0].values()) == {0.0}
    for rate in (1e-3, 4e-3):  # Adam's first step is the rate itself, whatever the gradient
        assert moves[rate] == pytest.approx(dict.fromkeys(moves[rate], rate), rel=1e-2)


def _moves(config: RunConfig, rates: list[float]) -> dict[float, dict[str, float]]:
    from megagrow.runtime import groups
    from tests.train import parts

    found = {}
    for rate in rates:
        run = parts.open_run(config)
        engine, state = parts.fresh(run)
        (batch,) = parts.batches(run, state, 1)
        before = parts.values(engine)
        parts.step(engine, batch, rate)
        after = parts.values(engine)
        found[rate] = {name: float((after[name] - before[name]).abs().max()) for name in before}
        engine.release()
        groups.tear_down()
    return found
