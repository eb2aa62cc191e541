"""How rare a document's tokens are: mean surprisal under frozen token counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from megagrow.difficulty.arrays import read_arrays, write_arrays
from megagrow.difficulty.segments import digest_of, mean_of_entries, rounded
from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch

_FILE = "surprisal.npz"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Surprisal:
    """Mean of -log2 p(token) over a document, with p from unigram counts and add-one smoothing.

    p(t) = (counts[t] + 1) / (sum of counts + vocabulary). The counts are frozen: they should come
    from general text, not from the corpus that is scored, whose own jargon would look easy.

    Raises:
        DataError: the counts are not whole numbers in one dimension, or all zero.
    """

    counts: NDArray[np.uint64]
    """How often each id occurred, shape [vocabulary]."""

    tokenizer_hash: str
    """sha256 of the tokenizer whose ids these are."""

    digest: str = field(init=False)
    """sha256 of everything that decides a score."""

    bits: NDArray[np.float64] = field(init=False, repr=False)
    """Surprisal of each id in bits, rounded to multiples of 2^-20; shape [vocabulary]."""

    kind: ClassVar[str] = "surprisal"
    unit: ClassVar[str] = "bits/token"

    def __post_init__(self) -> None:
        if self.counts.dtype != np.uint64 or self.counts.ndim != 1 or not self.counts.any():
            raise DataError(
                "surprisal needs counts of at least one token, uint64 in one dimension; got "
                f"{self.counts.dtype} of shape {self.counts.shape}, sum {self.counts.sum()}"
            )
        smoothed = self.counts.astype(np.float64) + 1
        object.__setattr__(self, "bits", rounded(np.log2(smoothed.sum()) - np.log2(smoothed)))
        description = {
            "kind": self.kind, "version": 1, "smoothing": 1, "tokenizer": self.tokenizer_hash,
        }  # fmt: skip
        object.__setattr__(self, "digest", digest_of(description, self.counts))

    def score(self, texts: object, tokens: TokenBatch) -> NDArray[np.float32]:
        """Bits per token of each document, shape [documents]; 0 for one without ids.

        Raises:
            DataError: an id outside the vocabulary.
        """
        return mean_of_entries(self.bits, tokens).astype(np.float32)

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes `surprisal.npz` into `folder`."""
        write_arrays(folder / _FILE, counts=self.counts)
        return {"tokens_counted": int(self.counts.sum()), "smoothing": 1}

    @staticmethod
    def load(folder: Path, tokenizer_hash: str) -> Surprisal:
        """Reads what `save` wrote.

        Raises:
            DataError: the file is missing or damaged.
        """
        (counts,) = read_arrays(folder / _FILE, "counts")
        return Surprisal(counts=counts, tokenizer_hash=tokenizer_hash)


def count(tokens: TokenBatch, vocab_size: int) -> NDArray[np.uint64]:
    """How often each id occurs; add up over batches and give the sum to `fit`.

    Args:
        tokens: documents.
        vocab_size: one more than the largest id.

    Returns:
        Counts, shape [vocab_size].

    Raises:
        DataError: an id of `vocab_size` or more.
    """
    counts = np.bincount(tokens.flat, minlength=vocab_size)
    if counts.size > vocab_size:
        raise DataError(
            f"id {counts.size - 1} does not fit a vocabulary of {vocab_size}: count the special "
            "tokens in the vocabulary, too"
        )
    return counts.astype(np.uint64)


def fit(counts: NDArray[np.uint64], tokenizer_hash: str) -> Surprisal:
    """The scorer of these counts.

    Args:
        counts: how often each id occurs in the reference text, shape [vocabulary].
        tokenizer_hash: sha256 of the tokenizer whose ids these are.

    Raises:
        DataError: no token was counted.
    """
    return Surprisal(counts=counts, tokenizer_hash=tokenizer_hash)
