"""A text shard -> its decompressed bytes, a few MiB at a time, and whole lines of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import IO

import zstandard

from megagrow.shards.shard import DamagedShardError, Shard
from megagrow.shards.storage import open_binary

CHUNK_BYTES = 8 << 20
"""Decompressed bytes that are handled together: fits the caches, and bounds the memory."""

LONGEST_LINE = 16 << 20
"""Bytes of the longest line that is read: it has to be held whole, several times over."""

TOO_LONG = b"a line that is too long"  # Python shares bytes objects of length 1
"""Stands for a line that was too long; told by identity, so no line of a file can pass for it."""

_STREAM_BYTES = 256 << 10
# What a piece of a zstd shard decompresses to comes all at once. A piece is as large as the ratio
# so far lets it be; one of the first size gives 128 MiB at most.
_FIRST_PIECE, _SMALLEST_PIECE = 4 << 10, 512

_LARGEST_WINDOW = 128 << 20
_FETCH_AGAIN = "fetch it again"


def lines(shard: Shard, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[list[bytes], int]]:
    """Whole lines of a shard in order, without their newline.

    Returns:
        Lines, with `TOO_LONG` itself in the place of each that is longer than `LONGEST_LINE`; and
        how many bytes of the file have been read.

    Raises:
        DamagedShardError: the file is truncated, damaged or cannot be read.
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
        if whole and max(map(len, whole)) > LONGEST_LINE:
            whole = [TOO_LONG if len(line) > LONGEST_LINE else line for line in whole]
        if len(rest) > LONGEST_LINE:
            whole.append(TOO_LONG)
            rest, skipping = b"", True
        yield whole, consumed
    if rest:
        yield [rest], consumed


def _blocks(shard: Shard, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Blocks of about `chunk_bytes`, and how many bytes of the file have been read."""
    opened = {"jsonl": _plain, "zstd": _zstd, "gzip": _gzip}[shard.format]
    with open_binary(shard.location) as stream:
        try:
            yield from opened(stream, chunk_bytes)
        except _DamagedError as damage:
            raise DamagedShardError(f"{shard.location}: {damage}") from None
        except OSError as error:
            raise DamagedShardError(f"{shard.location}: cannot be read: {error}") from None


class _DamagedError(Exception):
    """The text says what is wrong with the file, and how to mend it."""


def _plain(stream: IO[bytes], chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    while block := stream.read(chunk_bytes):
        yield block, stream.tell()


def _zstd(stream: IO[bytes], chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """All frames; zstandard's own stream reader takes a truncated one for the end of the file."""
    frame = _decompressor()
    begun = False
    pending: list[bytes] = []
    held, size = 0, _FIRST_PIECE
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
        if block:
            size = len(piece) * chunk_bytes // len(block)
            size = max(min(size, _STREAM_BYTES), _SMALLEST_PIECE)
        begun = not frame.eof
        pending.append(block)
        held += len(block)
        if frame.eof:
            data = frame.unused_data + data
            frame = _decompressor()
        if held >= chunk_bytes:
            yield b"".join(pending), stream.tell() - len(data)
            pending, held = [], 0
        data = data or stream.read(_STREAM_BYTES)
    if begun:
        raise _DamagedError(f"truncated: its last zstd frame has no end; {_FETCH_AGAIN}")
    if held:
        yield b"".join(pending), stream.tell()


def _decompressor() -> zstandard.ZstdDecompressionObj:
    # `zstd --long` asks for windows of up to 2 GiB, which would be the worker's memory.
    return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()


def _gzip(stream: IO[bytes], chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    try:
        with gzip.GzipFile(fileobj=stream) as members:
            while block := members.read(chunk_bytes):
                yield block, stream.tell()
    except EOFError:
        raise _DamagedError(f"truncated: its gzip stream has no end; {_FETCH_AGAIN}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _DamagedError(f"damaged ({error}); {_FETCH_AGAIN}") from None
