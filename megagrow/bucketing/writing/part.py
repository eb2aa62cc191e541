"""One shard -> one part: for each level the tokens of its documents, and a record of every one.

A part is a folder that appears whole, by one rename, so a killed job leaves parts that are
finished and nothing else that counts.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing.pool import Advance
from megagrow.bucketing.recipe import OpenRecipe
from megagrow.bucketing.writing.encode import encode
from megagrow.errors import DataError
from megagrow.runtime.files import publish
from megagrow.shards.rows import Rows, read
from megagrow.shards.shard import Shard, check_unchanged
from megagrow.tokenization.batch import TokenBatch

RECORD = np.dtype([("row", "<u4"), ("length", "<i4"), ("score", "<f4"), ("level", "u1")])
"""A document of a part, in the order of the input: row of the shard, ids in it with that of the
end, score, level."""

_SUMMARY = "part.json"
_RECORDS = "documents.npy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """What a part, or a bucket, holds of one level."""

    documents: int
    """Documents."""

    tokens: int
    """Token ids, one end-of-document id per document included."""

    crc32: int
    """CRC-32 of the bytes of the token file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What became of a shard."""

    rows: int
    """Rows read: documents and rejects."""

    rejects: dict[str, int]
    """Rows in no bucket, by reason."""

    text_bytes: int
    """UTF-8 bytes of the documents' text."""

    levels: tuple[Level, ...]
    """What each level holds, easiest first."""


def make(shard: Shard, folder: Path, recipe: OpenRecipe, report: Callable[[Advance], None]) -> Part:
    """Reads a shard and writes its part as `folder`.

    Args:
        shard: what to read.
        folder: the part; where it exists already, another process has made the same one.
        recipe: how.
        report: is told of the work done, some MiB at a time.

    Raises:
        DataError: the shard is damaged, or changed since the job began.
        OSError: the part cannot be written, for example because the disk is full.
    """
    check_unchanged(shard)
    # Tasks on other machines may work in the same folder.
    temporary = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with _PartWriter(temporary, recipe) as writer:
            consumed = 0
            for rows in read(shard, key=recipe.encoding.text_key):
                done = writer.add(rows, rows.consumed - consumed)
                consumed = rows.consumed
                report(done)
            report(Advance(input_bytes=shard.size - consumed))
            part = writer.finish()
        check_unchanged(shard)
        try:
            publish(temporary, folder)
        except OSError:
            if not folder.exists():  # else another process has made the same part meanwhile
                raise
        return part
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: Path, levels: int, itemsize: int) -> Part | None:
    """A part made earlier, or None if it is not there, or not whole.

    Args:
        folder: the part.
        levels: how many levels it must have.
        itemsize: bytes of a token id.
    """
    try:
        found = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
        part = Part(
            rows=found["rows"],
            rejects=found["rejects"],
            text_bytes=found["text_bytes"],
            levels=tuple(Level(**each) for each in found["levels"]),
        )
        sizes = [tokens_file(folder, level).stat().st_size for level in range(levels)]
        whole = [each.tokens * itemsize for each in part.levels] == sizes
        return part if whole and records(folder).size == documents(part) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def documents(part: Part) -> int:
    """Documents of a part, in all levels."""
    return sum(level.documents for level in part.levels)


def tokens_file(folder: Path, level: int) -> Path:
    """Where a part keeps the tokens of a level."""
    return folder / f"{level}.bin"


def records(folder: Path) -> NDArray[Any]:
    """Records of a part's documents, of type `RECORD`, mapped from the disk."""
    found: NDArray[Any] = np.load(folder / _RECORDS, mmap_mode="r", allow_pickle=False)
    if found.dtype != RECORD:
        raise ValueError(f"{folder}: other records than expected")
    return found


class _PartWriter:
    """Takes rows, scores and sorts them, and appends each to the file of its level."""

    def __init__(self, folder: Path, recipe: OpenRecipe) -> None:
        self._folder = folder
        self._recipe = recipe
        self._names = recipe.levels.names
        self._records: list[NDArray[Any]] = []
        self._rejects: Counter[str] = Counter()
        self._rows = self._text_bytes = 0
        self._tokens = [0 for _ in self._names]
        self._crc32 = [0 for _ in self._names]
        self._files: list[IO[bytes]] = []
        self._flusher = ThreadPoolExecutor(1)
        self._flushing: Future[None] | None = None

    def __enter__(self) -> _PartWriter:
        self._files = [
            tokens_file(self._folder, level).open("wb") for level in range(len(self._names))
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._flusher.shutdown()
        for file in self._files:
            file.close()

    def add(self, rows: Rows, input_bytes: int) -> Advance:
        """Adds rows; returns the work that was."""
        encoded = encode(rows, self._recipe.encoding)
        self._rows += rows.count
        self._rejects.update(encoded.rejects)
        text_bytes = encoded.text_bytes
        self._text_bytes += text_bytes
        if encoded.texts:
            scores = self._recipe.scorer.score(encoded.texts, encoded.tokens)
            self._append(encoded.tokens, encoded.numbers, scores)
            self._flush_meanwhile()
        return Advance(
            input_bytes=input_bytes,
            text_bytes=text_bytes,
            tokens=int(encoded.tokens.flat.size) + len(encoded.texts),
            documents=len(encoded.texts),
        )

    def _append(
        self, tokens: TokenBatch, numbers: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> None:
        if not np.isfinite(scores).all():
            raise DataError(f"the {self._recipe.scorer.kind} scorer gave a score that is no number")
        found = np.empty(scores.size, dtype=RECORD)
        found["row"], found["length"] = numbers, tokens.lengths + 1
        found["score"], found["level"] = scores, self._recipe.levels.of(scores)
        self._records.append(found)
        flat = tokens.flat.astype(self._recipe.encoding.dtype)
        end = np.array([self._recipe.encoding.tokenizer.eod], dtype=flat.dtype)
        starts = tokens.offsets.tolist()
        for level, file in enumerate(self._files):
            pieces: list[NDArray[Any]] = []
            for document in np.flatnonzero(found["level"] == level).tolist():
                pieces += (flat[starts[document] : starts[document + 1]], end)
            if pieces:
                block = np.concatenate(pieces)
                file.write(block.data)
                self._tokens[level] += block.size
                self._crc32[level] = zlib.crc32(block.data, self._crc32[level])

    def _flush_meanwhile(self) -> None:
        """Has the disk take what is written while the next rows are worked on."""
        if self._flushing is None or self._flushing.done():
            self._flushing = self._flusher.submit(_sync_all, self._files)

    def finish(self) -> Part:
        """Puts everything on the disk."""
        found = np.concatenate(self._records) if self._records else np.empty(0, dtype=RECORD)
        with (self._folder / _RECORDS).open("wb") as stream:
            np.save(stream, found, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
        if self._flushing is not None:
            self._flushing.result()  # raises what the disk said
        _sync_all(self._files)
        counts = np.bincount(found["level"], minlength=len(self._names))
        part = Part(
            rows=self._rows,
            rejects=dict(sorted(self._rejects.items())),
            text_bytes=self._text_bytes,
            levels=tuple(
                Level(documents=int(count), tokens=tokens, crc32=crc)
                for count, tokens, crc in zip(counts, self._tokens, self._crc32, strict=True)
            ),
        )
        with (self._folder / _SUMMARY).open("w", encoding="utf-8") as stream:
            json.dump(asdict(part), stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        return part


def _sync_all(files: Sequence[IO[bytes]]) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
