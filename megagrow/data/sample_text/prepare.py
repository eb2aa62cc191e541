"""Make the quickstart's text: shards of stories and documentation, and a tokenizer for them."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import zstandard

from megagrow.data.sample_text.library import library_passages
from megagrow.data.sample_text.pages import pages, without_repeats
from megagrow.data.sample_text.stories import stories
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.tokenization.tokenizer import train_bpe

TOKENIZER_NAME = "tokenizer.json"
NOTE_NAME = "README.txt"
NOTE = "Made by tools/prepare_quickstart.py, which may overwrite it. Safe to delete.\n"
CONTENT_NAME = "content.json"

# Raise it whenever the same arguments give other text, so that old folders are made anew.
TEXT_VERSION = 2
SHARDS = 4
STORIES_SHARE = 1 / 3
# The text has 3.2 to 3.7 characters in a token, and an eighth of the documentation repeats.
_CHARACTERS_PER_TOKEN = 3.8
_READ_FACTOR = 1.15
_TRAINING_CHARACTERS = 7_500_000


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartText:
    """What to prepare, and where."""

    folder: Path
    """Folder for shards and tokenizer."""
    vocab_size: int = 8192
    """Ids of the tokenizer, special tokens included."""
    tokens: int = 7_500_000
    """About how many tokens of text; fewer where little documentation is installed."""
    seed: int = 1
    """Seed of the stories and of every shuffle."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What decides the content."""
        return {
            "text_version": TEXT_VERSION,
            "vocab_size": self.vocab_size,
            "tokens": self.tokens,
            "seed": self.seed,
        }


def is_up_to_date(text: QuickstartText) -> bool:
    """Whether the folder holds this very text, complete and undamaged.

    Raises:
        DataError: the folder holds something that this tool did not make.
    """
    check_folder(text.folder)
    try:
        content = json.loads((text.folder / CONTENT_NAME).read_bytes())
        sums = content["sha256"]
        return bool(content["arguments"] == text.arguments) and all(
            hashlib.sha256((text.folder / name).read_bytes()).hexdigest() == expected
            for name, expected in sums.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
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


def prepare(text: QuickstartText, say: Callable[[str], None]) -> list[Path]:
    """Make the folder; `content.json` is written last and makes it complete.

    Args:
        text: what to make.
        say: receives a line of progress at every step.

    Returns:
        The shards.

    Raises:
        DataError: a folder that holds something else, a vocabulary below 257, or a Python
            environment without documentation.
    """
    if text.tokens < 1:
        raise DataError("the text needs at least one token: raise --tokens")
    check_folder(text.folder)
    text.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(text.folder / NOTE_NAME, NOTE)
    (text.folder / CONTENT_NAME).unlink(missing_ok=True)
    records = _records(text, say)
    say(f"training a tokenizer of {text.vocab_size:,} ids")
    train_bpe(
        _first_characters(records, _TRAINING_CHARACTERS),
        text.vocab_size,
        text.folder / TOKENIZER_NAME,
    )
    shards = [
        _write_shard(text.folder, number, records[number::SHARDS]) for number in range(SHARDS)
    ]
    files = [*shards, text.folder / TOKENIZER_NAME]
    content = {
        "arguments": text.arguments,
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    }
    write_atomically(text.folder / CONTENT_NAME, json.dumps(content, indent=2) + "\n")
    say(f"{len(records):,} documents in {SHARDS} shards")
    return shards


def _records(text: QuickstartText, say: Callable[[str], None]) -> list[dict[str, str]]:
    """Stories and documentation, shuffled together."""
    characters = int(text.tokens * _CHARACTERS_PER_TOKEN)
    say("reading the documentation of the standard library and of installed packages")
    wanted = int(characters * (1 - STORIES_SHARE))
    passages = library_passages(
        text.seed, int(wanted * _READ_FACTOR), workers=min(8, os.cpu_count() or 1)
    )
    found = [
        {"text": page, "source": "documentation", "origin": origin}
        for origin, page in pages(without_repeats(passages))
    ]
    if not found:
        raise DataError(
            "this Python environment holds too little documentation: install the package's "
            "dependencies (make setup)"
        )
    random.Random(text.seed).shuffle(found)
    records = _up_to(found, wanted)
    told = ({"text": story, "source": "story", "origin": ""} for story in stories(text.seed))
    for record in told:
        records.append(record)
        characters -= len(record["text"])
        if characters <= wanted:
            break
    random.Random(text.seed + 1).shuffle(records)
    return records


def _up_to(records: list[dict[str, str]], characters: int) -> list[dict[str, str]]:
    """The first records, as many as have so many characters, and one at least."""
    kept: list[dict[str, str]] = []
    for record in records:
        characters -= len(record["text"])
        if kept and characters < 0:
            break
        kept.append(record)
    return kept


def _first_characters(records: list[dict[str, str]], characters: int) -> Iterator[str]:
    for record in _up_to(records, characters):
        yield record["text"]


def _write_shard(folder: Path, number: int, records: list[dict[str, str]]) -> Path:
    path = folder / f"shard_{number:08d}.jsonl.zst"
    lines = b"".join(orjson.dumps(record) + b"\n" for record in records)
    write_atomically(path, zstandard.ZstdCompressor(level=3).compress(lines))
    return path
