"""A linear model on token ids: what a slow classifier is distilled into."""

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

_FILE = "linear.npz"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Linear:
    """score = bias + mean of `weights[id]` over the first `max_tokens` ids, within the levels.

    Raises:
        DataError: weights that are no float32 vector, fewer than two levels, or no token to read.
    """

    weights: NDArray[np.float32]
    """Levels that each id adds, shape [vocabulary]."""

    bias: float
    """Level of a document whose ids all weigh nothing."""

    levels: tuple[str, ...]
    """Names of the levels, easiest first; level k has the score k."""

    max_tokens: int
    """Ids of a document that are read, from its start."""

    tokenizer_hash: str
    """sha256 of the tokenizer whose ids these are."""

    digest: str = field(init=False)
    """sha256 of everything that decides a score."""

    table: NDArray[np.float64] = field(init=False, repr=False)
    """The weights, rounded to multiples of 2^-20."""

    kind: ClassVar[str] = "linear"
    unit: ClassVar[str] = "level"

    def __post_init__(self) -> None:
        if self.weights.dtype != np.float32 or self.weights.ndim != 1 or not self.weights.size:
            raise DataError(
                "a linear scorer needs float32 weights in one dimension; got "
                f"{self.weights.dtype} of shape {self.weights.shape}"
            )
        if len(self.levels) < 2 or self.max_tokens < 1 or not np.isfinite(self.bias):
            raise DataError(
                "a linear scorer needs two levels or more, one token or more, and a finite bias; "
                f"got {len(self.levels)} levels, {self.max_tokens} tokens, bias {self.bias}"
            )
        object.__setattr__(self, "table", rounded(self.weights))
        description = {
            "kind": self.kind, "version": 1, "tokenizer": self.tokenizer_hash,
            "max_tokens": self.max_tokens, "levels": len(self.levels), "bias": float(self.bias),
        }  # fmt: skip
        object.__setattr__(self, "digest", digest_of(description, self.weights))

    def score(self, texts: object, tokens: TokenBatch) -> NDArray[np.float32]:
        """Level of each document, from 0 to the number of levels less one; shape [documents].

        Raises:
            DataError: an id outside the vocabulary.
        """
        means = mean_of_entries(self.table, tokens, self.max_tokens)
        return np.clip(self.bias + means, 0, len(self.levels) - 1).astype(np.float32)

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes `linear.npz` into `folder`."""
        write_arrays(folder / _FILE, weights=self.weights)
        return {
            "bias": float(self.bias), "levels": list(self.levels), "max_tokens": self.max_tokens,
        }  # fmt: skip

    @staticmethod
    def load(folder: Path, tokenizer_hash: str, parameters: dict[str, Any]) -> Linear:
        """Reads what `save` wrote and said.

        Raises:
            DataError: the file is missing or damaged.
            KeyError, TypeError, ValueError: the parameters are not what `save` said.
        """
        (weights,) = read_arrays(folder / _FILE, "weights")
        return Linear(
            weights=weights,
            bias=float(parameters["bias"]),
            levels=tuple(map(str, parameters["levels"])),
            max_tokens=int(parameters["max_tokens"]),
            tokenizer_hash=tokenizer_hash,
        )
