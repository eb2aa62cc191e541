"""Parts -> the files of a bucket: tokens, index and sidecar, in the order of the input."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing.pool import Advance, Report
from megagrow.bucketing.writing import part, sidecar
from megagrow.data.manifest import FileStats
from megagrow.data.writer import write_index
from megagrow.runtime.files import copy_bytes, publish

MAX_DOCUMENTS = 2**31 - 1
"""Documents in a file; megatron-core numbers them with int32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A part that goes into a bucket."""

    folder: Path
    """The part."""

    input: int
    """Number of its input file."""

    level: part.Level
    """What it holds of the bucket's level."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketFile:
    """One `.bin` to write, with its index and sidecar."""

    prefix: Path
    """Path of the files, without suffix."""

    scratch: Path
    """Folder on the same file system for files that are not whole yet."""

    level: int
    """Number of the level."""

    sources: tuple[Source, ...]
    """The parts, in the order of the input; none of them empty."""

    dtype: np.dtype[Any]
    """Element type of the tokens."""


def plan(
    output: Path,
    names: Sequence[str],
    sources: Sequence[Sequence[Source]],
    *,
    dtype: np.dtype[Any],
    tokens_per_file: int,
    scratch: Path,
) -> list[BucketFile]:
    """Which parts go into which file: `NAME`, or `NAME-00000` and so on where one is too small.

    Args:
        output: folder of the buckets.
        names: of the levels.
        sources: the parts of each level, in the order of the input.
        dtype: element type of the tokens.
        tokens_per_file: begin another file rather than exceed it; a part stays whole.
        scratch: folder on the same file system for files that are not whole yet.
    """
    files: list[BucketFile] = []
    for level, (name, every) in enumerate(zip(names, sources, strict=True)):
        groups = list(_groups([each for each in every if each.level.documents], tokens_per_file))
        for number, group in enumerate(groups):
            prefix = output / (name if len(groups) == 1 else f"{name}-{number:05d}")
            files.append(
                BucketFile(prefix=prefix, scratch=scratch, level=level, sources=group, dtype=dtype)
            )
    return files


def _groups(sources: Sequence[Source], tokens_per_file: int) -> Iterator[tuple[Source, ...]]:
    group: list[Source] = []
    tokens = documents = 0
    for source in sources:
        tokens += source.level.tokens
        documents += source.level.documents
        if group and (tokens > tokens_per_file or documents > MAX_DOCUMENTS):
            yield tuple(group)
            group, tokens, documents = [], source.level.tokens, source.level.documents
        group.append(source)
    if group:
        yield tuple(group)


def merge(file: BucketFile, report: Report) -> FileStats:
    """Writes one file of a bucket, its index last, and tells of the bytes it copies."""
    temporary = file.scratch / f"{file.prefix.name}.tmp"
    documents = sum(source.level.documents for source in file.sources)
    tokens = sum(source.level.tokens for source in file.sources)
    try:
        with temporary.open("wb") as out:
            for source in file.sources:
                _append(part.tokens_file(source.folder, file.level), out)
                report(Advance(source.level.tokens * file.dtype.itemsize))
            _sync(out)
        publish(temporary, _suffixed(file.prefix, ".bin"))
        with temporary.open("wb") as out:
            sidecar.write_header(out, documents)
            for records in _records(file):
                out.write(records.tobytes())
            _sync(out)
        publish(temporary, sidecar.sidecar_file(file.prefix))
        with temporary.open("wb") as out:
            lengths = np.concatenate([_lengths(source, file.level) for source in file.sources])
            digest = write_index(out, lengths, file.dtype)
            _sync(out)
        publish(temporary, _suffixed(file.prefix, ".idx"))
    finally:
        temporary.unlink(missing_ok=True)
    return FileStats(
        prefix=file.prefix.name,
        documents=documents,
        tokens=tokens,
        bytes=tokens * file.dtype.itemsize,
        idx_sha256=digest,
    )


def _append(path: Path, out: IO[bytes]) -> None:
    out.flush()
    with path.open("rb") as stream:
        try:
            copy_bytes(stream.fileno(), out.fileno(), os.fstat(stream.fileno()).st_size)
        except EOFError:
            raise OSError(
                errno.EIO, f"{path} ended early: remove its folder and run again"
            ) from None


def _records(file: BucketFile) -> Iterator[NDArray[Any]]:
    for source in file.sources:
        found = part.records(source.folder)
        mine = found[found["level"] == file.level]
        records = np.empty(mine.size, dtype=sidecar.SIDECAR)
        records["input"] = source.input
        records["row"], records["score"] = mine["row"], mine["score"]
        yield records


def _lengths(source: Source, level: int) -> NDArray[np.int32]:
    found = part.records(source.folder)
    lengths: NDArray[np.int32] = found["length"][found["level"] == level]
    return lengths


def _sync(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _suffixed(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)
