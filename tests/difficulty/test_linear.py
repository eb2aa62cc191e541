from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.difficulty.linear import Linear
from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch

WEIGHTS = np.array([-2.0, -0.5, 0.25, 1.5], np.float32)


def linear(**changes: object) -> Linear:
    settings = {
        "weights": WEIGHTS, "bias": 1.0, "levels": ("easy", "middle", "hard"), "max_tokens": 4,
        "tokenizer_hash": "hash",
    } | changes  # fmt: skip
    return Linear(**settings)  # type: ignore[arg-type]


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=8))
def test_equals_the_formula(documents: list[list[int]]) -> None:
    scores = linear().score((), TokenBatch.of(documents))
    for score, document in zip(scores.tolist(), documents, strict=True):
        head = document[:4]
        mean = sum(float(WEIGHTS[each]) for each in head) / max(len(head), 1)
        assert score == pytest.approx(min(max(1 + mean, 0), 2), abs=1e-6)


def test_ids_beyond_the_first_do_not_count() -> None:
    one, other = linear().score((), TokenBatch.of([[0, 1, 2, 3], [0, 1, 2, 3, 3, 3, 3]]))
    assert one == other != linear(max_tokens=7).score((), TokenBatch.of([[0, 1, 2, 3, 3, 3, 3]]))


def test_digest_is_of_all_that_decides_a_score() -> None:
    changes: list[dict[str, object]] = [
        {}, {"bias": 1.5}, {"max_tokens": 5}, {"levels": ("a", "b")}, {"tokenizer_hash": "other"},
        {"weights": WEIGHTS[::-1].copy()},
    ]  # fmt: skip
    assert len({linear(**each).digest for each in changes}) == len(changes)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": WEIGHTS.astype(np.float64)},
        {"weights": np.array([np.nan], np.float32)},
        {"levels": ("one",)},
        {"max_tokens": 0},
        {"bias": float("nan")},
    ],
)
def test_what_is_no_scorer_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError):
        linear(**change)
