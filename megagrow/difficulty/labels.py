"""Silver labels: levels of schooling from readability grades, where nobody labelled the text.

Sentences are found by NLTK's Punkt, untrained, and syllables by its sonority sequencing; neither
needs a download. A grade is the median of three formulas, as each is misled by something else:

- Flesch-Kincaid: 0.39 words/sentence + 11.8 syllables/word - 15.59 (Kincaid et al. 1975);
- Gunning fog: 0.4 (words/sentence + 100 share of words of three syllables or more) (Gunning 1952);
- Coleman-Liau: 5.88 letters/word - 29.6 sentences/word - 15.8 (Coleman and Liau 1975).

All count years of American schooling. They are a proxy: they see the form of a text, not what it
asks its reader to know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.errors import DataError

SCHOOL_LEVELS = ("high-school", "undergraduate", "graduate")
SCHOOL_CUTS = (12.0, 16.0)
"""Grades that end high school and undergraduate studies, each included in the easier level."""

_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_SILENT_E = re.compile(r"([^aeiouyl]|[aeiouy]l)e$|([^aeiouyltd]|[aeiouy]l)ed$")
_LONGEST_SENTENCE = 50
_FEWEST_WORDS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TextCounts:
    """What the grade of a text is made of."""

    words: int
    """Words: letters, and apostrophes between them."""
    sentences: int
    """Sentences; one of more than 50 words counts as several."""
    syllables: int
    """Syllables."""
    long_words: int
    """Words of three syllables or more."""
    letters: int
    """Letters."""

    @property
    def flesch_kincaid(self) -> float:
        """Flesch-Kincaid grade."""
        return 0.39 * self.words / self.sentences + 11.8 * self.syllables / self.words - 15.59

    @property
    def gunning_fog(self) -> float:
        """Gunning fog index."""
        return 0.4 * (self.words / self.sentences + 100 * self.long_words / self.words)

    @property
    def coleman_liau(self) -> float:
        """Coleman-Liau index."""
        return 5.88 * self.letters / self.words - 29.6 * self.sentences / self.words - 15.8

    @property
    def grade(self) -> float:
        """Median of the three, from 0 to 24."""
        grades = (self.flesch_kincaid, self.gunning_fog, self.coleman_liau)
        return min(max(sorted(grades)[1], 0.0), 24.0)


class Grader:
    """Grades texts with NLTK. About 2 MB/s: for samples, not for a corpus.

    Args:
        max_characters: what is read of a text, from its start.

    Raises:
        DataError: NLTK is not installed.
    """

    def __init__(self, max_characters: int = 4000) -> None:
        try:
            from nltk.tokenize.punkt import PunktSentenceTokenizer
            from nltk.tokenize.sonority_sequencing import SyllableTokenizer
        except ImportError:
            raise DataError("silver labels need NLTK: pip install 'megagrow[classifier]'") from None
        self.max_characters = max_characters
        self._sentences: Any = PunktSentenceTokenizer()
        self._syllables: Any = SyllableTokenizer()
        self._known: dict[str, int] = {}

    def count(self, text: str) -> TextCounts | None:
        """Counts of a text; None where it has fewer than 20 words, too few to grade."""
        head = text[: self.max_characters]
        # An empty line ends a paragraph, and so a sentence; Punkt looks at full stops alone.
        parts = [part for part in re.split(r"\n\s*\n", head) if part.strip()]
        sentences = [each for part in parts for each in self._sentences.tokenize(part)]
        words = [_WORD.findall(each) for each in sentences]
        every = [word for each in words for word in each]
        if len(every) < _FEWEST_WORDS:
            return None
        syllables = [self.syllables(word) for word in every]
        return TextCounts(
            words=len(every),
            sentences=sum(-(-len(each) // _LONGEST_SENTENCE) for each in words),
            syllables=sum(syllables),
            long_words=sum(count >= 3 for count in syllables),
            letters=sum(len(word) for word in every),
        )

    def syllables(self, word: str) -> int:
        """Syllables of a word, by sonority; a silent e at its end is taken off."""
        word = word.lower()
        if word not in self._known:
            letters = re.sub(r"[^a-z]", "", word)
            count = len(self._syllables.tokenize(letters))
            silent = _SILENT_E.search(letters)
            self._known[word] = max(count - bool(silent), 1)
        return self._known[word]


def grades(
    texts: Sequence[str], progress: Callable[[int], object] | None = None
) -> NDArray[np.float64]:
    """Grade of each text, NaN where it is too short; shape [documents].

    Args:
        texts: documents.
        progress: told after each text how many there were (1).

    Raises:
        DataError: NLTK is not installed.
    """
    grader = Grader()
    found = np.full(len(texts), np.nan)
    for index, text in enumerate(texts):
        counts = grader.count(text)
        if counts is not None:
            found[index] = counts.grade
        if progress is not None:
            progress(1)
    return found


def cut(values: NDArray[np.float64], cuts: Sequence[float]) -> NDArray[np.int64]:
    """Level of each value: 0 up to and including the first cut, and so on; shape [documents]."""
    return np.searchsorted(np.asarray(cuts), values, side="left")


def quantile_cuts(values: NDArray[np.float64], levels: int) -> tuple[float, ...]:
    """Cuts that put as many values in each of `levels` levels.

    Raises:
        DataError: there are not enough different values.
    """
    cuts = np.quantile(values, np.arange(1, levels) / levels) if values.size else np.zeros(0)
    if np.unique(cuts).size < levels - 1:
        raise DataError(
            f"{values.size} documents have too few different grades for {levels} levels: "
            "use more documents, or fewer levels"
        )
    return tuple(map(float, cuts))
