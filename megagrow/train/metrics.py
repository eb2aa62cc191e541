"""Writing a run's metrics: `metrics.jsonl` first, TensorBoard and W&B beside it.

`metrics.jsonl` is the source of truth: one JSON object a line, flushed line by line, appended to
by every process that continues the run. `megagrow.report.reader` reads it back.

Not-a-number and infinities are written as the strings "NaN", "Infinity" and "-Infinity": JSON has
no such numbers, `null` already means "does not apply" (MFU on a CPU), and `float()` takes all
three strings back.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path, PurePath
from time import time as unix_time
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Protocol

from megagrow.errors import ConfigError, TrainingError

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
"""Name of the metrics file inside a run's folder."""

TENSORBOARD_FOLDER = "tensorboard"
"""Name of the TensorBoard folder inside a run's folder."""

Event = Literal["run", "step", "stage", "growth", "eval", "checkpoint", "resume", "end"]

COMMON_KEYS = ("event", "step", "stage", "tokens", "flops", "time")
"""Keys of every record: `tokens` and `flops` are cumulative over all stages, `time` is Unix
time in seconds."""

REQUIRED_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "run": (
            "config",
            "world_size",
            "device",
            "versions",
            "total_tokens",
            "total_steps",
            "total_flops",
            "peak_tflops",
            "peak_source",
        ),
        "step": (
            "loss",
            "lr",
            "grad_norm",
            "layers",
            "tokens_per_second",
            "tflops_per_device",
            "mfu",
            "mixture",
            "samples",
        ),
        "stage": ("layers", "parameters", "mixture", "total_tokens", "parallel"),
        "growth": (
            "from_layers",
            "to_layers",
            "operator",
            "optimizer",
            "seconds",
            "bytes_moved",
            "peak_bytes",
            "layer_map",
        ),
        "eval": ("losses", "loss"),
        "checkpoint": ("path", "seconds", "blocking"),
        "resume": ("path",),
        "end": ("reason", "seconds"),
    }
)
"""Keys each event needs beside `COMMON_KEYS`; more keys may be given."""


class MetricsWriter:
    """Appends a run's events to `metrics.jsonl` and mirrors their numbers to other trackers.

    Every process of a run may hold one; only the one with `enabled` writes. Usable as a context
    manager.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        tensorboard: bool = True,
        wandb_project: str | None = None,
        enabled: bool = True,
    ) -> None:
        """Open the run's files for appending; a line torn by a kill is cut off first.

        Args:
            folder: the run's folder, made if absent.
            tensorboard: also write scalars under `folder/tensorboard`; where TensorBoard is not
                installed, one log line says so and training goes on.
            wandb_project: also log to this W&B project; `WANDB_MODE=offline` keeps it local.
            enabled: whether this process writes, normally `rank == 0`; keys are checked anyway,
                so that a wrong event fails on every rank alike.

        Raises:
            ConfigError: W&B was asked for and is not installed.
            TrainingError: the folder or file cannot be written.
        """
        self.path = Path(folder) / METRICS_FILE
        self.enabled = enabled
        self._sinks: list[_Sink] = []
        if not enabled:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torn = repair_tail(self.path)
            self._file = self.path.open("ab")
        except OSError as error:
            raise TrainingError(
                f"cannot write metrics to {self.path}: {error.strerror}; choose a run folder that "
                "can be written"
            ) from error
        if torn:
            logger.info("cut %d bytes of a torn last line from %s", torn, self.path)
        if tensorboard and _has_tensorboard():
            self._sinks.append(_TensorBoardSink(self.path.parent / TENSORBOARD_FOLDER))
        if wandb_project is not None:
            self._sinks.append(_WandbSink(wandb_project, self.path.parent))

    def write(
        self,
        event: Event,
        *,
        step: int,
        stage: str,
        tokens: int,
        flops: float,
        time: float | None = None,
        **fields: Any,
    ) -> None:
        """Append one event, flushed before returning.

        Args:
            event: what happened, a key of `REQUIRED_KEYS`.
            step: optimizer steps done so far in the run.
            stage: name of the stage the run is in.
            tokens: tokens trained on so far.
            flops: floating-point operations of training so far, every stage included.
            time: Unix time in seconds; now where not given.
            fields: the event's own keys, see `REQUIRED_KEYS`. Python, NumPy and torch numbers,
                mappings and sequences of them, strings and paths.

        Raises:
            KeyError: unknown event or a required key is missing (a mistake in the calling code).
            TypeError: a value that has no JSON form.
            TrainingError: the disk refused the line.
        """
        _check_keys(event, fields)
        if not self.enabled:
            return
        record: dict[str, Any] = {
            "event": event,
            "step": step,
            "stage": stage,
            "tokens": tokens,
            "flops": flops,
            "time": unix_time() if time is None else time,
            **fields,
        }
        plain = {key: _plain(value, key) for key, value in record.items()}
        line = json.dumps(plain, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            for sink in self._sinks:
                sink.write(plain)
        except OSError as error:
            raise TrainingError(
                f"cannot append to {self.path} and the files beside it: {error.strerror or error}; "
                "make room and resume the run"
            ) from error

    def close(self) -> None:
        """Close the file and the trackers; further closes do nothing."""
        if not self.enabled or self._file.closed:
            return
        for sink in self._sinks:
            sink.close()
        try:
            self._file.close()
        except OSError as error:  # every line was flushed: nothing that was accepted is lost
            logger.error("closing %s failed: %s", self.path, error.strerror)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def repair_tail(path: Path) -> int:
    """Cut a file back to its last newline, which undoes a line torn by a kill.

    Returns: bytes removed, 0 when the file is absent, empty or whole.
    """
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
        return size - end


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record as tracker tags: `train/loss`, `mixture/easy`, `eval/hard`, ...

    Records of `run`, `resume` and `end` have none. Missing values (`null`) are left out.
    """
    event = record["event"]
    if event in ("run", "resume", "end"):
        return {}
    group = "train" if event == "step" else str(event)
    found: dict[str, float] = {}
    for key, value in record.items():
        if key in COMMON_KEYS and not (event == "step" and key in ("tokens", "flops")):
            continue
        if isinstance(value, Mapping):
            prefix = key if event == "step" else group
            found.update({f"{prefix}/{name}": float(v) for name, v in value.items() if _number(v)})
        elif _number(value):
            found[f"{group}/{key}"] = float(value)
    return found


