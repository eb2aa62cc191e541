"""Checks every file of a finished folder against its manifest and `inputs.jsonl`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing.finished import Finished, FinishedFile
from megagrow.bucketing.pool import Advance, Damaged, Nothing, Report, run
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recutting.survey import WINDOW, Runs, survey
from megagrow.errors import DataError
from megagrow.shards.storage import sha256
from megagrow.tokenization.tokenizer import load

_TOKENS = 4 << 20
_ROWS = 1 << 24


def verify(found: Finished, workers: int, progress: Progress) -> list[str]:
    """Reads the whole folder; returns what is wrong, in sentences. An empty list: nothing is.

    Checked are sizes and headers (when the folder was opened), the sha256 of every index, order,
    levels and finiteness of every score, document lengths, one end-of-document id at the end of
    each document and nowhere else, ids below the vocabulary, the CRC-32 of every input's tokens in
    every bucket, that no row is in two places, and that rows add up.

    Args:
        found: the folder.
        workers: processes to work in.
        progress: where to show how far it is.
    """
    faults = [*_check_sums(found), *_check_tokenizer(found)]
    try:
        runs = survey(found, workers, progress)
    except DataError as error:  # what follows trusts the sidecars
        return [*faults, str(error)]
    return [*faults, *_check_files(found, runs, workers, progress), *_check_rows(found, runs)]


def _check_sums(found: Finished) -> Iterator[str]:
    """Rows, rejects and documents of the inputs add up to those of the manifest."""
    manifest = found.manifest
    rows = sum(line.get("rows", 0) for line in found.inputs)
    rejected = sum(sum(line.get("rejects", {}).values()) for line in found.inputs)
    kept = sum(file.documents for file in found.files)
    for what, one, other in (
        ("rows", rows, manifest["rows"]),
        ("rejected rows", rejected, sum(manifest["rejects"].values())),
        ("documents", kept, manifest["documents"]),
        ("rows in buckets or rejected", kept + rejected, rows),
    ):
        if one != other:
            yield f"{found.folder}: {one} {what} in all, but {other} are noted"


def _check_tokenizer(found: Finished) -> Iterator[str]:
    note = found.manifest["tokenizer"]
    try:
        tokenizer = load(found.folder / note["file"], end_of_document=note["end_of_document"])
    except DataError as error:
        yield str(error)
        return
    facts = (tokenizer.file_hash, tokenizer.eod, tokenizer.vocab_size)
    if facts != (note["sha256"], found.manifest["eod"], found.manifest["vocab_size"]):
        yield f"{tokenizer.path}: not the tokenizer that wrote the tokens; restore it"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    file: FinishedFile
    runs: Runs
    crc32: tuple[int, ...]
    eod: int
    vocab_size: int


def _check_files(
    found: Finished, runs: Sequence[Runs], workers: int, progress: Progress
) -> list[str]:
    tasks = [
        _Task(
            file=file,
            runs=each,
            crc32=tuple(
                int(found.inputs[number]["levels"][found.names[file.level]]["crc32"])
                for number in each.inputs.tolist()
            ),
            eod=int(found.manifest["eod"]),
            vocab_size=int(found.manifest["vocab_size"]),
        )
        for file, each in zip(found.files, runs, strict=True)
    ]
    faults: dict[int, list[str]] = {}
    total = sum(file.tokens for file in found.files) * found.dtype.itemsize
    with progress.phase("reading tokens", total):
        for number, result in run(
            _check_file, tasks, Nothing(), workers=workers, report=progress.advance
        ):
            faults[number] = [result.error] if isinstance(result, Damaged) else result
    return [fault for number in sorted(faults) for fault in faults[number]]


def _check_file(task: _Task, _: None, report: Report) -> list[str]:
    file, faults = task.file, []
    if sha256(file.path(".idx")) != file.idx_sha256:
        faults.append(f"{file.path('.idx')}: not the index that was written (sha256)")
    starts = task.runs.starts.tolist()
    for place, number in enumerate(task.runs.inputs.tolist()):
        crc = 0
        wrong: str | None = None
        for first, lengths in _documents(file, starts[place], starts[place + 1]):
            ids = file.token_ids(int(file.offsets(first, 1)[0]), int(lengths.sum(dtype=np.int64)))
            crc = zlib.crc32(ids.data, crc)
            wrong = wrong or _wrong_ids(ids, lengths, first, task)
            size = ids.nbytes
            report(Advance(input_bytes=size, documents=lengths.size))
        if wrong:
            faults.append(f"{file.path('.bin')}: {wrong}")
        if crc != task.crc32[place]:
            faults.append(
                f"{file.path('.bin')}: the tokens of input file {number} are not those that were "
                "written (CRC-32)"
            )
    return faults


def _documents(file: FinishedFile, first: int, end: int) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Numbers of documents, and their lengths, some MiB of tokens at a time."""
    while first < end:
        lengths = file.lengths(first, min(end - first, _TOKENS // 64))
        size = int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), _TOKENS, side="right"))
        lengths = lengths[: max(size, 1)]
        yield first, lengths
        first += lengths.size


