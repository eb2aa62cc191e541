from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("nltk")

from megagrow.difficulty.labels import SCHOOL_CUTS, Grader, TextCounts, cut, grades, quantile_cuts
from megagrow.errors import DataError
from tests.difficulty.sentences import text

EASY = "The cat sat on the mat. It saw a dog. The dog ran to the cat. They had a lot of fun. "
HARD = (
    "Notwithstanding considerable methodological heterogeneity, contemporary epidemiological "
    "investigations demonstrate statistically significant associations between socioeconomic "
    "deprivation and cardiovascular mortality throughout industrialised societies. "
)


def test_counts_and_formulas() -> None:
    counts = Grader().count(EASY)
    assert counts == TextCounts(words=22, sentences=4, syllables=22, long_words=0, letters=59)
    assert counts.flesch_kincaid == pytest.approx(0.39 * 22 / 4 + 11.8 - 15.59)
    assert counts.gunning_fog == pytest.approx(0.4 * 22 / 4)
    assert counts.coleman_liau == pytest.approx(5.88 * 59 / 22 - 29.6 * 4 / 22 - 15.8)
    three = sorted((counts.flesch_kincaid, counts.gunning_fog, counts.coleman_liau))
    assert counts.grade == max(three[1], 0)


def test_grades_rise_and_stay_in_their_range() -> None:
    found = grades([EASY, EASY + HARD, HARD, "too short", "", "\x00 1 2 | 3 " * 50])
    assert 0 <= found[0] < found[1] < found[2] <= 24
    assert np.isnan(found[3:]).all()
    assert cut(found[:3], SCHOOL_CUTS).tolist()[0] == 0
    assert cut(found[:3], SCHOOL_CUTS).tolist()[2] == 2


def test_lists_and_paragraphs_are_no_endless_sentences() -> None:
    rows = Grader().count("alpha beta gamma delta\n" * 100)
    assert rows is not None
    assert rows.sentences == 8
    parts = Grader().count("A heading of a part\n\n" * 10)
    assert parts is not None
    assert parts.sentences == 10


@pytest.mark.parametrize(
    ("word", "syllables"),
    [("cat", 1), ("the", 1), ("make", 1), ("table", 2), ("whole", 1), ("handled", 2),
     ("baked", 1), ("wanted", 2), ("readability", 5), ("don't", 1), ("rhythm", 1)],
)  # fmt: skip
def test_syllables(word: str, syllables: int) -> None:
    assert Grader().syllables(word) == syllables


def test_a_cut_belongs_to_the_easier_level() -> None:
    assert cut(np.array([3.0, 12.0, 12.1, 16.0, 17.0]), SCHOOL_CUTS).tolist() == [0, 0, 1, 1, 2]


def test_quantiles_make_levels_of_equal_size() -> None:
    values = np.random.default_rng(0).normal(size=300)
    levels = cut(values, quantile_cuts(values, 3))
    assert np.bincount(levels).tolist() == [100, 100, 100]
    with pytest.raises(DataError, match="too few different grades"):
        quantile_cuts(np.full(50, 7.0), 3)
    with pytest.raises(DataError, match="too few different grades"):
        quantile_cuts(np.zeros(0), 2)


def test_generated_texts_are_ordered() -> None:
    found = grades([text(level, 1, 60) for level in ("easy", "middle", "hard")])
    assert found[0] < found[1] < found[2]