def _number(value: object) -> bool:
    if isinstance(value, str):
        return value in ("NaN", "Infinity", "-Infinity")
    return isinstance(value, int | float)


def _check_keys(event: str, fields: Mapping[str, Any]) -> None:
    if event not in REQUIRED_KEYS:
        raise KeyError(f"unknown metrics event {event!r}; events are {', '.join(REQUIRED_KEYS)}")
    missing = [key for key in REQUIRED_KEYS[event] if key not in fields]
    if missing:
        raise KeyError(f"metrics event {event!r} lacks {', '.join(missing)}")


def _plain(value: Any, key: str) -> Any:
    """`value` in JSON's own types; see the module's docstring for numbers that are not finite."""
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{key}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, key) for v in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return _plain(value.value, key)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value), key)
    if hasattr(value, "tolist"):  # NumPy and torch scalars and arrays
        return _plain(value.tolist(), key)
    raise TypeError(f"metrics key {key!r} has a {type(value).__name__}, which has no JSON form")


class _Sink(Protocol):
    """A tracker that mirrors the records' numbers."""

    def write(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def _has_tensorboard() -> bool:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        logger.info("TensorBoard is not installed, so no event files; pip install tensorboard")
        return False
    return True


class _TensorBoardSink:
    """Scalars by optimizer step.

    The files are opened at the first scalar, so that a resume noted just before can hide the steps
    that are about to be run again (`purge_step`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._purge_step: int | None = None

    def write(self, record: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        if record["event"] == "resume":
            self.close()
            self._purge_step = int(record["step"]) + 1
        values = [
            Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record).items()
        ]
        if not values:
            return
        if self._writer is None:
            self._writer = self._open()
        # One event for all values: each is handed to another thread, which computes a checksum in
        # Python. SummaryWriter.add_scalar makes one event a value.
        self._writer.add_summary(Summary(value=values), record["step"], record["time"])

    def _open(self) -> Any:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from torch.utils.tensorboard import FileWriter

        writer = FileWriter(str(self._folder))
        if self._purge_step is not None:
            start = Event(session_log=SessionLog(status=SessionLog.START))
            writer.add_event(start, self._purge_step)
        return writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _WandbSink:
    """Scalars against our own step key: W&B's built-in step refuses to go back after a resume."""

    def __init__(self, project: str, folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                f"W&B project {project!r} was asked for and wandb is not installed; "
                "pip install wandb, or take the project out of the configuration"
            ) from error
        self._run: Any = wandb.init(project=project, name=folder.name, dir=str(folder))
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, record: Mapping[str, Any]) -> None:
        if record["event"] == "run":
            self._run.config.update(dict(record["config"]), allow_val_change=True)
        found = scalars(record)
        if found:
            self._run.log({**found, "step": record["step"]})

    def close(self) -> None:
        self._run.finish()
