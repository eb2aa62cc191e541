from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.bucketing.levels import Levels, check_names, fit_thresholds, load, save
from megagrow.errors import DataError


def levels(*thresholds: float) -> Levels:
    names = tuple(f"level-{number}" for number in range(len(thresholds) + 1))
    return Levels(names=names, thresholds=thresholds, scorer_digest="s", tokenizer_hash="t")


def test_a_score_at_a_threshold_is_above_it() -> None:
    scores = np.array([-1.0, 0.5, 0.75, 1.0, 9.0], dtype=np.float32)
    assert levels(0.5, 1.0).of(scores).tolist() == [0, 1, 1, 2, 2]
    assert levels().of(scores).tolist() == [0] * 5


def test_thresholds_share_out_tokens_not_documents() -> None:
    scores = np.arange(10, dtype=np.float32)
    weights = np.array([1] * 9 + [9])
    assert fit_thresholds(scores, weights, [0.5, 0.5]) == (9.0,)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 1000)), min_size=1, max_size=80),
    st.lists(st.integers(1, 20), min_size=1, max_size=6),
)
def test_fitted_levels_are_never_empty_and_near_their_shares(
    documents: list[tuple[int, int]], parts: list[int]
) -> None:
    scores = np.array([score for score, _ in documents], dtype=np.float32)
    weights = np.array([weight for _, weight in documents])
    shares = [part / sum(parts) for part in parts]
    if np.unique(scores).size < len(shares):
        with pytest.raises(DataError, match="distinct scores, too few"):
            fit_thresholds(scores, weights, shares)
        return
    found = levels(*fit_thresholds(scores, weights, shares))
    number = found.of(scores)
    assert set(number.tolist()) == set(range(len(shares)))
    # With two levels nothing but the heaviest score can stand between what is wanted and what is.
    if len(shares) == 2:
        heaviest = max(weights[scores == score].sum() for score in set(scores.tolist()))
        below = weights[number == 0].sum()
        assert abs(below - shares[0] * weights.sum()) <= heaviest


def test_the_file_gives_the_same_levels(tmp_path: Path) -> None:
    found = levels(float(np.float32(0.1)), float(np.float32(1 / 3)))
    save(found, tmp_path / "levels.json", {"seed": 1})
    assert load(tmp_path / "levels.json") == (found, {"seed": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": [1.0, 3.0]}, "digest does not fit"),
        ({"names": ["a", "b"]}, "need 1 thresholds"),
        ({"thresholds": [2.0, 1.0]}, "must rise"),
        ({"thresholds": ["x", 1.0]}, "could not convert"),
        ({"format": "other"}, "not a file of frozen levels"),
        ({"names": None}, "cannot be used"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "levels.json"
    save(levels(1.0, 2.0), path, {})
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        load(path)


@pytest.mark.parametrize(
    "names", [[], ["a", "a"], ["a/b"], [""], ["-a"], ["naïve"], ["a b"], ["x"] * 300]
)
def test_bad_names_are_refused(names: list[str]) -> None:
    with pytest.raises(DataError):
        check_names(names)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [1.0, 0.0], [float("nan"), 0.5], [-1.0, 2.0]])
def test_bad_shares_are_refused(shares: list[float]) -> None:
    with pytest.raises(DataError, match="shares must"):
        fit_thresholds(np.arange(3, dtype=np.float32), np.ones(3, dtype=np.int64), shares)


@pytest.mark.parametrize("thresholds", [(float("nan"),), (1.0, 1.0), (2.0, 1.0)])
def test_bad_thresholds_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(DataError):
        levels(*thresholds)
