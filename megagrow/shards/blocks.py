"""A text shard -> its decompressed bytes, some KiB at a time, and whole lines of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import IO

import zstandard

from megagrow.shards.shard import DamagedShardError, Shard
from megagrow.shards.storage import open_binary

BLOCK_BYTES = 256 << 10
"""Decompressed bytes that come at once: they are still in the caches when they are parsed."""

LONGEST_LINE = 16 << 20
"""Bytes of the longest line that is read: it has to be held whole, several times over."""

TOO_LONG = b"a line that is too long"  # Python shares bytes objects of length 1
"""Stands for a line that was too long; told by identity, so no line of a file can pass for it."""

_STREAM_BYTES = 256 << 10
# What a piece of a zstd shard decompresses to is one block. A piece is as large as the ratio so far
# lets it be; one of the first size gives 128 MiB at most.
_FIRST_PIECE, _SMALLEST_PIECE = 4 << 10, 512

_LARGEST_WINDOW = 128 << 20
_FETCH_AGAIN = "fetch it again"


def lines(
    shard: Shard, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[list[bytes | memoryview], int]]:
    """Whole lines of a shard in order, without their newline; nearly all are parts of a block.

    Args:
        shard: the file.
        block_bytes: about how many decompressed bytes to take at once.

    Returns:
        Lines, with `TOO_LONG` itself in the place of each that is longer than `LONGEST_LINE`; and
        how many bytes of the file have been read.

    Raises:
        DamagedShardError: the file is truncated, damaged or cannot be read.
    """
    rest: list[bytes] = []  # what has come of a line that goes on in the next block
    held = 0
    skipping = False  # inside a line that is too long
    consumed = 0
    for block, consumed in _blocks(shard, block_bytes):
        found, start = _split(block)
        if found and skipping:
            del found[0]
            skipping = False
        elif found and rest:
            found[0] = b"".join((*rest, found[0]))
            rest, held = [], 0
        if start < len(block) and not skipping:
            rest.append(block[start:])
            held += len(block) - start
        if found and max(map(len, found)) > LONGEST_LINE:
            found = [TOO_LONG if len(line) > LONGEST_LINE else line for line in found]
        if held > LONGEST_LINE:
            found.append(TOO_LONG)
            rest, held, skipping = [], 0, True
        if found:
            yield found, consumed
    if rest:
        yield [b"".join(rest)], consumed


def _split(block: bytes) -> tuple[list[bytes | memoryview], int]:
    """The lines that end in a block, not copied, and where the one after them begins."""
    found: list[bytes | memoryview] = []
    view, start = memoryview(block), 0
    while (end := block.find(b"\n", start)) >= 0:  # not splitlines(), which splits at \r, too
        found.append(view[start:end])
        start = end + 1
    return found, start


def _blocks(shard: Shard, block_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Blocks of about `block_bytes`, and how many bytes of the file have been read."""
    opened = {"jsonl": _plain, "zstd": _zstd, "gzip": _gzip}[shard.format]
    with open_binary(shard.location) as stream:
        try:
            yield from opened(stream, block_bytes)
        except _DamagedError as damage:
            raise DamagedShardError(f"{shard.location}: {damage}") from None
        except OSError as error:
            raise DamagedShardError(f"{shard.location}: cannot be read: {error}") from None


class _DamagedError(Exception):
    """The text says what is wrong with the file, and how to mend it."""


def _plain(stream: IO[bytes], block_bytes: int) -> Iterator[tuple[bytes, int]]:
    while block := stream.read(block_bytes):
        yield block, stream.tell()


def _zstd(stream: IO[bytes], block_bytes: int) -> Iterator[tuple[bytes, int]]:
    """All frames; zstandard's own stream reader takes a truncated one for the end of the file."""
    frame = _decompressor()
    begun = False
    size = _FIRST_PIECE
    data = stream.read(_STREAM_BYTES)
    while data:
        piece, data = data[:size], data[size:]
        try:
            block = frame.decompress(piece)
        except zstandard.ZstdError as error:
            if "memory" in str(error):
                raise _DamagedError(
                    "compressed with a window above 128 MiB (zstd --long): compress it again "
                    "without --long"
                ) from None
            raise _DamagedError(f"damaged ({error}); {_FETCH_AGAIN}") from None
        begun = not frame.eof
        if frame.eof:
            data = frame.unused_data + data
            frame = _decompressor()
        if block:
            size = len(piece) * block_bytes // len(block)
            size = max(min(size, _STREAM_BYTES), _SMALLEST_PIECE)
            yield block, stream.tell() - len(data)
        data = data or stream.read(_STREAM_BYTES)
    if begun:
        raise _DamagedError(f"truncated: its last zstd frame has no end; {_FETCH_AGAIN}")


def _decompressor() -> zstandard.ZstdDecompressionObj:
    # `zstd --long` asks for windows of up to 2 GiB, which would be the worker's memory.
    return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()


def _gzip(stream: IO[bytes], block_bytes: int) -> Iterator[tuple[bytes, int]]:
    try:
        with gzip.GzipFile(fileobj=stream) as members:
            while block := members.read(block_bytes):
                yield block, stream.tell()
    except EOFError:
        raise _DamagedError(f"truncated: its gzip stream has no end; {_FETCH_AGAIN}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _DamagedError(f"damaged ({error}); {_FETCH_AGAIN}") from None
