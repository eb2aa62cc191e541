"""Megatron's indexed token files, read and checked without megatron-core.

A prefix ``p`` stands for two files (format: ``megatron.core.datasets.indexed_dataset``). ``p.bin``
holds the tokens, bare and little-endian. ``p.idx`` has a 34-byte header (9 bytes of magic, u64
version, u8 dtype code, u64 number of sequences, u64 number of document bounds), then int32 length
and int64 byte offset of every sequence, then the int64 document bounds, which count sequences.
megatron-core believes what the index says; reading past the end of a truncated file fails there in
the middle of a run, or gives wrong tokens. So everything is checked here, before the run.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megagrow.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")

#: Token types by their code in the header; the codes 6 and 7 are floats, which are no tokens.
DTYPES: dict[int, str] = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}

#: Bytes of a .bin file up to which every token is checked; of a larger one, as much is sampled.
SCAN_BYTES = 1 << 30

_CHUNK = 1 << 20
_REMAKE = "write the data again"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexSummary:
    """What a checked pair of .bin and .idx files holds."""

    prefix: str
    """Path of the two files, without ``.bin`` and ``.idx``."""

    documents: int
    """Documents in it."""

    sequences: int
    """Sequences in it; more than documents if documents are split, for example into sentences."""

    tokens: int
    """Tokens in it."""

    dtype: str
    """numpy name of the type of a token."""

    whole: bool
    """Whether every sequence is a document."""

    digest: int
    """CRC-32 of the sequence lengths and document bounds: equal for equal indices, wherever they
    are."""


def inspect(prefix: str | Path) -> IndexSummary:
    """Reads an index and checks it against its token file; reads no tokens.

    Takes about 0.1 s for a million documents, in constant memory.

    Raises:
        DataError: a file is missing or cannot be read, the index is not one or is damaged, or the
            token file does not have the size that the index says.
    """
    idx, tokens_file = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    for file, other in ((idx, tokens_file), (tokens_file, idx)):
        if not file.is_file():
            missing = f"; {other.name} is there" if other.is_file() else ""
            raise DataError(
                f"{file}: no such file{missing}. Copy both files, or correct the prefix."
            )
    try:
        return _inspect(str(prefix), idx, tokens_file)
    except OSError as error:
        raise DataError(f"{idx}: cannot be read: {error}") from error


def check_tokens(
    summary: IndexSummary, vocab_size: int, *, scan_bytes: int = SCAN_BYTES, seed: int = 0
) -> None:
    """Checks that token ids are below ``vocab_size`` and not negative.

    A file of up to ``scan_bytes`` is read whole. Of a larger one, blocks chosen by ``seed`` are
    read, ``scan_bytes`` in all, always with the first and the last one. Batches are checked again
    when they are read, so a stray id that is missed here cannot reach the model.

    Raises:
        DataError: an id is out of range; names file, document and id.
    """
    if summary.tokens == 0:
        return
    dtype = _little_endian(summary.dtype)
    limits = np.iinfo(dtype)
    if limits.min >= 0 and limits.max < vocab_size:
        return
    file = Path(f"{summary.prefix}.bin")
    try:
        tokens = np.memmap(file, dtype=dtype, mode="r")
        for start in _blocks(len(tokens), scan_bytes // dtype.itemsize, seed):
            block = tokens[start : start + _CHUNK]
            if int(block.max()) >= vocab_size or int(block.min()) < 0:
                wrong = int(np.argmax((block >= vocab_size) | (block < 0)))
                raise DataError(
                    f"{file}: token id {int(block[wrong])} at token {start + wrong} (document "
                    f"{_document_of(summary, start + wrong)}) is not in the vocabulary of "
                    f"{vocab_size}: set model.vocab_size to that of the tokenizer that wrote the "
                    "data, or tokenize again"
                )
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error}") from error


def _inspect(prefix: str, idx: Path, tokens_file: Path) -> IndexSummary:
    dtype, sequences, bounds = _read_header(idx)
    size = idx.stat().st_size
    expected = _HEADER.size + 12 * sequences + 8 * bounds
    # A multimodal index has one more byte per sequence.
    if size not in (expected, expected + sequences):
        raise DataError(
            f"{idx}: {size} bytes, but its header announces {sequences} sequences and {bounds - 1} "
            f"documents, which take {expected}: the file is truncated or damaged; {_REMAKE}"
        )
    lengths = _array(idx, "<i4", _HEADER.size, sequences)
    offsets = _array(idx, "<i8", _HEADER.size + 4 * sequences, sequences)
    ends = _array(idx, "<i8", _HEADER.size + 12 * sequences, bounds)
    tokens = _check_sequences(idx, lengths, offsets, dtype.itemsize)
    whole = _check_documents(idx, ends, sequences)
    actual = tokens_file.stat().st_size
    if actual != tokens * dtype.itemsize:
        raise DataError(
            f"{tokens_file}: {actual} bytes, but {idx.name} says {tokens} tokens of {dtype.name}, "
            f"{tokens * dtype.itemsize} bytes: the file is truncated, or the two do not belong "
            f"together; copy it again or {_REMAKE}"
        )
    digest = 0
    for array in (lengths, ends):
        for start in range(0, len(array), _CHUNK):
            digest = zlib.crc32(array[start : start + _CHUNK].tobytes(), digest)
    return IndexSummary(
        prefix=prefix,
        documents=bounds - 1,
        sequences=sequences,
        tokens=tokens,
        dtype=dtype.name,
        whole=whole,
        digest=digest,
    )


def _read_header(idx: Path) -> tuple[np.dtype[np.integer], int, int]:
    with idx.open("rb") as stream:
        header = stream.read(_HEADER.size)
    if header[: len(MAGIC)] != MAGIC:
        raise DataError(
            f"{idx}: not a Megatron index (it does not begin with {MAGIC!r}): point the bucket at "
            "the .bin/.idx pair that the data preparation wrote"
        )
    if len(header) < _HEADER.size:
        raise DataError(f"{idx}: the header is truncated after {len(header)} bytes; {_REMAKE}")
    _, version, code, sequences, bounds = _HEADER.unpack(header)
    if version != VERSION:
        raise DataError(
            f"{idx}: index version {version}, only version {VERSION} is known; {_REMAKE}"
        )
    if code not in DTYPES:
        known = ", ".join(f"{number} ({name})" for number, name in DTYPES.items())
        raise DataError(f"{idx}: dtype code {code} is not one of token ids: {known}; {_REMAKE}")
    if bounds < 1:
        raise DataError(f"{idx}: the list of document bounds is empty; {_REMAKE}")
    return _little_endian(DTYPES[code]), sequences, bounds


def _check_sequences(
    idx: Path, lengths: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], itemsize: int
) -> int:
    """Total tokens; no length is negative, each sequence begins where the one before ends."""
    total = 0
    for start in range(0, len(lengths), _CHUNK):
        chunk = lengths[start : start + _CHUNK].astype(np.int64)
        if chunk.min() < 0:
            wrong = int(np.argmax(chunk < 0))
            raise DataError(
                f"{idx}: sequence {start + wrong} has length {int(chunk[wrong])}; {_REMAKE}"
            )
        ends = total + np.cumsum(chunk)
        begins = (ends - chunk) * itemsize
        found = offsets[start : start + _CHUNK]
        if not np.array_equal(found, begins):
            wrong = int(np.argmax(found != begins))
            raise DataError(
                f"{idx}: sequence {start + wrong} begins at byte {int(found[wrong])}, but the "
                f"lengths before it add up to {int(begins[wrong])}: the index is damaged; {_REMAKE}"
            )
        total = int(ends[-1])
    return total


def _check_documents(idx: Path, ends: npt.NDArray[np.int64], sequences: int) -> bool:
    """Document bounds run from 0 to the number of sequences and never back.

    Returns whether every document is one sequence.
    """
    if int(ends[0]) != 0 or int(ends[-1]) != sequences:
        raise DataError(
            f"{idx}: documents run from sequence {int(ends[0])} to {int(ends[-1])} instead of 0 to "
            f"{sequences}: the index is damaged; {_REMAKE}"
        )
    whole = True
    for start in range(0, len(ends) - 1, _CHUNK):
        steps = np.diff(ends[start : start + _CHUNK + 1])
        if steps.min() < 0:
            wrong = start + int(np.argmax(steps < 0))
            raise DataError(f"{idx}: document {wrong} ends before it begins; {_REMAKE}")
        whole = whole and bool(np.all(steps == 1))
    return whole


def _document_of(summary: IndexSummary, token: int) -> int:
    idx, n = Path(f"{summary.prefix}.idx"), summary.sequences
    lengths = _array(idx, "<i4", _HEADER.size, n)
    bounds = _array(idx, "<i8", _HEADER.size + 12 * n, summary.documents + 1)
    sequence = np.searchsorted(np.cumsum(lengths, dtype=np.int64), token, side="right")
    return int(np.searchsorted(bounds, sequence, side="right")) - 1


def _blocks(length: int, budget: int, seed: int) -> Iterator[int]:
    count = -(-length // _CHUNK)
    wanted = max(budget // _CHUNK, 2)
    if count <= wanted:
        chosen = np.arange(count)
    else:
        inner = np.random.default_rng(seed).choice(count - 2, size=wanted - 2, replace=False) + 1
        chosen = np.sort(np.concatenate(([0, count - 1], inner)))
    for block in chosen:
        yield int(block) * _CHUNK


def _array(file: Path, dtype: str, offset: int, count: int) -> npt.NDArray[Any]:
    if count == 0:
        return np.empty(0, dtype=dtype)
    return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=(count,))


def _little_endian(name: str) -> np.dtype[np.integer]:
    return np.dtype(name).newbyteorder("<")
