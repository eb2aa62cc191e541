"""Every shipped YAML is planned, and runs for a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megagrow.config import RunConfig, load
from megagrow.data.writer import BucketWriter
from megagrow.plan.command import plan_text
from megagrow.plan.schedule import make_plan
from megagrow.train.pretrain import pretrain
from tests.distributed import World

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("**/*.yaml"))
RUNNING = [
    path for path in EXAMPLES if path.parent.name != "lws" or path.stem == "crown_18l"
]  # one of examples/lws: they differ in shapes only
SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_attention_heads": 4, "num_query_groups": 2, "ffn_hidden_size": 128,
    "vocab_size": 512, "seq_length": 64,
}  # fmt: skip
"""What a model that no test can train is cut to; its depth stays."""
SMALL_SCALED: dict[str, Any] = {
    "hidden_size": 96, "num_attention_heads": 6, "kv_channels": 16, "vocab_size": 512,
    "seq_length": 64, "layer_scaling.ffn_multiple": 32,
}  # fmt: skip
"""What it is cut to where layers have sizes of their own."""
NARROW: dict[str, Any] = {
    "hidden_size": 32, "num_attention_heads": 2, "num_query_groups": 1, "ffn_hidden_size": 64,
}  # fmt: skip
"""What it is where it is narrower than later."""


def test_there_are_recipes() -> None:
    assert "quickstart" in {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("recipe", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_planned(recipe: Path) -> None:
    text = plan_text(load(recipe))
    assert recipe.stem in text
    for stage in load(recipe).stages:
        assert stage.name in text


@pytest.mark.parametrize("recipe", RUNNING, ids=lambda path: path.stem)
def test_it_runs(recipe: Path, tmp_path: Path, world2: World) -> None:
    config = _shortened(recipe, tmp_path)
    assert world2.run(pretrain, config) == [0, 0]
    assert (tmp_path / "run" / "metrics.jsonl").is_file()


def test_the_comparison_is_fair() -> None:
    grown, scratch = (
        make_plan(load(FOLDER / f"{name}.yaml")) for name in ("quickstart", "quickstart_scratch")
    )
    assert scratch.flops == pytest.approx(grown.flops, rel=0.005)
    assert scratch.stages[-1].shape == grown.stages[-1].shape


def _shortened(recipe: Path, folder: Path) -> RunConfig:
    """The recipe with two steps a stage, on random tokens of its own vocabulary."""
    full = load(recipe)
    overrides = []
    if full.model.hidden_size > 256:
        small = SMALL if full.model.layer_scaling is None else SMALL_SCALED
        overrides += [f"model.{key}={value}" for key, value in small.items()]
        overrides += ["batch.micro_size=2", "batch.global_size=4", "parallel={}", "precision=fp32"]
        overrides += [
            f"stages.{index}.model.{key}={value}"
            for index, stage in enumerate(full.stages)
            if stage.model != full.model
            for key, value in NARROW.items()
        ]
        full = load(recipe, overrides)
    random = np.random.default_rng(0)
    for bucket in full.data.buckets:
        with BucketWriter(folder / bucket, vocab_size=full.model.vocab_size, eod=0) as writer:
            for _ in range(40):
                writer.add(random.integers(1, full.model.vocab_size, 400))
    step = full.batch.micro_size * 2 * full.model.seq_length
    overrides += [
        f"data.path={folder}",
        f"output={folder / 'run'}",
        f"batch.global_size={full.batch.micro_size * 2}",
        "initialise_from=null",
        "checkpoint.interval=null",
        "evaluation.interval=null",
        "evaluation.sequences=2",
        *(f"data.buckets.{bucket}={bucket}" for bucket in full.data.buckets),
        *(f"stages.{index}.tokens={2 * step}" for index in range(len(full.stages))),
        *(
            f"stages.{index}.transition.mask_tokens={step}"
            for index, stage in enumerate(full.stages)
            if stage.transition is not None and stage.transition.mask_tokens
        ),
        *(
            f"stages.{index}.transition.{key}=1"
            for index, stage in enumerate(full.stages)
            for name, key in (("lesa", "lesa.epochs"), ("learned", "learned.steps"))
            if stage.transition is not None and stage.transition.operator == name
        ),
    ]
    return load(recipe, overrides)
