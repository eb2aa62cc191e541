"""Reads the start of some input files, and measures what one worker does in a second."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil

from megagrow.bucketing.fitting import fit
from megagrow.bucketing.levels import Levels, fit_thresholds
from megagrow.bucketing.pool import Advance
from megagrow.bucketing.recipe import Encoding, OpenEncoding, Recipe
from megagrow.bucketing.settings import Settings
from megagrow.bucketing.writing import part
from megagrow.difficulty import store
from megagrow.difficulty.scorer import Scorer
from megagrow.errors import DataError
from megagrow.runtime.environment import usable_cores
from megagrow.shards.rows import read
from megagrow.shards.shard import Shard, look_at
from megagrow.tokenization.batch import TokenBatch
from megagrow.tokenization.engine import open_engine
from megagrow.tokenization.tokenizer import load

_CHUNK_BYTES = 1 << 20
_COPIED_BYTES = 32 << 20
_SLOW_S = 10.0
"""A scorer that would take longer than this for the sample is measured on a part of it."""
_SCORING_S = 4.0
_FITTED_DOCUMENTS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The start of an input file."""

    shard: Shard
    """The file."""

    texts: list[str]
    """Texts that were read."""

    text_bytes: int
    """UTF-8 bytes of texts, of the rows that `stored_bytes` stands for."""

    stored_bytes: int
    """Bytes of the file that hold them; without those at its start, where decompression lags."""

    documents: int
    """Texts in these bytes."""

    rejected: int
    """Rows in these bytes that no bucket can hold."""

    seconds: float
    """Time it took to read and parse what was read."""

    read_text_bytes: int
    """UTF-8 bytes of all texts that were read."""

    tokens: int = 0
    """Token ids of all texts that were read, with one for the end of each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """One worker on this machine; bytes are bytes of text."""

    text_bytes_per_second: float
    """The whole way from a shard to a part, warm."""

    tokens_per_second: float
    """The same in token ids."""

    read_bytes_per_second: float
    """Reading and parsing alone."""

    encode_bytes_per_second: float
    """Tokenizing alone, cold."""

    score_bytes_per_second: float
    """Scoring alone."""

    copy_bytes_per_second: float
    """Copying a file, as stored."""

    cold_seconds: float
    """What a worker's first block takes longer than its later ones."""

    memory_bytes: int
    """Most memory that the worker took."""

    measured_text_bytes: int
    """Text that the first number was measured on, the cold start left out."""

    scored_documents: int
    """Documents that scoring was measured on."""

    engine: str
    """What tokenizes, and its version."""

    @property
    def scoring_share(self) -> float:
        """Share of a worker's time that goes into scores."""
        return self.text_bytes_per_second / self.score_bytes_per_second


