"""Copies the documents of input files out of old buckets into new ones, in the order of the input.

Every document's place in the new files is known beforehand, so each input file is read and written
once, by any worker, at its own offsets. A small note tells which ones are on the disk for good.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing.finished import FinishedFile
from megagrow.bucketing.levels import Levels
from megagrow.bucketing.pool import Advance, Report
from megagrow.bucketing.writing.sidecar import SIDECAR
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically

_DOCUMENTS = 8192
"""Documents of one old bucket that are looked at together."""

_BYTES = 16 << 20
"""Bytes of tokens of one old bucket that are looked at together; a larger document is alone."""

_BLOCK_BYTES = 4 << 20
"""Bytes that are written at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The documents of an input file in an old bucket."""

    file: int
    """Which old file."""

    first: int
    """The first document in it."""

    documents: int
    """How many."""

    crc32: int
    """CRC-32 of their tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where the documents of an input file and a new level go."""

    file: int
    """Which new file."""

    document: int
    """Documents before them in it."""

    token: int
    """Token ids before them in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One input file."""

    input: int
    """Its number."""

    runs: tuple[Run, ...]
    """Where its documents are."""

    targets: tuple[Target | None, ...]
    """Where those of each level go; None for a level that gets none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Some input files to be done by one worker."""

    pieces: tuple[Piece, ...]
    """The input files."""

    note: Path
    """Where to note that they are done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFile:
    """A bucket file in the making; `NAME.bin`, `NAME.documents.npy` and `NAME.lengths`."""

    prefix: Path
    """Path of its files, without suffix."""

    records_at: int
    """Byte of the sidecar at which its first record begins."""

    def path(self, suffix: str) -> Path:
        """The file with this suffix."""
        return self.prefix.with_name(self.prefix.name + suffix)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutting:
    """What all workers share."""

    old: tuple[FinishedFile, ...]
    """Files to read."""

    new: tuple[NewFile, ...]
    """Files to write, as large as they will be."""

    levels: Levels
    """The new levels."""

    def open(self) -> Cutting:
        """It is open already."""
        return self


def cut(task: Task, cutting: Cutting, report: Report) -> list[list[int]]:
    """Copies input files; returns, and notes, the CRC-32 of each one's tokens in each level.

    Raises:
        DataError: the old tokens are not those that were written.
        OSError: the new files cannot be written.
    """
    sums: list[list[int]] = []
    with _Writer(cutting) as writer:
        for piece in task.pieces:
            sums.append(_copy(piece, cutting, writer, report))
        writer.sync()
    write_atomically(task.note, json.dumps(sums))
    return sums


def noted(task: Task) -> list[list[int]] | None:
    """What `cut` returned in an earlier run, if it came to its end."""
    try:
        found = json.loads(task.note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) and len(found) == len(task.pieces) else None


def _copy(piece: Piece, cutting: Cutting, writer: _Writer, report: Report) -> list[int]:
    levels = range(len(cutting.levels.names))
    old = [0 for _ in piece.runs]
    outputs = [_Output(target, writer) for target in piece.targets]
    for block in _in_row_order(piece, cutting):
        for number, (span, crc) in enumerate(zip(block.spans, old, strict=True)):
            old[number] = zlib.crc32(span.data, crc)
        level_of = cutting.levels.of(block.scores)
        for level in levels:
            outputs[level].add(block, np.flatnonzero(level_of == level), piece.input)
        size = sum(span.nbytes for span in block.spans)
        report(Advance(input_bytes=size, documents=block.rows.size))
    for run, crc in zip(piece.runs, old, strict=True):
        if run.crc32 != crc:
            raise DataError(
                f"{cutting.old[run.file].path('.bin')}: the tokens of input file {piece.input} are "
                "not those that were written (CRC-32): the file is damaged; copy it again, or "
                "make it again from the text"
            )
    for output, target in zip(outputs, piece.targets, strict=True):
        if (target is None) != (output.documents == 0):
            raise DataError(f"input file {piece.input}: its scores changed while they were read")
    return [output.crc32 for output in outputs]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """Documents of one input file, by row."""

    spans: list[NDArray[Any]]
    source: NDArray[np.intp]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    rows: NDArray[np.uint32]
    scores: NDArray[np.float32]


@dataclass(slots=True)
class _Cursor:
    run: Run
    file: FinishedFile
    done: int = 0

    def look(self) -> tuple[NDArray[Any], NDArray[np.int32], bool]:
        """The next documents, not more than are handled at once, and whether they are the last."""
        left = self.run.documents - self.done
        size = min(left, _DOCUMENTS)
        at = self.run.first + self.done
        records, lengths = self.file.records(at, size), self.file.lengths(at, size)
        if size:
            ends = np.cumsum(lengths, dtype=np.int64) * self.file.dtype.itemsize
            size = max(1, int(np.searchsorted(ends, _BYTES, side="right")))
        return records[:size], lengths[:size], size >= left

    def take(self, lengths: NDArray[np.int32]) -> NDArray[Any]:
        """The tokens of the next documents, which have these lengths."""
        if lengths.size == 0:
            return np.empty(0, dtype=self.file.dtype)
        offset = int(self.file.offsets(self.run.first + self.done, 1)[0])
        self.done += lengths.size
        return self.file.token_ids(offset, int(lengths.sum(dtype=np.int64)))


