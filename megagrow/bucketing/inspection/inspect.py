"""Looks into a finished folder: which documents each bucket holds, and their text."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from megagrow.bucketing.finished import Finished, FinishedFile
from megagrow.bucketing.recutting.survey import Window, windows
from megagrow.errors import DataError
from megagrow.shards.blocks import lines
from megagrow.shards.shard import look_at
from megagrow.tokenization.tokenizer import Tokenizer

Choice = Literal["random", "hardest", "easiest", "near-thresholds"]
"""Which documents of a bucket to show."""

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
"""Shares of the documents whose scores the overview has."""

_SAMPLED_SCORES = 1 << 20
_SAMPLED_TOGETHER = 4096
_TOKENS_PER_CHARACTER = 4  # a character of four bytes may be as many tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """A bucket in numbers."""

    name: str
    """Its name."""

    threshold: float | None
    """Its lowest possible score; None for the easiest."""

    documents: int
    """Documents in it."""

    tokens: int
    """Token ids in it."""

    quantiles: tuple[float, ...]
    """Scores at `QUANTILES` of its documents, or of a sample of a million."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A document to be shown."""

    bucket: str
    """Name of its bucket."""

    number: int
    """Its number in the bucket file."""

    file: str
    """Name of the bucket file, without suffix."""

    score: float
    """Its score."""

    tokens: int
    """Token ids in it, that of the end included."""

    input: int
    """Number of its input file."""

    location: str
    """Path or URL of its input file."""

    row: int
    """Row in it, from 0."""

    text: str
    """The beginning of its text, decoded from the ids."""

    whole: bool
    """Whether that is all of it."""


def overview(found: Finished) -> list[Overview]:
    """All buckets, easiest first."""
    thresholds = [None, *found.levels.thresholds]
    views = []
    for level, name in enumerate(found.names):
        files = found.of_level(level)
        scores = np.sort(_scores(files))
        places = [round(each * (scores.size - 1)) for each in QUANTILES]
        views.append(
            Overview(
                name=name,
                threshold=thresholds[level],
                documents=sum(file.documents for file in files),
                tokens=sum(file.tokens for file in files),
                quantiles=tuple(scores[places].tolist()),
            )
        )
    return views


def level_of(found: Finished, name: str) -> int:
    """The number of a bucket.

    Raises:
        DataError: there is none of this name, with the nearest.
    """
    if name in found.names:
        return found.names.index(name)
    near = get_close_matches(name, found.names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(found.names)}"
    raise DataError(f"{found.folder} has no bucket {name!r}: {hint}")


def choose(
    found: Finished, level: int, *, count: int, choice: Choice, seed: int
) -> list[tuple[FinishedFile, int]]:
    """Documents of a bucket: files and numbers in them.

    `random` takes each with the same chance, in the order of the bucket. The others look at every
    score, in constant memory, and begin with the most extreme.
    """
    files = found.of_level(level)
    total = sum(file.documents for file in files)
    if choice == "random":
        generator = np.random.default_rng([seed, level])
        picked = np.sort(generator.choice(total, size=min(count, total), replace=False))
        return [_located(files, int(each)) for each in picked]
    best: list[tuple[float, int, int]] = []
    for place, file in enumerate(files):
        for window in windows(file):
            merit = _merit(window, found, level, choice)
            size = min(count, merit.size)
            top = np.argpartition(-merit, size - 1)[:size]
            new = [(-float(merit[each]), place, window.first + int(each)) for each in top]
            best = heapq.nsmallest(count, [*best, *new])
    return [(files[place], number) for _, place, number in best]


def show(
    found: Finished, file: FinishedFile, number: int, tokenizer: Tokenizer, characters: int
) -> Shown:
    """A document with the beginning of its text.

    Args:
        found: the folder.
        file: the bucket file.
        number: the document in it.
        tokenizer: the folder's.
        characters: how much of the text.
    """
    record = file.records(number, 1)[0]
    length = int(file.lengths(number, 1)[0])
    ids = file.token_ids(int(file.offsets(number, 1)[0]), length)[:-1]
    taken = ids[: _TOKENS_PER_CHARACTER * characters + 8]
    text = tokenizer.decode(taken.tolist())
    whole = taken.size == ids.size and len(text) <= characters
    line = found.inputs[int(record["input"])]
    return Shown(
        bucket=found.names[file.level],
        number=number,
        file=file.prefix.name,
        score=float(record["score"]),
        tokens=length,
        input=int(record["input"]),
        location=str(line["location"]),
        row=int(record["row"]),
        text=text[:characters],
        whole=whole,
    )


def source_row(found: Finished, number: int, row: int) -> dict[str, Any]:
    """A row of an input file with all its fields, read from where it was.

    Raises:
        DataError: the file is gone or has changed, or cannot be read so far.
    """
    line = found.inputs[number]
    shard = look_at(str(line["location"]))
    if shard.fingerprint != line["fingerprint"]:
        raise DataError(
            f"{shard.location}: changed since it was bucketed; its rows are not those any more"
        )
    if shard.format == "parquet":
        return _parquet_row(shard.location, row)
    first = 0
    for chunk, _ in lines(shard):
        if row < first + len(chunk):
            value = orjson.loads(bytes(chunk[row - first]).removeprefix(b"\xef\xbb\xbf"))
            return dict(value) if isinstance(value, dict) else {"": value}
        first += len(chunk)
    raise DataError(f"{shard.location}: has {first} rows, no row {row}")


def _parquet_row(location: str, row: int) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from megagrow.shards.storage import open_binary

    with open_binary(location) as stream:
        file = pq.ParquetFile(stream)
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if row < size:
                return dict(file.read_row_group(group).slice(row, 1).to_pylist()[0])
            row -= size
    raise DataError(f"{location}: has fewer rows than it had")


def _merit(window: Window, found: Finished, level: int, choice: Choice) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = window.records["score"].astype(np.float64)
    if choice == "hardest":
        return scores
    if choice == "easiest":
        return -scores
    edges = found.levels.thresholds[max(level - 1, 0) : level + 1]
    if not edges:
        raise DataError(f"{found.folder} has one bucket, so there is no threshold to be near to")
    nearest: NDArray[np.float64] = -np.min([np.abs(scores - edge) for edge in edges], axis=0)
    return nearest


def _located(files: list[FinishedFile], number: int) -> tuple[FinishedFile, int]:
    for file in files:
        if number < file.documents:
            return file, number
        number -= file.documents
    raise IndexError(number)


def _scores(files: list[FinishedFile]) -> NDArray[np.float32]:
    """Scores of all documents, or, of very many, of blocks of them at even distances."""
    total = sum(file.documents for file in files)
    blocks = max(1, _SAMPLED_SCORES // _SAMPLED_TOGETHER)
    step = max(_SAMPLED_TOGETHER, total // blocks)
    found = []
    for file in files:
        for first in range(0, file.documents, step):
            count = min(_SAMPLED_TOGETHER, file.documents - first)
            found.append(file.records(first, count)["score"])
    return np.concatenate(found)


def shares(views: list[Overview]) -> Iterator[float]:
    """Share of all tokens of each bucket."""
    total = sum(view.tokens for view in views)
    return (view.tokens / total for view in views)
