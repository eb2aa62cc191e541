"""Thresholds from the scores of all documents, in constant memory.

A float32 becomes a whole number of 32 bits that sorts like it. One pass counts tokens by its upper
20 bits; from these it is clear in which few of the million ranges the thresholds lie. A second
pass counts those ranges by their lower 12 bits, which tells every single score in them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing.levels import check_shares
from megagrow.errors import DataError

_LOW_BITS = 12
_FINE = 1 << _LOW_BITS
_COUNTED_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Tokens by some bits of the score; only ranges that have any."""

    keys: NDArray[np.int64]
    """Which ranges, rising; shape [ranges]."""

    tokens: NDArray[np.int64]
    """Tokens in each; shape [ranges]."""


def ordered(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Whole numbers that compare as the scores do; both zeros are one."""
    bits = (scores + np.float32(0)).view(np.uint32)
    flip = np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return bits ^ flip


def score_of(key: int) -> float:
    """The score that `ordered` made this number of."""
    bits = key ^ (0x80000000 if key >> 31 else 0xFFFFFFFF)
    return float(np.array(bits, dtype=np.uint32).view(np.float32))


def coarse(scores: NDArray[np.float32], tokens: NDArray[np.integer[Any]]) -> Histogram:
    """Tokens by the upper bits of the scores."""
    return _histogram(ordered(scores) >> _LOW_BITS, tokens)


def fine(
    scores: NDArray[np.float32], tokens: NDArray[np.integer[Any]], ranges: NDArray[np.int64]
) -> Histogram:
    """Tokens by the whole score, for scores in these ranges of `coarse`."""
    keys = ordered(scores)
    inside = np.isin(keys >> _LOW_BITS, ranges)
    return _histogram(keys[inside], tokens[inside])


def add(histograms: Sequence[Histogram]) -> Histogram:
    """Several as one."""
    if not histograms:
        return Histogram(keys=np.empty(0, np.int64), tokens=np.empty(0, np.int64))
    keys = np.concatenate([each.keys for each in histograms])
    tokens = np.concatenate([each.tokens for each in histograms])
    return _histogram(keys, tokens)


def ranges_to_refine(found: Histogram, shares: Sequence[float]) -> NDArray[np.int64]:
    """The ranges of `coarse` that hold every score which could become a threshold.

    Args:
        found: all tokens by `coarse`.
        shares: wanted share of the tokens of each level, easiest first.
    """
    check_shares(shares)
    ends = np.cumsum(found.tokens) / found.tokens.sum()
    last = found.keys.size - 1
    # Each level keeps a score of its own: the last ranges have one for each level at least.
    places = set(range(max(0, last - len(shares)), last + 1))
    end = -1
    for wanted in np.cumsum(shares)[:-1]:
        place = min(int(np.searchsorted(ends, wanted, side="right")), last)
        # Two thresholds that would be one move apart, at worst into the next range.
        end = max(place, end) + 1
        places.update(range(max(0, place - 1), min(end, last) + 1))
    return found.keys[sorted(places)]


def thresholds(
    found: Histogram, refined: Histogram, ranges: NDArray[np.int64], shares: Sequence[float]
) -> tuple[float, ...]:
    """Scores at which the levels' shares come nearest to those wanted: `levels.fit_thresholds`.

    Args:
        found: all tokens by `coarse`.
        refined: the tokens of `ranges` by `fine`.
        ranges: from `ranges_to_refine`.
        shares: wanted share of the tokens of each level, easiest first.

    Raises:
        DataError: there are fewer distinct scores than levels.
    """
    check_shares(shares)
    if refined.keys.size < len(shares):
        raise DataError(
            f"there are {refined.keys.size} distinct scores, too few for {len(shares)} levels: use "
            "fewer levels, or bucket the text again with another scorer"
        )
    before = np.concatenate(([0], np.cumsum(found.tokens)))
    of = refined.keys >> _LOW_BITS
    inside = np.concatenate(([0], np.cumsum(refined.tokens)[:-1]))
    first = np.searchsorted(of, of, side="left")
    tokens_below = before[np.searchsorted(found.keys, of)] + inside - inside[first]
    below = tokens_below.astype(np.float64) / float(before[-1])
    cuts: list[int] = []
    for level, wanted in enumerate(np.cumsum(shares)[:-1], 1):
        nearest = int(np.argmin(np.abs(below - wanted)))
        least = cuts[-1] + 1 if cuts else 1
        cuts.append(min(max(nearest, least), refined.keys.size - (len(shares) - level)))
    return tuple(score_of(int(refined.keys[cut])) for cut in cuts)


def quantiles(found: Histogram, wanted: Sequence[float]) -> tuple[float, ...]:
    """Scores below which these shares of what was counted are, to 12 bits of precision."""
    ends = np.cumsum(found.tokens) / found.tokens.sum()
    places = np.minimum(np.searchsorted(ends, wanted), found.keys.size - 1)
    return tuple(score_of((int(found.keys[place]) << _LOW_BITS) + _FINE // 2) for place in places)


def shares_of(tokens: Mapping[str, int]) -> dict[str, float]:
    """Share of each level, rounded to be read."""
    total = sum(tokens.values())
    return {name: round(count / total, 6) for name, count in tokens.items()}


def _histogram(keys: NDArray[Any], tokens: NDArray[np.integer[Any]]) -> Histogram:
    if keys.size == 0:
        return Histogram(keys=np.empty(0, np.int64), tokens=np.empty(0, np.int64))
    low = int(keys.min())
    if int(keys.max()) - low < _COUNTED_AT_ONCE:  # scores lie close together: no need to sort
        values = np.arange(low, int(keys.max()) + 1, dtype=np.int64)
        sums = np.bincount(keys.astype(np.int64) - low, weights=tokens)
    else:
        values, inverse = np.unique(keys.astype(np.int64), return_inverse=True)
        sums = np.bincount(inverse, weights=tokens)
    filled = sums > 0  # every document has tokens
    return Histogram(keys=values[filled], tokens=sums[filled].astype(np.int64))
