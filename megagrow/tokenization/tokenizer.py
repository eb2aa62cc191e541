"""Train and use a byte-level BPE tokenizer stored as one ``tokenizer.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, pre_tokenizers, trainers

from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically

END_OF_DOCUMENT = "<|endoftext|>"


class Tokenizer:
    """A tokenizer whose text input can never produce the end-of-document id.

    Args:
        path: a `tokenizer.json` of the `tokenizers` library.
        end_of_document: the token that ends every document.

    Raises:
        DataError: the file is missing, is no tokenizer, or lacks the end-of-document token.
    """

    def __init__(self, path: str | Path, *, end_of_document: str = END_OF_DOCUMENT) -> None:
        self.path = Path(path)
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"cannot read the tokenizer {self.path}: {error.strerror}; "
                "point to a tokenizer.json, or prepare the data again"
            ) from error
        self._engine = _build_engine(content, self.path, end_of_document)
        vocabulary = self._engine.get_vocab(with_added_tokens=True)
        self.file_hash = hashlib.sha256(content).hexdigest()
        """sha256 of the file, as hexadecimal text."""
        self.end_of_document = end_of_document
        """Text of the end-of-document token."""
        self.eod = int(vocabulary[end_of_document])
        """Id of the end-of-document token."""
        self.vocab_size = max(vocabulary.values()) + 1
        """One more than the largest id, special tokens included."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; no special token is added, none is recognised in the text."""
        encodings = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; the end-of-document token is spelled out."""
        return str(self._engine.decode(list(ids), skip_special_tokens=False))


def load(path: str | Path, *, end_of_document: str = END_OF_DOCUMENT) -> Tokenizer:
    """Load a `tokenizer.json`; see `Tokenizer`."""
    return Tokenizer(path, end_of_document=end_of_document)


def train_bpe(texts: Iterable[str], vocab_size: int, path: str | Path) -> Tokenizer:
    """Train a byte-level BPE tokenizer, save it at `path`, and load it.

    Args:
        texts: training text; the same texts give the same file.
        vocab_size: ids wanted, the 256 bytes and the end-of-document token included. Little text
            may give fewer.
        path: the `tokenizer.json` to write, atomically.

    Raises:
        DataError: `vocab_size` cannot hold all bytes and the end-of-document token.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + 1
    if vocab_size < smallest:
        raise DataError(f"a vocabulary of {vocab_size} is too small: ask for {smallest} or more")
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        # Sorted: the set that alphabet() returns has no stable order.
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    write_atomically(Path(path), engine.to_str(pretty=True).encode())
    return load(path)


def _build_engine(content: bytes, path: Path, end_of_document: str) -> Any:
    try:
        description = json.loads(content)
        # Only tokens marked special are left unrecognised by `encode_special_tokens` below.
        for token in description.get("added_tokens", []):
            token["special"] = True
        engine = Engine.from_str(json.dumps(description))
    except Exception as error:  # the library raises bare Exception
        raise DataError(
            f"{path} is not a tokenizer.json of the `tokenizers` library: {error}"
        ) from error
    if engine.token_to_id(end_of_document) is None:
        raise DataError(
            f"the tokenizer {path} has no token {end_of_document!r} to end documents with: "
            "name the token it has, or use another tokenizer"
        )
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    return engine