def _in_row_order(piece: Piece, cutting: Cutting) -> Iterator[_Block]:
    """The documents of an input file, from all its buckets, merged by row."""
    cursors = [_Cursor(run, cutting.old[run.file]) for run in piece.runs]
    while any(cursor.done < cursor.run.documents for cursor in cursors):
        looked = [cursor.look() for cursor in cursors]
        # Rows up to here have been seen in every bucket.
        limit = min(
            (int(records["row"][-1]) for records, _, last in looked if not last), default=1 << 32
        )
        sizes = [
            int(np.searchsorted(records["row"], limit, side="right")) for records, _, _ in looked
        ]
        lengths = [each[:size] for (_, each, _), size in zip(looked, sizes, strict=True)]
        spans = [cursor.take(each) for cursor, each in zip(cursors, lengths, strict=True)]
        records = np.concatenate([each[0][:n] for each, n in zip(looked, sizes, strict=True)])
        every = np.concatenate(lengths)
        ends = np.concatenate([np.cumsum(each, dtype=np.int64) for each in lengths])
        order = np.argsort(records["row"], kind="stable")
        rows = records["row"][order]
        if (rows[1:] == rows[:-1]).any():
            raise DataError(
                f"row {rows[:-1][rows[1:] == rows[:-1]][0]} of input file {piece.input} is in two "
                "buckets: the folder is damaged; make it again"
            )
        yield _Block(
            spans=spans,
            source=np.repeat(np.arange(len(spans)), sizes)[order],
            starts=(ends - every.astype(np.int64))[order],
            lengths=every[order],
            rows=rows,
            scores=records["score"][order],
        )


class _Output:
    """The documents of one input file and level, written one after the other."""

    def __init__(self, target: Target | None, writer: _Writer) -> None:
        self._target, self._writer = target, writer
        self.documents = self._tokens = self.crc32 = 0

    def add(self, block: _Block, chosen: NDArray[np.intp], number: int) -> None:
        if chosen.size == 0:
            return
        if self._target is None:
            raise DataError(f"input file {number}: its scores changed while they were read")
        records = np.empty(chosen.size, dtype=SIDECAR)
        records["input"], records["row"] = number, block.rows[chosen]
        records["score"] = block.scores[chosen]
        lengths = block.lengths[chosen]
        at = self._target.document + self.documents
        new = self._writer.new(self._target.file)
        self._writer.write(new, ".documents.npy", records, new.records_at + SIDECAR.itemsize * at)
        self._writer.write(new, ".lengths", lengths, lengths.itemsize * at)
        for tokens in _gathered(block, chosen):
            at = (self._target.token + self._tokens) * tokens.itemsize
            self._writer.write(new, ".bin", tokens, at)
            self.crc32 = zlib.crc32(tokens.data, self.crc32)
            self._tokens += tokens.size
        self.documents += chosen.size


def _gathered(block: _Block, chosen: NDArray[np.intp]) -> Iterator[NDArray[Any]]:
    """Tokens of the chosen documents, some MiB at a time; neighbours are taken together."""
    source, starts = block.source[chosen], block.starts[chosen]
    ends = starts + block.lengths[chosen]
    breaks = np.flatnonzero((source[1:] != source[:-1]) | (starts[1:] != ends[:-1])) + 1
    firsts, lasts = np.append(0, breaks), np.append(breaks, chosen.size) - 1
    slices = zip(
        source[firsts].tolist(), starts[firsts].tolist(), ends[lasts].tolist(), strict=True
    )
    itemsize = block.spans[0].itemsize
    pieces: list[NDArray[Any]] = []
    size = 0
    for which, start, end in slices:
        pieces.append(block.spans[which][start:end])
        size += (end - start) * itemsize
        if size >= _BLOCK_BYTES:
            yield np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
            pieces, size = [], 0
    if pieces:
        yield np.concatenate(pieces) if len(pieces) > 1 else pieces[0]


class _Writer:
    """Writes into new files at given offsets; opens those that are needed."""

    def __init__(self, cutting: Cutting) -> None:
        self._new: Sequence[NewFile] = cutting.new
        self._open: dict[Path, int] = {}

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def new(self, number: int) -> NewFile:
        return self._new[number]

    def write(self, file: NewFile, suffix: str, content: NDArray[Any], offset: int) -> None:
        path = file.path(suffix)
        if path not in self._open:
            self._open[path] = os.open(path, os.O_WRONLY)
        left = np.ascontiguousarray(content).data.cast("B")
        while left:
            written = os.pwrite(self._open[path], left, offset)
            left, offset = left[written:], offset + written

    def sync(self) -> None:
        """Puts everything on the disk."""
        for descriptor in self._open.values():
            os.fsync(descriptor)
