"""Passages of documentation -> pages of a document's size, without what is there twice."""

from __future__ import annotations

import re
from collections.abc import Iterable

from megagrow.data.sample_text.library import Passage

# Paragraphs below this size, such as headings, may recur.
_MIN_REPEAT = 60
_MIN_WORDS = 8
_MAX_PAGE = 12_000

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


def pages(passages: Iterable[Passage]) -> list[tuple[str, str]]:
    """Passages of one origin that follow each other, joined up to a limited length.

    Returns:
        Origin and text of each page.
    """
    found: list[tuple[str, list[str]]] = []
    length = 0
    for passage in passages:
        length += len(passage.documented)
        if not found or passage.origin != found[-1][0] or length > _MAX_PAGE:
            found.append((passage.origin, []))
            length = len(passage.documented)
        found[-1][1].append(passage.documented)
    return [(origin, "\n\n".join(texts)) for origin, texts in found]
