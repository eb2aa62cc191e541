"""A bucketing job from its inputs to its manifest, resumable at any moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megagrow.bucketing.fitting.fitted import Fitted, fitted, given_scorer
from megagrow.bucketing.output import (
    Output,
    begin,
    clear,
    drop_buckets,
    drop_stale_parts,
    inputs_digest,
    is_finished,
    sole_writer,
)
from megagrow.bucketing.pool import Damaged, Ready, Report, run
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recipe import Encoding, OpenEncoding, OpenRecipe, Recipe
from megagrow.bucketing.settings import Settings
from megagrow.bucketing.summary import record_inputs, write_summary
from megagrow.bucketing.writing import merge, part
from megagrow.bucketing.writing.part import Part
from megagrow.data.manifest import FileStats, read_manifest
from megagrow.data.writer import token_dtype
from megagrow.difficulty.scorer import Scorer
from megagrow.errors import DataError
from megagrow.shards.shard import Shard, check_distinct, find, look_at
from megagrow.tokenization.engine import Engine, open_engine
from megagrow.tokenization.tokenizer import Tokenizer, load
from megagrow.units import counted

JOB_VERSION = 1
"""Raise it whenever the same arguments give other files."""

_LOOKING_AT_ONCE = 16


class DamagedInputError(DataError):
    """Input files that cannot be read whole; everything else is done and kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job whose every choice is frozen: what is left is work on single files, and the merge."""

    settings: Settings
    """What was asked for."""

    output: Output
    """Where it goes."""

    shards: tuple[Shard, ...]
    """The input files, in order."""

    recipe: Recipe
    """How a shard becomes a part."""

    fitted: Fitted
    """Thresholds, and how they came about."""

    arguments: dict[str, Any]
    """What decides the files of the output folder."""

    opened: OpenEncoding
    """Tokenizer and engine, open in this process."""


def bucket(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Makes the buckets, or finishes making them.

    Args:
        settings: what to do.
        progress: where to show how far it is.

    Returns:
        The manifest.

    Raises:
        DamagedInputError: some input files are damaged; run again when they are mended, or with
            `skip_damaged`.
        DataError: settings or inputs that cannot be used.
        OSError: the output cannot be written.
    """
    with sole_writer(settings.output) as output:
        job = prepare(settings, output, progress)
        if job is None:
            return read_manifest(output.folder) or {}
        return finish(job, progress)


def prepare(settings: Settings, output: Output, progress: Progress) -> Job | None:
    """Looks at inputs and output, and freezes scorer and thresholds; None if all is done already.

    Raises:
        DataError: settings, inputs or an output folder that cannot be used.
    """
    shards = look(settings.inputs, progress, without=output.folder)
    tokenizer = load(
        settings.tokenizer, end_of_document=settings.end_of_document, pattern=settings.pattern
    )
    engine = open_engine(tokenizer, settings.engine)
    scorer = given_scorer(settings, tokenizer)
    arguments = _arguments(settings, shards, tokenizer, engine, scorer)
    if settings.overwrite or output.dropping.exists():
        clear(output)
    if is_finished(output, arguments):
        shutil.rmtree(output.work, ignore_errors=True)  # of a job killed at its very end
        progress.say(f"{output.folder}: up to date")
        return None
    begin(output, arguments, [shard.location for shard in shards])
    encoding = save_encoding(tokenizer, engine, settings.text_key, output.folder)
    opened = OpenEncoding(tokenizer=tokenizer, engine=engine, text_key=settings.text_key)
    found = fitted(settings, shards, opened, scorer, output, progress)
    recipe = Recipe(encoding=encoding, scorer=output.scorer, levels=found.levels)
    drop_stale_parts(output, {recipe.key(shard) for shard in shards})
    return Job(
        settings=settings,
        output=output,
        shards=tuple(shards),
        recipe=recipe,
        fitted=found,
        arguments=arguments,
        opened=opened,
    )


def look(inputs: Sequence[str], progress: Progress, *, without: Path) -> list[Shard]:
    """The input files, without those in the folder that is written.

    Raises:
        DataError: there are none, one cannot be read, or two are the same.
    """
    own = f"{without.absolute()}/"
    locations = [each for each in find(inputs) if not each.startswith(own)]
    if not locations:
        raise DataError(f"all input files are in the output folder {without}: choose another")
    with ThreadPoolExecutor(_LOOKING_AT_ONCE) as threads:
        shards = list(threads.map(look_at, locations))
    check_distinct(shards)
    megabytes = sum(each.size for each in shards) / 1e6
    progress.say(f"{counted(len(shards), 'input file')}, {megabytes:,.1f} MB")
    return shards


def save_encoding(tokenizer: Tokenizer, engine: Engine, text_key: str, folder: Path) -> Encoding:
    """Puts the tokenizer into the output folder, for every worker and later reader."""
    return Encoding(
        tokenizer=folder / tokenizer.save(folder),
        tokenizer_hash=tokenizer.file_hash,
        end_of_document=tokenizer.end_of_document,
        vocab_size=tokenizer.vocab_size,
        eod=tokenizer.eod,
        engine=engine.name,
        engine_version=engine.version,
        text_key=text_key,
    )


