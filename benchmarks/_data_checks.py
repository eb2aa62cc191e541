"""Whether contenders made the same documents; and the writing of an index."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.bucketing.writing import sidecar
from megagrow.data.indexed import inspect
from megagrow.data.writer import write_index

_LENGTHS_AT = 34
"""Bytes of an index before the lengths of its sequences."""


def documents(prefix: str | Path) -> list[bytes]:
    """A digest of every document of a Megatron dataset, in its order.

    Args:
        prefix: path of the two files without suffix, with one sequence in a document.

    Raises:
        DataError: no such files, or damaged ones.
    """
    summary = inspect(prefix)
    lengths = np.fromfile(f"{prefix}.idx", dtype="<i4", count=summary.sequences, offset=_LENGTHS_AT)
    # Tools pick different types for the same ids.
    ids: NDArray[Any] = np.fromfile(f"{prefix}.bin", dtype=summary.dtype).astype("<i4")
    return [
        hashlib.blake2b(each.tobytes(), digest_size=16).digest()
        for each in np.split(ids, np.cumsum(lengths)[:-1])
    ]


def multiset(prefixes: Iterable[str | Path]) -> Counter[bytes]:
    """All documents of some datasets, each with how often it is there."""
    found: Counter[bytes] = Counter()
    for prefix in prefixes:
        found.update(documents(prefix))
    return found


def first_rows(folder: Path, buckets: Iterable[str], rows: int) -> Counter[bytes]:
    """Documents of our buckets that come from the first rows of the first input file."""
    found: Counter[bytes] = Counter()
    for name in buckets:
        records = sidecar.load(folder / name)
        wanted = (records["input"] == 0) & (records["row"] < rows)
        digests = documents(folder / name)
        found.update(digests[each] for each in np.flatnonzero(wanted).tolist())
    return found


def difference(ours: Counter[bytes], theirs: Counter[bytes]) -> str:
    """What two multisets of documents do not share; empty where they are the same."""
    missing, added = (theirs - ours).total(), (ours - theirs).total()
    if not missing and not added:
        return ""
    return f"{missing} of their {theirs.total()} documents are not in ours, {added} only in ours"


def same_bytes(ours: str | Path, theirs: str | Path) -> bool:
    """Whether two datasets are the same files."""
    return all(
        Path(f"{ours}{suffix}").read_bytes() == Path(f"{theirs}{suffix}").read_bytes()
        for suffix in (".bin", ".idx")
    )


def index(argument: dict[str, Any]) -> dict[str, Any]:
    """Writes an index as we do and as megatron-core does, by turns.

    Args:
        argument: `documents`, `rounds`, `folder` to write to.

    Returns:
        Seconds of each, and whether the bytes are the same.
    """
    from megatron.core.datasets.indexed_dataset import _IndexWriter

    count = int(argument["documents"])
    lengths = np.random.default_rng(1).integers(1, 4000, count, dtype=np.int32)
    sequences = lengths.tolist()  # as megatron-core's builder has them
    bounds = list(range(count + 1))
    ours, theirs = (Path(argument["folder"]) / f"{name}.idx" for name in ("ours", "theirs"))
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(argument["rounds"]):
        start = time.perf_counter()
        with ours.open("wb") as stream:
            write_index(stream, lengths, np.dtype("<u2"))
        middle = time.perf_counter()
        with _IndexWriter(str(theirs), np.uint16) as writer:
            writer.write(sequences, None, bounds)
        end = time.perf_counter()
        found["ours"].append(middle - start)
        found["theirs"].append(end - middle)
    in_memory = BytesIO()
    write_index(in_memory, lengths, np.dtype("<i4"))
    with _IndexWriter(str(theirs) + ".i4", np.int32) as writer:
        writer.write(sequences, None, bounds)
    same = ours.read_bytes() == theirs.read_bytes()
    same_int32 = in_memory.getvalue() == Path(str(theirs) + ".i4").read_bytes()
    return {**found, "same": same and same_int32}