def read_start(location: str, key: str, quota: int) -> Measured:
    """Reads about `quota` bytes of text from the start of a file.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    shard = look_at(location)
    start = time.perf_counter()
    texts: list[str] = []
    marks: list[tuple[int, int, int, int]] = []  # stored bytes, text bytes, texts, rejects so far
    size = rejected = 0
    ended = True
    for rows in read(shard, key=key, chunk_bytes=_CHUNK_BYTES):
        texts += rows.texts
        size += sum(len(text) if text.isascii() else len(text.encode()) for text in rows.texts)
        rejected += rows.rejects.total()
        marks.append((rows.consumed, size, len(texts), rejected))
        if size >= quota and rows.consumed < shard.size:
            ended = False
            break
    seconds = time.perf_counter() - start
    first, last = (0, 0, 0, 0), (shard.size, size, len(texts), rejected)
    if not ended:
        last = marks[-1]
        first = marks[0] if len(marks) > 2 and marks[0][0] < last[0] else first
    stored, text, documents, bad = (int(b - a) for a, b in zip(first, last, strict=True))
    return Measured(
        shard=shard,
        texts=texts,
        text_bytes=text,
        stored_bytes=stored,
        documents=documents,
        rejected=bad,
        seconds=seconds,
        read_text_bytes=size,
    )


def measure(
    settings: Settings, starts: Sequence[Measured], scratch: Path
) -> tuple[Speed, list[Measured]]:
    """Does with the sample what a worker does; returns how fast, and the sample with its tokens.

    Args:
        settings: the job.
        starts: the sample.
        scratch: an empty folder for what a worker would write.

    Raises:
        DataError: tokenizer or scorer cannot be used, or the sample holds no text.
    """
    if not any(each.texts for each in starts):
        raise DataError("the sampled files hold no text: is --text-key right?")
    encoding = _open(settings)
    began = time.perf_counter()
    batches = [encoding.engine.encode(each.texts) for each in starts]
    encode_s = time.perf_counter() - began
    counted = [
        replace(each, tokens=int(batch.flat.size) + len(each.texts))
        for each, batch in zip(starts, batches, strict=True)
    ]
    texts = [text for each in starts for text in each.texts]
    tokens = _joined(batches)
    memory = psutil.Process().memory_info().rss
    scorer = _scorer(settings, texts, encoding)
    text_bytes = sum(each.read_text_bytes for each in starts)
    score_s, scored = _time_scorer(scorer, texts, tokens)
    scorer_memory = max(0, psutil.Process().memory_info().rss - memory)
    # A slow scorer stays out of the run through all steps, and its time is added.
    slow = score_s > _SLOW_S
    through = fit.fit_surprisal(texts, encoding) if slow else scorer
    passed = _in_worker(_recipe(settings, through, texts, encoding, scratch), starts, scratch)
    seconds = passed.seconds / passed.text_bytes + (score_s / text_bytes if slow else 0)
    speed = Speed(
        text_bytes_per_second=1 / seconds,
        tokens_per_second=sum(each.tokens for each in counted) / text_bytes / seconds,
        read_bytes_per_second=text_bytes / sum(each.seconds for each in starts),
        encode_bytes_per_second=text_bytes / encode_s,
        score_bytes_per_second=text_bytes / score_s,
        copy_bytes_per_second=_copy_speed(scratch),
        cold_seconds=passed.cold_seconds,
        memory_bytes=passed.memory_bytes + (scorer_memory if slow else 0),
        measured_text_bytes=passed.text_bytes,
        scored_documents=scored,
        engine=encoding.engine.version,
    )
    return speed, counted


def _open(settings: Settings) -> OpenEncoding:
    tokenizer = load(
        settings.tokenizer, end_of_document=settings.end_of_document, pattern=settings.pattern
    )
    return OpenEncoding(
        tokenizer=tokenizer,
        engine=open_engine(tokenizer, settings.engine),
        text_key=settings.text_key,
    )


def _scorer(settings: Settings, texts: Sequence[str], encoding: OpenEncoding) -> Scorer:
    # A classifier has its share of the cores, which the workers will not leave it more of.
    threads = max(1, usable_cores() // settings.workers)
    if settings.frozen is not None:
        return store.load(settings.frozen.parent / "scorer", threads=threads)
    if settings.scorer == "surprisal":
        return fit.fit_surprisal(texts, encoding)
    return store.parse(settings.scorer, threads=threads)


def _time_scorer(scorer: Scorer, texts: Sequence[str], tokens: TokenBatch) -> tuple[float, int]:
    """Seconds that all texts would take, and how many were tried: more and more, up to a limit."""
    scorer.score(texts[:1], _some(tokens, 0, 1))  # what is loaded or compiled at the first call
    done, seconds, size = 0, 0.0, 8
    while done < len(texts) and seconds < _SCORING_S:
        end = min(done + size, len(texts))
        start = time.perf_counter()
        scorer.score(texts[done:end], _some(tokens, done, end))
        seconds += time.perf_counter() - start
        done, size = end, size * 2
    return seconds * len(texts) / done, done


def _some(tokens: TokenBatch, first: int, end: int) -> TokenBatch:
    offsets = tokens.offsets[first : end + 1]
    return TokenBatch(flat=tokens.flat[offsets[0] : offsets[-1]], offsets=offsets - offsets[0])


def _joined(batches: Sequence[TokenBatch]) -> TokenBatch:
    lengths = np.concatenate([each.lengths for each in batches])
    flat = np.concatenate([each.flat for each in batches])
    return TokenBatch(flat=flat, offsets=np.concatenate(([0], np.cumsum(lengths))))


class _EnoughError(Exception):
    """A shard has been read as far as is needed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Passed:
    """What a worker did: the first block apart, as words not seen before take longer."""

    seconds: float
    text_bytes: int
    cold_seconds: float
    memory_bytes: int


