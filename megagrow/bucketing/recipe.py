"""What decides the bytes of the buckets, and the objects a worker makes of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megagrow.bucketing.levels import Levels
from megagrow.data.writer import token_dtype
from megagrow.difficulty import store
from megagrow.difficulty.scorer import Scorer
from megagrow.shards.shard import Shard
from megagrow.tokenization.engine import Engine, open_engine
from megagrow.tokenization.tokenizer import Tokenizer, load

PART_VERSION = 1
"""Raise it whenever the same input and recipe give other bytes, so that old parts are not used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How a row becomes token ids."""

    tokenizer: Path
    """Tokenizer file in the output folder."""

    tokenizer_hash: str
    """sha256 of that file."""

    end_of_document: str
    """Token that ends every document."""

    vocab_size: int
    """One more than the largest id."""

    eod: int
    """Id that ends every document."""

    engine: str
    """`gigatoken` or `reference`; both give the same ids."""

    engine_version: str
    """The package that encodes, and its version."""

    text_key: str
    """Field or column that holds the text."""

    def open(self) -> OpenEncoding:
        """Loads the tokenizer and its engine."""
        tokenizer = load(self.tokenizer, end_of_document=self.end_of_document)
        return OpenEncoding(
            tokenizer=tokenizer,
            engine=open_engine(tokenizer, self.engine),
            text_key=self.text_key,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenEncoding:
    """An `Encoding`, loaded."""

    tokenizer: Tokenizer
    """The tokenizer."""

    engine: Engine
    """What encodes in its place, faster."""

    text_key: str
    """Field or column that holds the text."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the .bin files."""
        return token_dtype(self.tokenizer.vocab_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a shard becomes parts; the same recipe and shard give the same bytes."""

    encoding: Encoding
    """How a row becomes token ids."""

    scorer: Path
    """Folder of the frozen scorer."""

    levels: Levels
    """Names and frozen thresholds; they name scorer and tokenizer by hash."""

    @property
    def digest(self) -> str:
        """sha256 of all of it, as hexadecimal text."""
        facts = {
            "version": PART_VERSION,
            "tokenizer": self.encoding.tokenizer_hash,
            "end_of_document": self.encoding.end_of_document,
            "engine": self.encoding.engine_version,
            "text_key": self.encoding.text_key,
            "levels": asdict(self.levels),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def key(self, shard: Shard) -> str:
        """Name of the folder for what a shard becomes."""
        return hashlib.sha256(f"{self.digest} {shard.fingerprint}".encode()).hexdigest()[:24]

    def open(self, encoding: OpenEncoding | None = None) -> OpenRecipe:
        """Loads the scorer, and tokenizer and engine where they are not open already."""
        return OpenRecipe(
            encoding=encoding or self.encoding.open(),
            # A worker for each core is the default; threads on top would only take turns.
            scorer=store.load(self.scorer, threads=1),
            levels=self.levels,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRecipe:
    """A `Recipe`, loaded: what a worker keeps for all its shards."""

    encoding: OpenEncoding
    """Tokenizer and engine."""

    scorer: Scorer
    """The scorer."""

    levels: Levels
    """Names and thresholds."""
