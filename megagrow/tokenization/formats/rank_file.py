"""tiktoken's rank files: one `base64 rank` per line, and what they do not say."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from megagrow.errors import DataError
from megagrow.tokenization.formats.codec import (
    USUAL_ENDS,
    choose_end,
    gigatoken_module,
    optional_package,
)
from megagrow.tokenization.formats.schemes import ENCODINGS, PATTERNS

SUFFIX = ".tiktoken"
_FILE_NAME = "tokenizer" + SUFFIX
_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scheme:
    pattern: str
    special_tokens: Mapping[str, int]
    known: bool
    """Told by the file's name alone, so that nothing need be kept beside it."""


class RankFile:
    """A `.tiktoken` file.

    The pattern that splits text before merging, and the special tokens, are those of the encoding
    that the file is named after, or that `pattern` names. Else the note beside it, `NAME.json`,
    tells them, as `Tokenizer.save` writes it; or `pattern` names a pattern, and the
    end-of-document token takes the next free id.

    Args:
        content: the file.
        path: where it is; gigatoken reads it from there again.
        end_of_document: the token that ends documents; None takes the first usual one.
        pattern: name of an encoding (`cl100k_base`) or of a pattern (`cl100k`).

    Raises:
        DataError: it is no rank file or a part of one, or the pattern is not known.
    """

    format = "tiktoken"
    library = "tiktoken"
    added_tokens: Sequence[str] = ()

    def __init__(
        self, content: bytes, path: Path, end_of_document: str | None, pattern: str | None
    ) -> None:
        tiktoken = optional_package("tiktoken", f"the tokenizer {path}")
        self._content, self._path = content, path
        ranks = _read_ranks(content, path)
        self._scheme = _scheme(path, pattern, end_of_document, ranks)
        specials = self._scheme.special_tokens
        self.special_tokens = sorted(specials, key=lambda token: specials[token])
        only = self.special_tokens[0] if len(specials) == 1 else None
        usual = any(token in specials for token in USUAL_ENDS)
        named = only if end_of_document is None and not usual else end_of_document
        self.end_of_document = choose_end(path, named, specials.__contains__, self.special_tokens)
        self.eod = specials[self.end_of_document]
        self.vocab_size = max(*ranks.values(), *specials.values()) + 1
        self._encoding = tiktoken.Encoding(
            path.stem,
            pat_str=PATTERNS[self._scheme.pattern].expression,
            mergeable_ranks=ranks,
            special_tokens=dict(specials),
        )

    @property
    def files(self) -> Mapping[str, bytes]:
        """The file as it was read, and a note beside it unless its name says all."""
        if self._scheme.known:
            return {self._path.name: self._content}
        note = {
            "pattern": self._scheme.pattern,
            "special_tokens": dict(self._scheme.special_tokens),
        }
        return {
            _FILE_NAME: self._content,
            f"{_FILE_NAME}.json": (json.dumps(note, indent=2) + "\n").encode(),
        }

    def encode(self, texts: Sequence[str], *, parallel: bool) -> list[list[int]]:
        """Ids of each text; special tokens in it are ordinary text."""
        if parallel:
            batch: list[list[int]] = self._encoding.encode_ordinary_batch(list(texts))
            return batch
        return [self._encoding.encode_ordinary(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are spelled out."""
        return str(self._encoding.decode(list(ids)))

    def open_gigatoken(self) -> Any:
        """The same tokenizer for gigatoken, which is told of no special token."""
        gigatoken = gigatoken_module()
        name = PATTERNS[self._scheme.pattern].gigatoken
        return gigatoken.Tokenizer.from_tiktoken(self._path, name, {})


def is_rank_file(content: bytes) -> bool:
    """Whether the first line is one of a rank file."""
    return _LINE.fullmatch(content[:4096].split(b"\n")[0].rstrip(b"\r")) is not None


def _read_ranks(content: bytes, path: Path) -> dict[bytes, int]:
    """Read here, because tiktoken's reader keeps copies by path and so may give an older file."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise DataError(f"{path}, line {number}, is not `base64 rank`: {error}") from error
    if len(set(ranks.values())) != len(ranks):
        raise DataError(f"{path} gives one rank to two tokens: fetch the file again")
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise DataError(f"{path} lacks some of the 256 single bytes: fetch the file again")
    return ranks


def _scheme(
    path: Path, pattern: str | None, end_of_document: str | None, ranks: Mapping[bytes, int]
) -> _Scheme:
    name = path.name.removesuffix(SUFFIX)
    by_name = name in ENCODINGS and path.name != name and pattern in (None, name)
    chosen = name if by_name else pattern
    if chosen is None:
        return _scheme_from_note(path)
    if chosen in ENCODINGS:
        encoding = ENCODINGS[chosen]
        if len(ranks) != encoding.ranks:
            raise DataError(
                f"{path} holds {len(ranks):,} ranks, but {chosen} has {encoding.ranks:,}: fetch "
                "the file again, or rename it and name its pattern if it is of another encoding"
            )
        return _Scheme(
            pattern=encoding.pattern, special_tokens=encoding.special_tokens, known=by_name
        )
    if chosen not in PATTERNS:
        known = [*PATTERNS, *ENCODINGS]
        near = get_close_matches(chosen, known, n=1)
        advice = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"unknown pattern {chosen!r}: {advice}Known are {', '.join(known)}")
    end = end_of_document or USUAL_ENDS[0]
    return _Scheme(pattern=chosen, special_tokens={end: max(ranks.values()) + 1}, known=False)


def _scheme_from_note(path: Path) -> _Scheme:
    note_path = path.with_name(path.name + ".json")
    try:
        note = json.loads(note_path.read_bytes())
        scheme = _Scheme(
            pattern=note["pattern"],
            special_tokens={str(k): int(v) for k, v in note["special_tokens"].items()},
            known=False,
        )
        if scheme.pattern not in PATTERNS or not scheme.special_tokens:
            raise ValueError("unknown pattern, or no special token")
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not say how text is split before merging, and its name is not that of a "
            f"known encoding ({', '.join(ENCODINGS)}): name the pattern, one of "
            f"{', '.join(PATTERNS)}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{note_path} is not the note of a rank file: {error!r}; name the pattern instead, or "
            "prepare the data again"
        ) from error
    return scheme
