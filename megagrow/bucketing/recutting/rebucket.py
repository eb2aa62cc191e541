"""New buckets from a finished output folder, without reading or tokenizing any text.

The folder's sidecars have the score of every document, and the input file and row it comes from.
So other thresholds, or other levels, need one pass over scores and one copy of the tokens. The
buckets are those that a job over the text would write with the same thresholds, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megagrow.bucketing import levels as frozen
from megagrow.bucketing.finished import Finished, open_finished
from megagrow.bucketing.fitting import fit
from megagrow.bucketing.fitting.plot import plot_scores
from megagrow.bucketing.levels import Levels, check_names, check_shares
from megagrow.bucketing.output import Output, begin, clear, is_finished, sole_writer
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recutting import exact
from megagrow.bucketing.recutting.files import Layout, Written, write
from megagrow.bucketing.recutting.survey import Counts, Runs, count, survey
from megagrow.bucketing.recutting.survey import fit as fit_shares
from megagrow.bucketing.settings import DEFAULT_LEVELS, DEFAULT_TOKENS_PER_FILE
from megagrow.data.manifest import read_manifest, write_manifest
from megagrow.difficulty.store import SCORER_FILE
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.tokenization.tokenizer import load

REBUCKET_VERSION = 1
"""Raise it whenever the same folder and settings give other files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RebucketSettings:
    """What to cut anew, and how."""

    source: Path
    """A finished output folder."""

    output: Path
    """Folder for the new buckets."""

    levels: tuple[str, ...] = DEFAULT_LEVELS
    """Names of the new levels, easiest first."""

    shares: tuple[float, ...] | None = None
    """Share of all tokens that each level is to get; None: equal ones."""

    thresholds: tuple[float, ...] | None = None
    """Scores between the levels; None: fitted to `shares` on all documents."""

    workers: int = 1
    """Processes to work in."""

    tokens_per_file: int = DEFAULT_TOKENS_PER_FILE
    """A bucket of more tokens is written as several files."""

    overwrite: bool = False
    """Drop what another job left in the output folder."""

    def __post_init__(self) -> None:
        """Refuses what cannot be done."""
        check_names(self.levels)
        if self.shares is not None:
            check_shares(self.shares)
            if len(self.shares) != len(self.levels):
                raise DataError(
                    f"{len(self.levels)} levels ({', '.join(self.levels)}), but "
                    f"{len(self.shares)} shares: give one for each level"
                )
            if self.thresholds is not None:
                raise DataError("give shares or thresholds: each says where levels end")
        for name in ("workers", "tokens_per_file"):
            if getattr(self, name) < 1:
                raise DataError(f"--{name.replace('_', '-')} must be 1 or more")
        if self.source.resolve() == self.output.resolve():
            raise DataError(f"{self.output}: is the folder to read: choose another --output")

    @property
    def wanted_shares(self) -> tuple[float, ...]:
        """Share of all tokens that each level is to get."""
        return self.shares or tuple(1 / len(self.levels) for _ in self.levels)


def rebucket(settings: RebucketSettings, progress: Progress) -> dict[str, Any]:
    """Cuts the buckets anew, or finishes doing so.

    The folder that is read is checked whole before anything is written but a lock. Killed at any
    moment, call it again: it goes on, and ends with the same bytes.

    Args:
        settings: what to do.
        progress: where to show how far it is.

    Returns:
        The manifest of the new folder.

    Raises:
        DataError: the folder to read is not finished or damaged, or the output folder or the
            levels cannot be used.
        OSError: the output cannot be written.
    """
    found = open_finished(settings.source)
    arguments = _arguments(settings, found)
    with sole_writer(settings.output) as output:
        if not settings.overwrite and is_finished(output, arguments):
            shutil.rmtree(output.work, ignore_errors=True)
            progress.say(f"{output.folder}: up to date")
            return read_manifest(output.folder) or {}
        runs = survey(found, settings.workers, progress)
        levels = _levels(settings, found, runs, progress)
        counts = count(found, runs, levels, settings.workers, progress)
        _check_filled(levels, counts)
        if settings.overwrite:
            _drop(output, arguments)
        begin(output, arguments, [])
        _copy_what_stays(found, output)
        layout = Layout(
            found=found,
            output=output,
            levels=levels,
            runs=tuple(runs),
            counts=counts,
            tokens_per_file=settings.tokens_per_file,
        )
        written = write(layout, settings.workers, progress)
        manifest = _summarise(layout, written, arguments)
        shutil.rmtree(output.work)
        return manifest


def _levels(
    settings: RebucketSettings, found: Finished, runs: Sequence[Runs], progress: Progress
) -> Levels:
    thresholds = settings.thresholds
    if thresholds is None:
        thresholds = fit_shares(found, runs, settings.wanted_shares, settings.workers, progress)
    levels = Levels(
        names=settings.levels,
        thresholds=tuple(float(np.float32(each)) for each in thresholds),
        scorer_digest=found.levels.scorer_digest,
        tokenizer_hash=found.levels.tokenizer_hash,
    )
    listed = ", ".join(f"{each:.4g}" for each in levels.thresholds)
    progress.say(f"thresholds ({found.notes.get('unit', 'score')}): {listed}")
    return levels


