"""Our data preparation; each public function runs in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import awkward  # noqa: F401 - gigatoken imports it with the first text
import gigatoken
import numpy as np
from _data_process import cpu_seconds, peak_bytes
from numpy.typing import NDArray

from megagrow.bucketing import job as jobs
from megagrow.bucketing.job import Job
from megagrow.bucketing.output import Output, sole_writer
from megagrow.bucketing.pool import Advance, Damaged, Report, run
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recipe import OpenRecipe, Recipe
from megagrow.bucketing.settings import Settings
from megagrow.bucketing.writing import part
from megagrow.bucketing.writing.encode import encode
from megagrow.bucketing.writing.part import Part
from megagrow.difficulty.scorer import Scorer
from megagrow.shards.rows import read
from megagrow.shards.shard import Shard
from megagrow.tokenization.batch import TokenBatch

Facts = dict[str, Any]

_FROZEN = ("levels.json", "sample.npz", "tokenizer.json")
_GATE_TIMEOUT_S = 120.0


def fit(argument: Facts) -> Facts:
    """Freezes scorer and thresholds of a job, and stops there.

    Args:
        argument: `inputs`, `tokenizer`, `folder`.
    """
    settings = _settings(argument, Path(argument["folder"]))
    with sole_writer(settings.output) as output:
        job = jobs.prepare(settings, output, Progress(quiet=True))
    if job is None:
        raise RuntimeError(f"{settings.output} is finished")
    return {
        "end": job.recipe.encoding.end_of_document,
        "eod": job.recipe.encoding.eod,
        "engine": job.recipe.encoding.engine_version,
    }


def single(argument: Facts) -> Facts:
    """One bucket of everything, as the peers make it.

    Args:
        argument: `inputs`, `tokenizer`, `folder`.
    """
    settings = replace(_settings(argument, Path(argument["folder"])), levels=("all",))
    manifest = jobs.bucket(settings, Progress(quiet=True))
    return {"rejects": manifest["rejects"], "prefix": str(settings.output / "all")}


def cold(argument: Facts) -> Facts:
    """A job with frozen thresholds from nothing to the manifest, tokenizer loaded on the way.

    Args:
        argument: `inputs`, `tokenizer`, `frozen`, `folder` to write to.
    """
    settings = _settings(argument, Path(argument["folder"]))
    _thaw(argument, settings.output)
    start, used = time.perf_counter(), cpu_seconds()
    manifest = jobs.bucket(settings, Progress(quiet=True))
    return {
        "seconds": time.perf_counter() - start,
        "cpu": cpu_seconds() - used,
        "rejects": manifest["rejects"],
        "peak_bytes": peak_bytes(),
        "tokens": sum(bucket["tokens"] for bucket in manifest["buckets"].values()),
        "buckets": list(manifest["buckets"]),
    }


def steady(argument: Facts) -> Facts:
    """Passes of one long-lived worker: shards to parts, parts to buckets with index and sidecar.

    Args:
        argument: `inputs`, `tokenizer`, `frozen`, `folder` to write to, `passes` after a first one
            that fills the caches.
    """
    settings = _settings(argument, Path(argument["folder"]) / "job")
    job = _prepared(argument, settings)
    opened = job.recipe.open()
    _pass(job, opened, Path(argument["folder"]) / "first")
    found: dict[str, list[float]] = {"seconds": [], "cpu": [], "scoring": []}
    for number in range(argument["passes"]):
        scorer = _TimedScorer(opened.scorer)
        seconds, cpu = _pass(
            job, replace(opened, scorer=scorer), Path(argument["folder"]) / str(number)
        )
        found["seconds"].append(seconds)
        found["cpu"].append(cpu)
        found["scoring"].append(scorer.seconds)
    return found


def _pass(job: Job, opened: OpenRecipe, folder: Path) -> tuple[float, float]:
    """Wall-clock and processor time of parts and buckets."""
    output = Output(folder=folder)
    output.parts.mkdir(parents=True)
    start, used = time.perf_counter(), cpu_seconds()
    parts: list[Part | Damaged] = [
        part.make(shard, output.parts / job.recipe.key(shard), opened, _nothing)
        for shard in job.shards
    ]
    jobs.merge_parts(replace(job, output=output), parts, Progress(quiet=True))
    found = time.perf_counter() - start, cpu_seconds() - used
    shutil.rmtree(folder)
    return found


class _TimedScorer:
    """A scorer, and the seconds it took."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.seconds = 0.0
        self.kind, self.digest, self.unit = scorer.kind, scorer.digest, scorer.unit
        self.tokenizer_hash = scorer.tokenizer_hash

    def score(self, texts: Sequence[str], tokens: TokenBatch) -> NDArray[np.float32]:
        """Scores; see `Scorer`."""
        start = time.perf_counter()
        scores = self._scorer.score(texts, tokens)
        self.seconds += time.perf_counter() - start
        return scores

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes it; see `Scorer`."""
        return self._scorer.save(folder)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Warm:
    """What a worker opens; it is done when every worker has seen all the text once."""

    recipe: Recipe
    shards: tuple[Shard, ...]
    gate: Path
    workers: int

    def open(self) -> OpenRecipe:
        """Loads everything, fills the caches, and waits for the other workers."""
        opened = self.recipe.open()
        for shard in self.shards:
            for rows in read(shard):
                opened.scorer.score(rows.texts, encode(rows, opened.encoding).tokens)
        _wait_at(self.gate, self.workers)
        return opened


@dataclass(frozen=True, kw_only=True, slots=True)
class _WarmFiles:
    """The same for gigatoken alone."""

    tokenizer: str
    shards: tuple[Shard, ...]
    gate: Path
    workers: int

    def open(self) -> Any:
        """Loads the tokenizer, fills its cache, and waits for the other workers."""
        tokenizer = gigatoken.Tokenizer(self.tokenizer)
        for shard in self.shards:
            _encode_file(tokenizer, shard)
        _wait_at(self.gate, self.workers)
        return tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    shard: Shard
    folder: Path


def scale(argument: Facts) -> Facts:
    """Shards to parts in several long-lived workers, after their start.

    Args:
        argument: `inputs`, `tokenizer`, `frozen`, `folder` to write to, `workers`.

    Returns:
        `seconds` from the first begin of a shard to the last end; `files` is the same for
        gigatoken's `encode_files` alone, which is what the machine lets two processes gain.
    """
    folder, workers = Path(argument["folder"]), int(argument["workers"])
    job = _prepared(argument, _settings(argument, folder / "job"))
    tasks = [
        _Task(shard=shard, folder=folder / "parts" / job.recipe.key(shard)) for shard in job.shards
    ]
    (folder / "parts").mkdir()
    ours = _Warm(recipe=job.recipe, shards=job.shards, gate=_gate(folder / "gate"), workers=workers)
    files = _WarmFiles(
        tokenizer=argument["tokenizer"],
        shards=job.shards,
        gate=_gate(folder / "gate-files"),
        workers=workers,
    )
    return {
        "seconds": _span(_timed_part, tasks, ours, workers),
        "files": _span(_timed_files, tasks, files, workers),
    }


def _span(function: Any, tasks: Sequence[_Task], shared: Any, workers: int) -> float:
    spans: list[tuple[float, float]] = []
    for _, result in run(function, tasks, shared, workers=workers, report=_nothing):
        if isinstance(result, Damaged):
            raise RuntimeError(result.error)
        spans.append(result)
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _timed_part(task: _Task, opened: OpenRecipe, report: Report) -> tuple[float, float]:
    start = time.monotonic()  # one clock for all processes
    part.make(task.shard, task.folder, opened, report)
    return start, time.monotonic()


def _timed_files(task: _Task, tokenizer: Any, report: Report) -> tuple[float, float]:
    start = time.monotonic()
    _encode_file(tokenizer, task.shard)
    return start, time.monotonic()


def _encode_file(tokenizer: Any, shard: Shard) -> None:
    from gigatoken import JsonlFileSource

    tokenizer.encode_files(JsonlFileSource([shard.location], "text"), parallel=False)


def _gate(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _wait_at(gate: Path, workers: int) -> None:
    (gate / str(os.getpid())).touch()
    deadline = time.monotonic() + _GATE_TIMEOUT_S
    while len(list(gate.iterdir())) < workers:
        if time.monotonic() > deadline:
            raise TimeoutError("another worker did not get ready")
        time.sleep(0.002)


def _settings(argument: Facts, output: Path) -> Settings:
    return Settings(
        inputs=tuple(argument["inputs"]), output=output, tokenizer=Path(argument["tokenizer"])
    )


def _prepared(argument: Facts, settings: Settings) -> Job:
    _thaw(argument, settings.output)
    with sole_writer(settings.output) as output:
        job = jobs.prepare(settings, output, Progress(quiet=True))
    if job is None:
        raise RuntimeError(f"{settings.output} is finished")
    return job


def _thaw(argument: Facts, folder: Path) -> None:
    """Puts frozen scorer and thresholds where a job looks for what it froze before a stop."""
    frozen = Path(argument["frozen"])
    folder.mkdir(parents=True)
    for name in _FROZEN:
        shutil.copy(frozen / name, folder / name)
    for name in ("scorer", ".work"):
        shutil.copytree(frozen / name, folder / name)
    # Thresholds of one input are applied to others here, which a job refuses.
    (folder / ".work" / "locations.json").write_text(json.dumps(argument["inputs"]))
    levels = json.loads((folder / "levels.json").read_text())
    levels["notes"]["sample_files"] = []
    (folder / "levels.json").write_text(json.dumps(levels))


def _nothing(_: Advance) -> None:
    return None
