"""Reading `metrics.jsonl` back into a `RunMetrics`.

A run that was killed and resumed has the same steps twice in its file. The rule: a resume at step
s makes everything after s that stands before it in the file void, and of several records about
the same step the last one counts.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from megagrow.errors import DataError
from megagrow.report.records import (
    EvalRecord,
    FloatArray,
    GrowthRecord,
    RunMetrics,
    StageRecord,
    Steps,
)
from megagrow.train.metrics import METRICS_FILE, REQUIRED_KEYS

Record: TypeAlias = dict[str, Any]
_Built = TypeVar("_Built")

_REDONE = frozenset({"step", "eval", "growth", "stage", "checkpoint"})
"""Events that happen again when the steps they belong to are run again."""


def read(folder: str | os.PathLike[str]) -> RunMetrics:
    """Read the metrics of a run.

    Args:
        folder: the run's folder, the one that holds `metrics.jsonl`.

    Raises:
        DataError: no such folder, no metrics in it, or no step recorded yet.
    """
    path = Path(folder)
    metrics = _metrics_file(path)
    records, notes = _load(metrics)
    kept = _apply_resumes(records)
    by_event: dict[str, list[Record]] = {event: [] for event in REQUIRED_KEYS}
    for record in kept:
        by_event[record["event"]].append(record)
    build = _Builder(notes)
    steps = _columns(_latest(by_event["step"], "step"), notes)
    if not len(steps):
        raise DataError(
            f"{metrics} has no training step yet; wait for the run's first step, or check its log"
        )
    run = by_event["run"][-1] if by_event["run"] else {}
    return RunMetrics(
        name=path.resolve().name,
        folder=path,
        config=_mapping(run.get("config")),
        world_size=run.get("world_size"),
        device=run.get("device"),
        versions=_mapping(run.get("versions")),
        total_tokens=_float(run.get("total_tokens")),
        total_steps=_float(run.get("total_steps")),
        total_flops=_float(run.get("total_flops")),
        peak_tflops=run.get("peak_tflops"),
        peak_source=run.get("peak_source"),
        steps=steps,
        stages=build.all(_latest(by_event["stage"], "step", "stage"), _stage),
        growths=tuple(
            growth
            for growth in build.all(_latest(by_event["growth"], "step", "to_layers"), _growth)
            # A new layout or a reset optimizer is recorded as a growth that adds nothing.
            if growth.to_layers > growth.from_layers or growth.widens
        ),
        evals=build.all(_latest(by_event["eval"], "step", "stage"), _eval),
        resumes=tuple(int(record["step"]) for record in by_event["resume"]),
        end_reason=_end_reason(kept),
        wall_seconds=_wall_seconds(records),
        notes=tuple(notes),
    )


def _metrics_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"no run folder {folder}{_nearest(folder)}")
    path = folder / METRICS_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} has no {METRICS_FILE}: not the folder of a run, or the run stopped before "
            "its first record"
        )
    return path


def _nearest(folder: Path) -> str:
    """A hint at the run that may have been meant."""
    parent = folder.parent
    if not parent.is_dir():
        return f"; its parent {parent} does not exist either"
    runs = sorted(path.parent.name for path in parent.glob(f"*/{METRICS_FILE}"))
    near = difflib.get_close_matches(folder.name, runs, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {parent / near[0]}?"
    if runs:
        more = ", ..." if len(runs) > 5 else ""
        return f"; runs in {parent}: {', '.join(runs[:5])}{more}"
    return f"; {parent} holds no run"


def _load(path: Path) -> tuple[list[Record], list[str]]:
    """The records of known events that have the common keys, and notes about the other lines."""
    records: list[Record] = []
    broken: list[int] = []
    unknown: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                event = record["event"]
                if event in REQUIRED_KEYS:
                    record["step"] = int(record["step"])
                    record["time"] = float(record["time"])
                    records.append(record)
                else:
                    unknown[str(event)] = unknown.get(str(event), 0) + 1
            except (ValueError, KeyError, TypeError):
                broken.append(number)
    if not records:
        what = "is empty" if not broken and not unknown else "has no readable record"
        raise DataError(f"{path} {what}: the run stopped before its first step, or has not begun")
    notes = []
    if broken:
        where = ", ".join(str(number) for number in broken[:5])
        more = ", ..." if len(broken) > 5 else ""
        notes.append(f"{len(broken)} unreadable line(s) skipped: {where}{more}")
    for event, count in unknown.items():
        notes.append(f"{count} record(s) of the unknown event {event!r} skipped")
    return records, notes


def _apply_resumes(records: Sequence[Record]) -> list[Record]:
    """Drop what a resume, or a fresh start in the same folder, made void."""
    kept: list[Record] = []
    for index, record in enumerate(records):
        if record["event"] == "resume":
            limit = record["step"]
            kept = [r for r in kept if r["event"] not in _REDONE or r["step"] <= limit]
        elif record["event"] == "run" and _is_fresh_start(records, index):
            kept = []
        kept.append(record)
    return kept


def _is_fresh_start(records: Sequence[Record], index: int) -> bool:
    """Whether a `run` record begins anew: at step 0, and no resume stands beside it."""
    if records[index]["step"] != 0:
        return False
    after = next((r["event"] for r in records[index + 1 :] if r["event"] != "run"), "resume")
    before = next((r["event"] for r in records[:index][::-1] if r["event"] != "run"), None)
    return "resume" not in (before, after)


def _latest(records: Iterable[Record], *keys: str) -> list[Record]:
    """The last record of each value of `keys`, by step."""
    last = {tuple(record.get(key) for key in keys): record for record in records}
    return sorted(last.values(), key=lambda record: int(record["step"]))


def _end_reason(records: Sequence[Record]) -> str | None:
    reason = None
    for record in records:
        if record["event"] == "end":
            reason = str(record.get("reason"))
        elif record["event"] in ("run", "resume"):
            reason = None
    return reason


def _wall_seconds(records: Sequence[Record]) -> float:
    """Time between records, except before the records with which a process starts."""
    total = 0.0
    for previous, record in pairwise(records):
        starts = record["event"] == "run" or (
            record["event"] == "resume" and previous["event"] != "run"
        )
        if not starts:
            total += max(0.0, record["time"] - previous["time"])
    return total


def _columns(records: Sequence[Record], notes: list[str]) -> Steps:
    def column(key: str) -> FloatArray:
        return np.array([_float(record.get(key)) for record in records], dtype=np.float64)

    def by_bucket(key: str) -> dict[str, FloatArray]:
        rows = [_mapping(record.get(key)) for record in records]
        names = dict.fromkeys(name for row in rows for name in row)
        return {
            name: np.array([_float(row.get(name, 0.0)) for row in rows], dtype=np.float64)
            for name in names
        }

    loss = column("loss")
    lost = int(np.count_nonzero(~np.isfinite(loss)))
    if lost:
        notes.append(f"{lost} step(s) without a finite loss, left out of the loss curves")
    return Steps(
        step=column("step"),
        stage=tuple(str(record.get("stage", "")) for record in records),
        tokens=column("tokens"),
        flops=column("flops"),
        loss=loss,
        lr=column("lr"),
        grad_norm=column("grad_norm"),
        layers=column("layers"),
        tokens_per_second=column("tokens_per_second"),
        tflops_per_device=column("tflops_per_device"),
        mfu=column("mfu"),
        mixture=by_bucket("mixture"),
        samples=by_bucket("samples"),
    )


class _Builder:
    """Builds records and notes those that lack something, instead of failing the report."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    def all(
        self, records: Iterable[Record], make: Callable[[Record], _Built]
    ) -> tuple[_Built, ...]:
        built = []
        for record in records:
            try:
                built.append(make(record))
            except (KeyError, TypeError, ValueError) as error:
                self._notes.append(
                    f"a {record['event']!r} record at step {record['step']} skipped: "
                    f"{type(error).__name__} {error}"
                )
        return tuple(built)


