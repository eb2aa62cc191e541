"""What growth in width makes of moments, and masks of new channels, against plain tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from megagrow.checkpoint import sharded
from megagrow.checkpoint.keys import MOMENTS
from megagrow.config import RunConfig
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.growth.width.axes import Axis
from megagrow.growth.width.channels import copied, kept
from megagrow.growth.width.masks import mask_of
from megagrow.model.tensors import NORMS, TensorName
from megagrow.plan.schedule import make_plan
from tests.distributed import World
from tests.growth.width.reference import Forward
from tests.train import layouts
from tests.train.layouts import STEP, config_of, stage

WIDER = {"hidden_size": 64, "num_attention_heads": 8, "num_query_groups": 4, "ffn_hidden_size": 128}
TP2 = {"tensor": 2, "sequence_parallel": True}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


@pytest.mark.parametrize("optimizer", ["copy", "keep_old_zero_new"])
def test_moments_of_new_channels_are_copied_or_zero(
    world1: World, world2: World, buckets: Path, tmp_path: Path, optimizer: str
) -> None:
    transition = {"width": {"operator": "hyperclone"}, "optimizer": optimizer}
    first = stage(2, 2)
    config = config_of(
        buckets,
        tmp_path / "run",
        first,
        stage(2, 1, model=WIDER, transition=transition, parallel=TP2),
    )
    base = layouts.train(world2, config_of(buckets, tmp_path / "base", first))
    grown = tmp_path / "grown"
    grown.mkdir()
    world2.run(layouts.grow_and_save, config, base.checkpoint(2), grown)
    before, after = layouts.tensors(world1, base.checkpoint(2), grown)
    old, new = (each.shape for each in make_plan(config, 2).stages)
    expect = copied if optimizer == "copy" else kept
    narrow, wide = megatron_layout(old), megatron_layout(new)
    for prefix in MOMENTS:
        for key, stored in narrow.by_key.items():
            parts = narrow.split(stored, before[prefix + key])
            found = wide.split(wide.by_key[key], after[prefix + key])
            for name in stored.parts:
                assert parts[name].any(), name
                assert torch.equal(found[name], expect(name, parts[name], old, new)), name


def test_masks_multiply_the_outputs_of_their_axis(
    world1: World, buckets: Path, tmp_path: Path
) -> None:
    """Half-risen, each at another value: FFN, hidden, heads."""
    values = (0.5, 0.25, 0.75)
    transition = {"width": {"operator": "random", "mask_tokens": STEP}}
    config = config_of(
        buckets, tmp_path / "run", stage(2, 1), stage(2, 3, model=WIDER, transition=transition)
    )
    ((found, weights, tokens, labels),) = world1.run(_masked_loss, config, values)
    old, new = (each.shape for each in make_plan(config, 1).stages)
    by_axis = dict(zip((Axis.FFN, Axis.HIDDEN, Axis.QUERY), values, strict=True))
    by_axis[Axis.GROUP] = by_axis[Axis.QUERY]

    def masks(name: TensorName) -> torch.Tensor | None:
        mask = mask_of(name, old, new)
        if mask is None or name.role in NORMS:
            return None
        vector = torch.full((mask.new,), by_axis[mask.axis])
        vector[: mask.old] = 1.0
        return vector

    layout = megatron_layout(new)
    model: dict[TensorName, torch.Tensor] = {}
    for key, stored in layout.by_key.items():
        model |= layout.split(stored, weights[key])
    logits = Forward(model=model, shape=new, masks=masks).logits(tokens)
    expected = F.cross_entropy(logits[..., : new.vocab_size].flatten(0, 1), labels.flatten())
    assert found == pytest.approx(float(expected), rel=1e-5)


def _masked_loss(
    config: RunConfig, values: tuple[float, ...]
) -> tuple[float, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    import tempfile

    from megatron.core.dist_checkpointing import load_plain_tensors

    from megagrow.model import forward_backward
    from megagrow.train.transition import enter_stage
    from tests.train import parts

    run = parts.open_run(config)
    engine, state = parts.fresh(run)
    engine, state = enter_stage(run, engine, state)
    (batch,) = parts.batches(run, state, 1)
    engine._channels.values = values
    loss, _ = forward_backward.run(engine.chunks, batch, forward_only=True).read()
    with tempfile.TemporaryDirectory() as folder:
        sharded.save(engine.trained(0), folder)
        weights = {
            key: value.clone()
            for key, value in load_plain_tensors(folder).items()
            if isinstance(value, torch.Tensor) and not key.startswith("optimizer.")
        }
    tokens = torch.cat([micro.tokens for micro in batch.data])
    labels = torch.cat([micro.labels for micro in batch.data])
    return loss, weights, tokens, labels
