"""Short children's stories from a seeded grammar: the easy bucket of the quickstart.

A story is an opening, one plot, an aside or two, and an ending, told with one cast (hero, friend,
elder, place, objects) and a vocabulary of about 1,500 simple words. Story ``i`` of a seed is the
same text on every machine and Python version, whoever generates it and in whichever order.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeAlias, TypeVar

from megagrow.data.sample_text import story_frames, story_words
from megagrow.data.sample_text.story_plots_away import PLOTS as PLOTS_AWAY
from megagrow.data.sample_text.story_plots_home import PLOTS as PLOTS_HOME

T = TypeVar("T")

# A template: literal text, a slot (name, capitalise), or a choice between templates.
Node: TypeAlias = "str | tuple[str, bool] | list[list[Node]]"
Template: TypeAlias = list[Node]
# A beat: (chance to be told, alternatives).
Beat = tuple[float, list[Template]]

_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio]|u(?!nicorn))")
_SENTENCE_START = re.compile(r'(?:^|(?<=[.!?] ))"?[a-z]')
PLOT_NAMES = (*PLOTS_HOME, *PLOTS_AWAY)

# Slots that keep one value throughout a story, and the word list that each comes from.
_CAST_WORDS = {
    "toy": "toys",
    "color": "colors",
    "look": "looks",
    "size": "sizes",
    "food": "foods",
    "fruit": "fruits",
    "plant": "plants",
    "creature": "creatures",
    "treasure": "treasures",
    "noise": "noises",
    "cause": "noise_causes",
    "game": "games",
    "job": "jobs",
    "job2": "jobs",
    "job3": "jobs",
    "wish": "wishes",
    "far_place": "far_places",
}

_TOKEN = re.compile(r"[{}\[\]|]|[^{}\[\]|]+")


def split_entries(block: str) -> list[str]:
    """Split a word list into its entries."""
    if "/" in block:
        return block.split("\n")
    return [entry.strip() for entry in block.replace("\n", " ").split(",")]


def parse_template(text: str) -> Template:
    """Parse one line of the grammar; see story_frames.py for the notation.

    Raises:
        ValueError: brackets or braces that do not match.
    """
    tokens = _TOKEN.findall(text)
    template, end = _parse_sequence(tokens, 0, depth=0)
    if end != len(tokens):
        raise ValueError(f"unbalanced brackets in story template {text!r}")
    return template


def _parse_sequence(tokens: list[str], at: int, depth: int) -> tuple[Template, int]:
    template: Template = []
    while at < len(tokens):
        token = tokens[at]
        if token == "{":
            if tokens[at + 2 : at + 3] != ["}"]:
                raise ValueError(f"unclosed slot in story template {''.join(tokens)!r}")
            name = tokens[at + 1]
            template.append((name.lower(), name[0].isupper()))
            at += 3
        elif token == "[":
            alternatives: list[Template] = []
            while token in ("[", "|"):
                branch, at = _parse_sequence(tokens, at + 1, depth + 1)
                alternatives.append(branch)
                if at >= len(tokens):
                    raise ValueError(f"unclosed choice in story template {''.join(tokens)!r}")
                token = tokens[at]
            template.append(alternatives)
            at += 1
        elif token in ("|", "]") and depth:
            break
        elif token in ("|", "]", "}"):
            return template, at
        else:
            template.append(token)
            at += 1
    return template, at


def parse_beats(block: str) -> list[Beat]:
    """Parse a block of the grammar into beats."""
    beats = []
    for paragraph in block.strip("\n").split("\n\n"):
        lines = re.sub(r"\n +", " ", paragraph).split("\n")
        chance = 0.5 if lines[0].startswith("?") else 1.0
        beats.append((chance, [parse_template(line.lstrip("?")) for line in lines]))
    return beats


@cache
def _grammar() -> dict[str, list[Beat]]:
    frames = {
        "opening": story_frames.OPENING,
        "asides": story_frames.ASIDES,
        "ending": story_frames.ENDING,
    }
    return {
        name: parse_beats(block) for name, block in {**frames, **PLOTS_HOME, **PLOTS_AWAY}.items()
    }


@cache
def _words() -> dict[str, list[str]]:
    return {
        name.lower(): split_entries(block)
        for name, block in vars(story_words).items()
        if name.isupper()
    }


class _Teller:
    """One story's random draws and cast."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        self._recent: dict[str, str] = {}
        self._cast: dict[str, str] = {}
        self._cast = self._make_cast()

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def pick(self, options: Sequence[T]) -> T:
        # Only random() is guaranteed to stay the same across Python versions, choice() is not.
        return options[int(self._random() * len(options))]

    def word(self, list_name: str) -> str:
        """Draw from a word list, not the same entry twice running."""
        entries = _words()[list_name]
        drawn = self.pick(entries)
        if drawn == self._recent.get(list_name):
            drawn = entries[(entries.index(drawn) + 1) % len(entries)]
        self._recent[list_name] = drawn
        return drawn

    def tell(self, beat: Beat) -> str:
        """Tell one beat as finished sentences, or an empty text where the beat is left out."""
        probability, alternatives = beat
        if probability < 1 and not self.chance(probability):
            return ""
        parts: list[str] = []
        self._render(self.pick(alternatives), parts)
        text = _ARTICLE.sub(r"\1n ", "".join(parts))
        return _SENTENCE_START.sub(lambda match: match[0].upper(), text)

    def _render(self, template: Template, parts: list[str]) -> None:
        for node in template:
            if isinstance(node, str):
                parts.append(node)
            elif isinstance(node, tuple):
                name, capitalise = node
                value = self._cast.get(name) or self.word(name)
                parts.append(value[0].upper() + value[1:] if capitalise else value)
            else:
                self._render(self.pick(node), parts)

    def _make_cast(self) -> dict[str, str]:
        wild = self.chance(0.35)
        cast: dict[str, str] = {}
        for role, prefix in (("hero", ""), ("friend", "f")):
            cast.update(self._character(role, prefix, wild, taken=cast.get("hero", "")))
        for role, prefix in (("elder", "e"), ("neighbor", "n")):
            name, pronoun = self.word("wild_elders" if wild else "elders").split("/")
            cast.update({role: name, **_pronouns(pronoun, prefix)})
        stranger, pronoun = self.word("strangers").split("/")
        cast.update({"stranger": stranger, **_pronouns(pronoun, "x")})
        names = ("place", "spot", "spot2", "spot3", "found")
        cast.update(
            zip(names, self.word("wild_places" if wild else "places").split("/"), strict=True)
        )
        cast.update(
            zip(("skill", "skilled", "skilling"), self.word("skills").split("/"), strict=True)
        )
        cast.update(zip(("build", "material"), self.word("builds").split("/"), strict=True))
        cast.update(zip(("magic", "wizard"), self.word("wizards").split("/"), strict=True))
        cast["pet"] = self.word("pet_names")
        for name, source in _CAST_WORDS.items():
            cast[name] = self.word(source)
        cast["fruit_plural"] = _plural(cast["fruit"])
        return cast

    def _character(self, role: str, prefix: str, wild: bool, taken: str) -> dict[str, str]:
        pronoun = self.pick(("he", "she"))
        if wild or self.chance(0.15):
            kind, name = self.word("animals"), self.word("pet_names")
        else:
            kind = {"he": "boy", "she": "girl"}[pronoun]
            name = self.word("boys" if pronoun == "he" else "girls")
        look = self.pick(("little", "small", "young", self.word("traits")))
        called = self.pick(("named", "called"))
        if name == taken:
            return self._character(role, prefix, wild, taken)
        return {
            role: name,
            f"a_{role}": f"a {look} {kind} {called} {name}",
            f"a_{role}_short": f"a {look} {kind}",
            **_pronouns(pronoun, prefix),
        }


