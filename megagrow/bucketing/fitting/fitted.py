"""The scorer and thresholds of a job: those it has frozen already, given ones, or fitted ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megagrow.bucketing import levels
from megagrow.bucketing.fitting import fit
from megagrow.bucketing.fitting.plot import plot_scores
from megagrow.bucketing.fitting.sample import TextKey, draw, draws
from megagrow.bucketing.levels import Levels
from megagrow.bucketing.output import Output
from megagrow.bucketing.pool import Damaged, run
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.reading.shards import Shard, find, look_at
from megagrow.bucketing.recipe import Encoding, OpenEncoding
from megagrow.bucketing.settings import Settings
from megagrow.difficulty import store
from megagrow.difficulty.scorer import Scorer
from megagrow.errors import DataError
from megagrow.tokenization.parity import check_parity
from megagrow.units import format_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What a job applies to every document, once and for all."""

    levels: Levels
    """Names and thresholds."""

    notes: dict[str, Any]
    """How they came about."""


def fitted(
    settings: Settings,
    shards: Sequence[Shard],
    encoding: Encoding,
    opened: OpenEncoding,
    output: Output,
    progress: Progress,
) -> Fitted:
    """Reads what this job froze before it was stopped, or freezes it now.

    Raises:
        DataError: the sample, a given scorer or given thresholds cannot be used, or the fast
            engine does not encode as the tokenizer's own library does.
    """
    if output.levels.exists():  # written last
        found, notes = levels.load(output.levels)
        progress.say(f"thresholds were frozen before: {_thresholds(found)}")
        return Fitted(levels=found, notes=notes)
    texts = draw_sample(settings, shards, settings.sample_documents, progress)
    if not texts:
        raise DataError("no input file holds a text: is --text-key right? Nothing was written")
    compared = _check_engine(opened, texts, settings.seed, progress)
    scorer = _scorer(settings, texts, opened, encoding, progress)
    _replace(output.scorer, scorer)
    sample = fit.score_sample(texts, scorer, opened)
    fit.save_sample(sample, output.sample)
    if settings.frozen is None:
        found = fit.fit_levels(settings, scorer, sample, encoding.tokenizer_hash)
    else:
        found = _frozen(settings.frozen, scorer, encoding)
    plot_scores(output.plot, sample, found, scorer.unit)
    notes = {
        "kind": scorer.kind,
        "unit": scorer.unit,
        "sample_documents": int(sample.scores.size),
        "sample_tokens": int(sample.tokens.sum()),
        "sample_shares": fit.shares(found, sample),
        "parity_documents": compared,
        "engine": encoding.engine_version,
        "seed": settings.seed,
    }
    levels.save(found, output.levels, notes)
    progress.say(f"thresholds ({scorer.unit}): {_thresholds(found)}")
    return Fitted(levels=found, notes=notes)


def draw_sample(
    settings: Settings, shards: Sequence[Shard], documents: int, progress: Progress
) -> list[str]:
    """Texts of a seeded sample of the shards.

    Raises:
        DataError: a sampled shard is damaged, and damaged ones are not to be skipped.
    """
    tasks = draws(
        shards, documents=documents, most_shards=settings.sample_shards, seed=settings.seed
    )
    found: dict[int, list[str]] = {}
    with progress.phase("sampling", sum(task.shard.size for task in tasks)):
        for number, result in run(
            draw,
            tasks,
            TextKey(name=settings.text_key),
            workers=settings.workers,
            report=progress.advance,
        ):
            # A damaged shard is reported with the others, when every good one is done.
            found[number] = [] if isinstance(result, Damaged) else result
    texts = [text for number in sorted(found) for text in found[number]]
    progress.say(f"sampled {len(texts):,} documents of {len(tasks)} files")
    return texts


def _check_engine(opened: OpenEncoding, texts: Sequence[str], seed: int, progress: Progress) -> int:
    if opened.engine.name == "reference":
        return 0
    compared = check_parity(opened.engine, opened.tokenizer, fit.parity_texts(texts, seed))
    progress.say(f"{opened.engine.version} encodes {compared} texts as {opened.tokenizer.library}")
    return compared


def _scorer(
    settings: Settings,
    texts: Sequence[str],
    opened: OpenEncoding,
    encoding: Encoding,
    progress: Progress,
) -> Scorer:
    if settings.frozen is not None:
        return _usable(store.load(settings.frozen.parent / "scorer"), encoding)
    if settings.scorer != "surprisal":
        return _usable(store.parse(settings.scorer), encoding)
    counted = texts
    if settings.reference:
        shards = [look_at(each) for each in find(settings.reference)]
        counted = draw_sample(settings, shards, settings.sample_documents, progress)
    scorer = fit.fit_surprisal(counted, opened)
    where = "the reference files" if settings.reference else "the sample itself"
    progress.say(f"surprisal counts {format_count(int(scorer.counts.sum()))} tokens of {where}")
    return scorer


def _usable(scorer: Scorer, encoding: Encoding) -> Scorer:
    if scorer.tokenizer_hash not in (None, encoding.tokenizer_hash):
        raise DataError(
            f"the {scorer.kind} scorer reads the ids of another tokenizer than --tokenizer: use "
            "the one it was made with, or fit it again"
        )
    return scorer


def _frozen(file: Path, scorer: Scorer, encoding: Encoding) -> Levels:
    found, _ = levels.load(file)
    if found.tokenizer_hash != encoding.tokenizer_hash:
        raise DataError(f"{file}: fitted with another tokenizer than --tokenizer")
    if found.scorer_digest != scorer.digest:
        raise DataError(f"{file}: fitted with another scorer than {file.parent / 'scorer'}")
    return found


def _replace(folder: Path, scorer: Scorer) -> None:
    folder.mkdir(exist_ok=True)
    store.save(scorer, folder)


def _thresholds(found: Levels) -> str:
    parts = [found.names[0]]
    for name, threshold in zip(found.names[1:], found.thresholds, strict=True):
        parts += [f"< {threshold:.4g} <=", name]
    return " ".join(parts)
