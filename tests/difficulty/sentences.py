"""Generated texts that are easy or hard to read, for classifiers that learn in seconds."""

from __future__ import annotations

import random

LEVELS = ("easy", "middle", "hard")

_WORDS = {
    "easy": [
        "cat",
        "dog",
        "sun",
        "hat",
        "red",
        "big",
        "ran",
        "sat",
        "saw",
        "fun",
        "play",
        "ball",
        "tree",
        "bird",
        "milk",
        "home",
    ],
    "middle": [
        "market",
        "winter",
        "letter",
        "garden",
        "village",
        "teacher",
        "weather",
        "story",
        "travel",
        "morning",
    ],
    "hard": [
        "eigenvalue",
        "stochastic",
        "homology",
        "asymptotic",
        "heterogeneous",
        "regularisation",
        "manifold",
        "thermodynamic",
        "jurisprudence",
        "epistemology",
        "polymerisation",
    ],
}
_COMMON = ["the", "a", "of", "and", "with", "in", "on", "to", "is", "was"]


def text(level: str, index: int, words: int = 30) -> str:
    """A text of this level; the same for the same arguments."""
    source = random.Random(f"{level} {index}")
    chosen = [source.choice(source.choice((_WORDS[level], _COMMON))) for _ in range(words)]
    length = {"easy": 5, "middle": 10, "hard": 18}[level]
    sentences = [chosen[at : at + length] for at in range(0, words, length)]
    return " ".join(f"{' '.join(each).capitalize()}." for each in sentences)


def texts(count: int) -> tuple[list[str], list[int]]:
    """Different texts and the numbers of their levels, levels in turn."""
    levels = [index % len(LEVELS) for index in range(count)]
    return [text(LEVELS[level], index) for index, level in enumerate(levels)], levels
