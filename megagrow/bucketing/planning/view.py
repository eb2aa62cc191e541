"""A bucketing plan as text, and the arguments that ask for it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from megagrow.bucketing.command import arguments as values
from megagrow.bucketing.planning.plan import Plan
from megagrow.units import format_bytes, format_count, format_duration

_SLOW_SCORING = 0.5
_WHOLE = 0.999


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--plan` and what goes with it."""
    group = parser.add_argument_group("plan")
    group.add_argument(
        "--plan", action="store_true",
        help="read a few MiB of some files, say what the job will take, and write nothing",
    )  # fmt: skip
    group.add_argument(
        "--price-per-core-hour", type=values.price, metavar="PRICE",
        help="have the plan say what it costs, in any currency",
    )  # fmt: skip


def render(plan: Plan) -> str:
    """The plan for a terminal, warnings last."""
    speed = plan.speed
    share = plan.sampled_text_bytes / plan.text_bytes
    rows = [
        ("input", f"{plan.files:,} files, {format_bytes(plan.input_bytes)}"),
        (
            "content",
            f"{format_bytes(plan.text_bytes)} of text, {format_count(plan.documents)} documents, "
            f"{format_count(plan.tokens)} tokens; {format_count(plan.rejected)} rows rejected",
        ),
        (
            "one worker",
            f"{speed.text_bytes_per_second / 1e6:,.3g} MB/s of text, "
            f"{format_count(speed.tokens_per_second)} tokens/s with {speed.engine}; scores take "
            f"{min(speed.scoring_share, 1):.0%} of the time",
        ),
        (
            "time",
            f"{format_duration(plan.seconds)} with {plan.workers} {_workers(plan)}: fitting "
            f"{format_duration(plan.sampling_seconds)}, bucketing "
            f"{format_duration(plan.bucketing_seconds)}, merging "
            f"{format_duration(plan.merging_seconds)}",
        ),
        ("core-hours", _cost(plan)),
        (
            "memory",
            f"{format_bytes(plan.memory_bytes)}, {format_bytes(speed.memory_bytes)} for each "
            "worker",
        ),
        (
            "disk",
            f"{format_bytes(plan.output_bytes)} in the end; at most "
            f"{format_bytes(plan.peak_bytes)} while it runs, or "
            f"{format_bytes(plan.peak_bytes_shared)} where copies share blocks (XFS, Btrfs)",
        ),
        ("free disk", "?" if plan.free_bytes is None else format_bytes(plan.free_bytes)),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {text}" for name, text in rows]
    lines += [
        "",
        f"From {format_bytes(plan.sampled_text_bytes)} of {format_bytes(plan.text_bytes)}, "
        f"{share:.1%}, in {plan.sampled_files} of {plan.files:,} files: text and tokens are right "
        f"within about {max(plan.error, 0.01):.0%} if the other files are like these."
        if share < _WHOLE
        else "The sample is all of the text.",
        f"Speed was measured on {format_bytes(speed.measured_text_bytes)} on this machine, the "
        "cold start apart; it holds for as many free cores of this kind as there are workers, "
        "and for storage that keeps up.",
    ]
    return "\n".join([*lines, *(f"warning: {text}" for text in _warnings(plan))])


def _workers(plan: Plan) -> str:
    return "worker" if plan.workers == 1 else "workers"


def _cost(plan: Plan) -> str:
    hours = f"{plan.core_hours:,.3g}"
    if plan.cost is None:
        return f"{hours} (--price-per-core-hour makes it money)"
    return f"{hours}, {plan.cost:,.2f} at {plan.price_per_core_hour:g} each"


def _warnings(plan: Plan) -> Iterator[str]:
    if plan.free_bytes is not None and plan.free_bytes < plan.peak_bytes:
        least = "at no moment" if plan.free_bytes < plan.output_bytes else "only with shared blocks"
        yield (
            f"the output needs {format_bytes(plan.peak_bytes)} at most, "
            f"{format_bytes(plan.free_bytes)} are free: it fits {least}"
        )
    speed = plan.speed
    if speed.scoring_share > _SLOW_SCORING:
        documents = plan.documents / plan.text_bytes * speed.score_bytes_per_second
        yield (
            f"the scorer {plan.scorer} does {documents:,.3g} documents a second (measured on "
            f"{speed.scored_documents:,}) and takes {speed.scoring_share:.0%} of the time: distil "
            "it into a linear scorer with tools/train_difficulty_classifier.py, which costs next "
            "to nothing, or score on GPUs"
        )
    if plan.files < plan.workers:
        yield (
            f"{plan.workers} workers for {plan.files} files: a file is one worker's work, the "
            "others wait; use fewer, or divide the files"
        )
