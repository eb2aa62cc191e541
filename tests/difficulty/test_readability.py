from __future__ import annotations

import ast
import re
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from megagrow.difficulty import readability
from megagrow.difficulty.readability import Readability
from megagrow.errors import DataError

LETTER = r"[A-Za-z\x80-\xff]"
VOWELS = "aeiouyAEIOUY"


def count_slowly(text: str, longest: int = 50) -> tuple[int, int, int]:
    """Words, syllables and sentences of a text, as the module's documentation defines them."""
    content = text.encode().decode("latin-1")  # one character for each byte
    # General punctuation first, so that none of it is taken for a letter beside an apostrophe.
    content = content.replace("\xe2\x80\x99", "\x00" * 3)
    content = re.sub(r"\xe2[\x80\x81].?", lambda match: " " * len(match[0]), content, flags=re.S)
    content = re.sub(
        rf"(?<={LETTER})(?:'|\x00\x00\x00)(?={LETTER})",
        lambda match: "\xff" * len(match[0]),
        content,
    ).replace("\x00", " ")
    sentences = words = syllables = 0
    for sentence in re.split(r"[.!?](?![A-Za-z0-9.!?\x80-\xff])|(?<=\n)(?=\n)", content):
        found = re.findall(rf"{LETTER}+", sentence)
        words += len(found)
        sentences += -(-len(found) // longest)
        syllables += sum(map(syllables_slowly, found))
    return words, max(words, syllables), sentences


def syllables_slowly(word: str) -> int:
    count = len(re.findall(f"[{VOWELS}]+", word))
    consonant = rf"[^{VOWELS}]"
    ending = re.search(rf"({consonant})e(d|s)?$", word, flags=re.I)
    if ending is None:
        return count
    stem, before, last = word[: ending.start() + 1], ending[1].lower(), (ending[2] or "").lower()
    if (last == "d" and before in "td") or (last == "s" and before in "sxzcgh"):
        return count
    two = rf"[{VOWELS}]{consonant}{'' if before == 'l' else '{1,2}'}$"
    return count - bool(re.search(two, stem))


PROSE = st.text(st.sampled_from("aeioulstdTE .!?'3\n-’—é"), max_size=80)


@given(st.lists(st.one_of(PROSE, st.text(max_size=30)), max_size=6))
@example(["—’—", "a’’b", "a'’b", "a’'b", "a’b", "’a’"])
def test_equals_the_definition(texts: list[str]) -> None:
    texts = [text.replace("\x00", "") for text in texts]
    counts = Readability().count(texts)
    found = zip(counts.words, counts.syllables, counts.sentences, strict=True)
    assert list(found) == [count_slowly(text) for text in texts]


@given(st.lists(PROSE, max_size=12), st.integers(1, 100))
def test_same_bits_alone_and_in_any_batch(texts: list[str], block: int) -> None:
    scorer = Readability(min_words=1)
    together = scorer.score(texts, None)
    alone = [scorer.score([text], None)[0] for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readability, "_BLOCK_BYTES", block)
        in_blocks = scorer.score(texts, None)
    assert together.tolist() == alone == in_blocks.tolist()


@pytest.mark.parametrize(
    ("text", "words", "syllables", "sentences"),
    [
        ("The cat sat.", 3, 3, 1),
        ("Wait... what?! No.", 3, 3, 3),
        ("It is 3.14 long, says v1.2.3 of a.b", 8, 8, 1),
        ("A heading\n\nand a text.", 5, 6, 2),
        ("She made makes baked wanted faces table.", 7, 10, 1),
        ("Don't — “quote” it’s", 3, 3, 1),
        ("one\ntwo\nthree", 3, 3, 1),
    ],
)
def test_examples(text: str, words: int, syllables: int, sentences: int) -> None:
    counts = Readability().count([text])
    assert (counts.words[0], counts.syllables[0], counts.sentences[0]) == (
        words,
        syllables,
        sentences,
    )


def test_a_table_is_not_one_endless_sentence() -> None:
    table = "alpha beta gamma delta\n" * 500
    counts = Readability(max_sentence_words=40).count([table])
    assert counts.sentences[0] == -(-counts.words[0] // 40)
    assert Readability().score([table], None)[0] <= 24


def test_only_the_first_bytes_count() -> None:
    easy = "The cat sat on the mat. " * 20
    hard = "Incomprehensible institutional heterogeneity characterises bureaucracy " * 20
    scorer = Readability(max_bytes=len(easy))
    assert scorer.score([easy], None) == scorer.score([easy + hard], None)
    assert Readability().score([easy + hard], None) > Readability().score([easy], None)


def test_hard_text_scores_higher_and_within_the_range() -> None:
    easy = "The cat sat on the mat. It was a big cat. The dog ran to it."
    hard = (
        "Notwithstanding considerable methodological heterogeneity, contemporary investigations "
        "demonstrate statistically significant associations between socioeconomic deprivation and "
        "cardiovascular mortality."
    )
    scores = Readability().score([easy, hard, "a", "", "1 2 3", "\ud800 x"], None)
    assert scores[0] < 3 < 20 < scores[1] <= 24
    assert scores[2:].tolist() == [np.float32(-3.4)] * 4


def test_digest_is_of_the_parameters() -> None:
    changes: list[dict[str, float]] = [
        {}, {"max_bytes": 100}, {"max_sentence_words": 9}, {"min_words": 3}, {"lowest": 0.0},
        {"highest": 18.0},
    ]  # fmt: skip
    assert len({Readability(**each).digest for each in changes}) == len(changes)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="start at 1"):
        Readability(max_bytes=0)
    with pytest.raises(DataError, match="no range"):
        Readability(lowest=20, highest=10)


def prose() -> list[str]:
    """Documentation strings of the standard library, where they are paragraphs of text."""
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                if len(text) > 500 and ">>>" not in text and text.count(". ") >= 4:
                    found.append(text)
    return found


def test_orders_prose_as_nltk_does() -> None:
    pytest.importorskip("nltk")
    from megagrow.difficulty.labels import Grader

    texts = prose()
    assert len(texts) > 100
    grader = Grader(max_characters=10**6)
    counts = [grader.count(text) for text in texts]
    expected = np.array([np.nan if each is None else each.flesch_kincaid for each in counts])
    scores = Readability(max_bytes=10**6).score(texts, None)
    good = np.isfinite(expected)
    ranks = [np.argsort(np.argsort(each[good])) for each in (scores, expected)]
    assert np.corrcoef(ranks)[0, 1] > 0.85
