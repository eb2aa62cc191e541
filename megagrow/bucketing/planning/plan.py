"""What a bucketing job will take, from a small sample: time, memory, disk and money.

Some files of each kind are read from their start, a few MiB of each, with the job's own code. What
they hold is scaled up by bytes as stored. Nothing is written to the output folder.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megagrow.bucketing.planning.measure import Measured, Speed, measure, read_start
from megagrow.bucketing.settings import Settings
from megagrow.data.writer import token_dtype
from megagrow.errors import DataError
from megagrow.shards.shard import DamagedShardError, find
from megagrow.shards.storage import is_remote, open_binary
from megagrow.tokenization.tokenizer import load

SAMPLE_BYTES = 48 << 20
"""Bytes of text to read."""

_FILES_OF_A_KIND = 6
_LOOKING_AT_ONCE = 16
_INDEX_BYTES = 20
_SIDECAR_BYTES = 12
_RECORD_BYTES = 13
_BETWEEN_FILES = 0.1
"""How far files are taken to differ where only one was looked into."""

_WITHIN_A_FILE = 0.03
"""How far the start of a file is taken to differ from the rest of it."""

_START_S = 1.5
"""Seconds until a worker has loaded the tokenizer."""

_END_S = 1.0
"""Seconds for plot and manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Estimates for a job."""

    files: int
    """Input files."""

    input_bytes: int
    """Bytes of them, as stored."""

    sampled_files: int
    """Files that were looked into."""

    sampled_text_bytes: int
    """Bytes of text that were read."""

    text_bytes: float
    """Bytes of text in all."""

    documents: float
    """Documents in all."""

    tokens: float
    """Token ids in all, one end-of-document id per document included."""

    rejected: float
    """Rows in no bucket."""

    error: float
    """How far off text, documents and tokens may be, as a share: two standard errors."""

    speed: Speed
    """Of one worker on this machine."""

    workers: int
    """Processes."""

    sampling_seconds: float
    """Time to fit scorer and thresholds."""

    bucketing_seconds: float
    """Time to read, tokenize, score and sort."""

    merging_seconds: float
    """Time to join the parts."""

    output_bytes: float
    """Disk for the finished folder."""

    peak_bytes: float
    """Most disk in use at once, where the file system copies."""

    peak_bytes_shared: float
    """Most disk in use at once, where the file system shares blocks between files."""

    free_bytes: int | None
    """Free disk where the output goes."""

    memory_bytes: float
    """Memory of all workers."""

    price_per_core_hour: float | None
    """Price of a core for an hour."""

    scorer: str
    """The scorer."""

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.sampling_seconds + self.bucketing_seconds + self.merging_seconds

    @property
    def core_hours(self) -> float:
        """Cores times hours: all workers' cores are held to the end."""
        return self.workers * self.seconds / 3600

    @property
    def cost(self) -> float | None:
        """Price of the core-hours."""
        return (
            None
            if self.price_per_core_hour is None
            else (self.core_hours * self.price_per_core_hour)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    location: str
    size: int


def plan(
    settings: Settings,
    *,
    price_per_core_hour: float | None = None,
    sample_bytes: int = SAMPLE_BYTES,
) -> Plan:
    """Estimates what `bucket(settings)` will take.

    Args:
        settings: the job.
        price_per_core_hour: in any currency; None: no cost is given.
        sample_bytes: bytes of text to read.

    Raises:
        DataError: inputs, tokenizer or scorer cannot be used, or the sample holds no text.
    """
    files = _sizes(find(settings.inputs))
    kinds = _kinds(files)
    wanted = [(kind, file) for kind, of in kinds.items() for file in _chosen(of, settings.seed)]
    quota = max(sample_bytes // len(wanted), 1)
    chosen, starts = _readable(wanted, settings.text_key, quota)
    with tempfile.TemporaryDirectory(prefix="megagrow-plan-") as scratch:
        speed, sampled = measure(settings, starts, Path(scratch))
    measured: dict[str, list[Measured]] = {kind: [] for kind in kinds}
    for (kind, _), each in zip(chosen, sampled, strict=True):
        measured[kind].append(each)
    totals = _scaled(kinds, measured)
    tokenizer = load(
        settings.tokenizer, end_of_document=settings.end_of_document, pattern=settings.pattern
    )
    itemsize = token_dtype(tokenizer.vocab_size).itemsize
    tokens_bytes = totals.tokens * itemsize
    records = (_INDEX_BYTES + _SIDECAR_BYTES) * totals.documents
    output_bytes = tokens_bytes + records
    part_records = _RECORD_BYTES * totals.documents
    seconds = _seconds(settings, files, totals, speed, tokens_bytes)
    return Plan(
        files=len(files),
        input_bytes=sum(file.size for file in files),
        sampled_files=len(sampled),
        sampled_text_bytes=sum(each.read_text_bytes for each in sampled),
        text_bytes=totals.text_bytes,
        documents=totals.documents,
        tokens=totals.tokens,
        rejected=totals.rejected,
        error=totals.error,
        speed=speed,
        workers=settings.workers,
        sampling_seconds=seconds[0],
        bucketing_seconds=seconds[1],
        merging_seconds=seconds[2],
        output_bytes=output_bytes,
        peak_bytes=output_bytes + tokens_bytes + part_records,
        peak_bytes_shared=output_bytes + part_records,
        free_bytes=_free(settings.output),
        memory_bytes=speed.memory_bytes * settings.workers,
        price_per_core_hour=price_per_core_hour,
        scorer=settings.scorer,
    )


def _readable(
    wanted: list[tuple[str, _File]], key: str, quota: int
) -> tuple[list[tuple[str, _File]], list[Measured]]:
    """The files that are not damaged, and their starts; the job would go on without the others."""
    chosen, starts = [], []
    damage = ""
    for kind, file in wanted:
        try:
            starts.append(read_start(file.location, key, quota))
            chosen.append((kind, file))
        except DamagedShardError as error:
            damage = str(error)
    if {kind for kind, _ in chosen} != {kind for kind, _ in wanted}:
        raise DataError(f"no file to estimate from: {damage}")
    return chosen, starts


@dataclass(frozen=True, kw_only=True, slots=True)
class _Totals:
    text_bytes: float
    documents: float
    tokens: float
    rejected: float
    error: float


def _scaled(kinds: dict[str, list[_File]], measured: dict[str, list[Measured]]) -> _Totals:
    """What all files hold, each kind by its own ratios."""
    text = documents = tokens = rejected = variance = 0.0
    for kind, every in measured.items():
        stored = sum(file.size for file in kinds[kind])
        read = sum(each.stored_bytes for each in every)
        if read == 0:
            continue
        of_kind = stored * sum(each.text_bytes for each in every) / read
        text += of_kind
        of_sample = sum(each.read_text_bytes for each in every)
        tokens += of_kind * sum(each.tokens for each in every) / max(of_sample, 1)
        documents += stored * sum(each.documents for each in every) / read
        rejected += stored * sum(each.rejected for each in every) / read
        unread = max(0.0, 1 - sum(each.stored_bytes for each in every) / stored)
        variance += (of_kind * _spread(every)) ** 2 * unread
    if not documents:
        raise DataError("the sample holds no text: is --text-key right?")
    return _Totals(
        text_bytes=text,
        documents=documents,
        tokens=tokens,
        rejected=rejected,
        error=2 * math.sqrt(variance) / text,
    )


def _spread(every: Sequence[Measured]) -> float:
    """Standard error of what a kind holds of text and tokens per stored byte, as a share of it."""
    files = [each for each in every if each.stored_bytes and each.text_bytes]
    if len(files) < 2:
        return _BETWEEN_FILES
    text = np.array([each.text_bytes / each.stored_bytes for each in files])
    tokens = text * [each.tokens / each.read_text_bytes for each in files]
    between = max(float(each.std(ddof=1) / each.mean()) for each in (text, tokens))
    return max(between, _WITHIN_A_FILE) / math.sqrt(len(files))


def _seconds(
    settings: Settings,
    files: Sequence[_File],
    totals: _Totals,
    speed: Speed,
    tokens_bytes: float,
) -> tuple[float, float, float]:
    """Wall time of sampling, bucketing and merging."""
    stored = sum(file.size for file in files)
    ratio = totals.text_bytes / max(stored, 1)
    sizes = sorted((file.size for file in files), reverse=True)
    drawn = stored * min(1.0, settings.sample_shards / len(files))
    mean = totals.text_bytes / totals.documents
    fitted = min(settings.sample_documents, totals.documents) * mean
    readers = min(settings.workers, len(files), settings.sample_shards)
    sampling = (
        drawn * ratio / speed.read_bytes_per_second / readers
        + fitted / speed.encode_bytes_per_second
        + fitted / speed.score_bytes_per_second
        + _START_S
    )
    bucketing = _makespan(sizes, settings.workers) * ratio / speed.text_bytes_per_second
    merging = tokens_bytes / speed.copy_bytes_per_second + _END_S
    start = speed.cold_seconds + (_START_S if settings.workers > 1 else 0)
    return sampling, bucketing + start, merging


def _makespan(sizes: Sequence[int], workers: int) -> int:
    """Bytes of the busiest worker when the largest file left goes to whoever is free."""
    loads = [0 for _ in range(min(workers, len(sizes)))]
    for size in sizes:
        heapq.heapreplace(loads, loads[0] + size)
    return max(loads)


def _sizes(locations: Sequence[str]) -> list[_File]:
    with ThreadPoolExecutor(_LOOKING_AT_ONCE) as threads:
        sizes = list(threads.map(_size, locations))
    return [_File(location=at, size=size) for at, size in zip(locations, sizes, strict=True)]


def _size(location: str) -> int:
    if not is_remote(location):
        try:
            return Path(location).stat().st_size
        except OSError as error:
            raise DataError(f"{location}: cannot be read: {error.strerror}") from None
    with open_binary(location) as stream:
        return stream.seek(0, 2)


def _kinds(files: Sequence[_File]) -> dict[str, list[_File]]:
    """Files that are not empty, by the end of their name: formats compress differently."""
    kinds: dict[str, list[_File]] = {}
    for file in files:
        if file.size:
            kinds.setdefault(Path(file.location).suffix, []).append(file)
    if not kinds:
        raise DataError("all input files are empty")
    return kinds


def _chosen(files: Sequence[_File], seed: int) -> list[_File]:
    """Some files of a kind, by seed."""

    def rank(file: _File) -> bytes:
        name = file.location.rpartition("/")[2]
        return hashlib.sha256(f"{seed} {name} {file.size}".encode()).digest()

    return sorted(files, key=rank)[:_FILES_OF_A_KIND]


def _free(folder: Path) -> int | None:
    """Free bytes where a folder is, or will be."""
    for parent in (folder.absolute(), *folder.absolute().parents):
        if parent.is_dir():
            return shutil.disk_usage(parent).free
    return None
