"""Growth that needs whole tensors, in width and by LESA: the same in flight, whatever the layout,
through a checkpoint, and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from megagrow.conversion.exporting import find_checkpoint
from megagrow.plan.schedule import make_plan
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import STEP, config_of, stage
from tools.grow_checkpoint import main

WIDER = {"hidden_size": 64, "num_attention_heads": 8, "num_query_groups": 4, "ffn_hidden_size": 128}
UNEVEN = {"hidden_size": 48, "kv_channels": 8, "ffn_hidden_size": 80}
GPT2 = {"model": {"style": "gpt2", "num_query_groups": 4, "kv_channels": 8}}
WIDER_GPT2 = {"hidden_size": 64, "num_attention_heads": 8, "num_query_groups": 8,
              "ffn_hidden_size": 128}  # fmt: skip
BF16 = {"precision": "bf16"}
PP2, TP2 = {"pipeline": 2}, {"tensor": 2, "sequence_parallel": True}
LESA = {"epochs": 1}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


@pytest.mark.parametrize(
    ("layers", "before", "after", "model", "transition", "sections"),
    [
        ((2, 2), {}, {}, WIDER, {"width": {"operator": "hyperclone"}, "optimizer": "copy"}, {}),
        (
            (2, 4), PP2, TP2, WIDER,
            {"width": {"operator": "double"}, "optimizer": "copy", "learning_rate": "continue"},
            BF16,
        ),
        (
            (2, 2), TP2, PP2, WIDER_GPT2,
            {"width": {"operator": "split"}, "optimizer": "keep_old_zero_new"}, GPT2,
        ),
        (
            (2, 3), {}, TP2, UNEVEN,
            {"operator": "random", "noise": 0.1, "width": {"operator": "zero"},
             "optimizer": "scale", "moment_scale": [0.5, 0.25]},
            {},
        ),
        ((4, 6), PP2, {}, {}, {"operator": "lesa", "lesa": LESA, "optimizer": "copy"}, {}),
        (
            (3, 4), TP2, PP2, WIDER,
            {"operator": "lesa", "lesa": {**LESA, "norms": "first"},
             "width": {"operator": "rms_preserving"}, "optimizer": "keep_old_zero_new"},
            BF16,
        ),
    ],
    ids=["hyperclone-dp2", "stack-double-pp2-tp2-bf16", "split-gpt2-tp2-pp2",
         "random-zero-dp2-tp2", "lesa-pp2-dp2", "lesa-wider-tp2-pp2-bf16"],
)  # fmt: skip
def test_memory_and_checkpoint_give_the_same_bits(
    world1: World,
    world2: World,
    buckets: Path,
    tmp_path: Path,
    layers: tuple[int, int],
    before: dict[str, Any],
    after: dict[str, Any],
    model: dict[str, Any],
    transition: dict[str, Any],
    sections: dict[str, Any],
) -> None:
    runs = []
    for through in ("memory", "checkpoint"):
        config = config_of(
            buckets,
            tmp_path / through,
            stage(layers[0], 2, parallel=before),
            stage(
                layers[1],
                2,
                model=model,
                parallel=after,
                transition={"through": through, **transition},
            ),
            checkpoint={"asynchronous": False, "keep": 9, "growth_staging": "1MiB"},
            **sections,
        )
        runs.append(layouts.train(world2, config))
    assert runs[0].losses == runs[1].losses
    assert runs[0].norms == runs[1].norms
    last = layouts.tensors(world1, *(run.checkpoint(4) for run in runs))
    assert layouts.differing(*last) == []


@pytest.mark.parametrize(
    ("layers", "model", "transition", "arguments"),
    [
        (
            (2, 2), WIDER, {"width": {"operator": "hyperclone"}},
            ["--width", "hyperclone", "--hidden-size", "64", "--heads", "8", "--groups", "4",
             "--ffn-hidden-size", "128"],
        ),
        (
            (2, 4), UNEVEN, {"width": {"operator": "random"}, "noise": 0.2},
            ["--layers", "4", "--width", "random", "--hidden-size", "48",
             "--ffn-hidden-size", "80", "--noise", "0.2"],
        ),
        (
            (3, 4), {}, {"operator": "lesa", "lesa": LESA},
            ["--layers", "4", "--operator", "lesa", "--epochs", "1"],
        ),
    ],
    ids=["hyperclone", "stack-random", "lesa"],
)  # fmt: skip
def test_it_is_growth_on_disk(
    world1: World,
    world2: World,
    buckets: Path,
    tmp_path: Path,
    layers: tuple[int, int],
    model: dict[str, Any],
    transition: dict[str, Any],
    arguments: list[str],
) -> None:
    first = stage(layers[0], 1)
    base = layouts.train(world1, config_of(buckets, tmp_path / "base", first))
    grown = stage(layers[1], 1, model=model, transition=transition)
    config = config_of(buckets, tmp_path / "run", first, grown)
    flight, disk = tmp_path / "flight", tmp_path / "disk"
    flight.mkdir()
    world2.run(layouts.grow_and_save, config, base.checkpoint(1), flight)
    seed = ["--seed", str(config.seed)]
    assert main([str(base.folder), *arguments, *seed, "--output", str(disk)]) == 0
    one, other = layouts.tensors(world1, flight, find_checkpoint(disk))
    weights = [key for key in one if not key.startswith("optimizer.")]
    assert {key for key in other if not key.startswith("optimizer.")} == set(weights)
    assert [key for key in weights if not torch.equal(one[key], other[key])] == []


@pytest.mark.parametrize(
    ("operator", "model", "sections"),
    [
        ("hyperclone", WIDER, {}),
        ("hyperclone", WIDER, BF16),
        ("hyperclone", WIDER_GPT2, GPT2),
        ("double", WIDER, {}),
        ("zero", UNEVEN, {}),
        ("random", {**WIDER, "mask_tokens": STEP // 3}, {}),
    ],
)
def test_the_loss_goes_on_where_the_function_is_kept(
    world2: World, buckets: Path, tmp_path: Path, operator: str, model: dict[str, Any],
    sections: dict[str, Any],
) -> None:  # fmt: skip
    def loss(name: str, **keys: Any) -> float:
        stages = (stage(2, 2, parallel=TP2), stage(2, 1, parallel=PP2, **keys))
        config = config_of(buckets, tmp_path / name, *stages, **sections)
        return layouts.train(world2, config).losses[-1]

    sizes = {key: value for key, value in model.items() if key != "mask_tokens"}
    mask = {key: value for key, value in model.items() if key == "mask_tokens"}
    wide = loss("wide", model=sizes, transition={"width": {"operator": operator, **mask}})
    narrow = loss("narrow", transition={"optimizer": "reset", "learning_rate": "restart"})
    assert wide == pytest.approx(narrow, rel=5e-3 if sections is BF16 else 1e-5)


def test_a_doubled_models_moments_are_those_of_its_gradients(
    world1: World, buckets: Path, tmp_path: Path
) -> None:
    """With `copy` the doubled model trains on as the old one would: Adam's first step is the same,
    since it does not depend on a gradient's size."""
    transition = {"optimizer": "copy", "learning_rate": "continue"}
    keys = {"optimizer": {"weight_decay": 0.0, "clip_grad": 0.0, "epsilon": 1e-16}}
    losses = []
    for name, grown in (
        ("wide", {"model": WIDER, "transition": {"width": {"operator": "double"}, **transition}}),
        ("narrow", {"transition": transition}),
    ):
        config = config_of(buckets, tmp_path / name, stage(2, 3), stage(2, 3, **grown), **keys)
        losses.append(layouts.train(world1, config).losses)
    assert losses[0][:3] == losses[1][:3]
    assert losses[0][3] == pytest.approx(losses[1][3], rel=1e-5)
    # Later steps differ: a step of the same size changes twice as many weights.
    assert losses[0][5] != pytest.approx(losses[1][5], rel=1e-5)


