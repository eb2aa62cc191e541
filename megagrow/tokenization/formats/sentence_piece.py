"""SentencePiece `.model` files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from megagrow.errors import DataError
from megagrow.tokenization.formats.codec import choose_end, gigatoken_module, optional_package

FILE_NAME = "tokenizer.model"

# Field numbers and piece types of sentencepiece_model.proto.
_MODEL_PIECES, _PIECE_TEXT, _PIECE_TYPE = 1, 1, 3
_CONTROL, _USER_DEFINED = 3, 4

# Normalizers of gigatoken 0.10.0 whose text is not always that of sentencepiece.
_INEXACT = {"Precompiled", "Strip"}


class SentencePiece:
    """A `.model` file. Its control pieces are not recognised in text.

    Args:
        content: the file.
        path: where it is, for messages.
        end_of_document: the piece that ends documents, a control or user-defined one; None takes
            the model's own end of sentence, else the first usual one.

    Raises:
        DataError: it is no model, or lacks the piece.
    """

    format = "sentencepiece"
    library = "sentencepiece"

    def __init__(self, content: bytes, path: Path, end_of_document: str | None) -> None:
        self._content = content
        model = _load(content, path)
        pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
        ids = {piece: i for i, piece in enumerate(pieces)}
        user_defined = set(_user_defined(content))
        controls = [piece for i, piece in enumerate(pieces) if model.is_control(i)]
        named = end_of_document
        if named is None and model.eos_id() >= 0:
            named = pieces[model.eos_id()]
        self.end_of_document = choose_end(
            path, named, {*controls, *user_defined}.__contains__, [*controls, *user_defined]
        )
        self.eod = ids[self.end_of_document]
        if self.end_of_document in user_defined:
            content = _as_control(content, self.end_of_document)
            model = _load(content, path)
        self._protected, self._model = content, model
        self.vocab_size = int(model.vocab_size())
        self.special_tokens = [piece for i, piece in enumerate(pieces) if model.is_control(i)]
        self.added_tokens = sorted(user_defined - {self.end_of_document})

    @property
    def files(self) -> Mapping[str, bytes]:
        """The file as it was read."""
        return {FILE_NAME: self._content}

    def encode(self, texts: Sequence[str], *, parallel: bool) -> list[list[int]]:
        """Ids of each text, without begin and end of sentence."""
        threads = -1 if parallel else 1
        batch: list[list[int]] = self._model.encode(list(texts), num_threads=threads)
        return batch

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, as far as normalisation kept it; the end-of-document piece is spelled."""
        return "".join(
            self.end_of_document * len(list(run)) if is_end else self._model.decode(list(run))
            for is_end, run in groupby(map(int, ids), key=lambda identity: identity == self.eod)
        )

    def open_gigatoken(self) -> Any:
        """The same tokenizer for gigatoken, without ways from text to anything but pieces of it."""
        gigatoken = gigatoken_module()
        convert = gigatoken_module("gigatoken._load.sentencepiece")
        description = json.loads(convert.sentencepiece_to_tokenizer_json(self._protected))
        # They differ from sentencepiece's at combining marks after spaces, and at line ends.
        steps = {each["type"] for each in description["normalizer"]["normalizers"]}
        if steps & _INEXACT:
            raise DataError(
                "gigatoken normalises text in its own way; it agrees on models trained with "
                "--normalization_rule_name=identity --remove_extra_whitespaces=false, as Llama's"
            )
        description["added_tokens"] = [
            each for each in description["added_tokens"] if not each["special"]
        ]
        if description["added_tokens"] and "Prepend" in steps:
            raise DataError(
                "gigatoken puts no space before a user-defined piece that begins a text; it agrees "
                "on models without user-defined pieces, or with --add_dummy_prefix=false"
            )
        model = self._model
        # gigatoken derives merges from all pieces: those of no text must not come out of one.
        unreachable = {
            model.id_to_piece(i)
            for i in range(model.vocab_size())
            if model.is_control(i) or model.is_unknown(i) or model.is_byte(i)
        }
        description["model"]["merges"] = [
            pair for pair in description["model"]["merges"] if "".join(pair) not in unreachable
        ]
        return gigatoken.Tokenizer.from_json(json.dumps(description))


def _load(content: bytes, path: Path) -> Any:
    sentencepiece = optional_package("sentencepiece", f"the tokenizer {path}")
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=content)
        if not model.vocab_size():
            raise ValueError("it has no pieces")
    except Exception as error:  # the library's own errors have no common class
        raise DataError(f"{path} is not a SentencePiece model: {error}") from error
    return model


def _user_defined(content: bytes) -> Iterator[str]:
    for start, end in _spans(content, 0, len(content), _MODEL_PIECES):
        if _type_of(content, start, end)[1] == _USER_DEFINED:
            (text,) = _spans(content, start, end, _PIECE_TEXT)
            yield content[slice(*text)].decode()


def _as_control(content: bytes, piece: str) -> bytes:
    """The model with a user-defined piece made a control piece, which no text gives."""
    for start, end in _spans(content, 0, len(content), _MODEL_PIECES):
        (text,) = _spans(content, start, end, _PIECE_TEXT)
        position, kind = _type_of(content, start, end)
        if kind == _USER_DEFINED and content[slice(*text)] == piece.encode():
            return content[:position] + bytes([_CONTROL]) + content[position + 1 :]
    return content


def _type_of(content: bytes, start: int, end: int) -> tuple[int, int | None]:
    for field, value_start, _ in _fields(content, start, end):
        if field == _PIECE_TYPE:
            return value_start, content[value_start]
    return -1, None


def _spans(content: bytes, start: int, end: int, field: int) -> Iterator[tuple[int, int]]:
    return ((a, b) for number, a, b in _fields(content, start, end) if number == field)


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, first byte of the value, byte after it) of each protobuf field."""
    while start < end:
        key, start = _varint(content, start)
        wire = key & 7
        if wire == 0:
            value_end = _varint(content, start)[1]
        elif wire == 2:
            length, start = _varint(content, start)
            value_end = start + length
        else:  # 64 or 32 bits; the library has already refused anything else
            value_end = start + (8 if wire == 1 else 4)
        yield key >> 3, start, value_end
        start = value_end


def _varint(content: bytes, start: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