def _stage(record: Record) -> StageRecord:
    return StageRecord(
        step=record["step"],
        name=str(record["stage"]),
        tokens=_float(record.get("tokens")),
        flops=_float(record.get("flops")),
        layers=int(record["layers"]),
        parameters=int(record["parameters"]),
        mixture={name: _float(v) for name, v in _mapping(record.get("mixture")).items()},
        total_tokens=_float(record.get("total_tokens")),
        parallel=_mapping(record.get("parallel")),
        layer_sizes={
            name: tuple(map(int, sizes))
            for name, sizes in _mapping(record.get("layer_sizes")).items()
        },
    )


def _growth(record: Record) -> GrowthRecord:
    return GrowthRecord(
        step=record["step"],
        tokens=float(record["tokens"]),
        flops=float(record["flops"]),
        from_layers=int(record["from_layers"]),
        to_layers=int(record["to_layers"]),
        operator=_operators(record),
        widens=bool(record.get("width")) or record.get("operator") == "learned",
        optimizer=str(record.get("optimizer", "?")),
        seconds=_float(record.get("seconds")),
        bytes_moved=_float(record.get("bytes_moved")),
        peak_bytes=_float(record.get("peak_bytes")),
    )


def _operators(record: Record) -> str:
    """Of depth and width: `stack, hyperclone`."""
    depth, width = str(record.get("operator", "?")), record.get("width")
    if not width:
        return depth
    return str(width) if depth == "none" else f"{depth}, {width}"


def _eval(record: Record) -> EvalRecord:
    return EvalRecord(
        step=record["step"],
        stage=str(record.get("stage", "")),
        tokens=float(record["tokens"]),
        flops=float(record["flops"]),
        losses={name: _float(v) for name, v in _mapping(record.get("losses")).items()},
        loss=_float(record.get("loss")),
    )


def _float(value: object) -> float:
    """A number as the writer left it: null is NaN, "Infinity" is infinity."""
    if isinstance(value, int | float | str):
        try:
            return float(value)
        except ValueError:
            return float("nan")
    return float("nan")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
