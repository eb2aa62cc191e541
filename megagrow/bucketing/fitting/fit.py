"""Fits a job's scorer and thresholds on a sample, and checks the engine on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing.levels import Levels, fit_thresholds
from megagrow.bucketing.recipe import OpenEncoding
from megagrow.bucketing.settings import Settings
from megagrow.bucketing.writing.encode import Encoded, encode
from megagrow.difficulty import surprisal
from megagrow.difficulty.scorer import Scorer
from megagrow.errors import DataError
from megagrow.shards.rows import Rows

PARITY_DOCUMENTS = 256
"""Sampled documents that the fast engine and the reference must encode alike."""

_CHUNK_CHARACTERS = 4 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleScores:
    """Scores of the sampled documents."""

    scores: NDArray[np.float32]
    """Shape [documents]."""

    tokens: NDArray[np.int64]
    """Ids in each document, shape [documents]."""


def fit_surprisal(texts: Sequence[str], encoding: OpenEncoding) -> surprisal.Surprisal:
    """Unigram surprisal from the token counts of these texts.

    Raises:
        DataError: there is no text to count in.
    """
    counts = np.zeros(encoding.tokenizer.vocab_size, dtype=np.uint64)
    for chunk in _encoded(texts, encoding):
        counts += surprisal.count(chunk.tokens, counts.size)
    if not counts.any():
        raise DataError("the sample holds no text, so there is nothing to count tokens in")
    return surprisal.fit(counts, tokenizer_hash=encoding.tokenizer.file_hash)


def score_sample(texts: Sequence[str], scorer: Scorer, encoding: OpenEncoding) -> SampleScores:
    """Scores the sampled documents."""
    scores, tokens = [], []
    for chunk in _encoded(texts, encoding):
        scores.append(scorer.score(chunk.texts, chunk.tokens))
        tokens.append(chunk.tokens.lengths)
    if not scores:
        raise DataError("the sample holds no text, so there is nothing to fit thresholds on")
    return SampleScores(scores=np.concatenate(scores), tokens=np.concatenate(tokens))


def fit_levels(
    settings: Settings, scorer: Scorer, sample: SampleScores, tokenizer_hash: str
) -> Levels:
    """Thresholds as given, or fitted to the wanted shares of tokens."""
    thresholds = settings.thresholds
    if thresholds is None:
        thresholds = fit_thresholds(sample.scores, sample.tokens, settings.wanted_shares)
    return Levels(
        names=settings.levels,
        thresholds=tuple(float(np.float32(each)) for each in thresholds),
        scorer_digest=scorer.digest,
        tokenizer_hash=tokenizer_hash,
    )


def parity_texts(texts: Sequence[str], seed: int) -> list[str]:
    """Which sampled documents to compare engines on."""
    chosen = np.random.default_rng(seed).permutation(len(texts))[:PARITY_DOCUMENTS]
    return [texts[each] for each in sorted(chosen.tolist())]


def shares(levels: Levels, sample: SampleScores) -> dict[str, float]:
    """Share of the sample's tokens that each level gets."""
    tokens = np.bincount(
        levels.of(sample.scores), weights=sample.tokens, minlength=len(levels.names)
    )
    return {
        name: round(float(each / tokens.sum()), 6)
        for name, each in zip(levels.names, tokens, strict=True)
    }


def save_sample(sample: SampleScores, path: Path) -> None:
    """Keeps the sample's scores, for plots and for other thresholds."""
    with path.open("wb") as stream:
        np.savez(stream, scores=sample.scores, tokens=sample.tokens)


def load_sample(path: Path) -> SampleScores:
    """Reads what `save_sample` wrote."""
    with np.load(path, allow_pickle=False) as found:
        return SampleScores(scores=found["scores"], tokens=found["tokens"])


def _encoded(texts: Sequence[str], encoding: OpenEncoding) -> Iterator[Encoded]:
    """The texts in chunks of some MiB, without those that no bucket could hold."""
    chunk: list[str] = []
    characters = 0
    for number, text in enumerate(texts, 1):
        chunk.append(text)
        characters += len(text)
        if characters >= _CHUNK_CHARACTERS or number == len(texts):
            encoded = encode(_as_rows(chunk), encoding)
            if encoded.texts:
                yield encoded
            chunk, characters = [], 0


def _as_rows(texts: list[str]) -> Rows:
    none: Counter[str] = Counter()
    numbers: NDArray[Any] = np.arange(len(texts))
    return Rows(texts=texts, numbers=numbers, rejects=none, count=len(texts), consumed=0)