def finish(job: Job, progress: Progress) -> dict[str, Any]:
    """From frozen thresholds to the manifest.

    Raises:
        DamagedInputError: as `bucket`.
    """
    parts = make_parts(
        job.shards,
        job.recipe,
        job.output.parts,
        job.settings.workers,
        progress,
        opened=job.opened,
    )
    damaged = [each.error for each in parts if isinstance(each, Damaged)]
    if damaged and not job.settings.skip_damaged:
        raise DamagedInputError(
            "\n".join([f"{len(damaged)} of {len(parts)} input files are damaged:", *damaged])
            + "\nThe others are done. Mend or replace them and run again, or leave them out with "
            "--skip-damaged."
        )
    files = merge_parts(job, parts, progress)
    record_inputs(job.output.inputs, job.shards, parts, job.recipe.levels.names)
    manifest = write_summary(
        job.output, job.recipe, job.fitted, parts, files, job.arguments, job.settings
    )
    shutil.rmtree(job.output.work)
    return manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class _PartTask:
    shard: Shard
    folder: Path


def make_parts(
    shards: Sequence[Shard],
    recipe: Recipe,
    folder: Path,
    workers: int,
    progress: Progress,
    *,
    opened: OpenEncoding | None = None,
) -> list[Part | Damaged]:
    """What became of each shard; those that are done already are not read again.

    Args:
        shards: the input files.
        recipe: how they become parts.
        folder: of the parts.
        workers: processes to work in.
        progress: where to show how far it is.
        opened: tokenizer and engine that are open in this process, for a single worker to use.
    """
    itemsize = token_dtype(recipe.encoding.vocab_size).itemsize
    folders = [folder / recipe.key(shard) for shard in shards]
    parts: list[Part | Damaged | None] = [
        part.load(each, len(recipe.levels.names), itemsize) for each in folders
    ]
    # The largest first, so that no worker begins one when the others are about to end.
    missing = sorted(
        (number for number, each in enumerate(parts) if each is None),
        key=lambda number: -shards[number].size,
    )
    for number in missing:
        shutil.rmtree(folders[number], ignore_errors=True)  # not whole
    done_bytes = sum(shard.size for shard in shards) - sum(shards[each].size for each in missing)
    if done_bytes:
        progress.say(f"{len(shards) - len(missing)} files are done already")
    tasks = [_PartTask(shard=shards[number], folder=folders[number]) for number in missing]
    alone = min(workers, len(tasks)) == 1 and opened is not None
    shared = Ready(opened=recipe.open(opened)) if alone else recipe
    with progress.phase("bucketing", sum(shard.size for shard in shards), done_bytes):
        for number, result in run(
            _make_part, tasks, shared, workers=workers, report=progress.advance
        ):
            parts[missing[number]] = result
    return [each for each in parts if each is not None]


def _make_part(task: _PartTask, recipe: OpenRecipe, report: Report) -> Part:
    return part.make(task.shard, task.folder, recipe, report)


def merge_parts(
    job: Job, parts: Sequence[Part | Damaged], progress: Progress
) -> dict[str, list[FileStats]]:
    """Writes the buckets; returns the files of each."""
    names = job.recipe.levels.names
    sources = [
        [
            merge.Source(
                folder=job.output.parts / job.recipe.key(job.shards[number]),
                input=number,
                level=each.levels[level],
            )
            for number, each in enumerate(parts)
            if isinstance(each, Part)
        ]
        for level in range(len(names))
    ]
    empty = [
        name
        for name, every in zip(names, sources, strict=True)
        if not any(source.level.documents for source in every)
    ]
    if empty:
        raise DataError(
            f"level {empty[0]!r} gets no document, and an empty bucket cannot be trained on: "
            "choose other thresholds or fewer levels, and pass --overwrite"
        )
    dtype = token_dtype(job.recipe.encoding.vocab_size)
    files = merge.plan(
        job.output.folder,
        names,
        sources,
        dtype=dtype,
        tokens_per_file=job.settings.tokens_per_file,
        scratch=job.output.work,
    )
    total = sum(source.level.tokens for file in files for source in file.sources) * dtype.itemsize

    drop_buckets(job.output, keep={file.prefix.name for file in files})
    stats: dict[str, list[FileStats]] = {name: [] for name in names}
    # Threads: the kernel copies, and processes would take longer to start than many a merge.
    with progress.phase("merging", total), ThreadPoolExecutor(job.settings.workers) as threads:
        merged = threads.map(lambda file: merge.merge(file, progress.advance), files)
        for file, found in zip(files, merged, strict=True):
            stats[names[file.level]].append(found)
    return stats


def _arguments(
    settings: Settings,
    shards: Sequence[Shard],
    tokenizer: Tokenizer,
    engine: Engine,
    scorer: Scorer | None,
) -> dict[str, Any]:
    """What decides the files of the folder."""
    reference = [look_at(each) for each in find(settings.reference)] if settings.reference else []
    facts = asdict(settings)
    decides = ("text_key", "levels", "shares", "thresholds", "sample_documents",
               "sample_shards", "seed", "tokens_per_file")  # fmt: skip
    arguments = {
        "job_version": JOB_VERSION,
        "inputs": inputs_digest(shards),
        "tokenizer": tokenizer.file_hash,
        "end_of_document": tokenizer.end_of_document,
        "engine": engine.version,
        "reference": inputs_digest(reference) if reference else None,
        "scorer": settings.scorer if scorer is None else scorer.digest,
        "frozen": frozen_digest(settings.frozen),
        **{name: facts[name] for name in decides},
    }
    return dict(json.loads(json.dumps(arguments)))  # tuples as JSON has them


def frozen_digest(frozen: Path | None) -> str | None:
    """Digest of a file of frozen levels, where one is given."""
    from megagrow.bucketing import levels

    return None if frozen is None else levels.load(frozen)[0].digest
