"""Which format a tokenizer file or folder is, told by content and shape."""

from __future__ import annotations

import re
from pathlib import Path

import orjson

from megagrow.errors import DataError
from megagrow.tokenization.formats.codec import Codec
from megagrow.tokenization.formats.hugging_face import (
    FILE_NAME,
    HuggingFace,
    gpt2_as_tokenizer_json,
)
from megagrow.tokenization.formats.rank_file import SUFFIX, RankFile, is_rank_file
from megagrow.tokenization.formats.sentence_piece import SentencePiece

_VOCAB, _MERGES = "vocab.json", "merges.txt"
# How a JSON object begins whose first value is a number.
_BEGINS_WITH_NUMBER = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\d')
_FORMATS = (
    "a tokenizer.json, a folder with one, GPT-2's vocab.json beside merges.txt, a tiktoken rank "
    "file, or a SentencePiece model"
)


def open_format(
    path: Path, *, end_of_document: str | None, pattern: str | None
) -> tuple[Path, Codec]:
    """The main file of a tokenizer, and the tokenizer; arguments as `tokenizer.load`.

    Raises:
        DataError: nothing there is a tokenizer, or its format refuses it.
    """
    file = _in_folder(path) if path.is_dir() else path
    content = _read(file)
    if is_rank_file(content) and not file.name.endswith(_MERGES):
        return file, RankFile(content, file, end_of_document, pattern)
    if pattern is not None:
        raise DataError(
            f"{file} is no tiktoken rank file, so it says itself how text is split: leave the "
            f"pattern {pattern!r} out"
        )
    if content[:1] == content[2:3] == b"\n":  # a first piece and its text, in protobuf's terms
        return file, SentencePiece(content, file, end_of_document)
    if file.name.endswith(_MERGES) or content.startswith(b"#version"):
        file = _sibling(file, _MERGES, _VOCAB)
        content = _read(file)
    if _is_vocabulary(file, content):
        merges = _read(_sibling(file, _VOCAB, _MERGES))
        content = gpt2_as_tokenizer_json(content, merges, file)
    elif content.lstrip()[:1] not in (b"{", b"[") and file.suffix != ".json":
        raise DataError(f"{file} is not a tokenizer of a known format: give {_FORMATS}")
    return file, HuggingFace(content, file, end_of_document)


def _in_folder(folder: Path) -> Path:
    for name in (FILE_NAME, _VOCAB):
        if (folder / name).is_file():
            return folder / name
    candidates = sorted([*folder.glob("*" + SUFFIX), *folder.glob("*.model")])
    if len(candidates) == 1:
        return candidates[0]
    found = f"holds {', '.join(c.name for c in candidates)}" if candidates else "holds none"
    raise DataError(f"the folder {folder} {found}: give {_FORMATS}")


def _sibling(file: Path, ending: str, other: str) -> Path:
    """`gpt2-vocab.json` goes with `gpt2-merges.txt`, as Megatron-LM names them."""
    if file.name.endswith(ending):
        return file.with_name(file.name.removesuffix(ending) + other)
    return file.with_name(other)


def _is_vocabulary(file: Path, content: bytes) -> bool:
    if not _BEGINS_WITH_NUMBER.match(content):  # parsing takes a while
        return False
    try:
        description = orjson.loads(content)
    except ValueError:
        return False
    return (
        isinstance(description, dict)
        and (file.name.endswith(_VOCAB) or len(description) >= 256)
        and all(type(identity) is int for identity in description.values())
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read the tokenizer {file}: {error.strerror}; point to {_FORMATS}, or prepare "
            "the data again"
        ) from error
