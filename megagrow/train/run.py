"""What of a run outlives its stages: plan, data, files, metrics, checkpoints."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import megatron.core
import torch
import yaml

import megagrow
from megagrow.checkpoint.store import BYTES_PER_PARAMETER, CheckpointStore
from megagrow.checkpoint.writer import CheckpointWriter
from megagrow.config import RunConfig, to_dict
from megagrow.errors import TrainingError
from megagrow.plan.schedule import RunPlan, StagePlan, rebuilds
from megagrow.runtime import failure, lock, processes
from megagrow.runtime.files import write_atomically
from megagrow.train.data import RunData
from megagrow.train.learning_rate import LearningRates
from megagrow.train.metrics import Event, MetricsWriter
from megagrow.train.progress import ProgressLine
from megagrow.train.state import TrainState

EndReason = Literal["completed", "preempted", "wall_time", "nan"]

CONFIG_FILE = "config.yaml"
STATUS_FILE = "status.json"
CHECKPOINT_FOLDER = "checkpoints"
LOCK_FILE = ".lock"


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
        return scratch_of(self.config)

    def largest_growth_bytes(self, state: TrainState) -> int | None:
        """About what the largest growth after `state` writes to scratch; None: none does."""
        following = self.plan.stages[state.stage :]
        return max(
            (
                old.parameters.total * BYTES_PER_PARAMETER
                for old, new in pairwise(following)
                if rebuilds(old, new) and _through_checkpoint(new)
            ),
            default=None,
        )

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


def _through_checkpoint(stage: StagePlan) -> bool:
    return stage.config.transition is not None and stage.config.transition.through == "checkpoint"


def store_of(config: RunConfig) -> CheckpointStore:
    """Where a run's checkpoints lie."""
    folder = Path(config.output) / CHECKPOINT_FOLDER
    return CheckpointStore(folder=folder, keep=config.checkpoint.keep)


def scratch_of(config: RunConfig) -> Path:
    """Where a run grows through; no other run's."""
    folder, base = Path(config.output), config.checkpoint.growth_scratch
    if base is None:
        return folder
    # Runs that write elsewhere may have the same name, and each removes what it finds there.
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return Path(base) / f"megagrow-{config.name}-{place}"


def plain_config(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as JSON types."""
    plain: dict[str, Any] = json.loads(json.dumps(to_dict(config)))
    return plain


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keeps other starts out of a run's folder inside the block; every rank must enter.

    Raises:
        TrainingError: another process writes to it, or it cannot be written.
    """
    with ExitStack() as stack:
        with failure.together():
            if processes.is_main():
                with _writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    try:
                        stack.enter_context(lock.hold(folder / LOCK_FILE))
                    except lock.LockedError as error:
                        raise TrainingError(
                            f"{folder}: another process ({error}) is writing to this run folder; "
                            "wait for it or set `output`. If its machine is gone and the file "
                            f"system has not noticed, delete {folder / LOCK_FILE}."
                        ) from None
        yield


def write_config(config: RunConfig) -> None:
    """Writes the resolved configuration beside the metrics, for people; for rank 0."""
    folder = Path(config.output)
    text = yaml.safe_dump(plain_config(config), sort_keys=False)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CONFIG_FILE, text)


def write_status(folder: Path, state: str, **fields: Any) -> None:
    """Says in `status.json` how the run stands, for the job script that may requeue it."""
    if not processes.is_main():
        return
    document = {"state": state, "time": time.time(), **fields}
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / STATUS_FILE, json.dumps(document) + "\n")


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
