"""A text shard -> its decompressed bytes, a few MiB at a time, and whole lines of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import IO

import zstandard

from megagrow.bucketing.reading.shards import Shard
from megagrow.bucketing.reading.storage import open_binary
from megagrow.errors import DataError

CHUNK_BYTES = 8 << 20
"""Decompressed bytes that are handled together: fits the caches, and bounds the memory."""

LONGEST_LINE = 16 << 20
"""Bytes of the longest line that is read: it has to be held whole, several times over."""

# Read at once from a compressed shard. Small, as what it decompresses to comes all at once.
_COMPRESSED_BYTES = 256 << 10

_FETCH_AGAIN = "fetch it again"


def lines(shard: Shard, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[list[bytes], int, int]]:
    """Whole lines of a shard in order, without their newline.

    Returns:
        Lines; how many lines after them were too long to hold (0 or 1); and how many bytes of the
        file have been read.

    Raises:
        DataError: the file is truncated, damaged or cannot be read.
    """
    rest = b""
    skipping = False  # inside a line that is too long
    consumed = 0
    for block, consumed in _blocks(shard, chunk_bytes):
        data = block
        if skipping:
            _, newline, data = block.partition(b"\n")
            if not newline:
                continue
            skipping = False
        whole = (rest + data).split(b"\n")  # not splitlines(), which splits at \r, too
        rest = whole.pop()
        if len(rest) > LONGEST_LINE:
            rest, skipping = b"", True
        yield whole, int(skipping), consumed
    if rest:
        yield [rest], 0, consumed


def _blocks(shard: Shard, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Blocks of about `chunk_bytes`, and how many bytes of the file have been read."""
    opened = {"jsonl": _plain, "zstd": _zstd, "gzip": _gzip}[shard.format]
    with open_binary(shard.location) as stream:
        try:
            yield from opened(stream, chunk_bytes)
        except _DamagedError as damage:
            raise DataError(f"{shard.location}: {damage}") from None
        except OSError as error:
            raise DataError(f"{shard.location}: cannot be read: {error}") from None


class _DamagedError(Exception):
    """The text says what is wrong with the file, and how to mend it."""


def _plain(stream: IO[bytes], chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    while block := stream.read(chunk_bytes):
        yield block, stream.tell()


def _zstd(stream: IO[bytes], chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """All frames; zstandard's own stream reader takes a truncated one for the end of the file."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    pending: list[bytes] = []
    held = 0
    data = stream.read(_COMPRESSED_BYTES)
    while data:
        try:
            block = frame.decompress(data)
        except zstandard.ZstdError as error:
            raise _DamagedError(f"damaged ({error}); {_FETCH_AGAIN}") from None
        begun = not frame.eof
        pending.append(block)
        held += len(block)
        if held >= chunk_bytes:
            yield b"".join(pending), stream.tell()
            pending, held = [], 0
        data = b""
        if frame.eof:
            data = frame.unused_data
            frame = zstandard.ZstdDecompressor().decompressobj()
        data = data or stream.read(_COMPRESSED_BYTES)
    if begun:
        raise _DamagedError(f"truncated: its last zstd frame has no end; {_FETCH_AGAIN}")
    if held:
        yield b"".join(pending), stream.tell()


def _gzip(stream: IO[bytes], chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    try:
        with gzip.GzipFile(fileobj=stream) as members:
            while block := members.read(chunk_bytes):
                yield block, stream.tell()
    except EOFError:
        raise _DamagedError(f"truncated: its gzip stream has no end; {_FETCH_AGAIN}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _DamagedError(f"damaged ({error}); {_FETCH_AGAIN}") from None