def _pronouns(pronoun: str, prefix: str) -> dict[str, str]:
    him, his = {"he": ("him", "his"), "she": ("her", "her")}[pronoun]
    return {f"{prefix}he": pronoun, f"{prefix}him": him, f"{prefix}his": his}


def _plural(noun: str) -> str:
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("ch", "o")) else "s")


def story(seed: int, index: int) -> str:
    """Tell story ``index`` of ``seed``: about 100 to 300 words in several paragraphs."""
    rng = random.Random(f"{seed}:{index}")
    teller = _Teller(rng)
    grammar = _grammar()
    asides = grammar["asides"][0]
    paragraphs = [" ".join(filter(None, map(teller.tell, grammar["opening"])))]
    sentences: list[str] = []
    for beat in grammar[teller.pick(PLOT_NAMES)]:
        sentences.append(teller.tell(beat))
        if teller.chance(0.15):
            sentences.append(teller.tell(asides))
        if teller.chance(0.4):
            paragraphs.append(" ".join(filter(None, sentences)))
            sentences.clear()
    sentences.extend(teller.tell(beat) for beat in grammar["ending"])
    paragraphs.append(" ".join(filter(None, sentences)))
    return "\n\n".join(filter(None, paragraphs))


def stories(seed: int, start: int = 0) -> Iterator[str]:
    """Tell the stories of ``seed`` from number ``start`` on, without end."""
    return (story(seed, index) for index in itertools.count(start))
