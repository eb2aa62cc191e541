"""The files of re-cut buckets: which documents go where in them, writing and publishing them.

They are made in the work folder at their full size, filled by the workers, and moved to their
places when all of them are whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from megagrow.bucketing.finished import Finished, manifest_sha256
from megagrow.bucketing.levels import Levels
from megagrow.bucketing.output import Output
from megagrow.bucketing.pool import Damaged, run
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recutting.cut import Cutting, NewFile, Piece, Run, Target, Task, cut, noted
from megagrow.bucketing.recutting.survey import Counts, Runs
from megagrow.bucketing.writing import merge, sidecar
from megagrow.bucketing.writing.part import Level
from megagrow.data.manifest import FileStats
from megagrow.data.writer import write_index
from megagrow.errors import DataError
from megagrow.runtime.files import publish
from megagrow.units import format_bytes

_TASK_BYTES = 256 << 20
"""Bytes of tokens that a worker copies before it notes that they are done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What decides every byte of the new files."""

    found: Finished
    """The folder to read."""

    output: Output
    """The folder to write."""

    levels: Levels
    """The new levels."""

    runs: tuple[Runs, ...]
    """Where each input's documents are in each old file."""

    counts: Counts
    """What each new level gets of each input."""

    tokens_per_file: int
    """Begin another file rather than exceed it."""

    def files(self) -> list[merge.BucketFile]:
        """The new files, divided as a job over the text divides them."""
        documents, tokens = self.counts.documents.tolist(), self.counts.tokens.tolist()
        sources = [
            [
                merge.Source(
                    folder=self.found.folder,
                    input=number,
                    level=Level(
                        documents=documents[number][level], tokens=tokens[number][level], crc32=0
                    ),
                )
                for number in range(len(documents))
            ]
            for level in range(len(self.levels.names))
        ]
        return merge.plan(
            self.output.folder,
            self.levels.names,
            sources,
            dtype=self.found.dtype,
            tokens_per_file=self.tokens_per_file,
            scratch=self.output.work / "new",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """The new files, all in their places."""

    files: dict[str, list[FileStats]]
    """Files of each bucket."""

    crc32: dict[int, list[int]]
    """CRC-32 of the tokens of each input, for each level."""


def write(layout: Layout, workers: int, progress: Progress) -> Written:
    """Writes all files, or those that an earlier run left undone.

    Raises:
        DataError: the old files are damaged or changed, or there is too little room.
        OSError: the new ones cannot be written.
    """
    planned = layout.files()
    new = _new_files(layout, planned)
    sums = _cut_all(layout, new, _tasks(layout, planned), workers, progress)
    stats = [_index(file, each) for file, each in zip(planned, new, strict=True)]
    if manifest_sha256(layout.found.folder) != layout.found.manifest_sha256:
        raise DataError(f"{layout.found.folder}: changed while it was read; run again")
    files: dict[str, list[FileStats]] = {name: [] for name in layout.levels.names}
    for file, each, stat in zip(planned, new, stats, strict=True):
        for suffix in (".bin", ".documents.npy", ".idx"):  # the index last: it makes them count
            if each.path(suffix).exists():
                publish(each.path(suffix), _final(file, suffix))
        files[layout.levels.names[file.level]].append(stat)
    return Written(files=files, crc32=sums)


def _new_files(layout: Layout, planned: Sequence[merge.BucketFile]) -> list[NewFile]:
    """Where the new files are made; those of an earlier run are kept if all of them are there."""
    folder = layout.output.work / "new"
    headers = [_sidecar_header(_documents(file)) for file in planned]
    new = [
        NewFile(prefix=file.scratch / file.prefix.name, records_at=len(header))
        for file, header in zip(planned, headers, strict=True)
    ]
    if all(_is_there(*each) for each in zip(planned, new, strict=True)):
        return new
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(_notes(layout), ignore_errors=True)
    sizes = [size for each in zip(planned, new, strict=True) for size in _sizes(*each).values()]
    _check_space(layout.output.folder, sum(sizes))
    folder.mkdir(parents=True)
    for file, each, header in zip(planned, new, headers, strict=True):
        for suffix, size in _sizes(file, each).items():
            with each.path(suffix).open("wb") as stream:
                stream.truncate(size)
                if suffix == ".documents.npy":
                    stream.write(header)  # on the disk for good with the first records
    _notes(layout).mkdir()
    return new


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder}: the new buckets take {format_bytes(needed)}, {format_bytes(free)} are "
            "free: make room, or choose another --output"
        )


def _is_there(file: merge.BucketFile, new: NewFile) -> bool:
    """Whether a file was begun by this very job; a whole one may have its place already."""
    for suffix, size in _sizes(file, new).items():
        path = new.path(suffix)
        if not path.exists() and suffix != ".lengths":
            path = _final(file, suffix)
        if not path.exists() or path.stat().st_size != size:
            return False
    return True


