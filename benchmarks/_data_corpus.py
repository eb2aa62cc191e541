"""The text that data preparation is measured on, and the shapes in which contenders take it."""

from __future__ import annotations

import codecs
import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import zstandard
from _harness import ROOT

from megagrow.data.sample_text.library import library_passages
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.shards.blocks import lines
from megagrow.shards.shard import find, look_at
from megagrow.tokenization.tokenizer import END_OF_DOCUMENT, load, train_bpe

CACHE = ROOT / "data" / "benchmark"
"""Git ignores it; safe to delete."""

SHARDS_FOR_WORKERS = 12
"""Files of the input cut anew, for more than one worker."""

TIMES_LARGER = 3
"""How much more text there is in the files that memory is compared on."""

_VERSION = 2  # raise it when the same arguments give other files
_MEAN_CHARACTERS, _SIGMA = 5_800, 1.0  # of a document; a lognormal distribution
_TOKENIZER_CHARACTERS = 20_000_000
_ZSTD_LEVEL = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Paths as text, so that contenders can be sent them."""

    shards: list[str]
    """The input: what it is measured on."""

    tokenizer: str
    """`tokenizer.json`, in a folder that `transformers` can load."""

    text_bytes: int
    """UTF-8 bytes of the input's texts."""

    documents: int
    """Rows of the input."""

    part: str
    """The first rows of the first shard, plain."""

    part_zst: str
    """The same rows, compressed."""

    part_bytes: int
    """UTF-8 bytes of their texts."""

    part_documents: int
    """How many they are."""

    joined: str
    """The input in one file, compressed."""

    cut: list[str]
    """The input in more files."""

    large: list[str]
    """Files of as many rows as `shards` have, times `TIMES_LARGER`, two thirds of them changed."""

    large_bytes: int
    """UTF-8 bytes of their texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much text to make and to measure on."""

    shard_characters: int
    """Characters of text in each of three shards, where they are made here."""

    vocabulary: int
    """Ids of the tokenizer, where it is trained here."""

    part: int
    """Documents for contenders that would take minutes for all."""


