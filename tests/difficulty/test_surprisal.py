from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.difficulty import surprisal
from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch

DOCUMENTS = [[0, 1, 1, 2], [3], [2, 2, 2, 0, 1]]


def counted(documents: list[list[int]], vocab_size: int = 5) -> np.ndarray:
    return surprisal.count(TokenBatch.of(documents), vocab_size)


@given(
    st.lists(st.integers(0, 10**9), min_size=2, max_size=30).filter(any),
    st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=30), min_size=1, max_size=10),
)
def test_equals_the_formula(counts: list[int], documents: list[list[int]]) -> None:
    documents = [[each % len(counts) for each in document] for document in documents]
    scorer = surprisal.fit(np.array(counts, np.uint64), "hash")
    total = sum(counts) + len(counts)
    expected = [
        sum(-math.log2((counts[each] + 1) / total) for each in document) / len(document)
        for document in documents
    ]
    scores = scorer.score((), TokenBatch.of(documents))
    assert scores.dtype == np.float32
    assert scores == pytest.approx(expected, rel=1e-6, abs=2e-6)


def test_same_bits_alone_and_in_a_batch() -> None:
    generator = np.random.default_rng(2)
    documents = [generator.integers(0, 999, n).tolist() for n in generator.integers(1, 3000, 40)]
    scorer = surprisal.fit(counted(documents, 1000), "hash")
    together = scorer.score((), TokenBatch.of(documents))
    alone = [scorer.score((), TokenBatch.of([each]))[0] for each in documents]
    assert together.tolist() == alone


def test_counts_add_up_over_batches() -> None:
    parts = sum((counted([each]) for each in DOCUMENTS), np.zeros(5, np.uint64))
    assert parts.tolist() == counted(DOCUMENTS).tolist() == [2, 3, 4, 1, 0]
    assert parts.dtype == np.uint64


def test_rarer_is_harder_and_an_empty_document_scores_0() -> None:
    scorer = surprisal.fit(counted(DOCUMENTS), "hash")
    scores = scorer.score((), TokenBatch.of([[2, 2], [2, 4], [4, 4], []])).tolist()
    assert scores[0] < scores[1] < scores[2]
    assert scores[3] == 0


def test_digest_is_of_counts_and_tokenizer() -> None:
    digests = {
        surprisal.fit(counted(documents), tokenizer).digest
        for documents in (DOCUMENTS, DOCUMENTS[1:])
        for tokenizer in ("a", "b")
    }
    assert len(digests) == 4
    assert surprisal.fit(counted(DOCUMENTS), "a").digest in digests


def test_what_cannot_be_counted() -> None:
    with pytest.raises(DataError, match="at least one token"):
        surprisal.fit(np.zeros(5, np.uint64), "hash")
    with pytest.raises(DataError, match="id 3 does not fit a vocabulary of 3"):
        counted(DOCUMENTS, 3)
    scorer = surprisal.fit(counted(DOCUMENTS), "hash")
    with pytest.raises(DataError, match="do not fit"):
        scorer.score((), TokenBatch.of([[5]]))
