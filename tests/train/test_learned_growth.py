"""LiGO in flight: against plain PyTorch, and the same under every layout and both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from megagrow.config import RunConfig
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.growth.ligo.operator import Ligo
from megagrow.growth.ligo.settings import PRESETS
from megagrow.growth.seeds import draw_seed
from megagrow.model.tensors import TensorName
from megagrow.plan.schedule import make_plan
from tests.distributed import World
from tests.growth.ligo.shapes import grown
from tests.growth.width.reference import Forward
from tests.train import layouts
from tests.train.layouts import STEP, config_of, stage

STEPS = 4
WIDER = {"hidden_size": 64, "num_attention_heads": 8, "num_query_groups": 4, "ffn_hidden_size": 128}
WIDER_GPT2 = {**WIDER, "num_query_groups": 8}
GPT2 = {"model": {"style": "gpt2", "num_query_groups": 4}}
PP2, TP2 = {"pipeline": 2}, {"tensor": 2, "sequence_parallel": True}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


def run(
    buckets: Path,
    folder: Path,
    before: dict[str, Any],
    after: dict[str, Any],
    *,
    through: str = "memory",
    wide: dict[str, Any],
    preset: str = "prts",
    **sections: Any,
) -> RunConfig:
    """2 layers, and 4 wider ones after the transition."""
    learned = {"preset": preset, "steps": STEPS, "learning_rate": 1e-2}
    transition = {"operator": "learned", "learned": learned, "through": through}
    return config_of(
        buckets,
        folder,
        stage(2, 2, parallel=before),
        stage(4, STEPS, model=wide, parallel=after, transition=transition),
        checkpoint={"asynchronous": False, "keep": 9, "growth_staging": "1MiB"},
        **sections,
    )


@pytest.mark.parametrize(
    ("wide", "sections", "preset"),
    [(WIDER, {}, "prts"), (WIDER_GPT2, GPT2, "ligo"), ({}, {}, "ligo")],
    ids=["llama", "gpt2-tied", "depth-alone"],
)
def test_it_learns_what_plain_pytorch_learns(
    world1: World,
    buckets: Path,
    tmp_path: Path,
    wide: dict[str, Any],
    sections: dict[str, Any],
    preset: str,
) -> None:
    config = run(buckets, tmp_path / "run", {}, {}, wide=wide, preset=preset, **sections)
    found = layouts.train(world1, config)
    (growth,) = found.of("growth")
    checkpoint = found.checkpoint(2)
    batches = world1.run(_batches, config, checkpoint)[0]
    (stored,) = layouts.tensors(world1, checkpoint)
    expected = reference(config, stored, batches)
    assert growth["learned_losses"] == pytest.approx(expected[:STEPS], rel=1e-5)
    # The stage then begins with the first of these batches again.
    assert found.of("step")[2]["loss"] == pytest.approx(expected[STEPS], rel=1e-5)
    assert growth["learned_losses"][0] > expected[STEPS]


def reference(
    config: RunConfig, stored: dict[str, torch.Tensor], batches: list[tuple[Any, Any]]
) -> list[float]:
    """Losses before each step of Adam by plain autograd, and then of the first batch."""
    old, new = (plan.shape for plan in make_plan(config, 1).stages)
    layout = megatron_layout(old)
    weights: dict[TensorName, torch.Tensor] = {}
    for key, place in layout.by_key.items():
        weights |= layout.split(place, stored[key].float())
    transition = config.stages[1].transition
    assert transition is not None
    assert transition.learned is not None
    settings = PRESETS[transition.learned.preset]
    ligo = Ligo(old, new, settings, draw_seed(config.seed, 1))
    adam = torch.optim.Adam(ligo.parameters(), lr=1e-2)
    losses = []
    for tokens, labels in [*batches, batches[0]]:
        logits = Forward(model=grown(ligo, weights), shape=new).logits(tokens)
        loss = F.cross_entropy(logits[..., : new.vocab_size].flatten(0, 1), labels.flatten())
        losses.append(float(loss.detach()))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return losses


def _batches(config: RunConfig, checkpoint: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the second stage begins with."""
    from megagrow.checkpoint.store import read_state
    from megagrow.train.state import TrainState
    from tests.train import parts

    parts.processes.start()
    run = parts.open_run(config)
    engine, _ = parts.restored(run, checkpoint)
    state = TrainState.from_dict(read_state(checkpoint)["train"], str(checkpoint))
    found = parts.batches(run, replace(state, stage=1), STEPS)
    engine.release()
    return [
        (
            torch.cat([micro.tokens for micro in batch.data]),
            torch.cat([micro.labels for micro in batch.data]),
        )
        for batch in found
    ]


@pytest.mark.parametrize(
    ("before", "after", "wide", "sections"),
    [
        ({}, {}, WIDER, {}),
        pytest.param(PP2, TP2, WIDER, {}, marks=pytest.mark.slow),
        (TP2, PP2, WIDER_GPT2, GPT2),
        ({}, {"distributed_optimizer": False}, WIDER, {"precision": "bf16"}),
    ],
    ids=["dp2", "pp2-to-tp2", "tp2-to-pp2-tied", "dp2-not-distributed-bf16"],
)
def test_every_layout_learns_the_same_both_ways(
    world1: World,
    world2: World,
    buckets: Path,
    tmp_path: Path,
    before: dict[str, Any],
    after: dict[str, Any],
    wide: dict[str, Any],
    sections: dict[str, Any],
) -> None:
    runs = [
        layouts.train(
            world2,
            run(buckets, tmp_path / through, before, after, through=through, wide=wide, **sections),
        )
        for through in ("memory", "checkpoint")
    ]
    assert runs[0].losses == runs[1].losses
    assert layouts.differing(*layouts.tensors(world1, *(each.checkpoint(6) for each in runs))) == []
    alone = layouts.train(world1, run(buckets, tmp_path / "one", {}, {}, wide=wide, **sections))
    learned = [each.of("growth")[0]["learned_losses"] for each in (runs[0], alone)]
    tolerance = 2e-2 if sections.get("precision") == "bf16" else 1e-4
    assert learned[0] == pytest.approx(learned[1], rel=tolerance)


def test_the_run_is_charged_with_the_learning(buckets: Path, tmp_path: Path) -> None:
    plan = make_plan(run(buckets, tmp_path, {}, {}, wide=WIDER), 1)
    small, large = plan.stages
    training = STEPS * STEP * large.flops_per_token.total
    assert training < large.growth_flops < 1.5 * training
    assert plan.flops == small.flops + large.growth_flops + large.flops
    assert plan.flops_at(2) == small.flops
    assert plan.flops_at(3) == small.flops + large.growth_flops + large.flops // STEPS