def prepare(cache: Path, inputs: Sequence[str], tokenizer: Path | None, size: Size) -> Corpus:
    """Makes what is not in the cache yet.

    Args:
        cache: where it is kept.
        inputs: files, folders and globs of JSON Lines; none: text of the installed packages'
            documentation.
        tokenizer: `tokenizer.json`, or GPT-2's two files, or their folder; None: one is trained.
        size: how much.

    Raises:
        DataError: inputs or a tokenizer that cannot be used.
    """
    given = [look_at(each) for each in find(inputs)] if inputs else []
    facts = {
        "version": _VERSION,
        "shards": [[each.location, each.fingerprint] for each in given],
        "tokenizer": None if tokenizer is None else load(tokenizer).file_hash,
        "size": asdict(size),
    }
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    folder = cache.resolve() / key
    done = folder / "corpus.json"
    if done.is_file():
        return Corpus(**json.loads(done.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("input", "tokenizer", "cut", "large"):
        (folder / name).mkdir(parents=True)
    locations = [each.location for each in given]
    if not given:
        print(f"making text of the installed packages' documentation in {folder}")
        locations = _make_shards(folder / "input", size)
    corpus = _shape(folder, locations, tokenizer, size)
    write_atomically(done, json.dumps(asdict(corpus), indent=1) + "\n")
    return corpus


def _shape(folder: Path, locations: list[str], tokenizer: Path | None, size: Size) -> Corpus:
    shards = [_lines(location) for location in locations]
    texts = [[_text(line) for line in shard] for shard in shards]
    part = shards[0][: size.part]
    (folder / "part.jsonl").write_bytes(_joined(part))
    everything = list(itertools.chain.from_iterable(shards))
    bounds = np.linspace(0, len(everything), SHARDS_FOR_WORKERS + 1).astype(int).tolist()
    cut = [everything[start:end] for start, end in itertools.pairwise(bounds)]
    large = [shard + _changed(shard) for shard in shards]
    return Corpus(
        shards=locations,
        tokenizer=_save_tokenizer(folder / "tokenizer", tokenizer, texts, size.vocabulary),
        text_bytes=_bytes(itertools.chain.from_iterable(texts)),
        documents=len(everything),
        part=str(folder / "part.jsonl"),
        part_zst=_compress(folder / "part.jsonl.zst", part),
        part_bytes=_bytes(texts[0][: size.part]),
        part_documents=len(part),
        joined=_compress(folder / "joined.jsonl.zst", everything),
        cut=[
            _compress(folder / "cut" / f"{number:02d}.jsonl.zst", each)
            for number, each in enumerate(cut)
        ],
        large=[
            _compress(folder / "large" / f"{number:02d}.jsonl.zst", each)
            for number, each in enumerate(large)
        ],
        large_bytes=_bytes(_text(line) for shard in large for line in shard),
    )


def _lines(location: str) -> list[bytes]:
    shard = look_at(location)
    if shard.format == "parquet":
        raise DataError(f"{location}: the peers read JSON Lines; give such files")
    return [bytes(line) for whole, _ in lines(shard) for line in whole if line]


def _text(line: bytes) -> str:
    try:
        text = orjson.loads(line)["text"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f"a row without text ({error}): the peers stop at such rows or drop them, so there is "
            "nothing to compare; give clean files"
        ) from None
    return str(text)


def _changed(shard: Sequence[bytes]) -> list[bytes]:
    """Rows with words that are in no other row: what is remembered about words must not grow."""
    found = []
    for line in shard:
        row = orjson.loads(line)
        for change in (str.swapcase, lambda text: codecs.encode(text, "rot13")):
            found.append(orjson.dumps({**row, "text": change(row["text"])}))
    return found


def _save_tokenizer(
    folder: Path, given: Path | None, texts: Iterable[Iterable[str]], vocabulary: int
) -> str:
    """Writes it as `transformers`, `tokenizers` and gigatoken load it."""
    if given is None:
        train_bpe(_some(texts), vocabulary, folder / "tokenizer.json")
        end = END_OF_DOCUMENT
    else:
        found = load(given)
        end = found.end_of_document
        if found.save(folder) != "tokenizer.json":
            raise DataError(f"{given}: the peers read tokenizer.json, or GPT-2's two files")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder / "tokenizer.json")


def _some(texts: Iterable[Iterable[str]]) -> Iterator[str]:
    characters = 0
    for text in itertools.chain.from_iterable(texts):
        characters += len(text)
        if characters > _TOKENIZER_CHARACTERS:
            return
        yield text


def _make_shards(folder: Path, size: Size) -> list[str]:
    """Three shards of records with the fields of DCLM-baseline, and documents of its sizes."""
    passages = [
        passage.documented
        for passage in library_passages(1, 3 * size.shard_characters)
        # Some of the peers would take this for the end of a document.
        if "<|" not in passage.text
    ]
    generator = random.Random(1)
    pool = _repeated(passages, generator)
    locations = []
    for number in range(3):
        rows = []
        characters = 0
        while characters < size.shard_characters:
            text = _document(pool, generator)
            rows.append(orjson.dumps(_record(text, generator)))
            characters += len(text)
        path = folder / f"shard_{number:08d}_processed.jsonl.zst"
        locations.append(_compress(path, rows))
    return locations


def _repeated(passages: list[str], generator: random.Random) -> Iterator[str]:
    """All passages in a random order, then in another one: no environment has 120 MB of them."""
    while True:
        generator.shuffle(passages)
        yield from passages


def _document(pool: Iterator[str], generator: random.Random) -> str:
    wanted = generator.lognormvariate(np.log(_MEAN_CHARACTERS) - _SIGMA**2 / 2, _SIGMA)
    pieces: list[str] = []
    length = 0
    while length < wanted:
        pieces.append(next(pool))
        length += len(pieces[-1]) + 2
    return "\n\n".join(pieces)[: max(int(wanted), 100)]


def _record(text: str, generator: random.Random) -> dict[str, Any]:
    """A row as DCLM-baseline-1.0 has them; most of its bytes beside the text are `metadata`."""
    name = f"{generator.getrandbits(128):032x}"
    digest = f"sha1:{generator.getrandbits(160):040X}"
    date = f"20{generator.randrange(14, 23)}-0{generator.randrange(1, 10)}-17T08:32:23Z"
    url = f"http://www.{name[:9]}.example/{name[9:20]}/{name[20:]}.html"
    warc = {
        "WARC-Type": "response", "WARC-Date": date, "WARC-Record-ID": f"<urn:uuid:{name}>",
        "Content-Length": str(generator.randrange(5_000, 90_000)),
        "Content-Type": "application/http; msgtype=response",
        "WARC-Warcinfo-ID": f"<urn:uuid:{name[::-1]}>", "WARC-Concurrent-To": None,
        "WARC-IP-Address": ".".join(str(generator.randrange(1, 255)) for _ in range(4)),
        "WARC-Target-URI": url, "WARC-Payload-Digest": digest, "WARC-Block-Digest": digest[::-1],
        "WARC-Truncated": None, "WARC-Identified-Payload-Type": "text/html",
    }  # fmt: skip
    info = "".join(f"{key}: {value}\r\n" for key, value in warc.items() if value)
    return {
        "bff_contained_ngram_count_before_dedupe": generator.randrange(40),
        "language_id_whole_page_fasttext": {"en": generator.uniform(0.65, 1.0)},
        "metadata": warc,
        "previous_word_count": len(text.split()),
        "text": text,
        "url": url,
        "warcinfo": f"WARC/1.0\r\n{info}",
        "fasttext_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train_prob": generator.random(),
    }


def _compress(path: Path, rows: Sequence[bytes]) -> str:
    path.write_bytes(zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(_joined(rows)))
    return str(path)


def _joined(rows: Sequence[bytes]) -> bytes:
    return b"".join(row + b"\n" for row in rows)


def _bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)
