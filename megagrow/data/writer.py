"""Write documents of token ids as Megatron .bin/.idx files.

The layout is that of megatron.core.datasets.indexed_dataset: `.bin` holds the bare little-endian
ids of all documents, `.idx` their lengths and byte offsets. It is written here because the
original needs torch and builds its index from Python lists.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from megagrow.data.manifest import FileStats
from megagrow.errors import DataError
from megagrow.runtime.files import publish, write_atomically

# DType codes of indexed_dataset.py. It takes 16 bits below this vocabulary size.
_DTYPE_CODES = {np.dtype("<u2"): 8, np.dtype("<i4"): 4}
_UINT16_VOCABULARY = 65_500
_HEADER = b"MMIDIDX\x00\x00"
_BUFFER_BYTES = 8 << 20
_INDEX_CHUNK = 1 << 18  # documents


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Element type for ids below `vocab_size`, as DType.optimal_dtype of megatron-core picks it."""
    return np.dtype("<u2" if vocab_size < _UINT16_VOCABULARY else "<i4")


class BucketWriter:
    """Stream documents into `<prefix>.bin` and `<prefix>.idx`.

    Use it as a context manager. The two files appear, complete, when the block ends; when it ends
    by an exception, files of an earlier run are left as they were.

    Args:
        prefix: path without suffix; its folder must exist.
        vocab_size: one more than the largest id allowed, special tokens included.
        eod: id appended to every document.

    Raises:
        DataError: `eod` is not below `vocab_size`.
    """

    def __init__(self, prefix: str | Path, *, vocab_size: int, eod: int) -> None:
        if not 0 <= eod < vocab_size:
            raise DataError(f"end-of-document id {eod} is not in a vocabulary of {vocab_size}")
        self.prefix = Path(prefix)
        self.dtype = token_dtype(vocab_size)
        self._vocab_size = vocab_size
        self._eod = eod
        self._lengths: list[NDArray[np.int32]] = []
        self._documents = 0
        self._tokens = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._temporary = self._path(".bin.tmp")
        self._file = self._temporary.open("wb")
        self._stats: FileStats | None = None

    @property
    def tokens(self) -> int:
        """Number of ids taken so far, end-of-document ids included."""
        return self._tokens

    @property
    def stats(self) -> FileStats:
        """What the bucket holds, once the block has ended.

        Raises:
            DataError: the bucket is not finished.
        """
        if self._stats is None:
            raise DataError(f"bucket {self.prefix} is not finished")
        return self._stats

    def add(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> None:
        """Add one document, without its end-of-document id.

        Raises:
            DataError: as `add_documents`.
        """
        flat = np.asarray(ids, dtype=np.int64)
        self.add_documents(flat, np.array([flat.size]))

    def add_documents(
        self, flat: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]
    ) -> None:
        """Add many documents at once.

        Args:
            flat: ids of all documents one after the other, shape [sum of lengths].
            lengths: ids in each document, shape [documents].

        Raises:
            DataError: an empty document, a length sum that is not that of `flat`, an id outside
                the vocabulary, or the end-of-document id inside a document.
        """
        self._check(flat, lengths)
        ends = np.cumsum(lengths)
        block = np.insert(flat, ends, self._eod).astype(self.dtype)
        self._lengths.append((lengths + 1).astype(np.int32))
        self._documents += lengths.size
        self._tokens += block.size
        self._buffer.append(block.tobytes())
        self._buffered += block.nbytes
        if self._buffered >= _BUFFER_BYTES:
            self._flush()

    def _check(self, flat: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]) -> None:
        where = f"bucket {self.prefix}, after {self._documents} documents"
        if lengths.size and int(lengths.min()) < 1:
            raise DataError(f"{where}: an empty document; skip and count it where it is read")
        if lengths.size and int(lengths.max()) >= np.iinfo(np.int32).max:
            raise DataError(f"{where}: a document of {lengths.max()} tokens; split it")
        if int(lengths.sum()) != flat.size:
            raise DataError(f"{where}: lengths add up to {lengths.sum()}, but {flat.size} ids came")
        if flat.size and (flat.min() < 0 or flat.max() >= self._vocab_size):
            raise DataError(
                f"{where}: ids from {flat.min()} to {flat.max()} do not fit a vocabulary of "
                f"{self._vocab_size}; was the text encoded with another tokenizer?"
            )
        if (flat == self._eod).any():
            raise DataError(
                f"{where}: the end-of-document id {self._eod} is inside a document, which forges "
                "a boundary; encode the token's literal text as plain text"
            )

    def close(self) -> FileStats:
        """Finish both files and give them their names, .bin first.

        Raises:
            DataError: no document was added; megatron-core loops for ever on an empty dataset.
        """
        if self._stats is not None:
            return self._stats
        if not self._documents:
            self.abandon()
            raise DataError(f"bucket {self.prefix} is empty: give it at least one document")
        self._flush()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        index = index_bytes(np.concatenate(self._lengths), self.dtype)
        # An index left from an earlier run must never stand beside the new tokens.
        self._path(".idx").unlink(missing_ok=True)
        publish(self._temporary, self._path(".bin"))
        write_atomically(self._path(".idx"), index)
        self._stats = FileStats(
            prefix=self.prefix.name,
            documents=self._documents,
            tokens=self._tokens,
            bytes=self._tokens * self.dtype.itemsize,
            idx_sha256=hashlib.sha256(index).hexdigest(),
        )
        return self._stats

    def abandon(self) -> None:
        """Drop what was written; files of an earlier run stay."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> BucketWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _flush(self) -> None:
        self._file.writelines(self._buffer)
        self._buffer.clear()
        self._buffered = 0

    def _path(self, suffix: str) -> Path:
        # Not with_suffix(): a prefix may contain dots.
        return self.prefix.with_name(self.prefix.name + suffix)


def index_bytes(lengths: NDArray[np.integer[Any]], dtype: np.dtype[Any]) -> bytes:
    """Content of an .idx file; see `write_index`."""
    stream = BytesIO()
    write_index(stream, lengths, dtype)
    return stream.getvalue()


def write_index(stream: IO[bytes], lengths: NDArray[np.integer[Any]], dtype: np.dtype[Any]) -> str:
    """Writes an .idx file with one sequence per document, some MiB at a time.

    Byte-identical to `_IndexWriter` of megatron.core.datasets.indexed_dataset.

    Args:
        stream: where to write.
        lengths: tokens of each document, shape [documents].
        dtype: element type of the .bin file.

    Returns:
        sha256 of what was written, as hexadecimal text.
    """
    digest = hashlib.sha256()

    def write(block: bytes | memoryview) -> None:
        stream.write(block)
        digest.update(block)

    count = lengths.size
    write(_HEADER + struct.pack("<QBQQ", 1, _DTYPE_CODES[dtype], count, count + 1))
    starts = range(0, count, _INDEX_CHUNK)
    for start in starts:
        write(lengths[start : start + _INDEX_CHUNK].astype("<i4").data)
    offset = 0
    for start in starts:
        ends = np.cumsum(lengths[start : start + _INDEX_CHUNK], dtype="<i8")
        offsets = np.empty_like(ends)
        offsets[0], offsets[1:] = 0, ends[:-1]
        offsets += offset
        offset += int(ends[-1])
        offsets *= dtype.itemsize
        write(offsets.data)
    for start in range(0, count + 1, _INDEX_CHUNK):
        write(np.arange(start, min(start + _INDEX_CHUNK, count + 1), dtype="<i8").data)
    return digest.hexdigest()
