from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from megagrow.difficulty import distil
from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch
from tests.difficulty.sentences import LEVELS, texts

SETTINGS = {
    "levels": LEVELS, "max_tokens": 40, "vocab_size": 100, "tokenizer_hash": "hash", "seed": 1,
}  # fmt: skip


def documents(count: int, seed: int = 0) -> tuple[TokenBatch, np.ndarray]:
    """Documents whose true level is linear in the frequencies of their ids."""
    generator = np.random.default_rng(seed)
    weights = np.linspace(0, 2, 100)
    ids = []
    for _ in range(count):
        centre = generator.uniform(0, 100)
        ids.append(np.clip(generator.normal(centre, 15, 40), 0, 99).astype(int).tolist())
    return TokenBatch.of(ids), np.array([weights[each].mean() for each in ids])


def test_a_linear_teacher_is_found_again() -> None:
    tokens, targets = documents(400)
    fitted = distil.fit(tokens, targets, **SETTINGS)  # type: ignore[arg-type]
    held, expected = documents(100, seed=1)
    scores = fitted.scorer.score((), held)
    assert np.corrcoef(scores, expected)[0, 1] > 0.98
    assert np.abs(scores - expected).mean() < 0.1
    assert fitted.scorer.levels == LEVELS


def test_the_same_seed_gives_the_same_student() -> None:
    tokens, targets = documents(60)
    students = [distil.fit(tokens, targets, **SETTINGS) for _ in range(2)]  # type: ignore[arg-type]
    assert students[0].scorer.digest == students[1].scorer.digest


def test_frequencies_are_of_the_first_ids() -> None:
    tokens = TokenBatch.of([[1, 1, 2, 3], [], [4]])
    matrix = distil.token_frequencies(tokens, 5, 3).toarray()
    assert matrix == pytest.approx(
        np.array([[0, 2 / 3, 1 / 3, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    )
    with pytest.raises(DataError, match="id 4 does not fit"):
        distil.token_frequencies(tokens, 4, 3)


def test_agreement_cuts_the_student_at_the_teachers_shares() -> None:
    teacher = np.eye(3)[[0, 0, 0, 1, 2, 2]] * 0.8 + 0.1
    perfect = distil.agreement(teacher, np.array([-9, -8, -7, 3, 50, 60.0]))
    assert perfect.level_agreement == 1
    assert perfect.spearman > 0.9
    assert perfect.confusion == [[3, 0, 0], [0, 1, 0], [0, 0, 2]]
    assert perfect.by_chance == pytest.approx((9 + 1 + 4) / 36)
    reverse = distil.agreement(teacher, np.array([9, 8, 7, 6, 5, 4.0]))
    assert reverse.spearman < -0.9
    constant = distil.agreement(teacher, np.ones(6))
    assert constant.spearman == 0
    assert distil.cut_accuracy(np.array([1, 2, 3.0]), np.array([0, 1, 1]), 3) == 1


def test_too_few_documents() -> None:
    tokens, targets = documents(10)
    with pytest.raises(DataError, match="too few to distil"):
        distil.fit(tokens, targets, **SETTINGS)  # type: ignore[arg-type]


def test_a_student_of_a_classifier_agrees_with_it(trained: Path, tmp_path: Path) -> None:
    from megagrow.difficulty.distilbert import open_model
    from megagrow.tokenization.tokenizer import train_bpe

    sentences, _ = texts(330)
    train, held = sentences[:240], sentences[240:]
    tokenizer = train_bpe(train, 600, tmp_path / "tokenizer.json")
    teacher = open_model(trained, max_length=64)
    fitted = distil.fit(
        TokenBatch.of(tokenizer.encode_batch(train)),
        teacher.probabilities(train) @ [0, 1, 2],
        levels=LEVELS,
        max_tokens=64,
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.file_hash,
        seed=1,
    )
    scores = fitted.scorer.score(held, TokenBatch.of(tokenizer.encode_batch(held)))
    found = distil.agreement(teacher.probabilities(held), scores)
    assert found.level_agreement > 0.9
    assert found.spearman > 0.8
