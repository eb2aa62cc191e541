"""Part the library text into a middle and a hard half by how familiar its words are.

The measure follows Dale and Chall (1948), who rate a text by the share of its words outside a list
of familiar ones. Here the familiar words are the `FAMILIAR_WORDS` that occur in most passages of
the collection, and symbols and numbers count as words too, so prose in common words rates low and
text dense in names, notation and code rates high. Sentence length, the other half of their
formula, is left out: lists, tables and code have no sentences.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from megagrow.data.sample_text.library import Passage

FAMILIAR_WORDS = 1000
# Paragraphs below this size, such as headings, may recur.
_MIN_REPEAT = 60
_MIN_WORDS = 8
_MAX_PAGE = 12_000

_WORD = re.compile(r"[a-z]+|[^\sa-z]+")
_NOT_WORD = re.compile(r"[\W_]+")


def without_repeats(passages: Iterable[Passage]) -> list[Passage]:
    """Drop every paragraph that an earlier passage has, and passages with little else.

    Licences and inherited docstrings recur hundreds of times in a Python environment.
    """
    seen: set[str] = set()
    kept = []
    for passage in passages:
        paragraphs = []
        for paragraph in passage.text.split("\n\n"):
            key = _NOT_WORD.sub(" ", paragraph.lower())
            if len(key) >= _MIN_REPEAT:
                if key in seen:
                    continue
                seen.add(key)
            paragraphs.append(paragraph)
        text = "\n\n".join(paragraphs)
        if len(text.split()) >= _MIN_WORDS:
            kept.append(Passage(origin=passage.origin, signature=passage.signature, text=text))
    return kept


def unfamiliar_shares(texts: Sequence[str]) -> list[float]:
    """Share of each text's words that are not among the collection's most widespread ones."""
    occurrences = [Counter(_WORD.findall(text.lower())) for text in texts]
    spread: Counter[str] = Counter()
    for words in occurrences:
        spread.update(words.keys())
    # Ties by spelling, so that the list does not hang on the order of the texts.
    ranked = sorted(spread, key=lambda word: (-spread[word], word))
    familiar = frozenset(ranked[:FAMILIAR_WORDS])
    return [
        sum(count for word, count in words.items() if word not in familiar)
        / max(1, sum(words.values()))
        for words in occurrences
    ]


def middle_and_hard(
    passages: Sequence[Passage], max_characters: int
) -> tuple[list[str], list[str]]:
    """Grade passages and collect each half's into pages, one or more per source file.

    The middle half gets the most familiar passages, the hard half the least familiar ones, each
    up to half of all text; where there is more than enough, what lies between is left out. Middle
    pages leave out the signatures.

    Args:
        passages: deduplicated passages.
        max_characters: text wanted in each half.

    Returns:
        Middle pages and hard pages, in the order of the passages.
    """
    shares = unfamiliar_shares([passage.text for passage in passages])
    order = sorted(range(len(passages)), key=lambda index: (shares[index], index))
    total = sum(len(passage.text) for passage in passages)
    wanted = min(max_characters, total // 2)
    middle = _up_to(order, passages, wanted)
    hard = _up_to([index for index in reversed(order) if index not in middle], passages, wanted)
    return (
        _pages((p.origin, p.text) for index, p in enumerate(passages) if index in middle),
        _pages((p.origin, p.documented) for index, p in enumerate(passages) if index in hard),
    )


def _up_to(order: Sequence[int], passages: Sequence[Passage], characters: int) -> set[int]:
    running = accumulate(len(passages[index].text) for index in order)
    return {index for index, total in zip(order, running, strict=True) if total <= characters}


def _pages(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Join texts of one origin that follow each other into pages of limited length."""
    pages: list[list[str]] = []
    last, length = "", 0
    for origin, text in texts:
        length += len(text)
        if origin != last or length > _MAX_PAGE:
            pages.append([])
            last, length = origin, len(text)
        pages[-1].append(text)
    return ["\n\n".join(page) for page in pages]
