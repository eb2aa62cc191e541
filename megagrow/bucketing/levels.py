"""Named levels of difficulty, and the frozen thresholds between them.

Thresholds are fitted once, on a sample over many shards, and then applied: quantiles of single
shards would cut each shard elsewhere. They share out tokens, not documents, as hard documents are
longer and a curriculum's budget is in tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically

LEVELS_NAME = "levels.json"
_FORMAT = "megagrow-levels"
_VERSION = 1
_LARGEST_SCORE = 1e38  # scores are float32
_MOST_LEVELS = 255  # a level is stored in a byte
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True, kw_only=True, slots=True)
class Levels:
    """Levels of one scorer, easiest first."""

    names: tuple[str, ...]
    """Name of each level, which is that of its bucket."""

    thresholds: tuple[float, ...]
    """Lowest score of every level but the first, rising; float32 values."""

    scorer_digest: str
    """sha256 of the scorer whose scores they cut."""

    tokenizer_hash: str
    """sha256 of the tokenizer whose tokens they share out."""

    def __post_init__(self) -> None:
        """Refuses what cannot be told apart."""
        check_names(self.names)
        check_thresholds(self.names, self.thresholds)

    @property
    def digest(self) -> str:
        """sha256 of all of it, as hexadecimal text."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def of(self, scores: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Number of the level of each score; a score at a threshold is above it.

        Args:
            scores: float32, shape [documents].
        """
        cuts = np.array(self.thresholds, dtype=np.float32)
        return np.searchsorted(cuts, scores, side="right").astype(np.uint8)


def check_names(names: Sequence[str]) -> None:
    """Level names become file names and configuration keys.

    Raises:
        DataError: none, too many, one twice, or characters that are neither letters nor digits.
    """
    if not names or len(names) > _MOST_LEVELS:
        raise DataError(f"{len(names)} levels: name from 1 to {_MOST_LEVELS}")
    for name in names:
        if not name or not _NAME_CHARACTERS.issuperset(name) or name.startswith("-"):
            raise DataError(f"level {name!r}: a name is made of letters, digits, _ and -")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"level {twice[0]!r} is named twice")


def check_thresholds(names: Sequence[str], thresholds: Sequence[float]) -> None:
    """There is one between any two levels, and they rise.

    Raises:
        DataError: they do not, or there are more or fewer.
    """
    if len(thresholds) != len(names) - 1:
        raise DataError(
            f"{len(names)} levels need {len(names) - 1} thresholds between them, "
            f"{len(thresholds)} are given"
        )
    if not all(math.isfinite(each) and abs(each) < _LARGEST_SCORE for each in thresholds):
        raise DataError(f"a threshold is no finite number: {_listed(thresholds)}")
    if any(low >= high for low, high in pairwise(thresholds)):
        raise DataError(f"thresholds must rise, these do not: {_listed(thresholds)}")


def fit_thresholds(
    scores: NDArray[np.float32], weights: NDArray[np.integer[Any]], shares: Sequence[float]
) -> tuple[float, ...]:
    """Scores at which the levels' shares of all tokens come nearest to those wanted.

    Args:
        scores: of the sampled documents, shape [documents].
        weights: tokens in each, shape [documents].
        shares: wanted share of tokens of each level, easiest first, adding up to 1.

    Raises:
        DataError: the sample has fewer distinct scores than there are levels.
    """
    check_shares(shares)
    values, inverse = np.unique(scores, return_inverse=True)
    if values.size < len(shares):
        raise DataError(
            f"the sample has {values.size} distinct scores, too few for {len(shares)} levels: "
            "sample more documents, use fewer levels, or another scorer"
        )
    tokens = np.bincount(inverse, weights=weights.astype(np.float64))
    below = np.concatenate(([0.0], np.cumsum(tokens)[:-1])) / tokens.sum()
    cuts: list[int] = []
    for level, wanted in enumerate(np.cumsum(shares)[:-1], 1):
        nearest = int(np.argmin(np.abs(below - wanted)))
        # Each level keeps one distinct score at least, also where one score holds most tokens.
        least = cuts[-1] + 1 if cuts else 1
        cuts.append(min(max(nearest, least), values.size - (len(shares) - level)))
    return tuple(float(values[cut]) for cut in cuts)


def check_shares(shares: Sequence[float]) -> None:
    """Shares of tokens must be above 0 and add up to 1.

    Raises:
        DataError: they do not.
    """
    if not all(math.isfinite(share) and share > 0 for share in shares):
        raise DataError(f"shares must be above 0, these are not: {_listed(shares)}")
    if not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise DataError(f"shares must add up to 1, these make {sum(shares):g}: {_listed(shares)}")


def save(levels: Levels, path: Path, notes: Mapping[str, Any]) -> None:
    """Writes the frozen thresholds, and notes on how they came about.

    Args:
        levels: what to write.
        path: the file.
        notes: for people, and for a later job to compare; not part of the digest.
    """
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "names": list(levels.names),
        "thresholds": list(levels.thresholds),
        "scorer_digest": levels.scorer_digest,
        "tokenizer_hash": levels.tokenizer_hash,
        "digest": levels.digest,
        "notes": dict(notes),
    }
    write_atomically(path, json.dumps(document, indent=2) + "\n")


def load(path: Path) -> tuple[Levels, dict[str, Any]]:
    """Reads frozen thresholds and their notes.

    Raises:
        DataError: not such a file, or it was changed after it was written.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != _FORMAT or document["version"] != _VERSION:
            raise ValueError("not a file of frozen levels that this version knows")
        levels = Levels(
            names=tuple(map(str, document["names"])),
            thresholds=tuple(map(float, document["thresholds"])),
            scorer_digest=str(document["scorer_digest"]),
            tokenizer_hash=str(document["tokenizer_hash"]),
        )
        if levels.digest != document["digest"]:
            raise ValueError("its digest does not fit: it was changed after it was written")
        return levels, dict(document["notes"])
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise DataError(f"{path}: cannot be used: {error}") from None


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