def _tasks(layout: Layout, planned: Sequence[merge.BucketFile]) -> list[Task]:
    """What to copy, in pieces that do not depend on the workers."""
    targets = _targets(planned)
    runs = _runs(layout)
    tasks: list[Task] = []
    pieces: list[Piece] = []
    size = 0
    for number in sorted(runs):
        every = tuple(targets.get((number, level)) for level in range(len(layout.levels.names)))
        pieces.append(Piece(input=number, runs=tuple(runs[number]), targets=every))
        size += int(layout.counts.tokens[number].sum()) * layout.found.dtype.itemsize
        if size >= _TASK_BYTES:
            tasks.append(_task(layout, len(tasks), pieces))
            pieces, size = [], 0
    return [*tasks, _task(layout, len(tasks), pieces)] if pieces else tasks


def _task(layout: Layout, number: int, pieces: Sequence[Piece]) -> Task:
    return Task(pieces=tuple(pieces), note=_notes(layout) / f"{number:06d}.json")


def _targets(planned: Sequence[merge.BucketFile]) -> dict[tuple[int, int], Target]:
    """Where the documents of an input and a level go."""
    targets: dict[tuple[int, int], Target] = {}
    for number, file in enumerate(planned):
        documents = tokens = 0
        for source in file.sources:
            targets[source.input, file.level] = Target(
                file=number, document=documents, token=tokens
            )
            documents += source.level.documents
            tokens += source.level.tokens
    return targets


def _runs(layout: Layout) -> dict[int, list[Run]]:
    """Where the documents of an input are now."""
    found: dict[int, list[Run]] = {}
    for number, (old, of) in enumerate(zip(layout.found.files, layout.runs, strict=True)):
        name = layout.found.names[old.level]
        sizes = np.diff(of.starts).tolist()
        for each, first, size in zip(
            of.inputs.tolist(), of.starts[:-1].tolist(), sizes, strict=True
        ):
            crc = int(layout.found.inputs[each]["levels"][name]["crc32"])
            found.setdefault(each, []).append(
                Run(file=number, first=first, documents=size, crc32=crc)
            )
    return found


def _cut_all(
    layout: Layout, new: Sequence[NewFile], tasks: Sequence[Task], workers: int, progress: Progress
) -> dict[int, list[int]]:
    """Copies what is not copied yet; returns the CRC-32 of each input in each level."""
    done = {number: noted(task) for number, task in enumerate(tasks)}
    missing = [number for number, sums in done.items() if sums is None]
    tokens = layout.counts.tokens.sum(axis=1)
    sizes = [
        int(tokens[[piece.input for piece in task.pieces]].sum()) * layout.found.dtype.itemsize
        for task in tasks
    ]
    left = sum(sizes[each] for each in missing)
    cutting = Cutting(old=layout.found.files, new=tuple(new), levels=layout.levels)
    with progress.phase("copying", sum(sizes), sum(sizes) - left):
        for number, result in run(
            cut,
            [tasks[each] for each in missing],
            cutting,
            workers=workers,
            report=progress.advance,
        ):
            if isinstance(result, Damaged):
                raise DataError(result.error)
            done[missing[number]] = result
    return {
        piece.input: sums
        for number, task in enumerate(tasks)
        for piece, sums in zip(task.pieces, done[number] or (), strict=True)
    }


def _index(file: merge.BucketFile, new: NewFile) -> FileStats:
    """Writes the index of a new file from the lengths of its documents."""
    lengths = np.memmap(new.path(".lengths"), dtype="<i4", mode="r", shape=(_documents(file),))
    temporary = new.path(".idx.tmp")
    with temporary.open("wb") as stream:
        digest = write_index(stream, lengths, file.dtype)
        stream.flush()
        os.fsync(stream.fileno())
    publish(temporary, new.path(".idx"))
    return FileStats(
        prefix=file.prefix.name,
        documents=_documents(file),
        tokens=_tokens(file),
        bytes=_tokens(file) * file.dtype.itemsize,
        idx_sha256=digest,
    )


def _sizes(file: merge.BucketFile, new: NewFile) -> dict[str, int]:
    documents = _documents(file)
    return {
        ".bin": _tokens(file) * file.dtype.itemsize,
        ".documents.npy": new.records_at + documents * sidecar.SIDECAR.itemsize,
        ".lengths": documents * 4,
    }


def _final(file: merge.BucketFile, suffix: str) -> Path:
    return file.prefix.with_name(file.prefix.name + suffix)


def _sidecar_header(documents: int) -> bytes:
    stream = BytesIO()
    sidecar.write_header(stream, documents)
    return stream.getvalue()


def _notes(layout: Layout) -> Path:
    return layout.output.work / "done"


def _documents(file: merge.BucketFile) -> int:
    return sum(source.level.documents for source in file.sources)


def _tokens(file: merge.BucketFile) -> int:
    return sum(source.level.tokens for source in file.sources)