def _wrong_ids(
    ids: NDArray[Any], lengths: NDArray[np.int32], first: int, task: _Task
) -> str | None:
    """What is wrong with the ids of documents `first` and on, or None."""
    ends = np.cumsum(lengths, dtype=np.int64) - 1
    if int(ids.max()) >= task.vocab_size or int(ids.min()) < 0:
        place = int(np.argmax((ids >= task.vocab_size) | (ids < 0)))
        number = first + int(np.searchsorted(ends, place))
        return f"document {number} has id {ids[place]}, beyond the vocabulary of {task.vocab_size}"
    found = np.flatnonzero(ids == task.eod)
    if np.array_equal(found, ends):
        return None
    missing = ids[ends] != task.eod
    if missing.any():
        number = first + int(np.argmax(missing))
        return f"document {number} does not end with the end-of-document id"
    stray = np.setdiff1d(found, ends)[0]
    return (
        f"document {first + int(np.searchsorted(ends, stray))} has an end-of-document id inside it"
    )


def _check_rows(found: Finished, runs: Sequence[Runs]) -> Iterator[str]:
    """What is wrong with where the rows are: none in two places, none beyond the last."""
    where: dict[int, list[tuple[FinishedFile, int, int]]] = {}
    for file, each in zip(found.files, runs, strict=True):
        starts = each.starts.tolist()
        for place, number in enumerate(each.inputs.tolist()):
            span = (file, starts[place], starts[place + 1])
            where.setdefault(number, []).append(span)
    for number, spans in sorted(where.items()):
        fault = _wrong_rows(spans, int(found.inputs[number]["rows"]))
        if fault:
            yield f"{found.folder}: input file {number}: {fault}"


def _wrong_rows(spans: Sequence[tuple[FinishedFile, int, int]], rows: int) -> str | None:
    """What is wrong with the rows of an input file, which rise in each of its spans, or None."""
    places = [first for _, first, _ in spans]
    for low in range(0, rows, _ROWS):
        seen = np.zeros(min(_ROWS, rows - low), dtype=np.bool_)
        for number, (file, _, end) in enumerate(spans):
            while places[number] < end:
                count = min(WINDOW, end - places[number])
                row = file.records(places[number], count)["row"].astype(np.int64) - low
                row = row[: np.searchsorted(row, seen.size)]
                if seen[row].any():
                    return f"row {low + int(row[np.argmax(seen[row])])} is in two buckets"
                seen[row] = True
                places[number] += row.size
                if row.size < count:
                    break
    for (file, _, end), place in zip(spans, places, strict=True):
        if place < end:
            row_ = int(file.records(place, 1)["row"][0])
            return f"{file.prefix.name} has row {row_} of it, but there are {rows}"
    return None
