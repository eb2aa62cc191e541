"""`tokenizer.json` of the `tokenizers` library, and GPT-2's vocab.json with merges.txt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer as Engine
from tokenizers import pre_tokenizers

from megagrow.errors import DataError
from megagrow.tokenization.formats.codec import USUAL_ENDS, choose_end, gigatoken_module

FILE_NAME = "tokenizer.json"


class HuggingFace:
    """A `tokenizer.json`.

    Added tokens marked `special`, and the end-of-document token, are not recognised in text.
    Added tokens that are not special, such as GPT-NeoX's runs of spaces, are.

    Args:
        content: the file.
        path: where it is, for messages.
        end_of_document: the token that ends documents; None takes the first usual one.

    Raises:
        DataError: it is no tokenizer, or lacks the token.
    """

    format = "tokenizer.json"
    library = "tokenizers"

    def __init__(self, content: bytes, path: Path, end_of_document: str | None) -> None:
        self._content, self._path = content, path
        try:
            description = orjson.loads(content)
            ids = _ids(description)
            specials = _contents(description, special=True)
        except Exception as error:
            raise _not_a_tokenizer(path, error) from error
        self.end_of_document = choose_end(path, end_of_document, ids.__contains__, specials)
        self.eod = ids[self.end_of_document]
        self.vocab_size = max(ids.values()) + 1
        _protect(description, self.end_of_document, self.eod)
        self.special_tokens = _contents(description, special=True)
        self.added_tokens = _contents(description, special=False)
        # As text: the parsed vocabulary is many times as large.
        description["model"] = orjson.Fragment(orjson.dumps(description["model"]))
        self._protected = orjson.dumps(description)
        self._for_gigatoken = orjson.dumps(_without_specials(description))

    @cached_property
    def _engine(self) -> Any:
        """The library's tokenizer, which a worker that has a faster one never needs."""
        try:
            engine = Engine.from_str(self._protected.decode())
        except Exception as error:  # the library raises bare Exception
            raise _not_a_tokenizer(self._path, error) from error
        engine.no_truncation()
        engine.no_padding()
        # Special tokens in the text are encoded as the text they are made of.
        engine.encode_special_tokens = True
        return engine

    @property
    def files(self) -> Mapping[str, bytes]:
        """The file as it was read."""
        return {FILE_NAME: self._content}

    def encode(self, texts: Sequence[str], *, parallel: bool) -> list[list[int]]:
        """Ids of each text, without what a post-processor would add."""
        # The library's thread pool shares out texts, so that one text is one thread's work.
        batches = [list(texts)] if parallel else [[text] for text in texts]
        return [
            encoding.ids
            for batch in batches
            for encoding in self._engine.encode_batch_fast(batch, add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are spelled out."""
        return str(self._engine.decode(list(ids), skip_special_tokens=False))

    def open_gigatoken(self) -> Any:
        """The same tokenizer for gigatoken, which recognises every added token it is told of."""
        return gigatoken_module().Tokenizer.from_json(self._for_gigatoken)


def gpt2_as_tokenizer_json(vocab: bytes, merges: bytes, path: Path) -> bytes:
    """The `tokenizer.json` that says what GPT-2's two files say, the same bytes every time.

    Args:
        vocab: `vocab.json`, token -> id, tokens in GPT-2's byte alphabet.
        merges: `merges.txt`, one pair per line, the first line often `#version: ...`.
        path: where `vocab.json` is, for messages.

    Raises:
        DataError: one of them is something else.
    """
    try:
        ids = json.loads(vocab)
        lines = merges.decode().split("\n")
        pairs = [line.rstrip("\r") for line in lines[lines[0].startswith("#version") :]]
        pairs = [pair for pair in pairs if pair]
        if any(len(pair.split(" ")) != 2 for pair in pairs):
            raise ValueError("a line of merges.txt is not a pair")
        missing = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(ids))
        if missing:
            raise ValueError(
                f"vocab.json lacks {len(missing)} of the 256 byte tokens, such as {missing[0]!r}"
            )
        if any(token.endswith("</w>") for token in ids):
            raise ValueError("its tokens mark ends of words with </w>, which GPT-2's do not")
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} with its merges.txt is not a byte-level BPE vocabulary as GPT-2's: {error}; "
            "use the tokenizer.json of that model instead"
        ) from error
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    description = {
        "version": "1.0",
        "added_tokens": [_special(end, ids[end]) for end in USUAL_ENDS[:1] if end in ids],
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "decoder": {**byte_level, "use_regex": True},
        "model": {"type": "BPE", "vocab": ids, "merges": [pair.split(" ") for pair in pairs]},
    }
    return json.dumps(description, ensure_ascii=False).encode()


def _ids(description: Any) -> dict[str, int]:
    vocab = description["model"]["vocab"]
    # A Unigram model lists [token, score]; the position is the id.
    ids = dict(vocab) if isinstance(vocab, dict) else {t: i for i, (t, _) in enumerate(vocab)}
    ids.update((each["content"], each["id"]) for each in description.get("added_tokens") or [])
    return ids


def _contents(description: Any, *, special: bool) -> list[str]:
    added = sorted(description.get("added_tokens") or [], key=lambda each: each["id"])
    return [each["content"] for each in added if bool(each.get("special")) is special]


def _protect(description: Any, end_of_document: str, eod: int) -> None:
    """Marks the end-of-document token special, and lets no merge make a special token."""
    added = list(description.get("added_tokens") or [])
    if all(each["content"] != end_of_document for each in added):
        added.append(_special(end_of_document, eod))
    description["added_tokens"] = [
        {**each, "special": True} if each["content"] == end_of_document else each for each in added
    ]
    model = description["model"]
    if "merges" in model:
        specials = _contents(description, special=True)
        halves = {(token[:cut], token[cut:]) for token in specials for cut in range(1, len(token))}
        # A look at the first character spares nearly all of the many pairs a closer one.
        first = {token[:1] for token in specials}
        model["merges"] = [
            pair
            for pair in model["merges"]
            if not pair or pair[0][:1] not in first or _halves_of(pair) not in halves
        ]


def _halves_of(pair: Any) -> tuple[str, ...]:
    """A merge is written as a pair, or with a space between its halves."""
    return tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair)


def _without_specials(description: Any) -> dict[str, Any]:
    """What gigatoken is told, which recognises every added token it knows of."""
    added = [each for each in description["added_tokens"] if not each.get("special")]
    unused = {"post_processor": None, "truncation": None, "padding": None}
    return {**description, **unused, "added_tokens": added}


def _special(content: str, identity: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": identity, "content": content, **flags, "special": True}


def _not_a_tokenizer(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a tokenizer.json of the `tokenizers` library: {error!r}")
