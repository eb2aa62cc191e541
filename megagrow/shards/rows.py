"""A shard -> its texts, a few MiB at a time; every row is a text or a counted reject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from megagrow.shards.blocks import BLOCK_BYTES, LONGEST_LINE, TOO_LONG, lines
from megagrow.shards.parquet import columns
from megagrow.shards.shard import Shard

Reject = Literal[
    "blank line", "not UTF-8", "lone surrogate", "not JSON", "not an object", "no text field",
    "text is null", "text is not a string", "text is empty", "row too long",
    "no tokens", "holds the end-of-document token",
]  # fmt: skip
"""Why a row is in no bucket. The last two are found after tokenization."""

CHUNK_BYTES = 8 << 20
"""Decompressed bytes whose rows are handled together: bounds the memory."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PARSED_TOGETHER = 64

_Line = bytes | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Consecutive rows of one shard."""

    texts: list[str]
    """Texts of the good ones."""

    numbers: NDArray[np.int64]
    """Row number in the shard of each text, from 0; shape [texts]."""

    rejects: Counter[str]
    """How many of the others there were, by reason."""

    count: int
    """Rows in all: texts and rejects."""

    consumed: int
    """Bytes of the file that have been read so far."""


def read(shard: Shard, *, key: str = "text", chunk_bytes: int = CHUNK_BYTES) -> Iterator[Rows]:
    """The rows of a shard in order.

    Args:
        shard: the file.
        key: field or column that holds the text.
        chunk_bytes: decompressed bytes to take at once.

    Raises:
        DataError: the file is truncated, damaged, cannot be read, or has no such column.
    """
    first = 0
    if shard.format == "parquet":
        for values, consumed in columns(shard, key):
            rows = _check_column(values, first, consumed)
            first += rows.count
            yield rows
        return
    batch, consumed = _Batch(first=0), 0
    for found, consumed in lines(shard, min(chunk_bytes, BLOCK_BYTES)):
        if batch.first == batch.count == 0:
            found[0] = bytes(found[0]).removeprefix(_BYTE_ORDER_MARK)
        batch.add(found, key)
        if batch.size >= chunk_bytes:
            yield batch.rows(consumed)
            batch = _Batch(first=batch.first + batch.count)
    if batch.count:
        yield batch.rows(consumed)


@dataclass(kw_only=True, slots=True)
class _Batch:
    """Rows that are gathered to be given out together."""

    first: int
    texts: list[str] = field(default_factory=list)
    numbers: list[NDArray[np.int64]] = field(default_factory=list)
    rejects: Counter[str] = field(default_factory=Counter)
    count: int = 0
    size: int = 0  # bytes of the lines

    def add(self, lines: list[_Line], key: str) -> None:
        """Parses lines."""
        # A few at a time, so that the parsed rows, of which little is kept, stay in the cache.
        for start in range(0, len(lines), _PARSED_TOGETHER):
            part = lines[start : start + _PARSED_TOGETHER]
            begin = self.first + self.count
            found = _all_good(part, key)
            if found is None:
                found, kept = _one_by_one(part, key, self.rejects)
                self.numbers.append(begin + np.array(kept, dtype=np.int64))
            else:
                self.numbers.append(np.arange(begin, begin + len(part)))
            self.texts += found
            self.count += len(part)
        self.size += sum(map(len, lines)) + len(lines)

    def rows(self, consumed: int) -> Rows:
        """What was gathered."""
        return Rows(
            texts=self.texts,
            numbers=np.concatenate(self.numbers),
            rejects=self.rejects,
            count=self.count,
            consumed=consumed,
        )


def _all_good(part: list[_Line], key: str) -> list[str] | None:
    """Texts of all rows, or None if any has something wrong: the common case, without a loop."""
    try:
        texts = [row[key] for row in map(orjson.loads, part)]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return None
    return texts if set(map(type, texts)) == {str} and "" not in texts else None


def _one_by_one(part: list[_Line], key: str, rejects: Counter[str]) -> tuple[list[str], list[int]]:
    """Texts of the good rows and their places; counts the others."""
    texts: list[str] = []
    kept: list[int] = []
    for place, line in enumerate(part):
        value = _text(line, key)
        if isinstance(value, _Rejected):
            rejects[value.reason] += 1
        else:
            texts.append(value)
            kept.append(place)
    return texts, kept


@dataclass(frozen=True, slots=True)
class _Rejected:
    reason: Reject


def _text(view: _Line, key: str) -> str | _Rejected:
    if view is TOO_LONG:
        return _Rejected("row too long")
    line = bytes(view)
    if not line.strip():
        return _Rejected("blank line")
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError:
            return _Rejected("not UTF-8")
        return _Rejected("lone surrogate" if "surrogate" in str(error) else "not JSON")
    if not isinstance(row, dict):
        return _Rejected("not an object")
    return _checked(row[key]) if key in row else _Rejected("no text field")


def _checked(value: object) -> str | _Rejected:
    if value is None:
        return _Rejected("text is null")
    if not isinstance(value, str):
        return _Rejected("text is not a string")
    # Of a parquet file; no character takes more than four bytes.
    if len(value) * 4 > LONGEST_LINE and len(value.encode(errors="replace")) > LONGEST_LINE:
        return _Rejected("row too long")
    return value or _Rejected("text is empty")


def _check_column(values: Sequence[Any], first: int, consumed: int) -> Rows:
    texts: list[str] = []
    kept: list[int] = []
    rejects: Counter[str] = Counter()
    for place, value in enumerate(values):
        checked = _checked(value) if not isinstance(value, bytes) else _decoded(value)
        if isinstance(checked, _Rejected):
            rejects[checked.reason] += 1
        else:
            texts.append(checked)
            kept.append(place)
    return Rows(
        texts=texts,
        numbers=first + np.array(kept, dtype=np.int64),
        rejects=rejects,
        count=len(values),
        consumed=consumed,
    )


def _decoded(value: bytes) -> str | _Rejected:
    try:
        return _checked(value.decode())
    except UnicodeDecodeError:
        return _Rejected("not UTF-8")
