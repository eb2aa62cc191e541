"""Tiny runs under any layout: their data, their configuration, and what they leave behind."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megagrow.config import RunConfig
from megagrow.config.loader import from_source
from megagrow.config.source import Source
from megagrow.data.writer import BucketWriter
from tests.distributed import World

VOCABULARY, LENGTH, BATCH = 128, 16, 8
STEP = BATCH * LENGTH
"""Tokens of one optimizer step."""

MODEL: dict[str, Any] = {
    "hidden_size": 32, "num_attention_heads": 4, "num_query_groups": 2, "ffn_hidden_size": 64,
    "vocab_size": VOCABULARY, "vocab_padding": 16, "seq_length": LENGTH,
}  # fmt: skip


def write_buckets(folder: Path, documents: int = 100) -> Path:
    """Two buckets: `easy` repeats itself and can be learned in a few steps, `hard` is noise."""
    random = np.random.RandomState(3)
    for name, repeats in (("easy", 4), ("hard", 1)):
        with BucketWriter(folder / name, vocab_size=VOCABULARY, eod=VOCABULARY - 1) as writer:
            for _ in range(documents):
                phrase = random.randint(0, VOCABULARY - 1, size=random.randint(8, 16))
                writer.add(np.tile(phrase, repeats))
    return folder


def stage(layers: int, steps: int = 3, **keys: Any) -> dict[str, Any]:
    """A row of the stage table: `steps` optimizer steps of the usual batch."""
    mixture = {"easy": 0.7, "hard": 0.3}
    return {"layers": layers, "tokens": steps * STEP, "mixture": mixture, **keys}


def config_of(buckets: Path, output: Path, *stages: dict[str, Any], **sections: Any) -> RunConfig:
    """A checked configuration, in fp32 and without what a test does not look at."""
    plain: dict[str, Any] = {
        "name": "tiny",
        "output": str(output),
        "seed": 5,
        "precision": "fp32",
        "batch": {"global_size": BATCH, "micro_size": 2},
        "learning_rate": {"peak": 5e-3, "warmup": 2 * STEP, "decay": "constant"},
        "data": {
            "path": str(buckets),
            "buckets": {"easy": ["easy"], "hard": ["hard"]},
            "validation_fraction": 0.2,
            **sections.get("data", {}),
        },
        "checkpoint": {"asynchronous": False, "keep": 9},
        "evaluation": {"sequences": 8},
        "logging": {"tensorboard": False},
        **{key: value for key, value in sections.items() if key != "data"},
        "model": {**MODEL, **sections.get("model", {})},
        "stages": list(stages),
    }
    return from_source(Source(file="tiny.yaml", data=copy.deepcopy(plain), lines={}))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run wrote."""

    folder: Path
    records: tuple[dict[str, Any], ...]

    def of(self, event: str) -> list[dict[str, Any]]:
        """Its records of one kind."""
        return [record for record in self.records if record["event"] == event]

    @property
    def losses(self) -> list[float]:
        """Training loss of every step; JSON keeps every bit."""
        return [record["loss"] for record in self.of("step")]

    @property
    def norms(self) -> list[float]:
        """Gradient norm of every step."""
        return [record["grad_norm"] for record in self.of("step")]

    @property
    def samples(self) -> list[dict[str, int]]:
        """Samples drawn from each bucket after every step."""
        return [record["samples"] for record in self.of("step")]

    @property
    def evaluations(self) -> list[float]:
        """Validation losses, bucket by bucket."""
        return [loss for record in self.of("eval") for loss in record["losses"].values()]

    def checkpoint(self, step: int) -> Path:
        """Its checkpoint of a step."""
        return self.folder / "checkpoints" / f"step_{step:08d}"


def train(world: World, config: RunConfig, resume: str = "never") -> Outcome:
    """Runs a configuration on a world."""
    assert set(world.run(run, config, resume)) == {0}
    return outcome(Path(config.output))


def outcome(folder: Path) -> Outcome:
    """What the run in a folder has written so far."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return Outcome(folder=folder, records=tuple(json.loads(line) for line in lines))


def run(config: RunConfig, resume: str = "never") -> int:
    """The run, on the processes that are up."""
    from megagrow.train.pretrain import pretrain

    return pretrain(config, resume=resume)


def tensors(world: World, *checkpoints: Path) -> list[dict[str, Any]]:
    """Every tensor of each checkpoint, whole, under its key; from rank 0 of a world."""
    found: list[dict[str, Any]] = world.run(_plain, checkpoints)[0]
    return found


def _plain(checkpoints: tuple[Path, ...]) -> list[dict[str, Any]]:
    from megatron.core.dist_checkpointing import load_plain_tensors

    return [load_plain_tensors(str(checkpoint)) for checkpoint in checkpoints]