def test_masks_rise_one_after_the_other_and_then_are_gone(
    world2: World, buckets: Path, tmp_path: Path
) -> None:
    """Resumed while they rise, under another layout, the losses go on."""
    width = {"operator": "random", "mask_tokens": STEP}
    transition = {"width": width, "learning_rate": "continue"}
    runs = {}
    for name, parallel in (("tp2", TP2), ("pp2", PP2)):
        stages = (stage(2, 1), stage(2, 5, model=WIDER, transition=transition, parallel=parallel))
        checkpoint = {"asynchronous": False, "keep": 9, "interval": STEP}
        runs[name] = config_of(buckets, tmp_path / name, *stages, checkpoint=checkpoint)
    whole = layouts.train(world2, runs["tp2"])
    grown = make_plan(runs["tp2"], 2).stages[1]
    masks = [grown.channel_masks_at(grown.first_token + step * STEP // 2) for step in range(8)]
    assert masks[:4] == [(0, 0, 0), (0.5, 0, 0), (1, 0, 0), (1, 0.5, 0)]
    assert masks[4:] == [(1, 1, 0), (1, 1, 0.5), (1, 1, 1), (1, 1, 1)]
    assert set(world2.run(layouts.run, runs["pp2"], str(whole.checkpoint(3)))) == {0}
    resumed = layouts.outcome(tmp_path / "pp2").losses
    assert resumed == pytest.approx(whole.losses[3:], rel=1e-4)
