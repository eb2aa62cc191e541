"""Load a tokenizer of any format in use, or train a byte-level BPE tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, pre_tokenizers, trainers

from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.tokenization.formats.codec import Codec
from megagrow.tokenization.formats.detect import open_format

END_OF_DOCUMENT = "<|endoftext|>"


class Tokenizer:
    """A tokenizer as its own library defines it; text cannot forge the end of a document.

    Nothing is put before or after a text. Special tokens whose literal is in the text are encoded
    as ordinary text; ordinary added tokens are recognised. Get one from `load`.

    Args:
        path: the file it was read from.
        codec: what encodes and decodes.
    """

    def __init__(self, path: Path, codec: Codec) -> None:
        self._codec = codec
        self.path = path
        """The file it was read from; of GPT-2's two files, vocab.json."""
        self.format = codec.format
        """`tokenizer.json` (GPT-2's two files too), `tiktoken` or `sentencepiece`."""
        self.library = codec.library
        """The package that encodes."""
        self.file_hash = hashlib.sha256(b"".join(codec.files.values())).hexdigest()
        """sha256 of the files that `save` writes, one after the other, as hexadecimal text.

        For a `tokenizer.json`, a SentencePiece model and a published rank file it is that of the
        file itself. It is the same before and after `save`.
        """
        self.end_of_document = codec.end_of_document
        """Text of the end-of-document token."""
        self.eod = codec.eod
        """Id of the end-of-document token."""
        self.vocab_size = codec.vocab_size
        """One more than the largest id, added and special tokens included."""
        self.special_tokens = tuple(codec.special_tokens)
        """Tokens that are ordinary text where they are written out in a text."""
        self.added_tokens = tuple(codec.added_tokens)
        """Ordinary tokens that are looked for in the text before anything else."""

    def encode_batch(self, texts: Sequence[str], *, parallel: bool = True) -> list[list[int]]:
        """Token ids of each text; no special token is added, none is recognised in the text.

        A model without merges (Unigram, WordLevel) in a tokenizer.json may know a special token as
        an ordinary word. Whoever writes documents must therefore look for `eod` in the ids.

        Args:
            texts: the texts.
            parallel: use the library's threads.
        """
        return self._codec.encode(texts, parallel=parallel)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; the end-of-document token is spelled out."""
        return self._codec.decode(ids)

    def save(self, folder: str | Path) -> str:
        """Write into `folder` what is needed to load it again, atomically.

        A file is copied byte for byte, as `tokenizer.json`, `tokenizer.model`, or, if it is a
        published rank file, under its own name. GPT-2's two files become one `tokenizer.json`. Any
        other rank file becomes `tokenizer.tiktoken` with the note `tokenizer.tiktoken.json`, which
        names the pattern and the special tokens.

        Returns:
            The name of the file to load, which has the same `file_hash`. Name the
            end-of-document token again if it is not the default one.
        """
        files = self._codec.files
        for name, content in reversed(list(files.items())):
            write_atomically(Path(folder) / name, content)
        return next(iter(files))

    def open_gigatoken(self) -> Any:
        """The same tokenizer as a `gigatoken.Tokenizer`; raises what gigatoken raises."""
        return self._codec.open_gigatoken()


def load(
    path: str | Path, *, end_of_document: str | None = None, pattern: str | None = None
) -> Tokenizer:
    """Load a tokenizer; the format is told by content and shape.

    Args:
        path: a `tokenizer.json`; GPT-2's `vocab.json` or `merges.txt`, one beside the other; a
            tiktoken rank file; a SentencePiece model; or a folder with one of these.
        end_of_document: the token that ends every document. By default the first of
            `<|endoftext|>`, `<|end_of_text|>`, `</s>` and a few others that exists; for
            SentencePiece the model's own end of sentence.
        pattern: for a rank file that is not named after its encoding: the encoding's name
            (`cl100k_base`), or that of its pattern (`gpt2`, `cl100k`, `o200k`, `qwen2`), and then
            the end-of-document token takes the first id after the ranks.

    Raises:
        DataError: a file is missing or damaged, the format is not known or its package not
            installed, or there is no such end-of-document token.
    """
    file, codec = open_format(Path(path), end_of_document=end_of_document, pattern=pattern)
    return Tokenizer(file, codec)


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
