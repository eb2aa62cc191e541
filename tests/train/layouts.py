"""Tiny runs under any layout: their data, their configuration, and what they leave behind."""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
    "init": {"std": 0.1},  # large: what the layers do shows in the loss
}  # fmt: skip


def write_buckets(folder: Path, documents: int = 100) -> Path:
    """Two buckets of phrases said twice: `easy` of few words, soon learned, and `hard`."""
    random = np.random.RandomState(3)
    for name, words in (("easy", 12), ("hard", VOCABULARY - 1)):
        with BucketWriter(folder / name, vocab_size=VOCABULARY, eod=VOCABULARY - 1) as writer:
            for _ in range(documents):
                writer.add(np.tile(random.randint(0, words, size=random.randint(8, 16)), 2))
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


@functools.cache
def freeze_imports() -> None:
    """Takes what is imported out of the garbage collector's sight, once per worker.

    Every change of layout collects garbage, and looking through torch takes longer than such a
    run's training.
    """
    from megagrow.train import pretrain  # noqa: F401 - with all that it imports

    gc.collect()
    gc.freeze()


def run(config: RunConfig, resume: str = "never") -> int:
    """The run, on the processes that are up."""
    from megagrow.train.pretrain import pretrain

    freeze_imports()
    return pretrain(config, resume=resume)


def tensors(world: World, *checkpoints: Path) -> list[dict[str, torch.Tensor]]:
    """Every tensor of each checkpoint, whole, under its key; read by a world of one."""
    found: list[dict[str, torch.Tensor]] = world.run(_plain, checkpoints)[0]
    return found


def _plain(checkpoints: tuple[Path, ...]) -> list[dict[str, torch.Tensor]]:
    from megatron.core.dist_checkpointing import load_plain_tensors

    return [
        {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
        for found in (load_plain_tensors(str(checkpoint)) for checkpoint in checkpoints)
    ]


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Keys that only one has, or whose tensors are not the same bit for bit."""
    return sorted(set(one) ^ set(other)) + [
        key for key in sorted(set(one) & set(other)) if not torch.equal(one[key], other[key])
    ]


def count_flops(config: RunConfig) -> int:
    """FLOPs of a configuration's first step, counted by PyTorch while it is done."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from tests.train import parts

    run = parts.open_run(config)
    engine, state = parts.fresh(run)
    (batch,) = parts.batches(run, state, 1)
    # The counter does not know the CPU's fused attention.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        parts.step(engine, batch)
    return counter.get_total_flops()


def grow_and_save(config: RunConfig, checkpoint: Path, folder: Path) -> None:
    """Takes the end of a configuration's first stage over its boundary, and saves what comes."""
    from megagrow.checkpoint import sharded
    from megagrow.train.transition import enter_stage
    from tests.train import parts

    run = parts.open_run(config)
    engine, state = parts.restored(run, checkpoint)
    engine, state = enter_stage(run, engine, dataclasses.replace(state, stage=0))
    sharded.save(engine.trained(state.updates), folder)
