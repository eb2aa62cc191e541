"""Growth in memory against growth through a checkpoint: the same bits, whatever the layouts."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megagrow.config import RunConfig
from megagrow.growth.in_memory import PHASES
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import config_of, stage

STEPS, LATER_STEPS = 2, 10
EXAMPLES = int(os.environ.get("MEGAGROW_EXAMPLES", "0"))
"""Random changes of layout to try on 1, 2 and 4 processes; without it, a few that stay the same."""
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}
BF16 = {"precision": "bf16"}
GPT2 = {"style": "gpt2", "num_query_groups": 4}  # tied embeddings, biases, learned positions


@dataclass(frozen=True, kw_only=True)
class Change:
    """From one depth and layout to another."""

    ranks: int
    old_layers: int
    new_layers: int
    old: dict[str, Any] = field(default_factory=dict)
    new: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "copy"
    sections: dict[str, Any] = field(default_factory=dict)

    def config(self, buckets: Path, output: Path, through: str) -> RunConfig:
        transition = {"optimizer": self.optimizer, "through": through}
        return config_of(
            buckets,
            output,
            stage(self.old_layers, STEPS, parallel=self.old),
            stage(self.new_layers, LATER_STEPS, parallel=self.new, transition=transition),
            checkpoint={"asynchronous": False, "growth_staging": "1MiB"},
            **self.sections,
        )


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a rank had after growing, and saw of ten steps."""

    weights: dict[str, torch.Tensor]
    shards: list[tuple[Any, dict[str, torch.Tensor]]]
    steps: set[float]
    losses: list[float]
    norms: list[float]


def _grow_and_train(config: RunConfig, quota: int | None) -> Seen:
    from megagrow.pipeline.redistribution import exchange
    from megagrow.pipeline.redistribution.shards import shards_of
    from megagrow.train.transition import enter_stage
    from tests.train import parts

    layouts.freeze_imports()
    run = parts.open_run(config)
    engine, state = parts.fresh(run)
    for batch in parts.batches(run, state, STEPS):
        parts.step(engine, batch)
    state = replace(state, step=STEPS, updates=STEPS)
    plan_route = exchange.plan_route
    with pytest.MonkeyPatch.context() as patch:
        if quota is not None:  # far less than the smallest staging memory that may be configured
            patch.setattr(
                "megagrow.growth.in_memory.plan_route",
                lambda fetches, staging_bytes: plan_route(fetches, staging_bytes=quota),
            )
        engine, state = enter_stage(run, engine, state)
    model = engine.trained(state.updates)
    held = shards_of(model)
    found = Seen(
        weights={key: value.detach().clone() for key, value in parts.parameters(engine).items()},
        shards=[
            (owned, {kind: tensors[index].clone() for kind, tensors in held.tensors.items()})
            for index, owned in enumerate(held.owned)
        ],
        steps=parts.adam_steps(engine),
        losses=[],
        norms=[],
    )
    for batch in parts.batches(run, state, LATER_STEPS):
        result = parts.step(engine, batch)
        found.losses.append(result.loss)
        found.norms.append(result.grad_norm)
    engine.release()
    return found


def _compare(config: RunConfig, reference: RunConfig, quota: int | None) -> list[str]:
    """What is not the same on this rank."""
    seen, expected = _grow_and_train(config, quota), _grow_and_train(reference, None)
    wrong = [
        key for key in expected.weights if not torch.equal(seen.weights[key], expected.weights[key])
    ]
    if seen.weights.keys() != expected.weights.keys():
        wrong.append("names")
    for (owned, mine), (other, theirs) in zip(seen.shards, expected.shards, strict=True):
        wrong += [f"{owned} {kind}" for kind in theirs if not torch.equal(mine[kind], theirs[kind])]
        if owned != other:
            wrong.append(f"{owned} is not {other}")
    for name in ("steps", "losses", "norms"):
        if getattr(seen, name) != getattr(expected, name):
            wrong.append(f"{name}: {getattr(seen, name)} is not {getattr(expected, name)}")
    assert len(expected.losses) == LATER_STEPS
    return wrong


CHANGES = {
    "one": Change(ranks=1, old_layers=2, new_layers=6),
    "one-reset": Change(ranks=1, old_layers=2, new_layers=4, optimizer="reset"),
    "dp2-to-pp2-bf16": Change(
        ranks=2, old_layers=2, new_layers=4, new={"pipeline": 2}, sections=BF16
    ),
    "pp2-tied-to-dp2": Change(
        ranks=2, old_layers=2, new_layers=4, old={"pipeline": 2}, sections={"model": GPT2}
    ),
    "dp2-buckets-to-tp2": Change(
        ranks=2,
        old_layers=2,
        new_layers=4,
        old={**OVERLAP, "ddp_bucket_size": 500},
        new={"tensor": 2, "sequence_parallel": True},
    ),
    "tp2-replicated-to-interleaved": Change(
        ranks=4,
        old_layers=2,
        new_layers=8,
        old={"tensor": 2, "distributed_optimizer": False},
        new={"pipeline": 2, "virtual_pipeline": 2, **OVERLAP},
        sections=BF16,
    ),
    "dp4-to-pp4": Change(ranks=4, old_layers=2, new_layers=4, new={"pipeline": 4}),
    "tp2-pp2-tied-to-tp4": Change(
        ranks=4,
        old_layers=2,
        new_layers=4,
        old={"tensor": 2, "pipeline": 2},
        new={"tensor": 4},
        sections={"model": GPT2, **BF16},
    ),
    "rebalanced": Change(
        ranks=4, old_layers=8, new_layers=8, old={"pipeline": 2}, new={"pipeline": 4}
    ),
}


