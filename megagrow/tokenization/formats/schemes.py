"""What tiktoken's rank files leave to code: the patterns that split text, and special tokens.

Patterns, ids and counts are those of tiktoken's `tiktoken_ext/openai_public.py`, and of Qwen2's
`tokenizer.json` for `qwen2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """How text is split into the pieces inside which bytes are merged."""

    expression: str
    """Regular expression in tiktoken's syntax."""
    gigatoken: str
    """Name of the same in gigatoken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """A published encoding, known by the name of its rank file."""

    pattern: str
    """Its pattern's name."""
    ranks: int
    """Lines of the file, by which a part of it is told."""
    special_tokens: Mapping[str, int]
    """Special tokens and their ids."""


_END = "<|endoftext|>"
_WORD_START = r"[^\r\n\p{L}\p{N}]?"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

PATTERNS: Mapping[str, Pattern] = {
    "gpt2": Pattern(
        expression=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++"
        r"|\s++$|\s+(?!\S)|\s",
        gigatoken="gpt2",
    ),
    "cl100k": Pattern(
        expression=r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
        gigatoken="cl100k",
    ),
    "o200k": Pattern(
        expression=rf"{_WORD_START}{_UPPER}*{_LOWER}+{_CONTRACTION}?"
        rf"|{_WORD_START}{_UPPER}+{_LOWER}*{_CONTRACTION}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        gigatoken="o200k",
    ),
    "qwen2": Pattern(
        expression=rf"{_CONTRACTION}|{_WORD_START}\p{{L}}+|\p{{N}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        gigatoken="qwen2",
    ),
}

ENCODINGS: Mapping[str, Encoding] = {
    "r50k_base": Encoding(pattern="gpt2", ranks=50_256, special_tokens={_END: 50_256}),
    "p50k_base": Encoding(pattern="gpt2", ranks=50_280, special_tokens={_END: 50_256}),
    "cl100k_base": Encoding(
        pattern="cl100k",
        ranks=100_256,
        special_tokens={
            _END: 100_257,
            "<|fim_prefix|>": 100_258,
            "<|fim_middle|>": 100_259,
            "<|fim_suffix|>": 100_260,
            "<|endofprompt|>": 100_276,
        },
    ),
    "o200k_base": Encoding(
        pattern="o200k",
        ranks=199_998,
        special_tokens={_END: 199_999, "<|endofprompt|>": 200_018},
    ),
}