def _in_worker(recipe: Recipe, starts: Sequence[Measured], scratch: Path) -> _Passed:
    """Has a process of its own, as the job's workers are, make the beginnings of parts."""
    limits = [(each.shard, each.read_text_bytes) for each in starts]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as worker:
        return worker.submit(_pass, recipe, limits, scratch).result()


def _pass(recipe: Recipe, limits: Sequence[tuple[Shard, int]], scratch: Path) -> _Passed:
    opened = recipe.open()
    marks: list[tuple[float, int]] = []
    for number, (shard, limit) in enumerate(limits):
        with suppress(_EnoughError):
            part.make(shard, scratch / f"part-{number}", opened, _Clock(marks, limit))
    first, *warm = marks
    size = sum(each for _, each in warm)
    if size == 0:  # all in one block: there is nothing warm to tell apart
        warm, first, size = [first], (0.0, 0), first[1]
    seconds = sum(each for each, _ in warm)
    return _Passed(
        seconds=seconds,
        text_bytes=size,
        cold_seconds=max(0.0, first[0] - first[1] * seconds / size),
        memory_bytes=_most_memory(),
    )


def _most_memory() -> int:
    """Most memory this process has had; not `ru_maxrss`, which goes on from the parent's."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


class _Clock:
    """Notes seconds and bytes of text of every block of a shard, and ends it at a limit."""

    def __init__(self, marks: list[tuple[float, int]], limit: int) -> None:
        self._marks, self._left = marks, limit
        self._before = time.perf_counter()

    def __call__(self, done: Advance) -> None:
        now = time.perf_counter()
        self._marks.append((now - self._before, done.text_bytes))
        self._left -= done.text_bytes
        if self._left <= 0:
            raise _EnoughError
        self._before = time.perf_counter()


def _recipe(
    settings: Settings, scorer: Scorer, texts: Sequence[str], encoding: OpenEncoding, scratch: Path
) -> Recipe:
    """What a worker opens; levels are fitted on some of the sample."""
    tokenizer = encoding.tokenizer
    sample = fit.score_sample(texts[:_FITTED_DOCUMENTS], scorer, encoding)
    store.save(scorer, scratch / "scorer")
    return Recipe(
        encoding=Encoding(
            tokenizer=scratch / tokenizer.save(scratch),
            tokenizer_hash=tokenizer.file_hash,
            end_of_document=tokenizer.end_of_document,
            vocab_size=tokenizer.vocab_size,
            eod=tokenizer.eod,
            engine=encoding.engine.name,
            engine_version=encoding.engine.version,
            text_key=settings.text_key,
        ),
        scorer=scratch / "scorer",
        levels=_some_levels(settings, scorer, sample, tokenizer.file_hash),
    )


def _some_levels(
    settings: Settings, scorer: Scorer, sample: fit.SampleScores, tokenizer_hash: str
) -> Levels:
    """As many levels as the job has, as far as the sample can tell them apart."""
    names = settings.levels[: max(1, min(len(settings.levels), np.unique(sample.scores).size))]
    shares = [1 / len(names) for _ in names]
    return Levels(
        names=names,
        thresholds=fit_thresholds(sample.scores, sample.tokens, shares),
        scorer_digest=scorer.digest,
        tokenizer_hash=tokenizer_hash,
    )


def _copy_speed(scratch: Path) -> float:
    content = np.random.default_rng(0).bytes(_COPIED_BYTES)
    start = time.perf_counter()
    path = scratch / "copied"
    with path.open("wb") as stream:
        stream.write(content)
    seconds = time.perf_counter() - start
    path.unlink()
    return _COPIED_BYTES / seconds
