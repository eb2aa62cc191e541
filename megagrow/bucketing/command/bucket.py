"""Runs `tools/bucket_by_difficulty.py`: here, on a cluster, or only its plan."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from megagrow.bucketing.cluster.ray_tasks import bucket_on_ray
from megagrow.bucketing.cluster.slurm import DEFAULT_TASKS, SlurmSettings, submit
from megagrow.bucketing.cluster.slurm_queue import check_idle
from megagrow.bucketing.command import ending, rebucket
from megagrow.bucketing.command.parser import build_parser
from megagrow.bucketing.job import bucket
from megagrow.bucketing.planning.plan import plan
from megagrow.bucketing.planning.view import render
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.settings import DEFAULT_LEVELS, Settings
from megagrow.data.manifest import read_manifest
from megagrow.errors import DataError

_HERE = "--executor=local"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code that its help lists."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if rebucket.is_asked_for(given):
        return rebucket.main(given)
    options = build_parser().parse_args(given)
    progress = Progress(quiet=options.quiet)
    return ending.run(lambda: _run(options, given, progress), options.output)


def _run(
    options: argparse.Namespace, arguments: Sequence[str], progress: Progress
) -> dict[str, Any] | int:
    """The manifest, or the exit code where others work on it or ended without one."""
    check_used(options, arguments)
    settings = settings_of(options)
    tasks = DEFAULT_TASKS if options.tasks is None else options.tasks
    if options.plan:
        if options.executor == "slurm":
            settings = replace(settings, workers=tasks * options.slurm_cpus)
        ending.show(render(plan(settings, price_per_core_hour=options.price_per_core_hour)))
        return 0
    if options.executor == "slurm":
        wanted = SlurmSettings(
            tasks=tasks,
            cpus=options.slurm_cpus,
            memory=options.slurm_mem,
            partition=options.slurm_partition,
            time=options.slurm_time,
            options=tuple(options.slurm_option),
        )
        command = _local_command(arguments, wanted.cpus)
        code = submit(settings, wanted, command, progress, wait=options.wait)
        return (read_manifest(settings.output) or {}) if code is None else code
    check_idle(settings.output, progress)
    if options.executor == "ray":
        return bucket_on_ray(settings, options.tasks, progress)
    return bucket(settings, progress)


def _local_command(arguments: Sequence[str], workers: int) -> list[str]:
    """Runs what these arguments say with the local executor."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [each for each in arguments[:end] if each != "--wait"]  # it is the same job either way
    changed = [_HERE, f"--workers={workers}", "--no-overwrite"]  # the last one counts
    return [sys.executable, "-m", "megagrow.bucketing.command", *kept, *changed, *arguments[end:]]


def check_used(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """An option that would do nothing is a mistake.

    But for `_local_command`, which leaves the cluster's options to be overruled.

    Raises:
        DataError: there is one.
    """
    only = {
        "--tasks": (options.tasks is not None, options.executor != "local", "--executor"),
        "--wait": (options.wait, options.executor == "slurm", "--executor slurm"),
        "--slurm-option": (
            bool(options.slurm_option), options.executor == "slurm", "--executor slurm",
        ),
        "--slurm-partition": (
            options.slurm_partition is not None, options.executor == "slurm", "--executor slurm",
        ),
        "--slurm-time": (
            options.slurm_time is not None, options.executor == "slurm", "--executor slurm",
        ),
        "--price-per-core-hour": (
            options.price_per_core_hour is not None, options.plan, "--plan",
        ),
    }  # fmt: skip
    overruled = _HERE in arguments
    for name, (given, useful, needed) in only.items():
        if given and not useful and not overruled:
            raise DataError(f"{name} does nothing without {needed}")
    if options.frozen is not None:
        for name, value, default in (
            ("--levels", tuple(options.levels), DEFAULT_LEVELS),
            ("--scorer", options.scorer, "surprisal"),
        ):
            if value != default:
                raise DataError(f"{name} does nothing with --frozen, which names it already")


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that parsed options stand for."""
    return Settings(
        inputs=tuple(options.inputs),
        output=options.output,
        tokenizer=options.tokenizer,
        end_of_document=options.end_of_document,
        pattern=options.pattern,
        engine=options.engine,
        text_key=options.text_key,
        levels=tuple(options.levels),
        shares=options.shares,
        thresholds=options.thresholds,
        frozen=options.frozen,
        scorer=options.scorer,
        reference=tuple(options.reference),
        sample_documents=options.sample_documents,
        sample_shards=options.sample_shards,
        seed=options.seed,
        workers=options.workers,
        tokens_per_file=options.tokens_per_file,
        skip_damaged=options.skip_damaged,
        overwrite=options.overwrite,
    )
