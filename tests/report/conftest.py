"""Runs as a training would record them: one that grows 2 -> 4 -> 8 layers, one at 8 throughout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megagrow.train.metrics import MetricsWriter

TOKENS_PER_STEP = 4096
START = 1_790_000_000.0
BUCKETS = ("stories", "prose", "reference")
STAGE_TABLE = {
    "small": (2, 150, (0.8, 0.15, 0.05)),
    "middle": (4, 150, (0.4, 0.4, 0.2)),
    "full": (8, 300, (0.1, 0.4, 0.5)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthetic:
    """Writes one synthetic run, or stretches of it, through the real writer."""

    folder: Path
    grows: bool
    seed: int = 0
    scaled: bool = False
    """Whether layers differ."""

    @property
    def stages(self) -> list[tuple[str, int, int, tuple[float, ...]]]:
        """Name, depth, first step and mixture of each stage."""
        if not self.grows:
            return [("only", 8, 0, (0.35, 0.35, 0.3))]
        first = 0
        found: list[tuple[str, int, int, tuple[float, ...]]] = []
        for name, (layers, steps, mixture) in STAGE_TABLE.items():
            found.append((name, layers, first, mixture))
            first += steps
        return found

    @property
    def total_steps(self) -> int:
        return 600 if self.grows else 520

    def at(self, step: int) -> tuple[str, int, int, tuple[float, ...]]:
        """The stage that optimizer step number `step` (from 1) belongs to."""
        return [stage for stage in self.stages if stage[2] < max(step, 1)][-1]

    def flops(self, step: int) -> float:
        return sum(6.0 * self.parameters(self.at(s)[1]) for s in range(1, step + 1)) * (
            TOKENS_PER_STEP
        )

    @staticmethod
    def parameters(layers: int) -> int:
        return 500_000 + layers * 197_000

    def loss(self, step: int) -> float:
        _, layers, first, _ = self.at(step)
        floor = {2: 2.75, 4: 2.6, 8: 2.5}[layers]
        spike = 0.5 * np.exp(-(step - first) / 8) if first else 0.0
        speed = 1.0 if self.grows else 1.05
        return float(floor + 6.5 * (1 + speed * step / 9) ** -0.62 + spike)

    def write(self, writer: MetricsWriter, first: int, last: int, clock: float) -> None:
        """Steps `first + 1` to `last` with the events between them."""
        random = np.random.default_rng((self.seed, first))
        for step in range(first + 1, last + 1):
            name, layers, began, mixture = self.at(step)
            before: dict[str, Any] = {
                "step": step - 1,
                "stage": name,
                "tokens": (step - 1) * TOKENS_PER_STEP,
                "flops": self.flops(step - 1),
                "time": clock + 0.2 * (step - 1 - first),
            }
            weights = dict(zip(BUCKETS, mixture, strict=True))
            if began == step - 1:
                self._boundary(writer, before, layers, weights)
            now: dict[str, Any] = before | {
                "step": step,
                "tokens": step * TOKENS_PER_STEP,
                "flops": self.flops(step),
                "time": clock + 0.2 * (step - first),
            }
            noise = float(random.normal(0, 0.05))
            writer.write(
                "step",
                **now,
                loss=self.loss(step) + noise,
                lr=1e-3 * min(1.0, (step - began) / 20) * (1 - 0.7 * (step - began) / 600),
                grad_norm=float(np.exp(random.normal(-0.2, 0.2))),
                layers=layers,
                tokens_per_second=52_000 / (1 + layers / 4) * (1 + 0.05 * noise),
                tflops_per_device=0.05,
                mfu=None,
                mixture=weights,
                samples={bucket: int(step * 32 * w) for bucket, w in weights.items()},
            )
            if step % 50 == 0:
                losses = {b: self.loss(step) + 0.2 * i - 0.15 for i, b in enumerate(BUCKETS)}
                writer.write(
                    "eval", **now, losses=losses, loss=float(np.mean(list(losses.values())))
                )
            if step % 100 == 0:
                writer.write("checkpoint", **now, path=f"step_{step}", seconds=0.3, blocking=False)

    def _boundary(
        self, writer: MetricsWriter, at: dict[str, Any], layers: int, mixture: dict[str, float]
    ) -> None:
        if self.grows and layers > 2:
            writer.write(
                "growth",
                **at,
                from_layers=layers // 2,
                to_layers=layers,
                operator="stack",
                optimizer="reset",
                seconds=0.42,
                bytes_moved=9_400_000,
                peak_bytes=61_000_000,
                layer_map=[i % (layers // 2) for i in range(layers)],
            )
        writer.write(
            "stage",
            **at,
            layers=layers,
            parameters=self.parameters(layers),
            mixture=mixture,
            total_tokens=self.total_steps * TOKENS_PER_STEP // len(self.stages),
            parallel={"tensor": 1, "pipeline": 2, "data": 1},
            **({"layer_sizes": self.sizes(layers)} if self.scaled else {}),
        )

    @staticmethod
    def sizes(layers: int) -> dict[str, list[int]]:
        heads = [2 + layer for layer in range(layers)]
        return {
            "num_attention_heads": heads,
            "num_query_groups": heads,
            "ffn_hidden_size": [64 * each for each in heads],
        }

    def begin(self, writer: MetricsWriter, time: float) -> None:
        """The record a process starts with."""
        writer.write(
            "run",
            step=0,
            stage="",
            tokens=0,
            flops=0.0,
            time=time,
            config={"model": {"hidden_size": 128, "heads": 4}, "note": '<b>bold & "quoted"</b>'},
            world_size=2,
            device="cpu",
            versions={"torch": "2.13.0", "megatron-core": "0.16.1"},
            total_tokens=self.total_steps * TOKENS_PER_STEP,
            total_steps=self.total_steps,
            total_flops=self.flops(self.total_steps),
            peak_tflops=None,
            peak_source=None,
        )

    def here(self, step: int) -> dict[str, Any]:
        """Common keys at `step`."""
        return {
            "step": step,
            "stage": self.at(step)[0],
            "tokens": step * TOKENS_PER_STEP,
            "flops": self.flops(step),
        }


@pytest.fixture(scope="session")
def synthetic() -> type[Synthetic]:
    return Synthetic


@pytest.fixture(scope="session")
def grown_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The growing run, killed after step 330 and resumed from the checkpoint of step 300.

    What the killed process did after step 300, the growth of step 300 among it, is done again.
    """
    folder = tmp_path_factory.mktemp("runs") / "grow <2-4-8> & co"
    run = Synthetic(folder=folder, grows=True)
    with MetricsWriter(folder, tensorboard=False) as writer:
        run.begin(writer, START)
        run.write(writer, 0, 330, START + 5)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"event":"step","step":331,"los')
    later = START + 100_000
    with MetricsWriter(folder, tensorboard=False) as writer:
        run.begin(writer, later)
        writer.write("resume", **run.here(300), time=later + 4, path="step_300")
        run.write(writer, 300, 600, later + 5)
        writer.write("end", **run.here(600), time=later + 66, reason="completed", seconds=66.0)
    return folder


@pytest.fixture(scope="session")
def scratch_run(grown_run: Path) -> Path:
    folder = grown_run.parent / "scratch_8"
    run = Synthetic(folder=folder, grows=False, seed=1)
    with MetricsWriter(folder, tensorboard=False) as writer:
        run.begin(writer, START)
        run.write(writer, 0, 520, START + 5)
        writer.write("end", **run.here(520), time=START + 110, reason="completed", seconds=110.0)
    return folder


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a run folder whose metrics file holds exactly the text given."""

    def write(text: str) -> Path:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "metrics.jsonl").write_text(text)
        return folder

    return write
