"""Rows -> token ids; rows that no bucket can hold join the rejects."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing.recipe import OpenEncoding
from megagrow.errors import DataError
from megagrow.shards.rows import Rows
from megagrow.tokenization.batch import TokenBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Documents ready to be scored and written."""

    texts: list[str]
    """The documents."""

    numbers: NDArray[np.int64]
    """Row number in the shard of each, shape [texts]."""

    tokens: TokenBatch
    """Their ids, none of them empty, none with an end-of-document id."""

    rejects: Counter[str]
    """Rows in no bucket, by reason, those of the reader included."""

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the texts."""
        return sum(len(text) if text.isascii() else len(text.encode()) for text in self.texts)


def encode(rows: Rows, encoding: OpenEncoding) -> Encoded:
    """Encodes rows.

    Raises:
        DataError: the engine gives ids outside the tokenizer's vocabulary.
    """
    tokens = encoding.engine.encode(rows.texts)
    if tokens.documents != len(rows.texts):  # all later documents would be taken for others
        raise DataError(
            f"the {encoding.engine.name} engine gave {tokens.documents} documents for "
            f"{len(rows.texts)} texts: go on with --engine reference"
        )
    if tokens.flat.size and int(tokens.flat.max()) >= encoding.tokenizer.vocab_size:
        raise DataError(
            f"the {encoding.engine.name} engine gave id {int(tokens.flat.max())}, but the "
            f"vocabulary has {encoding.tokenizer.vocab_size}: go on with --engine reference"
        )
    empty = tokens.lengths == 0
    forged = tokens.flat == encoding.tokenizer.eod
    if not empty.any() and not forged.any():
        return Encoded(texts=rows.texts, numbers=rows.numbers, tokens=tokens, rejects=rows.rejects)
    return _without(rows, tokens, empty, _holding(forged, tokens.offsets))


def _holding(forged: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which documents hold an end-of-document id; one in a document would end it too early."""
    found = np.zeros(offsets.size - 1, dtype=np.bool_)
    found[np.searchsorted(offsets, np.flatnonzero(forged), side="right") - 1] = True
    return found


def _without(
    rows: Rows, tokens: TokenBatch, empty: NDArray[np.bool_], forged: NDArray[np.bool_]
) -> Encoded:
    good = ~(empty | forged)
    rejects = Counter(rows.rejects)
    for reason, which in (("no tokens", empty), ("holds the end-of-document token", forged)):
        if which.any():
            rejects[reason] += int(which.sum())
    offsets = np.concatenate(([0], np.cumsum(tokens.lengths[good])))
    flat: NDArray[Any] = tokens.flat[np.repeat(good, tokens.lengths)]
    return Encoded(
        texts=[text for text, kept in zip(rows.texts, good.tolist(), strict=True) if kept],
        numbers=rows.numbers[good],
        tokens=TokenBatch(flat=flat, offsets=offsets),
        rejects=rejects,
    )