def _check_filled(levels: Levels, counts: Counts) -> None:
    for name, documents in zip(levels.names, counts.documents.sum(axis=0), strict=True):
        if not documents:
            raise DataError(
                f"level {name!r} would get no document, and an empty bucket cannot be trained on: "
                "choose other thresholds or fewer levels. Nothing was written"
            )


def _copy_what_stays(found: Finished, output: Output) -> None:
    """Tokenizer, scorer and the sample's scores; they are the same for the new buckets."""
    tokenizer = found.manifest["tokenizer"]
    loaded = load(found.folder / tokenizer["file"], end_of_document=tokenizer["end_of_document"])
    if loaded.file_hash != tokenizer["sha256"]:
        raise DataError(
            f"{found.folder / tokenizer['file']}: not the tokenizer that wrote the tokens; restore "
            "it"
        )
    loaded.save(output.folder)
    scorer = found.folder / found.manifest["scorer"]["folder"]
    try:
        digest = json.loads((scorer / SCORER_FILE).read_bytes())["digest"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{scorer / SCORER_FILE}: cannot be read: {error}; restore it") from None
    if digest != found.levels.scorer_digest:
        raise DataError(f"{scorer}: not the scorer that gave the scores; restore it")
    shutil.rmtree(output.scorer, ignore_errors=True)
    shutil.copytree(scorer, output.scorer)
    source = Output(folder=found.folder)
    if source.sample.exists():
        write_atomically(output.sample, source.sample.read_bytes())


def _drop(output: Output, arguments: Mapping[str, Any]) -> None:
    """Drops another job's files; what this very job had done before it was stopped stays."""
    finished = output.manifest.exists()
    try:
        same = json.loads(output.arguments.read_text(encoding="utf-8")) == dict(arguments)
    except (OSError, ValueError):
        same = False
    clear(output)
    if finished or not same:
        shutil.rmtree(output.work, ignore_errors=True)


def _summarise(layout: Layout, written: Written, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Writes what is left: levels, inputs, plot, and the manifest at last."""
    found, output, levels, counts = layout.found, layout.output, layout.levels, layout.counts
    totals = dict(zip(levels.names, counts.tokens.sum(axis=0).tolist(), strict=True))
    notes = {
        "unit": found.notes.get("unit"),
        "fitted_documents": int(counts.documents.sum()),
        "fitted_tokens": int(counts.tokens.sum()),
        "shares": exact.shares_of(totals),
        "engine": found.notes.get("engine"),
        "seed": found.notes.get("seed"),
    }
    frozen.save(levels, output.levels, notes)
    _record_inputs(layout, written.crc32)
    if output.sample.exists():
        unit = str(found.manifest["scorer"]["unit"])
        plot_scores(output.plot, fit.load_sample(output.sample), levels, unit)
    stays = ("tokenizer", "scorer", "rows", "documents", "rejects", "text_bytes", "seed")
    return write_manifest(
        output.folder,
        vocab_size=int(found.manifest["vocab_size"]),
        eod=int(found.manifest["eod"]),
        buckets=written.files,
        notes={
            **{key: found.manifest[key] for key in stays},
            "levels": {
                "file": output.levels.name,
                "names": list(levels.names),
                "thresholds": list(levels.thresholds),
                "digest": levels.digest,
                **notes,
            },
            "inputs": {
                **found.manifest["inputs"],
                "file": output.inputs.name,
                "sha256": hashlib.sha256(output.inputs.read_bytes()).hexdigest(),
            },
            "rebucketed_from": {
                "folder": str(found.folder.absolute()),
                "manifest_sha256": found.manifest_sha256,
                "levels": found.manifest["levels"],
                "arguments": found.manifest["arguments"],
                "rebucketed_from": found.manifest.get("rebucketed_from"),
            },
            "arguments": dict(arguments),
        },
    )


def _record_inputs(layout: Layout, sums: Mapping[int, Sequence[int]]) -> None:
    """`inputs.jsonl` as it was, but for what each level holds of each input file."""
    lines = []
    documents, tokens = layout.counts.documents.tolist(), layout.counts.tokens.tolist()
    nothing = [0 for _ in layout.levels.names]
    for number, line in enumerate(layout.found.inputs):
        if "levels" in line:
            crcs = sums.get(number, nothing)
            levels = {
                name: {"documents": n, "tokens": of, "crc32": crc}
                for name, n, of, crc in zip(
                    layout.levels.names, documents[number], tokens[number], crcs, strict=True
                )
            }
            line = {**line, "levels": levels}
        lines.append(json.dumps(line, ensure_ascii=False))
    write_atomically(layout.output.inputs, "\n".join(lines) + "\n")


def _arguments(settings: RebucketSettings, found: Finished) -> dict[str, Any]:
    """What decides the files of the folder."""
    shares, thresholds = settings.shares, settings.thresholds
    return {
        "rebucket_version": REBUCKET_VERSION,
        "source": found.manifest_sha256,
        "levels": list(settings.levels),
        "shares": None if shares is None else list(shares),
        "thresholds": None if thresholds is None else list(thresholds),
        "tokens_per_file": settings.tokens_per_file,
    }
