"""Documents to train a classifier on: a seeded sample without duplicates, held-out part apart."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from megagrow.errors import DataError
from megagrow.shards.blocks import lines
from megagrow.shards.draws import draws
from megagrow.shards.parquet import columns
from megagrow.shards.rows import read
from megagrow.shards.shard import Shard, find, look_at

MOST_SHARDS = 16
"""Shards that are read for a sample; which ones is chosen by the seed."""

_FEWEST_TO_TRAIN = 8
_FEWEST_HELD_OUT = 2

_Pairs = Iterator[tuple[str, str | None, int]]  # text, label, bytes of the file read so far


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Documents, each once, in an order that the seed decides."""

    texts: list[str]
    """The documents."""

    labels: list[str] | None
    """Label of each; None where none was asked for."""

    places: NDArray[np.float64]
    """Where the hash of each text lies between 0 and 1; shape [documents]."""

    rows: int
    """Rows that were read."""

    left_out: dict[str, int]
    """Rows that were no use, by reason."""

    def held_out(self, share: float) -> NDArray[np.bool_]:
        """Which documents are held out: by their hash, so that equal texts stay together."""
        return self.places < share


def sample(
    inputs: Sequence[str],
    *,
    documents: int,
    seed: int,
    text_key: str = "text",
    label_key: str | None = None,
    progress: Callable[[float], object] | None = None,
) -> Sample:
    """Documents whose seeded hash is smallest: any has the same chance, and none comes twice.

    Args:
        inputs: files, folders, globs or `@LIST`; see `shards.find`.
        documents: how many to take, at most.
        seed: seed of the choice.
        text_key: field or column of the text.
        label_key: field or column of the label, text or whole number; None for no labels.
        progress: told how much of the input has been read, from 0 to 1.

    Raises:
        DataError: an input is missing or damaged, or no row has a text and a label.
    """
    shards = [look_at(location) for location in find(inputs)]
    chosen = draws(shards, documents=documents, most_shards=MOST_SHARDS, seed=seed)
    whole = sum(draw.shard.size for draw in chosen) or 1
    kept: dict[bytes, tuple[str, str | None]] = {}
    left_out: Counter[str] = Counter()
    before = rows = 0
    for draw in chosen:
        # Every shard gives its own share, and some more in case of duplicates among shards.
        best = _Smallest(2 * draw.documents)
        for text, label, consumed in _pairs(draw.shard, text_key, label_key, left_out):
            rows += 1
            best.add(hashlib.sha256(b"%d " % seed + text.encode()).digest(), (text, label))
            if progress is not None:
                progress((before + consumed) / whole)
        left_out["duplicate"] += best.duplicates
        for key, pair in best.items()[: draw.documents]:
            left_out["duplicate"] += key in kept
            kept.setdefault(key, pair)
        before += draw.shard.size
    rows += sum(left_out.values()) - left_out["duplicate"]
    picked = sorted(kept.items())[:documents]
    if not picked:
        raise DataError(_nothing(rows, left_out, text_key, label_key))
    return Sample(
        texts=[text for _, (text, _) in picked],
        labels=None if label_key is None else [str(label) for _, (_, label) in picked],
        # The first bytes decided what is in the sample: others must say what is held out.
        places=np.array([int.from_bytes(key[24:], "big") / 2**64 for key, _ in picked]),
        rows=rows,
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def level_numbers(labels: Sequence[str], levels: Sequence[str]) -> NDArray[np.int64]:
    """Number of each label's level, shape [documents].

    Raises:
        DataError: a label that is no level, with the nearest one.
    """
    unknown = Counter(labels).keys() - set(levels)
    if unknown:
        name = min(unknown)
        close = get_close_matches(name, levels, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise DataError(
            f"label {name!r} of {labels.count(name)} documents is none of the levels "
            f"{', '.join(levels)}{hint}: name all labels in --levels, easiest first"
        )
    number = {name: index for index, name in enumerate(levels)}
    return np.array([number[label] for label in labels], dtype=np.int64)


def check_sizes(
    numbers: NDArray[np.int64], held_out: NDArray[np.bool_], levels: Sequence[str]
) -> None:
    """Each level needs documents on both sides.

    Raises:
        DataError: a level has too few.
    """
    train = np.bincount(numbers[~held_out], minlength=len(levels))
    test = np.bincount(numbers[held_out], minlength=len(levels))
    for name, trained, held in zip(levels, train.tolist(), test.tolist(), strict=True):
        if trained < _FEWEST_TO_TRAIN or held < _FEWEST_HELD_OUT:
            shares = ", ".join(
                f"{n} {a} + {b}" for n, a, b in zip(levels, train, test, strict=True)
            )
            raise DataError(
                f"level {name} has {trained} documents to train on and {held} held out; it takes "
                f"{_FEWEST_TO_TRAIN} and {_FEWEST_HELD_OUT} (all levels: {shares}). Use more "
                "--documents, or other levels; silver labels can be cut by --quantiles or --cuts"
            )


class _Smallest:
    """The pairs with the smallest keys, each key once."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._pairs: dict[bytes, tuple[str, str | None]] = {}
        self._limit = b"\xff" * 32
        self.duplicates = 0

    def add(self, key: bytes, pair: tuple[str, str | None]) -> None:
        if key > self._limit:
            return
        self.duplicates += key in self._pairs
        self._pairs.setdefault(key, pair)
        if len(self._pairs) > 2 * self._wanted:
            self._pairs = dict(self.items())
            self._limit = max(self._pairs)

    def items(self) -> list[tuple[bytes, tuple[str, str | None]]]:
        return sorted(self._pairs.items(), key=lambda item: item[0])[: self._wanted]


def _pairs(shard: Shard, text_key: str, label_key: str | None, left_out: Counter[str]) -> _Pairs:
    """Texts and labels of a shard; counts the rows that lack one."""
    if label_key is None:
        for rows in read(shard, key=text_key):
            left_out.update(rows.rejects)
            for text in rows.texts:
                yield text, None, rows.consumed
        return
    for text, label, consumed in _values(shard, text_key, label_key):
        if not isinstance(text, str) or not text:
            left_out["no text"] += 1
        elif isinstance(label, bool) or not isinstance(label, str | int):
            left_out["no label"] += 1
        else:
            yield text, str(label), consumed


def _values(shard: Shard, text_key: str, label_key: str) -> Iterator[tuple[Any, Any, int]]:
    """Text and label of every row, None for what is not there."""
    if shard.format == "parquet":
        both = zip(columns(shard, text_key), columns(shard, label_key), strict=True)
        for (texts, consumed), (labels, _) in both:
            for text, label in zip(texts, labels, strict=True):
                yield text, label, consumed
        return
    for chunk, consumed in lines(shard):
        for line in chunk:
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                row = None
            if isinstance(row, dict):
                yield row.get(text_key), row.get(label_key), consumed
            elif bytes(line).strip():  # also a line that is too long
                yield None, None, consumed


def _nothing(rows: int, left_out: Counter[str], text_key: str, label_key: str | None) -> str:
    wanted = f"a text in {text_key!r}" + (f" and a label in {label_key!r}" if label_key else "")
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    return (
        f"none of {rows} rows has {wanted} ({reasons or 'the files are empty'}): check the fields "
        "with --text-key and --label-field"
    )
