"""Encode many texts at once: with gigatoken where it can, else with the tokenizer's own library."""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Protocol

import numpy as np
import psutil

from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch
from megagrow.tokenization.formats.codec import GIGATOKEN_REQUIREMENT, first_line
from megagrow.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

ENGINES = ("auto", "gigatoken", "reference")

# How many times as long the reference takes on one core, against a cold cache; at the least.
_SLOWDOWN = {"tokenizer.json": 40, "tiktoken": 8, "sentencepiece": 8}

# gigatoken's cache takes about 95 bytes for a distinct word, and a new start about half a second.
_RENEWAL_CHARACTERS = 100_000_000
_RENEWAL_BYTES = 64 << 20


class Engine(Protocol):
    """Encodes texts. Keep one for the life of a process: a warm cache is most of its speed."""

    @property
    def name(self) -> str:
        """`gigatoken` or `reference`."""

    @property
    def version(self) -> str:
        """The package that encodes, and its version."""

    def encode(self, texts: list[str]) -> TokenBatch:
        """Ids of each text, without end-of-document ids.

        Raises:
            DataError: a text with half of a surrogate pair, which is no Unicode text.
        """


class ReferenceEngine:
    """The library that defines the tokenizer's format."""

    name = "reference"

    def __init__(self, tokenizer: Tokenizer, *, parallel: bool) -> None:
        self._tokenizer, self._parallel = tokenizer, parallel
        self.version = _package_and_version(tokenizer.library)

    def encode(self, texts: list[str]) -> TokenBatch:
        """Ids of each text; see `Engine`."""
        # tiktoken would put a replacement character in silently.
        _check_unicode(texts)
        return TokenBatch.of(self._tokenizer.encode_batch(texts, parallel=self._parallel))


class GigatokenEngine:
    """gigatoken: the same ids, many times as fast.

    One difference is known: 0.10.0 has the letters of Unicode 17 (2025), which `tokenizers` 0.23
    does not know as letters yet, so that `'s` and the like after one of those 4,657 is split
    otherwise.

    Raises what gigatoken raises where it does not know the kind of tokenizer.
    """

    name = "gigatoken"

    def __init__(self, tokenizer: Tokenizer, *, parallel: bool) -> None:
        self._tokenizer, self._parallel = tokenizer, parallel
        self._engine: Any = tokenizer.open_gigatoken()
        _give_back_memory()
        self._encoded = 0
        self._resident: int | None = None
        self.version = _package_and_version("gigatoken")

    def encode(self, texts: list[str]) -> TokenBatch:
        """Ids of each text, uint32, in gigatoken's own memory; see `Engine`."""
        try:
            encoded = self._engine.encode_batch(texts, parallel=self._parallel)
        except TypeError:
            _check_unicode(texts)
            raise
        batch = _token_batch(encoded.layout)
        if batch.documents != len(texts):
            raise DataError(
                f"gigatoken gave ids for {batch.documents} of {len(texts)} texts: "
                "go on with --engine reference"
            )
        self._bound_memory(texts)
        return batch

    def _bound_memory(self, texts: list[str]) -> None:
        """Starts afresh once the cache is large: it keeps every distinct word it has seen."""
        self._encoded += sum(map(len, texts))
        resident = psutil.Process().memory_info().rss
        if self._resident is None:
            self._resident = resident
        # Other parts of the process may have grown instead: no more often than is cheap.
        grown = resident - self._resident
        if self._encoded >= _RENEWAL_CHARACTERS and grown > _RENEWAL_BYTES:
            self._engine = None  # two at a time would be the peak
            _give_back_memory()
            self._engine = self._tokenizer.open_gigatoken()
            _give_back_memory()
            self._encoded, self._resident = 0, None


def open_engine(tokenizer: Tokenizer, name: str = "auto", *, parallel: bool = False) -> Engine:
    """The engine for a tokenizer.

    Args:
        tokenizer: what to encode with.
        name: `gigatoken`; `reference`, the tokenizer's own library; or `auto`, gigatoken where it
            is installed and knows this kind of tokenizer, else the reference, with a warning.
        parallel: let one call use all cores; leave it off where each core has its own process.

    Raises:
        DataError: an unknown name, or `gigatoken` was asked for and cannot be had.
    """
    if name not in ENGINES:
        near = get_close_matches(name, ENGINES, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(ENGINES)}"
        raise DataError(f"unknown tokenizer engine {name!r}: {advice}")
    if name == "reference":
        return ReferenceEngine(tokenizer, parallel=parallel)
    try:
        return GigatokenEngine(tokenizer, parallel=parallel)
    except Exception as error:  # gigatoken raises RuntimeError, ValueError and others
        reason = first_line(error)
        if name == "gigatoken":
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"gigatoken cannot use the tokenizer {tokenizer.path}: {reason}; "
                "go on with --engine reference"
            ) from error
    reference = ReferenceEngine(tokenizer, parallel=parallel)
    mend = (
        f"Its ids are the same. To be fast, install {GIGATOKEN_REQUIREMENT} and use a byte-level "
        "BPE tokenizer, or SentencePiece BPE with byte fallback"
    )
    logger.warning(
        "gigatoken cannot encode with %s (%s): encoding with %s instead, about %d times as slow "
        "on each core. %s; --engine reference says that this is meant.",
        *(tokenizer.path, reason, reference.version, _SLOWDOWN[tokenizer.format], mend),
    )
    return reference


def _give_back_memory() -> None:
    """Returns what was freed to the system: opening a vocabulary frees many small pieces."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)


def _token_batch(layout: Any) -> TokenBatch:
    # Offsets may start above 0 and leave ids over at the end. The ids themselves are not copied.
    lists = layout.to_ListOffsetArray64(True)
    offsets = np.asarray(lists.offsets.data, dtype=np.int64)
    return TokenBatch(flat=np.asarray(lists.content.data)[: offsets[-1]], offsets=offsets)


def _check_unicode(texts: Sequence[str]) -> None:
    for number, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"text {number} of {len(texts)} cannot be encoded: {error.reason} at character "
                f"{error.start}; reject the row"
            ) from error


def _package_and_version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"
