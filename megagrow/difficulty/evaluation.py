"""How good a classifier of levels is on documents that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Documents of like confidence."""

    documents: int
    """How many."""
    confidence: float
    """Mean probability of the level that the classifier chose."""
    accuracy: float
    """Share of them that it got right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Held-out results."""

    documents: int
    """How many documents were held out."""
    accuracy: float
    """Share of documents whose most probable level is their label."""
    majority: float
    """Accuracy of always saying the most frequent level."""
    macro_f1: float
    """F1 of each level, averaged."""
    log_loss: float
    """Mean -ln p(label)."""
    calibration_error: float
    """Expected calibration error: |confidence - accuracy| over the bins, weighted by documents
    (Guo et al. 2017)."""
    confusion: list[list[int]]
    """Documents by label (row) and by the classifier's level (column)."""
    bins: list[Bin]
    """Ten bins of equal width over confidence; those without documents are left out."""


def evaluate(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int = 10
) -> Evaluation:
    """Compares a classifier with the labels.

    Args:
        probabilities: of each level, shape [documents, levels].
        labels: level numbers, shape [documents].
        bins: bins of confidence.

    Raises:
        DataError: scikit-learn is not installed.
    """
    metrics = sklearn_metrics()
    numbers = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    found = reliability(probabilities, labels, bins)
    gaps = [each.documents * abs(each.confidence - each.accuracy) for each in found]
    return Evaluation(
        documents=labels.size,
        accuracy=float(metrics.accuracy_score(labels, predicted)),
        majority=float(np.bincount(labels).max() / labels.size),
        macro_f1=float(
            metrics.f1_score(labels, predicted, labels=numbers, average="macro", zero_division=0)
        ),
        log_loss=float(metrics.log_loss(labels, probabilities, labels=numbers)),
        calibration_error=sum(gaps) / labels.size,
        confusion=metrics.confusion_matrix(labels, predicted, labels=numbers).tolist(),
        bins=found,
    )


def reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int
) -> list[Bin]:
    """Confidence and accuracy in bins of equal width over confidence, empty ones left out."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return [
        Bin(
            documents=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(right[inside].mean()),
        )
        for inside in (place == index for index in range(bins))
        if inside.any()
    ]


def level_shares(numbers: NDArray[np.int64], levels: Sequence[str]) -> dict[str, float]:
    """Share of documents in each level, by name."""
    counts = np.bincount(numbers, minlength=len(levels)) / max(numbers.size, 1)
    return dict(zip(levels, counts.tolist(), strict=True))


def sklearn_metrics() -> Any:
    """scikit-learn's metrics.

    Raises:
        DataError: it is not installed.
    """
    try:
        from sklearn import metrics
    except ImportError:
        raise DataError(
            "training a classifier needs scikit-learn: pip install 'megagrow[classifier]'"
        ) from None
    return metrics
