"""One pass over the sidecars and indices of a finished folder: checks them, and counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing.finished import Finished, FinishedFile
from megagrow.bucketing.levels import Levels
from megagrow.bucketing.pool import Advance, Damaged, Nothing, Report, run
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recutting import exact
from megagrow.bucketing.recutting.exact import Histogram
from megagrow.bucketing.writing.sidecar import SIDECAR, sidecar_file
from megagrow.errors import DataError

WINDOW = 1 << 19
"""Documents that are looked at together."""

BYTES_PER_DOCUMENT = SIDECAR.itemsize + 4
"""What a pass reads of a document: its record and its length."""

_WORTH_A_WORKER = 20_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """Where the documents of each input file are in a file of a bucket: always side by side."""

    inputs: NDArray[np.int64]
    """Numbers of the input files, rising; shape [runs]."""

    starts: NDArray[np.int64]
    """First document of each, and the end of the last; shape [runs + 1]."""

    tokens: NDArray[np.int64]
    """Token ids of each; shape [runs]."""

    scores: Histogram
    """Tokens by score, of the whole file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What each level gets of each input file."""

    documents: NDArray[np.int64]
    """Documents, shape [inputs, levels]."""

    tokens: NDArray[np.int64]
    """Token ids, shape [inputs, levels]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Consecutive documents of a bucket file."""

    records: NDArray[Any]
    """Of type `SIDECAR`, shape [documents]."""

    lengths: NDArray[np.int32]
    """Token ids of each, shape [documents]."""

    first: int
    """Number of the first one in its file."""


def windows(file: FinishedFile, size: int = WINDOW) -> Iterator[Window]:
    """All documents of a file, some at a time."""
    for first in range(0, file.documents, size):
        count = min(size, file.documents - first)
        yield Window(
            records=file.records(first, count), lengths=file.lengths(first, count), first=first
        )


def survey(found: Finished, workers: int, progress: Progress) -> list[Runs]:
    """Checks every sidecar and index against `inputs.jsonl`; returns the runs of each file.

    Raises:
        DataError: they do not belong together; says which file.
    """
    tasks = [_Surveyed(file=file, levels=found.levels) for file in found.files]
    surveyed: list[Runs] = _each("checking", _survey, tasks, workers, progress)
    for level, name in enumerate(found.names):
        pairs = zip(found.files, surveyed, strict=True)
        runs = [each for file, each in pairs if file.level == level]
        _check_inputs(found, name, runs)
    return surveyed


def fit(found: Finished, runs: Sequence[Runs], shares: Sequence[float], workers: int,
        progress: Progress) -> tuple[float, ...]:  # fmt: skip
    """Thresholds that give each level its share of the tokens, as near as scores allow.

    Raises:
        DataError: there are fewer distinct scores than levels.
    """
    whole = exact.add([each.scores for each in runs])
    ranges = exact.ranges_to_refine(whole, shares)
    tasks = [_Refined(file=file, ranges=ranges) for file in found.files]
    refined = exact.add(_each("fitting", _refine, tasks, workers, progress))
    return exact.thresholds(whole, refined, ranges, shares)


def count(
    found: Finished, runs: Sequence[Runs], levels: Levels, workers: int, progress: Progress
) -> Counts:
    """What other levels would get of each input file."""
    shape = (len(found.inputs), len(levels.names))
    documents, tokens = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    tasks = [_Surveyed(file=file, levels=levels) for file in found.files]
    counted: list[Counts] = _each("counting", _count, tasks, workers, progress)
    for each, of in zip(runs, counted, strict=True):
        documents[each.inputs] += of.documents
        tokens[each.inputs] += of.tokens
    return Counts(documents=documents, tokens=tokens)


def _each(
    name: str, function: Any, tasks: Sequence[Any], workers: int, progress: Progress
) -> list[Any]:
    results: dict[int, Any] = {}
    documents = sum(task.file.documents for task in tasks)
    # Starting a process takes about a second, which is long for a few documents.
    workers = min(workers, 1 + documents // _WORTH_A_WORKER)
    with progress.phase(name, documents * BYTES_PER_DOCUMENT):
        for number, result in run(
            function, tasks, Nothing(), workers=workers, report=progress.advance
        ):
            if isinstance(result, Damaged):
                raise DataError(result.error)
            results[number] = result
    return [results[number] for number in range(len(tasks))]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Surveyed:
    file: FinishedFile
    levels: Levels


@dataclass(frozen=True, kw_only=True, slots=True)
class _Refined:
    file: FinishedFile
    ranges: NDArray[np.int64]


def _survey(task: _Surveyed, _: None, report: Report) -> Runs:
    file = task.file
    inputs: list[NDArray[np.int64]] = []
    starts: list[NDArray[np.int64]] = []
    tokens: list[NDArray[np.int64]] = []
    scores: list[Histogram] = []
    before = -1
    total = 0
    for window in windows(file):
        input_, row = window.records["input"], window.records["row"]
        place = (input_.astype(np.int64) << 32) | row
        _check_window(file, window, task.levels, place, before, total)
        before = int(place[-1])
        begins = np.flatnonzero(np.diff(input_, prepend=-1))
        inputs.append(input_[begins].astype(np.int64))
        starts.append(begins + window.first)
        sums = np.add.reduceat(window.lengths, begins, dtype=np.int64)
        tokens.append(sums)
        total += int(sums.sum())
        scores.append(exact.coarse(window.records["score"], window.lengths))
        report(_advance(window))
    if total != file.tokens:
        raise DataError(f"{file.path('.idx')}: its lengths make {total} tokens, not {file.tokens}")
    every = np.concatenate(inputs)
    first = np.flatnonzero(np.diff(every, prepend=-1))  # a run may go on in the next window
    return Runs(
        inputs=every[first],
        starts=np.append(np.concatenate(starts)[first], file.documents),
        tokens=np.add.reduceat(np.concatenate(tokens), first),
        scores=exact.add(scores),
    )


def _check_window(
    file: FinishedFile, window: Window, levels: Levels, place: NDArray[np.int64], before: int,
    tokens_before: int,
) -> None:  # fmt: skip
    where = f"{sidecar_file(file.prefix)}: near document {window.first}"
    if int(place[0]) <= before or (np.diff(place) <= 0).any():
        raise DataError(
            f"{where}: not in the order of the input: damaged, or of another job; make it again"
        )
    scores = window.records["score"]
    if not np.isfinite(scores).all() or (levels.of(scores) != file.level).any():
        raise DataError(
            f"{where}: a score that is not one of the level {levels.names[file.level]!r}: damaged, "
            "or of another job; make it again"
        )
    if int(window.lengths.min()) < 1:
        raise DataError(f"{file.path('.idx')}: a document without tokens; make it again")
    lengths = window.lengths.astype(np.int64)
    begins = (tokens_before + np.cumsum(lengths) - lengths) * file.dtype.itemsize
    if not np.array_equal(file.offsets(window.first, lengths.size), begins):
        raise DataError(f"{file.path('.idx')}: damaged near document {window.first}; make it again")


def _refine(task: _Refined, _: None, report: Report) -> Histogram:
    found = []
    for window in windows(task.file):
        found.append(exact.fine(window.records["score"], window.lengths, task.ranges))
        report(_advance(window))
    return exact.add(found)


def _count(task: _Surveyed, _: None, report: Report) -> Counts:
    levels = len(task.levels.names)
    documents: list[NDArray[np.int64]] = []
    tokens: list[NDArray[np.int64]] = []
    last = -1
    for window in windows(task.file):
        input_ = window.records["input"]
        begins = np.diff(input_, prepend=input_[0]) != 0
        run_ = np.cumsum(begins)
        key = run_ * levels + task.levels.of(window.records["score"])
        size = (int(run_[-1]) + 1) * levels
        counted = np.bincount(key, minlength=size).reshape(-1, levels)
        weighed = np.bincount(key, weights=window.lengths, minlength=size).reshape(-1, levels)
        new = weighed.astype(np.int64)
        if int(input_[0]) == last:  # the run goes on from the window before
            documents[-1][-1] += counted[0]
            tokens[-1][-1] += new[0]
            counted, new = counted[1:], new[1:]
        if counted.size:
            documents.append(counted)
            tokens.append(new)
        last = int(input_[-1])
        report(_advance(window))
    return Counts(documents=np.concatenate(documents), tokens=np.concatenate(tokens))


def _check_inputs(found: Finished, name: str, runs: Sequence[Runs]) -> None:
    """The files of a bucket hold of each input what `inputs.jsonl` says, and each input once."""
    noted = [line.get("levels", {}).get(name, {}) for line in found.inputs]
    documents = np.zeros(len(noted), np.int64)
    tokens = np.zeros(len(noted), np.int64)
    last = -1
    for each in runs:
        if int(each.inputs[0]) <= last or int(each.inputs[-1]) >= len(noted):
            raise DataError(
                f"{found.folder}: bucket {name!r}: the documents of an input file are in two "
                "files, or of an input that inputs.jsonl does not have; make it again"
            )
        last = int(each.inputs[-1])
        documents[each.inputs] = np.diff(each.starts)
        tokens[each.inputs] = each.tokens
    for number, line in enumerate(noted):
        said = (line.get("documents", 0), line.get("tokens", 0))
        if said != (documents[number], tokens[number]):
            raise DataError(
                f"{found.folder}: bucket {name!r} has {documents[number]} documents of input "
                f"{number}, {tokens[number]} tokens, but inputs.jsonl says {said[0]} and {said[1]}"
            )


def _advance(window: Window) -> Advance:
    size = window.lengths.size
    return Advance(input_bytes=size * BYTES_PER_DOCUMENT, documents=size)
