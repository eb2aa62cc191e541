"""What every tokenizer format offers, and the choice of its end-of-document token."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from megagrow.errors import DataError

#: Tokens that end a document in published vocabularies; the first that exists is taken.
USUAL_ENDS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)

#: The release whose ids were compared with those of the reference libraries.
GIGATOKEN_REQUIREMENT = "gigatoken==0.10.0"

_TOKENS_LISTED = 12


class Codec(Protocol):
    """A tokenizer in one format; the library of that format is the reference."""

    @property
    def format(self) -> str:
        """`tokenizer.json`, `tiktoken` or `sentencepiece`."""

    @property
    def library(self) -> str:
        """The package that encodes."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """Name -> content of what is needed to load it again; the first one is what to load."""

    @property
    def end_of_document(self) -> str:
        """Text of the end-of-document token."""

    @property
    def eod(self) -> int:
        """Id of the end-of-document token."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, special tokens included."""

    @property
    def special_tokens(self) -> Sequence[str]:
        """Tokens that text never gives, in order of their ids."""

    @property
    def added_tokens(self) -> Sequence[str]:
        """Ordinary tokens that are looked for in the text before anything else."""

    def encode(self, texts: Sequence[str], *, parallel: bool) -> list[list[int]]:
        """Ids of each text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""

    def open_gigatoken(self) -> Any:
        """The same tokenizer as a `gigatoken.Tokenizer`; raises what gigatoken raises."""


def choose_end(
    path: Path, named: str | None, exists: Callable[[str], bool], special_tokens: Sequence[str]
) -> str:
    """The end-of-document token: the one named, else the first usual one.

    Raises:
        DataError: there is no such token; the message lists those there are.
    """
    if named is None:
        for token in USUAL_ENDS:
            if exists(token):
                return token
        raise DataError(
            f"the tokenizer {path} has none of the usual tokens to end documents with "
            f"({', '.join(USUAL_ENDS)}): name the token it has for that{_listed(special_tokens)}"
        )
    if exists(named):
        return named
    near = get_close_matches(named, special_tokens, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]!r}?" if near else "name the token it has"
    raise DataError(
        f"the tokenizer {path} has no token {named!r} to end documents with: "
        f"{advice}{_listed(special_tokens)}"
    )


def optional_package(module: str, purpose: str, requirement: str | None = None) -> Any:
    """Imports a package that is no dependency.

    Args:
        module: what to import.
        purpose: what needs it, for the message.
        requirement: what pip is to install, if not a package of that name.

    Raises:
        DataError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{purpose} needs {module}, which cannot be imported ({error}): "
            f"pip install {requirement or module}"
        ) from error


def first_line(error: BaseException) -> str:
    """What a library's error says first; some add pages."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def gigatoken_module(module: str = "gigatoken") -> Any:
    """Imports gigatoken, or a module of it; raises DataError as `optional_package`."""
    return optional_package(module, "the fast tokenizer engine", GIGATOKEN_REQUIREMENT)


def _listed(special_tokens: Sequence[str]) -> str:
    if not special_tokens:
        return " (it has no special tokens)"
    shown = ", ".join(repr(token) for token in special_tokens[:_TOKENS_LISTED])
    more = len(special_tokens) - _TOKENS_LISTED
    return f" (its special tokens: {shown}{f' and {more} more' if more > 0 else ''})"
