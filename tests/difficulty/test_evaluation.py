from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from megagrow.difficulty.evaluation import evaluate, level_shares, reliability

CERTAIN = np.eye(3)


def test_a_perfect_classifier() -> None:
    labels = np.array([0, 1, 2, 2])
    found = evaluate(CERTAIN[labels], labels)
    assert (found.accuracy, found.macro_f1, found.calibration_error) == (1, 1, 0)
    assert found.majority == 0.5
    assert found.confusion == [[1, 0, 0], [0, 1, 0], [0, 0, 2]]


def test_confusion_has_labels_as_rows() -> None:
    found = evaluate(CERTAIN[[1, 1, 2]], np.array([0, 1, 2]))
    assert found.confusion == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert found.accuracy == pytest.approx(2 / 3)


def test_calibration_error_by_hand() -> None:
    # Four documents of confidence 0.8, two of them right; two of confidence 0.6, both right.
    high, low = [0.8, 0.1, 0.1], [0.2, 0.2, 0.6]
    probabilities = np.array([high] * 4 + [low] * 2)
    labels = np.array([0, 0, 1, 2, 2, 2])
    found = evaluate(probabilities, labels)
    assert found.calibration_error == pytest.approx((4 * 0.3 + 2 * 0.4) / 6)
    assert [each.documents for each in found.bins] == [2, 4]
    assert sum(each.documents for each in reliability(CERTAIN[labels], labels, 10)) == 6


def test_a_calibrated_classifier_has_a_small_error() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1, 1, 1], size=20_000)
    labels = (probabilities.cumsum(axis=1) < generator.random((20_000, 1))).sum(axis=1)
    assert evaluate(probabilities, labels).calibration_error < 0.02
    sharper = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    assert evaluate(sharper, labels).calibration_error > 0.1


def test_shares() -> None:
    assert level_shares(np.array([0, 0, 2, 2]), ["a", "b", "c"]) == {"a": 0.5, "b": 0, "c": 0.5}
