"""Make the quickstart's data folder: three buckets of text, a tokenizer, and a manifest."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megagrow.data.sample_text.grading import middle_and_hard, without_repeats
from megagrow.data.sample_text.library import library_passages
from megagrow.data.sample_text.stories import stories
from megagrow.data.writer import MANIFEST_NAME, BucketStats, BucketWriter, write_manifest
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.tokenization.tokenizer import Tokenizer, train_bpe

SAMPLES_NAME = "samples.jsonl"
NOTE_NAME = "README.txt"
NOTE = "Made by tools/prepare_quickstart.py, which may overwrite it. Safe to delete.\n"
SOURCE = (
    "easy: generated stories; middle and hard: documentation of the standard library and of the "
    "installed packages, by how familiar its words are"
)

# Raise it whenever the same arguments give other text, so that old folders are made anew.
TEXT_VERSION = 1
SAMPLES_PER_BUCKET = 300
# The library text has 3.2 to 3.7 characters in a token, and an eighth of it repeats.
_CHARACTERS_PER_TOKEN = 3.8
_READ_FACTOR = 2.3
_TRAINING_CHARACTERS = 2_500_000
_BATCH = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartData:
    """What to prepare, and where."""

    folder: Path
    """Folder for the buckets, tokenizer.json, samples.jsonl and manifest.json."""
    vocab_size: int = 8192
    """Ids of the tokenizer, special tokens included."""
    tokens_per_bucket: int = 2_500_000
    """Most tokens in a bucket; middle and hard may hold fewer where little is installed."""
    seed: int = 1
    """Seed of the stories and of every shuffle."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What decides the content, as the manifest records it."""
        return {
            "text_version": TEXT_VERSION,
            "vocab_size": self.vocab_size,
            "tokens_per_bucket": self.tokens_per_bucket,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketReport:
    """A bucket as shown to people."""

    stats: BucketStats
    """What the bucket holds."""
    characters_per_token: float
    """Mean length of a token's text."""
    example: str
    """Beginning of one document."""


def is_up_to_date(data: QuickstartData) -> bool:
    """Whether the folder holds these very data, complete and undamaged.

    Raises:
        DataError: the folder holds something that this tool did not make.
    """
    check_folder(data.folder)
    try:
        manifest = json.loads((data.folder / MANIFEST_NAME).read_bytes())
        if (manifest["arguments"], manifest["seed"]) != (data.arguments, data.seed):
            return False
        sums = [(manifest["tokenizer"]["file"], manifest["tokenizer"]["sha256"])]
        for bucket in manifest["buckets"].values():
            sums.append((f"{bucket['prefix']}.idx", bucket["idx_sha256"]))
            if (data.folder / f"{bucket['prefix']}.bin").stat().st_size != bucket["bytes"]:
                return False
        return all(_sha256(data.folder / name) == expected for name, expected in sums)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else.

    Raises:
        DataError: it is a file, or a folder that is not empty and was not made by this tool.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file: choose another folder")
    note = folder / NOTE_NAME
    if any(folder.iterdir()) and not (note.is_file() and note.read_bytes() == NOTE.encode()):
        raise DataError(
            f"{folder} holds files that this tool did not make: choose another folder, or empty it"
        )


def prepare(data: QuickstartData, say: Callable[[str], None]) -> dict[str, BucketReport]:
    """Make the folder; the manifest is written last, so a killed run is told from a finished one.

    Args:
        data: what to make.
        say: receives a line of progress at every step.

    Returns:
        Bucket name to content, easiest first.

    Raises:
        DataError: a folder that holds something else, a vocabulary below 257, or a Python
            environment without documentation.
    """
    if data.tokens_per_bucket < 1:
        raise DataError("a bucket needs at least one token: raise --tokens-per-bucket")
    check_folder(data.folder)
    data.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(data.folder / NOTE_NAME, NOTE.encode())
    (data.folder / MANIFEST_NAME).unlink(missing_ok=True)
    wanted = int(data.tokens_per_bucket * _CHARACTERS_PER_TOKEN)
    middle, hard = _library_pages(data.seed, wanted, say)
    sources: dict[str, Callable[[], Iterator[str]]] = {
        "easy": lambda: stories(data.seed),
        "middle": lambda: iter(middle),
        "hard": lambda: iter(hard),
    }
    say(f"training a tokenizer of {data.vocab_size:,} ids")
    training_text = itertools.chain.from_iterable(
        _first_characters(source(), min(wanted, _TRAINING_CHARACTERS))
        for source in sources.values()
    )
    tokenizer = train_bpe(training_text, data.vocab_size, data.folder / "tokenizer.json")
    reports = {}
    for name, source in sources.items():
        reports[name] = _write_bucket(data, name, source(), tokenizer)
        say(f"bucket {name}: {reports[name].stats.tokens:,} tokens")
    _write_samples(data.folder, {name: source() for name, source in sources.items()})
    write_manifest(
        data.folder,
        tokenizer=tokenizer,
        buckets={name: report.stats for name, report in reports.items()},
        source=SOURCE,
        seed=data.seed,
        arguments=data.arguments,
    )
    return reports


def _library_pages(
    seed: int, max_characters: int, say: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    say("reading the documentation of the standard library and of installed packages")
    passages = library_passages(
        seed, int(max_characters * _READ_FACTOR), workers=min(8, os.cpu_count() or 1)
    )
    say(f"grading {len(passages):,} passages")
    middle, hard = middle_and_hard(without_repeats(passages), max_characters)
    if not middle or not hard:
        raise DataError(
            "this Python environment holds too little documentation for the middle and hard "
            "buckets: install the package's dependencies (make setup)"
        )
    # Shuffled, so that any contiguous part, such as a validation split, is a fair sample.
    for pages in (middle, hard):
        random.Random(seed).shuffle(pages)
    return middle, hard


def _first_characters(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return


def _write_bucket(
    data: QuickstartData, name: str, texts: Iterator[str], tokenizer: Tokenizer
) -> BucketReport:
    characters, example = 0, ""
    prefix = data.folder / name
    with BucketWriter(prefix, vocab_size=tokenizer.vocab_size, eod=tokenizer.eod) as writer:
        while batch := list(itertools.islice(texts, _BATCH)):
            example = example or batch[0]
            ids = tokenizer.encode_batch(batch)
            lengths = np.array([len(document) for document in ids])
            # As many documents as stay within the limit, and always one.
            ends = writer.tokens + np.cumsum(lengths + 1)
            fitting = int(np.searchsorted(ends, data.tokens_per_bucket, side="right"))
            kept = max(fitting, 0 if writer.tokens else 1)
            if kept:
                flat = np.fromiter(itertools.chain.from_iterable(ids[:kept]), dtype=np.int64)
                writer.add_documents(flat, lengths[:kept])
                characters += sum(map(len, batch[:kept]))
            if kept < len(batch):
                break
    stats = writer.stats
    return BucketReport(
        stats=stats,
        characters_per_token=characters / (stats.tokens - stats.documents),
        example=example,
    )


def _write_samples(folder: Path, sources: dict[str, Iterator[str]]) -> None:
    lines = [
        json.dumps({"bucket": name, "text": text}, ensure_ascii=False)
        for name, texts in sources.items()
        for text in itertools.islice(texts, SAMPLES_PER_BUCKET)
    ]
    write_atomically(folder / SAMPLES_NAME, ("\n".join(lines) + "\n").encode())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def table(reports: dict[str, BucketReport]) -> str:
    """Plain text table of the buckets, and the beginning of a document of each."""
    lines = [f"{'bucket':<8}{'documents':>11}{'tokens':>12}{'characters/token':>18}"]
    for name, report in reports.items():
        stats = report.stats
        lines.append(
            f"{name:<8}{stats.documents:>11,}{stats.tokens:>12,}{report.characters_per_token:>18.2f}"
        )
    for name, report in reports.items():
        text = textwrap.shorten(report.example, 180, placeholder=" ...")
        lines += ["", *textwrap.wrap(f"{name}: {text}", 96, subsequent_indent="  ")]
    return "\n".join(lines)
