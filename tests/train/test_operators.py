"""Growth operators and policies in whole runs: both ways of growing give the same bits."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from megagrow.checkpoint.keys import MASTER, MOMENTS
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import STEP, Outcome, config_of, stage

GPT2 = {"model": {"style": "gpt2", "num_query_groups": 4}}
BF16 = {"precision": "bf16"}
PP2 = {"pipeline": 2}
TP2 = {"tensor": 2, "sequence_parallel": True}

WARM = {"trainable": "new"}
RUNS: dict[str, dict[str, Any]] = {
    "random-on-top": {"operator": "random"},
    "random-below-keeps-moments": {
        "operator": "random",
        "insert": "bottom",
        "optimizer": "keep_old_zero_new",
        "learning_rate": "continue",
    },
    "pattern-with-noise": {"operator": "pattern", "pattern": "12-2x2", "noise": 0.2},
    "expand-scales-moments": {
        "operator": "expand",
        "optimizer": "scale",
        "moment_scale": [0.5, 0.25],
        "learning_rate": "rewind",
    },
    "zero-rewarms": {
        "operator": "stack",
        "new_output": "zero",
        "optimizer": "keep_old_zero_new",
        "learning_rate": "rewarm_new",
        "rewarm_factor": 2.0,
        "rewarm_tokens": STEP,
    },
}
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "dp2": ({}, {}, {}),
    "pp2-to-tp2-bf16": (PP2, TP2, BF16),
    "tp2-to-pp2-tied": ({"tensor": 2}, PP2, GPT2),
}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


def grown(
    world: World,
    buckets: Path,
    folder: Path,
    layout: str,
    through: str,
    transition: dict[str, Any],
    **second: Any,
) -> Outcome:
    """2 layers, 4 after the transition, and then all of them trained."""
    before, after, sections = LAYOUTS[layout]
    new = {"parallel": after}
    stages = (
        stage(2, 2, parallel=before),
        stage(4, 2, transition={"through": through, **transition}, **new, **second),
        stage(4, 2, transition={"through": through}, **new),
    )
    return layouts.train(world, config_of(buckets, folder / through, *stages, **sections))


@pytest.mark.parametrize(
    ("operator", "layout", "second"),
    [
        ("random-on-top", "pp2-to-tp2-bf16", WARM),
        ("random-below-keeps-moments", "dp2", {}),
        pytest.param("pattern-with-noise", "pp2-to-tp2-bf16", {}, marks=pytest.mark.slow),
        ("pattern-with-noise", "dp2", WARM),
        pytest.param("expand-scales-moments", "tp2-to-pp2-tied", {}, marks=pytest.mark.slow),
        ("zero-rewarms", "tp2-to-pp2-tied", WARM),
        pytest.param("zero-rewarms", "pp2-to-tp2-bf16", {}, marks=pytest.mark.slow),
    ],
)
def test_memory_and_checkpoint_give_the_same_bits(
    world1: World,
    world2: World,
    buckets: Path,
    tmp_path: Path,
    operator: str,
    layout: str,
    second: dict[str, Any],
) -> None:
    runs = [
        grown(world2, buckets, tmp_path, layout, through, RUNS[operator], **second)
        for through in ("memory", "checkpoint")
    ]
    assert runs[0].losses == runs[1].losses
    assert runs[0].norms == runs[1].norms
    last = layouts.tensors(world1, *(run.checkpoint(6) for run in runs))
    assert layouts.differing(*last) == []


@pytest.mark.parametrize(
    ("layout", "trainable"),
    [("dp2", "new_and_head"), ("pp2-to-tp2-bf16", "new"), ("tp2-to-pp2-tied", "new_and_head")],
)
def test_what_is_frozen_stays_as_it_was(
    world1: World, world2: World, buckets: Path, tmp_path: Path, layout: str, trainable: str
) -> None:
    transition = {"operator": "random", "positions": [1, 3]}
    run = grown(world2, buckets, tmp_path, layout, "memory", transition, trainable=trainable)
    before, warm, after = layouts.tensors(world1, *(run.checkpoint(step) for step in (2, 4, 6)))
    tied = LAYOUTS[layout][2] is GPT2
    old = {0: 0, 2: 1}
    for key, value in warm.items():
        if key.startswith((*MOMENTS, MASTER)):
            weight = re.sub(r"optimizer\.state\.[a-z_]+\.", "", key)
            assert _trained(weight, trainable, tied), key
            continue
        layer = re.search(r"layers\.(\d+)\.", key)
        trained = _trained(key, trainable, tied)
        if layer is None or int(layer[1]) in old:
            name = key if layer is None else key.replace(layer[0], f"layers.{old[int(layer[1])]}.")
            assert torch.equal(value, before[name]) is not trained, key
    moved = [key for key in after if not key.startswith("optimizer")]
    assert [key for key in moved if torch.equal(after[key], warm[key])] == []


def _trained(key: str, trainable: str, tied: bool) -> bool:
    if re.search(r"layers\.[13]\.", key):
        return True
    head = ("final_layernorm", "output_layer", *(["word_embeddings"] if tied else []))
    return trainable == "new_and_head" and any(part in key for part in head)


@pytest.mark.parametrize("operator", [{"operator": "expand"}, {"new_output": "zero"}])
@pytest.mark.parametrize("style", [{}, GPT2], ids=["llama", "gpt2"])
def test_layers_with_zero_outputs_change_nothing(
    world1: World, buckets: Path, tmp_path: Path, operator: dict[str, Any], style: dict[str, Any]
) -> None:
    stages = (stage(2, 2), stage(4, 1, transition=operator))
    run = layouts.train(world1, config_of(buckets, tmp_path, *stages, **style))
    plain = layouts.train(world1, config_of(buckets, tmp_path / "plain", stage(2, 3), **style))
    assert run.losses[:2] == plain.losses[:2]
    assert run.losses[2] == pytest.approx(plain.losses[2], rel=1e-6)


def test_new_layers_have_a_rate_of_their_own(world1: World, buckets: Path, tmp_path: Path) -> None:
    """The second step of a rewarmed run moves new layers more, and old ones the same."""
    weights = []
    for factor in (1.0, 4.0):
        rewarm = {"learning_rate": "rewarm_new", "rewarm_factor": factor}
        transition = {"operator": "random", "optimizer": "reset", **rewarm}
        stages = (stage(2, 2), stage(4, 1, transition=transition))
        run = layouts.train(world1, config_of(buckets, tmp_path / str(factor), *stages))
        weights += layouts.tensors(world1, run.checkpoint(3))
    differing = {
        re.search(r"layers\.(\d+)\.", key)[1] if "layers." in key else key  # type: ignore[index]
        for key in layouts.differing(*weights)
        if not key.startswith("optimizer")
    }
    assert differing == {"2", "3"}


def test_a_masked_layer_fades_in(world2: World, buckets: Path, tmp_path: Path) -> None:
    """At a mask of 0 the model is the old one; where the mask is 1 it is resumed like any other."""
    mask = {"operator": "random", "new_output": "mask", "mask_tokens": 2 * STEP}
    stages = (stage(2, 2), stage(4, 3, transition=mask, parallel=PP2))
    run = layouts.train(world2, config_of(buckets, tmp_path / "masked", *stages))
    plain = layouts.train(world2, config_of(buckets, tmp_path / "plain", stage(2, 3)))
    assert run.losses[2] == pytest.approx(plain.losses[2], rel=1e-6)
    from megagrow.plan.schedule import make_plan

    grown_stage = make_plan(config_of(buckets, tmp_path, *stages), 2).stages[1]
    begin = grown_stage.first_token
    masks = [grown_stage.mask_at(begin + step * STEP) for step in range(4)]
    assert masks == [0.0, 0.5, 1.0, 1.0]


def test_a_growing_run_leaves_no_thread_behind(
    world2: World, buckets: Path, tmp_path: Path
) -> None:
    """Communicators have threads that wake many times a second, for as long as they live."""
    counts = []
    for number in range(2):
        stages = (stage(2, 1), stage(4, 1, parallel=PP2))
        layouts.train(world2, config_of(buckets, tmp_path / str(number), *stages))
        counts.append(world2.run(_threads))
    assert counts[0] == counts[1]


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))
