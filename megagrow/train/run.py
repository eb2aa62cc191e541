"""What of a run outlives its stages: plan, data, files, metrics, checkpoints."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import megatron.core
import torch
import yaml

import megagrow
from megagrow.checkpoint.store import CheckpointStore
from megagrow.checkpoint.writer import CheckpointWriter
from megagrow.config import RunConfig, to_dict
from megagrow.errors import TrainingError
from megagrow.plan.schedule import RunPlan, StagePlan
from megagrow.runtime import device, processes
from megagrow.train.data import RunData
from megagrow.train.learning_rate import LearningRates
from megagrow.train.metrics import Event, MetricsWriter
from megagrow.train.progress import ProgressLine
from megagrow.train.state import TrainState

EndReason = Literal["completed", "preempted", "wall_time", "nan"]

CONFIG_FILE = "config.yaml"
STATUS_FILE = "status.json"
CHECKPOINT_FOLDER = "checkpoints"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The fixed parts of a run."""

    config: RunConfig
    """Its configuration."""

    plan: RunPlan
    """Its stages in steps, shapes and FLOPs."""

    rates: LearningRates
    """Its learning rates."""

    data: RunData
    """Its buckets."""

    metrics: MetricsWriter
    """Its metrics, written by rank 0."""

    progress: ProgressLine
    """Its progress line, shown by rank 0."""

    checkpoints: CheckpointWriter
    """Its checkpoints."""

    begun: float
    """When this start of it began, by `time.monotonic`."""

    peak_tflops: float | None
    """Dense peak of one device at the run's precision; None where none is known."""

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return Path(self.config.output)

    @property
    def scratch(self) -> Path:
        """Where it grows through."""
        base = self.config.checkpoint.growth_scratch
        return self.folder if base is None else Path(base) / f"megagrow-{self.config.name}"

    def stage(self, state: TrainState) -> StagePlan:
        """The stage whose model is live."""
        return self.plan.stages[state.stage]

    def record(self, event: Event, state: TrainState, **fields: Any) -> None:
        """Writes one event, with the keys every event has."""
        self.metrics.write(
            event,
            step=state.step,
            stage=self.stage(state).name,
            tokens=self.plan.tokens_at(state.step),
            flops=float(self.plan.flops_at(state.step)),
            **fields,
        )

    def record_end(self, state: TrainState, reason: EndReason) -> None:
        """Writes the last event of this start."""
        self.record("end", state, reason=reason, seconds=time.monotonic() - self.begun)


def store_of(config: RunConfig) -> CheckpointStore:
    """Where a run's checkpoints lie."""
    folder = Path(config.output) / CHECKPOINT_FOLDER
    return CheckpointStore(folder=folder, keep=config.checkpoint.keep)


def plain_config(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as JSON types."""
    plain: dict[str, Any] = json.loads(json.dumps(to_dict(config)))
    return plain


def write_config(config: RunConfig) -> None:
    """Writes the resolved configuration beside the metrics, for people; for rank 0."""
    folder = Path(config.output)
    text = yaml.safe_dump(plain_config(config), sort_keys=False)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def write_status(folder: Path, state: str, **fields: Any) -> None:
    """Says in `status.json` how the run stands, for the job script that may requeue it."""
    if not processes.is_main():
        return
    temporary = folder / f".{STATUS_FILE}.tmp"
    document = {"state": state, "time": time.time(), **fields}
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(document) + "\n", encoding="utf-8")
        temporary.replace(folder / STATUS_FILE)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{folder}: the run's folder cannot be written: {error.strerror or error}. Make room, "
            "or set `output` to another folder."
        ) from error


def versions() -> Mapping[str, str]:
    """Versions of what a result depends on."""
    return {
        "megagrow": megagrow.__version__,
        "torch": torch.__version__,
        "megatron-core": megatron.core.__version__,
        "python": platform.python_version(),
    }


def device_name() -> str:
    """The device a result was made on."""
    return device.name()
