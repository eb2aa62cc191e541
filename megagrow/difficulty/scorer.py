"""What every difficulty scorer is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from megagrow.tokenization.batch import TokenBatch


class Scorer(Protocol):
    """Scores documents; the same documents always get the same scores."""

    @property
    def kind(self) -> str:
        """Name of the method: `surprisal`, `readability`, `linear` or `distilbert`."""

    @property
    def digest(self) -> str:
        """sha256 of everything that decides a score, as hexadecimal text."""

    @property
    def unit(self) -> str:
        """What a score counts, for axes and tables, such as `bits/token`."""

    @property
    def tokenizer_hash(self) -> str | None:
        """sha256 of the tokenizer whose ids it reads; None where it reads text alone."""

    def score(self, texts: Sequence[str], tokens: TokenBatch) -> NDArray[np.float32]:
        """Difficulty of each document, higher is harder and never NaN; shape [documents].

        Args:
            texts: the documents, none of them empty.
            tokens: their ids, in the same order.
        """

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes it into `folder` for `load`; returns what `scorer.json` there says."""
