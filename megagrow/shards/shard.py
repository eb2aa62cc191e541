"""The input files of a job: finding them, telling their format, and knowing them again."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from megagrow.errors import DataError
from megagrow.shards.storage import expand, is_remote, open_binary

Format = Literal["jsonl", "zstd", "gzip", "parquet"]

# By content: DCLM's shards end with .zst here and with .zstd there.
_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x1f\x8b", "gzip"),
    (b"PAR1", "parquet"),
)
_SKIPPABLE_FRAME = b"\x2a\x4d\x18"  # zstd's, after one byte; pzstd begins with it
_FOREIGN = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}
_EDGE_BYTES = 1 << 20


class DamagedShardError(DataError):
    """A file that is truncated, damaged, changed or gone; the others can still be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One input file as it was when the job looked at it."""

    location: str
    """Absolute path, or URL."""

    format: Format
    """What it is, by its first bytes; the name does not count."""

    size: int
    """Bytes."""

    fingerprint: str
    """Size and CRC-32 of the first and of the last MiB: other content, other fingerprint."""

    modified: int | None = field(default=None, compare=False)
    """When a local file was last written, in nanoseconds; copying it changes nothing else."""


def find(inputs: Iterable[str | Path]) -> list[str]:
    """The files that paths, URLs, folders, globs and lists of files stand for.

    Args:
        inputs: a file; a folder (its files with a known suffix, at any depth); a glob; or `@FILE`
            with one of these in each line.

    Returns:
        Each file once, sorted by name.

    Raises:
        DataError: something that stands for no file, with the nearest name.
    """
    found: set[str] = set()
    for given in inputs:
        for each in _from_list(str(given)):
            found.update(expand(each))
    if not found:
        raise DataError("no input files: name files, folders, globs or @LIST")
    return sorted(found)


def look_at(location: str) -> Shard:
    """Format and fingerprint of a file.

    Raises:
        DataError: it cannot be read, or has a format that is not read here.
    """
    with open_binary(location) as stream:
        try:
            head = stream.read(_EDGE_BYTES)
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _EDGE_BYTES))
            tail = stream.read(_EDGE_BYTES)
        except OSError as error:
            raise DataError(f"{location}: cannot be read: {error}") from None
    return Shard(
        location=location,
        format=_format(location, head),
        size=size,
        fingerprint=f"{size}-{zlib.crc32(head):08x}-{zlib.crc32(tail):08x}",
        modified=None if is_remote(location) else Path(location).stat().st_mtime_ns,
    )


def check_unchanged(shard: Shard) -> None:
    """Looks at a file again.

    Raises:
        DataError: it is not what it was when the job began.
    """
    try:
        now = look_at(shard.location)
    except DataError as error:
        raise DamagedShardError(str(error)) from None
    if (now.fingerprint, now.modified) != (shard.fingerprint, shard.modified):
        raise DamagedShardError(
            f"{shard.location}: changed since the job began; run again when nothing writes to it"
        )


def check_distinct(shards: Sequence[Shard]) -> None:
    """No file may be there twice: its documents would be trained on twice.

    Raises:
        DataError: two files have the same content.
    """
    seen: dict[str, Shard] = {}
    for shard in shards:
        other = seen.setdefault(shard.fingerprint, shard)
        if other is not shard and shard.size:
            raise DataError(
                f"{other.location} and {shard.location} look the same (size, first and last MiB), "
                "which would repeat every document: leave one out"
            )


def _from_list(given: str) -> list[str]:
    if not given.startswith("@"):
        return [given]
    path = Path(given[1:])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list of input files cannot be read: {error}") from None
    return [line.strip() for line in text.split("\n") if line.strip()]


def _format(location: str, head: bytes) -> Format:
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[1:4] == _SKIPPABLE_FRAME and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    for magic, foreign in _FOREIGN.items():
        if head.startswith(magic):
            raise DataError(
                f"{location}: {foreign} is not read here; convert it to .jsonl, .jsonl.zst, "
                ".jsonl.gz or .parquet"
            )
    return "jsonl"
