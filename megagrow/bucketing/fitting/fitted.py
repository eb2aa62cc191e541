"""The scorer and thresholds of a job: those it has frozen already, given ones, or fitted ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megagrow.bucketing import levels
from megagrow.bucketing.fitting import fit
from megagrow.bucketing.fitting.plot import plot_scores
from megagrow.bucketing.fitting.sample import TextKey, draw
from megagrow.bucketing.levels import Levels
from megagrow.bucketing.output import Output
from megagrow.bucketing.pool import Damaged, run
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recipe import OpenEncoding
from megagrow.bucketing.settings import Settings
from megagrow.difficulty import store
from megagrow.difficulty.scorer import Scorer
from megagrow.errors import DataError
from megagrow.shards.draws import draws
from megagrow.shards.shard import Shard, find, look_at
from megagrow.tokenization.parity import check_parity
from megagrow.tokenization.tokenizer import Tokenizer
from megagrow.units import counted, format_count


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
    opened: OpenEncoding,
    given: Scorer | None,
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
        check_sampled(notes, shards, output)
        progress.say(f"thresholds were frozen before: {thresholds_line(found)}")
        return Fitted(levels=found, notes=notes)
    texts, sampled, damaged = draw_sample(settings, shards, settings.sample_documents, progress)
    if not texts:
        raise DataError("no input file holds a text: is --text-key right?")
    compared = _check_engine(opened, texts, settings.seed, progress)
    scorer = given or _counted(settings, texts, opened, progress)
    _replace(output.scorer, scorer)
    sample = fit.score_sample(texts, scorer, opened)
    fit.save_sample(sample, output.sample)
    if settings.frozen is None:
        found = fit.fit_levels(settings, scorer, sample, opened.tokenizer.file_hash)
    else:
        found = _frozen(settings.frozen, scorer, opened.tokenizer)
    plot_scores(output.plot, sample, found, scorer.unit)
    notes = {
        "kind": scorer.kind,
        "unit": scorer.unit,
        "sample_files": sorted(shard.fingerprint for shard in sampled),
        "sample_damaged": sorted(each.location for each in damaged),
        "sample_documents": int(sample.scores.size),
        "sample_tokens": int(sample.tokens.sum()),
        "sample_shares": fit.shares(found, sample),
        "parity_documents": compared,
        "engine": opened.engine.version,
        "seed": settings.seed,
    }
    for name, share in notes["sample_shares"].items():
        if not share:
            progress.say(
                f"warning: no sampled document is in level {name!r}; a job whose level stays empty "
                "ends with an error"
            )
    levels.save(found, output.levels, notes)
    progress.say(f"thresholds ({scorer.unit}): {thresholds_line(found)}")
    return Fitted(levels=found, notes=notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A damaged file that gave nothing to the sample."""

    location: str
    """Where it is."""

    error: str
    """What is wrong with it."""


def check_sampled(notes: Mapping[str, Any], shards: Sequence[Shard], output: Output) -> None:
    """Frozen thresholds stay while files are mended or left out, and for no other inputs.

    Raises:
        DataError: there are other files, or one that the thresholds were fitted on is gone.
    """
    known = set(json.loads(output.locations.read_text(encoding="utf-8")))
    new = [shard.location for shard in shards if shard.location not in known]
    gone = set(notes["sample_files"]) - {shard.fingerprint for shard in shards}
    if new or gone:
        what = f"{new[0]} is new" if new else "some of them are gone or have changed"
        raise DataError(
            f"{output.folder} holds unfinished work on other inputs ({what}): its thresholds are "
            "fitted on those; choose another --output, or drop what is there with --overwrite"
        )


def given_scorer(settings: Settings, tokenizer: Tokenizer) -> Scorer | None:
    """The scorer that is made already; None where counts are to be taken first.

    Raises:
        DataError: it cannot be used, or reads the ids of another tokenizer.
    """
    if settings.frozen is not None:
        levels.load(settings.frozen)  # says what is wrong with it before its scorer is looked for
        scorer = store.load(settings.frozen.parent / "scorer")
    elif settings.scorer == "surprisal":
        return None
    else:
        scorer = store.parse(settings.scorer)
    if scorer.tokenizer_hash not in (None, tokenizer.file_hash):
        raise DataError(
            f"the {scorer.kind} scorer reads the ids of another tokenizer than --tokenizer: use "
            "the one it was made with, or fit it again"
        )
    return scorer


def draw_sample(
    settings: Settings, shards: Sequence[Shard], documents: int, progress: Progress
) -> tuple[list[str], list[Shard], list[LeftOut]]:
    """Texts of a seeded sample of the shards, the shards they are from, and damaged ones."""
    tasks = draws(
        shards, documents=documents, most_shards=settings.sample_shards, seed=settings.seed
    )
    found: dict[int, list[str]] = {}
    damaged: list[LeftOut] = []
    with progress.phase("sampling", sum(task.shard.size for task in tasks)):
        for number, result in run(
            draw,
            tasks,
            TextKey(name=settings.text_key),
            workers=settings.workers,
            report=progress.advance,
        ):
            if isinstance(result, Damaged):
                damaged.append(LeftOut(location=tasks[number].shard.location, error=result.error))
            else:
                found[number] = result
    texts = [text for number in sorted(found) for text in found[number]]
    left_out = f", {len(damaged)} damaged ones left out" if damaged else ""
    progress.say(f"sampled {len(texts):,} documents of {counted(len(tasks), 'file')}{left_out}")
    return texts, [tasks[number].shard for number in sorted(found)], damaged


def _check_engine(opened: OpenEncoding, texts: Sequence[str], seed: int, progress: Progress) -> int:
    if opened.engine.name == "reference":
        return 0
    compared = check_parity(opened.engine, opened.tokenizer, fit.parity_texts(texts, seed))
    progress.say(f"{opened.engine.version} encodes {compared} texts as {opened.tokenizer.library}")
    return compared


def _counted(
    settings: Settings, texts: Sequence[str], opened: OpenEncoding, progress: Progress
) -> Scorer:
    """Surprisal, with counts from the reference files or from the sample."""
    if settings.reference:
        shards = [look_at(each) for each in find(settings.reference)]
        texts, _, damaged = draw_sample(settings, shards, settings.sample_documents, progress)
        if damaged:
            raise DataError(f"the reference cannot be counted: {damaged[0].error}")
    scorer = fit.fit_surprisal(texts, opened)
    where = "the reference files" if settings.reference else "the sample itself"
    progress.say(f"surprisal counts {format_count(int(scorer.counts.sum()))} tokens of {where}")
    return scorer


def _frozen(file: Path, scorer: Scorer, tokenizer: Tokenizer) -> Levels:
    found, _ = levels.load(file)
    if found.tokenizer_hash != tokenizer.file_hash:
        raise DataError(f"{file}: fitted with another tokenizer than --tokenizer")
    if found.scorer_digest != scorer.digest:
        raise DataError(f"{file}: fitted with another scorer than {file.parent / 'scorer'}")
    return found


def _replace(folder: Path, scorer: Scorer) -> None:
    folder.mkdir(exist_ok=True)
    store.save(scorer, folder)


def thresholds_line(found: Levels) -> str:
    """Names with the thresholds between them."""
    parts = [found.names[0]]
    for name, threshold in zip(found.names[1:], found.thresholds, strict=True):
        parts += [f"< {threshold:.4g} <=", name]
    return " ".join(parts)