SLOW = ("tp2-pp2-tied-to-tp4", "tp2-replicated-to-interleaved")
"""Left to `make test-all`; changes of the same kind on fewer ranks are not."""


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, change in CHANGES.items()
    ],
)
def test_it_equals_growth_through_a_checkpoint(
    request: pytest.FixtureRequest, buckets: Path, tmp_path: Path, change: Change
) -> None:
    quota = 4000 if change.ranks > 2 else None
    world: World = request.getfixturevalue(f"world{change.ranks}")
    configs = [
        change.config(buckets, tmp_path / through, through) for through in ("memory", "checkpoint")
    ]
    assert world.run(_compare, *configs, quota) == [[]] * change.ranks


@st.composite
def parallels(draw: st.DrawFn, ranks: int, layers: int) -> dict[str, Any]:
    """A layout of `ranks` processes that a model of `layers` layers can have."""
    sizes = [size for size in (1, 2, 4) if ranks % size == 0]
    tensor = draw(st.sampled_from(sizes))
    fitting = [size for size in sizes if size * tensor <= ranks and size <= layers]
    pipeline = draw(st.sampled_from(fitting))
    virtual = pipeline > 1 and layers >= 2 * pipeline and draw(st.booleans())
    distributed = draw(st.booleans())
    chunks = pipeline * (2 if virtual else 1)
    cuts = sorted(draw(st.permutations(range(1, layers)))[: chunks - 1])
    uneven = [end - start for start, end in pairwise([0, *cuts, layers])]
    return {
        "layers_per_chunk": draw(st.sampled_from([None, uneven])),
        "ddp_bucket_size": draw(st.sampled_from([None, 500])),
        "tensor": tensor,
        "pipeline": pipeline,
        "virtual_pipeline": 2 if virtual else 1,
        "sequence_parallel": tensor > 1 and draw(st.booleans()),
        "distributed_optimizer": distributed,
        "overlap_grad_reduce": distributed,
        "overlap_param_gather": distributed and draw(st.booleans()),
    }


@st.composite
def changes(draw: st.DrawFn, ranks: int) -> Change:
    """Any growth between any two layouts."""
    old_layers = draw(st.sampled_from([2, 4]))
    new_layers = old_layers * draw(st.integers(1, 3))
    sections = {
        "precision": draw(st.sampled_from(["fp32", "bf16"])),
        "model": draw(st.sampled_from([{"num_query_groups": 4}, GPT2])),
    }
    return Change(
        ranks=ranks,
        old_layers=old_layers,
        new_layers=new_layers,
        old=draw(parallels(ranks, old_layers)),
        new=draw(parallels(ranks, new_layers)),
        optimizer=draw(st.sampled_from(["copy", "reset"])),
        sections=sections,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(
    max_examples=EXAMPLES or 2,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not EXAMPLES,
)
@given(data=st.data())
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_layouts(
    request: pytest.FixtureRequest, buckets: Path, tmp_path: Path, ranks: int, data: st.DataObject
) -> None:
    world: World = request.getfixturevalue(f"world{ranks}")
    change = data.draw(changes(ranks))
    quota = data.draw(st.sampled_from([4000, None]))
    folder = tmp_path / secrets.token_hex(4)
    configs = [
        change.config(buckets, folder / through, through) for through in ("memory", "checkpoint")
    ]
    assert world.run(_compare, *configs, quota) == [[]] * ranks


def test_a_growth_record_says_what_it_took(world2: World, buckets: Path, tmp_path: Path) -> None:
    change = Change(ranks=2, old_layers=2, new_layers=4, new={"pipeline": 2})
    (record,) = layouts.train(world2, change.config(buckets, tmp_path, "memory")).of("growth")
    assert list(record["phases"]) == list(PHASES)
    assert 0 < sum(record["phases"].values()) < 2 * record["seconds"]  # each of the slowest rank
    assert record["through"] == "memory"
    assert record["peak_bytes"] > 1_000_000
    assert record["imbalance"].keys() == record["layout"].keys() == {"before", "after"}
    assert (record["layout"]["before"], sum(record["layout"]["after"])) == ([2], 4)
    parameters = [stage["parameters"] for stage in layouts.outcome(tmp_path).of("stage")]
    # Each rank needs its half of the new model and has half of the old one's shards.
    assert 0 < record["bytes_moved"] < 12 * parameters[1]
