"""Flesch-Kincaid grade of a text from its bytes, many documents at a time, without a dictionary.

Kincaid et al. 1975: 0.39 words/sentence + 11.8 syllables/word - 15.59. What counts:

- a word is a run of letters; bytes beyond ASCII count as letters, except general punctuation
  (U+2000 to U+207F); an apostrophe inside a word belongs to it;
- a syllable is a run of vowels (a e i o u y), except a silent e at the end of a word, also before
  d or s;
- a sentence ends at . ! or ? before anything but a letter, a digit or another of them, and at an
  empty line. One that is too long is taken for several: lists and tables have no full stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from megagrow.difficulty.segments import digest_of
from megagrow.errors import DataError

Bytes = NDArray[np.uint8]

Flags = NDArray[np.bool_]

# Classes of a byte, as bits.
_LETTER, _VOWEL, _STOP, _DIGIT, _NEWLINE = (1 << bit for bit in range(5))

# Zeros around each document, so that looking three bytes back or two ahead never sees another one.
_GAP = bytes(3)
# Bytes handled at once: with what is made of them, they stay in the caches.
_BLOCK_BYTES = 1 << 17


def _classes() -> bytes:
    table = [0] * 256
    for byte in (*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", *range(128, 256)):
        table[byte] |= _LETTER
    for members, bit in (
        (b"aeiouyAEIOUY", _VOWEL), (b".!?", _STOP), (b"0123456789", _DIGIT), (b"\n", _NEWLINE),
    ):  # fmt: skip
        for byte in members:
            table[byte] |= bit
    return bytes(table)


_CLASSES = _classes()


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What the grade is made of; each of shape [documents]."""

    words: NDArray[np.int64]
    """Words."""

    syllables: NDArray[np.int64]
    """Syllables, at least one for each word."""

    sentences: NDArray[np.int64]
    """Sentences; one of more than `max_sentence_words` counts as several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Readability:
    """Flesch-Kincaid grade: years of (American) schooling that a text asks for.

    Raises:
        DataError: a parameter that makes no sense.
    """

    max_bytes: int = 16_384
    """Bytes of a document that are read, from its start."""

    max_sentence_words: int = 50
    """Words after which a sentence counts as another one."""

    min_words: int = 10
    """A document of fewer words gets the lowest grade: there is nothing to measure."""

    lowest: float = -3.4
    """Least grade; that of sentences of one word of one syllable."""

    highest: float = 24.0
    """Largest grade."""

    digest: str = field(init=False)
    """sha256 of everything that decides a score."""

    kind: ClassVar[str] = "readability"
    unit: ClassVar[str] = "grade"
    tokenizer_hash: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_sentence_words, self.min_words) < 1:
            raise DataError("readability: max_bytes, max_sentence_words and min_words start at 1")
        if not -100 <= self.lowest < self.highest <= 1000:
            raise DataError(
                f"readability: grades from {self.lowest} to {self.highest} are no range"
            )
        description = {"kind": self.kind, "version": 1, **self._parameters()}
        object.__setattr__(self, "digest", digest_of(description))

    def score(self, texts: Sequence[str], tokens: object) -> NDArray[np.float32]:
        """Grade of each text, from `lowest` to `highest`; shape [documents]."""
        counts = self.count(texts)
        words = np.maximum(counts.words, 1)
        grade = 0.39 * counts.words / np.maximum(counts.sentences, 1)
        grade += 11.8 * counts.syllables / words - 15.59
        grade[counts.words < self.min_words] = self.lowest
        return np.clip(grade, self.lowest, self.highest).astype(np.float32)

    def count(self, texts: Sequence[str]) -> Counts:
        """Words, syllables and sentences of each text."""
        results = np.zeros((3, len(texts)), dtype=np.int64)
        pending: list[bytes] = []
        held = 0
        for index, text in enumerate(texts):
            # Characters first: a huge text is not encoded for its first bytes. A lone surrogate,
            # which no good reader lets through, must not end a run of days.
            piece = text[: self.max_bytes].encode("utf-8", "surrogatepass")[: self.max_bytes]
            pending.append(piece)
            held += len(piece)
            if held >= _BLOCK_BYTES or index + 1 == len(texts):
                done = slice(index + 1 - len(pending), index + 1)
                results[:, done] = _count(pending, self.max_sentence_words)
                pending, held = [], 0
        words, syllables, sentences = results
        return Counts(words=words, syllables=np.maximum(syllables, words), sentences=sentences)

    def save(self, folder: Path) -> dict[str, Any]:
        """There are no weights: returns the parameters."""
        return self._parameters()

    def _parameters(self) -> dict[str, Any]:
        return {
            "max_bytes": self.max_bytes, "max_sentence_words": self.max_sentence_words,
            "min_words": self.min_words, "lowest": self.lowest, "highest": self.highest,
        }  # fmt: skip

    @staticmethod
    def load(parameters: dict[str, Any]) -> Readability:
        """From what `save` returned.

        Raises:
            TypeError: the parameters are not what `save` returned.
        """
        return Readability(**parameters)


def _count(pieces: Sequence[bytes], max_sentence_words: int) -> NDArray[np.int64]:
    """Words, syllables and sentences of some documents; shape [3, documents]."""
    joined = _GAP + _GAP.join(pieces) + _GAP
    raw = np.frombuffer(joined, dtype=np.uint8)
    classes = np.frombuffer(bytearray(joined.translate(_CLASSES)), dtype=np.uint8)
    sizes = np.array([len(piece) for piece in pieces], dtype=np.int64) + len(_GAP)
    ends = np.cumsum(sizes)  # of each document, where the gap behind it begins
    starts = ends - sizes
    _settle_punctuation(raw, classes)
    begins = np.zeros_like(classes)  # bits that a byte has and the one before it has not
    np.bitwise_and(classes[1:], ~classes[:-1], out=begins[1:])
    vowels = (begins & _VOWEL).astype(np.bool_)
    vowels[3:-2] &= ~_silent(raw, classes)
    borders = _sentence_ends(classes)
    borders[starts] = True
    sentence_starts = np.flatnonzero(borders)
    words = np.add.reduceat(begins & _LETTER, sentence_starts, dtype=np.int64)
    first = np.searchsorted(sentence_starts, starts)
    return np.stack(
        [
            np.add.reduceat(words, first),
            np.add.reduceat(vowels.view(np.uint8), starts, dtype=np.int64),
            np.add.reduceat(-(-words // max_sentence_words), first),
        ]
    )


def _settle_punctuation(raw: Bytes, classes: Bytes) -> None:
    """General punctuation is no letter, an apostrophe between letters is: sets their `classes`."""
    marks = np.flatnonzero(raw == 0xE2)
    marks = marks[raw[marks + 1] & 0xFE == 0x80]
    quotes = marks[(raw[marks + 1] == 0x80) & (raw[marks + 2] == 0x99)]
    for offset in range(3):
        classes[marks + offset] = 0
    inside = quotes[classes[quotes - 1] & classes[quotes + 3] & _LETTER > 0]
    for offset in range(3):
        classes[inside + offset] = _LETTER
    marks = np.flatnonzero(raw == ord("'"))
    classes[marks[classes[marks - 1] & classes[marks + 1] & _LETTER > 0]] = _LETTER


def _silent(raw: Bytes, classes: Bytes) -> Flags:
    """Where a silent e stands at the end of a word, or before its last d or s.

    Returns:
        Flags for all bytes but the first three and the last two.
    """
    small = raw | 0x20
    letter = (classes & _LETTER).astype(np.bool_)
    vowel = (classes & _VOWEL).astype(np.bool_)
    consonant = letter & ~vowel
    before = small[2:-3]
    # A consonant before it, and a vowel one or two before that: not "the", "see" or "agree"; of
    # two consonants the second is no l: not "table".
    stem = consonant[1:-4] & vowel[:-5] & (before != ord("l"))
    stem |= vowel[1:-4]
    stem &= consonant[2:-3]
    last = ~letter[4:-1]
    last_but_one = ~letter[5:]
    for ending, spoken_after in ((b"d", b"td"), (b"s", b"sxzcgh")):
        silent = (small[4:-1] == ending[0]) & last_but_one
        for consonant_byte in spoken_after:  # "wanted", "faces"
            silent &= before != consonant_byte
        last |= silent
    silent_e: Flags = (small[3:-2] == ord("e")) & stem & last
    return silent_e


def _sentence_ends(classes: Bytes) -> Flags:
    """Where a sentence ends; never at a letter."""
    ends = np.zeros(classes.size, dtype=np.bool_)
    here, after = classes[:-1], classes[1:]
    ends[:-1] = (here & _STOP).astype(np.bool_) & (after & (_LETTER | _STOP | _DIGIT) == 0)
    ends[:-1] |= (here & after & _NEWLINE).astype(np.bool_)
    return ends
