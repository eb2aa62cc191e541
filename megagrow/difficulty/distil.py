"""Distils a slow classifier into a linear model on token ids, and says how well they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.difficulty.evaluation import sklearn_metrics
from megagrow.difficulty.linear import Linear
from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch

_PENALTIES = tuple(10.0**power for power in range(-4, 4))
_VALIDATION_SHARE = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A fitted student."""

    scorer: Linear
    """The scorer."""
    penalty: float
    """Ridge penalty, chosen on a part of the training documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How a student orders held-out documents, against its teacher."""

    documents: int
    """How many."""
    spearman: float
    """Rank correlation of the student's score and the teacher's expected level."""
    level_agreement: float
    """Share of documents in the same level, the student cut so that its levels are as large."""
    by_chance: float
    """Level agreement to expect of a student that orders at random."""
    confusion: list[list[int]]
    """Documents by the teacher's level (row) and the student's (column)."""


def fit(
    tokens: TokenBatch,
    targets: NDArray[np.floating[Any]],
    *,
    levels: Sequence[str],
    max_tokens: int,
    vocab_size: int,
    tokenizer_hash: str,
    seed: int,
) -> Fit:
    """Ridge regression of the teacher's expected level on token frequencies.

    Args:
        tokens: documents.
        targets: expected level of each, shape [documents].
        levels: names of the levels.
        max_tokens: ids of a document to read; the scorer reads as many.
        vocab_size: one more than the largest id.
        tokenizer_hash: sha256 of the tokenizer.
        seed: of the choice of documents on which the penalty is chosen.

    Raises:
        DataError: scikit-learn is not installed, or there are fewer than 20 documents.
    """
    sklearn_metrics()
    if tokens.documents < 20:
        raise DataError(f"{tokens.documents} documents are too few to distil from: take 20 or more")
    frequencies = token_frequencies(tokens, vocab_size, max_tokens)
    # Common ids vary the most and would get nearly all of the weight under one penalty.
    spread = np.sqrt(np.asarray(frequencies.power(2).mean(axis=0)).ravel())
    scale = 1 / (np.sqrt(spread) + 1e-3)
    features = frequencies.multiply(scale).tocsr()
    chosen = np.random.default_rng(seed).random(tokens.documents) < _VALIDATION_SHARE
    chosen[:2] = True, False  # neither side is empty
    errors = [
        float(np.mean((_ridge(features[~chosen], targets[~chosen], each).predict(features[chosen])
                       - targets[chosen]) ** 2))
        for each in _PENALTIES
    ]  # fmt: skip
    penalty = _PENALTIES[int(np.argmin(errors))]
    model = _ridge(features, targets, penalty)
    scorer = Linear(
        weights=(model.coef_ * scale).astype(np.float32),
        bias=float(model.intercept_),
        levels=tuple(levels),
        max_tokens=max_tokens,
        tokenizer_hash=tokenizer_hash,
    )
    return Fit(scorer=scorer, penalty=penalty)


def token_frequencies(tokens: TokenBatch, vocab_size: int, max_tokens: int) -> Any:
    """Share of each id among the first `max_tokens` of a document; sparse [documents, vocabulary].

    Raises:
        DataError: an id of `vocab_size` or more.
    """
    from scipy.sparse import csr_matrix

    lengths = np.minimum(tokens.lengths, max_tokens)
    rows = np.repeat(np.arange(lengths.size), lengths)
    within = np.arange(rows.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids = tokens.flat[np.repeat(tokens.offsets[:-1], lengths) + within].astype(np.int64)
    if ids.size and ids.max() >= vocab_size:
        raise DataError(f"id {ids.max()} does not fit a vocabulary of {vocab_size}")
    values = 1 / np.repeat(lengths, lengths)
    matrix = csr_matrix((values, (rows, ids)), shape=(lengths.size, vocab_size))
    matrix.sum_duplicates()
    return matrix


def agreement(teacher: NDArray[np.float64], scores: NDArray[np.floating[Any]]) -> Agreement:
    """Compares a student with its teacher on documents that neither was fitted on.

    Args:
        teacher: the teacher's probabilities, shape [documents, levels].
        scores: the student's, shape [documents]; any scorer will do.

    Raises:
        DataError: scikit-learn is not installed.
    """
    metrics = sklearn_metrics()
    levels = teacher.shape[1]
    chosen = teacher.argmax(axis=1)
    sizes = np.bincount(chosen, minlength=levels)
    student = _cut(scores, sizes)
    return Agreement(
        documents=chosen.size,
        spearman=spearman(teacher @ np.arange(levels), scores),
        level_agreement=float((student == chosen).mean()),
        by_chance=float(((sizes / chosen.size) ** 2).sum()),
        confusion=metrics.confusion_matrix(chosen, student, labels=np.arange(levels)).tolist(),
    )


def cut_accuracy(
    scores: NDArray[np.floating[Any]], labels: NDArray[np.int64], levels: int
) -> float:
    """Share of documents in their level, the scores cut so that the levels are as large.

    Args:
        scores: shape [documents].
        labels: level numbers, shape [documents].
        levels: how many levels there are.
    """
    return float((_cut(scores, np.bincount(labels, minlength=levels)) == labels).mean())


def spearman(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> float:
    """Rank correlation; 0 where one of the two is constant."""
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second).statistic)


def _cut(scores: NDArray[np.floating[Any]], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Levels of given sizes by rank: thresholds at the shares that were asked for."""
    levels = np.empty(scores.size, dtype=np.int64)
    levels[np.argsort(scores, kind="stable")] = np.repeat(np.arange(sizes.size), sizes)
    return levels


def _ridge(features: Any, targets: NDArray[np.floating[Any]], penalty: float) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=penalty, solver="sparse_cg", tol=1e-5).fit(features, targets)
