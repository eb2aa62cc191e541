"""A plan as plain text for the terminal, and as JSON."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from megagrow.checkpoint.store import BYTES_PER_PARAMETER
from megagrow.growth.timing import GROWTH_FACTOR
from megagrow.plan import text
from megagrow.plan.growth_traffic import LINK_GB_PER_SECOND, growth_traffic
from megagrow.plan.hardware import Hardware
from megagrow.plan.layer_table import layer_tables
from megagrow.plan.schedule import RunPlan, StagePlan
from megagrow.plan.splits import Split
from megagrow.units import format_bytes, format_count, format_duration, format_flops

WIDTH = 100
"""Columns of the output."""


def render(
    plan: RunPlan,
    *,
    hardware: Hardware | None = None,
    bucket_sizes: Mapping[str, int] | None = None,
) -> str:
    """The plan as plain text, at most `WIDTH` columns, made to be copied.

    Args:
        plan: the run.
        hardware: adds estimated times.
        bucket_sizes: training tokens of each bucket; adds epochs.

    Raises:
        DataError: a bucket the run draws from is empty.
    """
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, highlight=False)
    console.print(_model_table(plan))
    for table in layer_tables(plan):
        console.print(table)
    console.print(_cost_table(plan, hardware))
    console.print(_layout_table(plan))
    if any(len(stage.layout) > 1 for stage in plan.stages):
        console.print(_split_table(plan))
    console.print(_data_table(plan))
    console.print(_transition_table(plan))
    assert isinstance(console.file, io.StringIO)
    lines = [_headline(plan, hardware), *console.file.getvalue().splitlines()]
    lines += (*_growth_lines(plan), *_bucket_lines(plan, bucket_sizes), *_notes(plan, hardware))
    wrapped = "\n".join(_wrap(line) for line in lines)
    return re.sub(r"\n{3,}", "\n\n", wrapped) + "\n"


def to_dict(
    plan: RunPlan,
    *,
    hardware: Hardware | None = None,
    bucket_sizes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The plan as JSON types. Arguments and errors as `render`."""
    result: dict[str, Any] = {
        "name": plan.name,
        "world_size": plan.world_size,
        "world_size_given": plan.world_size_given,
        "steps": plan.steps,
        "tokens": plan.tokens,
        "flops": float(plan.flops),
        "bucket_tokens": plan.bucket_tokens,
        "warnings": list(plan.warnings),
        "stages": [
            _stage_dict(stage, before)
            for before, stage in zip((None, *plan.stages), plan.stages, strict=False)
        ],
    }
    if bucket_sizes is not None:
        result["epochs"] = plan.epochs(bucket_sizes)
    if hardware is not None:
        result["hardware"] = {
            "name": hardware.name,
            "devices": hardware.devices,
            "peak_tflops": hardware.peak_tflops,
            "source": hardware.source,
            "assumed_mfu": hardware.mfu,
            "seconds": hardware.seconds(plan.flops),
        }
    return result


def _stage_dict(stage: StagePlan, before: StagePlan | None) -> dict[str, Any]:
    parallel, fullest = stage.config.parallel, stage.peak_memory
    result: dict[str, Any] = {
        "name": stage.name,
        "layers": stage.shape.num_layers,
        "hidden_size": stage.shape.hidden_size,
        "layer_shapes": [asdict(layer) for layer in stage.shape.layers],
        "parameters": stage.parameters.total,
        "non_embedding_parameters": stage.parameters.non_embedding,
        "steps": stage.steps,
        "first_step": stage.first_step,
        "tokens": stage.tokens,
        "first_token": stage.first_token,
        "flops": float(stage.flops),
        "growth_flops": float(stage.growth_flops),
        "flops_per_token": stage.flops_per_token.total,
        "global_batch": stage.config.batch.global_size,
        "micro_batch": stage.config.batch.micro_size,
        "micro_batches": stage.micro_batches,
        "tensor": parallel.tensor,
        "pipeline": parallel.pipeline,
        "virtual_pipeline": parallel.virtual_pipeline,
        "data": stage.data_parallel,
        "layout": list(stage.layout),
        "imbalance": stage.imbalance,
        "balanced_by": _balanced_by(stage),
        "times_device": stage.splits[-1].device,
        "splits": {
            split.name: {
                "layout": list(split.layout),
                "imbalance": split.imbalance,
                "peak_bytes": split.peak_bytes,
            }
            for split in stage.splits
        },
        "memory_limit": parallel.memory_limit,
        "memory_bytes": [rank.total for rank in stage.memory],
        "peak_memory": {
            "pipeline_rank": fullest.pipeline_rank,
            "weights": fullest.weights,
            "gradients": fullest.gradients,
            "optimizer": fullest.optimizer,
            "activations": fullest.activations,
            "logits": fullest.logits,
        },
        "mixture": stage.config.mixture,
        "mixture_end": stage.config.mixture_end,
        "bucket_tokens": stage.bucket_tokens,
    }
    transition = stage.config.transition
    if stage.growth is not None and transition is not None:
        result["transition"] = {
            "operator": transition.operator,
            "width": None if transition.width is None else transition.width.operator,
            "optimizer": transition.optimizer,
            "learning_rate": transition.learning_rate,
            "sources": [[list(pair) for pair in pairs] for pairs in stage.growth.sources],
            "connection_rate": stage.growth.connection_rate,
            "added": sorted(stage.growth.added),
            "through": transition.through,
        }
        moved = None if before is None else growth_traffic(before, stage)
        if moved is not None:
            result["transition"] |= {
                "bytes_moved": moved.moved,
                "most_received_bytes": moved.most_received,
                "most_filled_bytes": moved.filled,
            }
    if stage.timing is not None:
        result["timing"] = {
            "tokens": stage.timing.tokens,
            "recommended": stage.timing.recommended,
            "warnings": list(stage.timing.warnings),
        }
    return result


def _wrap(line: str) -> str:
    """The line without trailing spaces, at most `WIDTH` columns, continued with an indent."""
    if len(line) <= WIDTH:
        return line.rstrip()
    return textwrap.fill(line, WIDTH, initial_indent="", subsequent_indent="    ")


def _headline(plan: RunPlan, hardware: Hardware | None) -> str:
    world = f"{plan.world_size} process" + ("es" if plan.world_size > 1 else "")
    if not plan.world_size_given:
        world += " (the fewest that suit every stage)"
    parts = [
        f"{len(plan.stages)} stage" + ("s" if len(plan.stages) > 1 else ""),
        f"{plan.steps} steps",
        f"{format_count(plan.tokens)} tokens",
        f"{text.flops(plan.flops)} FLOPs",
        world,
    ]
    if hardware is not None:
        parts.append(f"about {format_duration(hardware.seconds(plan.flops))}")
    return f"{plan.name}: {', '.join(parts)}"


def _model_table(plan: RunPlan) -> Table:
    rows = (
        (
            stage.name,
            str(stage.shape.num_layers),
            format_count(stage.parameters.total),
            format_count(stage.parameters.non_embedding),
            format_count(stage.tokens),
            str(stage.steps),
            str(stage.config.batch.global_size),
            format_count(stage.step_tokens),
        )
        for stage in plan.stages
    )
    heads = ("layers", "parameters", "non-embedding", "tokens", "steps", "batch", "tokens/step")
    return _table(heads, rows)


def _cost_table(plan: RunPlan, hardware: Hardware | None) -> Table:
    def row(stage: StagePlan) -> tuple[str, ...]:
        fullest = stage.peak_memory
        state = fullest.weights + fullest.gradients + fullest.optimizer
        return (
            stage.name,
            text.flops(stage.flops_per_token.total),
            text.flops(stage.flops),
            f"{stage.flops / plan.flops:.1%}",
            *(() if hardware is None else (format_duration(hardware.seconds(stage.flops)),)),
            format_bytes(fullest.total),
            format_bytes(state),
            format_bytes(fullest.activations + fullest.logits),
            str(fullest.pipeline_rank),
        )

    time = () if hardware is None else ("time",)
    memory = ("memory/rank", "state", "activations", "on rank")
    return _table(
        ("FLOPs/token", "FLOPs", "share", *time, *memory), (row(stage) for stage in plan.stages)
    )


def _layout_table(plan: RunPlan) -> Table:
    rows = (
        (
            stage.name,
            _sizes(stage),
            f"{stage.micro_batches} x {stage.config.batch.micro_size}",
            f"{stage.imbalance:.2f}",
            text.layout(stage.layout),
        )
        for stage in plan.stages
    )
    heads = ("TP x PP x DP", "micro-batches", "imbalance", "layers per pipeline chunk")
    return _table(heads, rows, left=(4,))


def _split_table(plan: RunPlan) -> Table:
    """What balancing gains: the even split and the old layout, before the one that will run."""

    def row(stage: StagePlan, split: Split) -> tuple[str, ...]:
        limit = stage.config.parallel.memory_limit
        return (
            stage.name,
            f"chosen, {_decided(stage, split)}" if split.name == "chosen" else split.name,
            f"{split.imbalance:.3f}",
            format_bytes(split.peak_bytes),
            "" if limit is None else format_bytes(limit),
            text.layout(split.layout),
        )

    rows = (
        row(stage, split)
        for stage in plan.stages
        if len(stage.layout) > 1
        for split in stage.splits
    )
    heads = ("split", "max/mean", "memory/rank", "limit", "layers per pipeline chunk")
    return _table(heads, rows, left=(1, 5))


def _decided(stage: StagePlan, split: Split) -> str:
    """`_balanced_by`, and what the times were measured on."""
    name = _balanced_by(stage)
    return f"times ({split.device})" if name == "times" else name


def _balanced_by(stage: StagePlan) -> str:
    """What decided the split: `flops`, `times`, `even` or `given`."""
    parallel = stage.config.parallel
    return parallel.balance if parallel.layers_per_chunk is None else "given"


def _sizes(stage: StagePlan) -> str:
    parallel = stage.config.parallel
    virtual = f"({parallel.virtual_pipeline})" if parallel.virtual_pipeline > 1 else ""
    return f"{parallel.tensor} x {parallel.pipeline}{virtual} x {stage.data_parallel}"


def _data_table(plan: RunPlan) -> Table:
    rows = (
        (stage.name, text.mixture(stage.config.mixture, stage.config.mixture_end))
        for stage in plan.stages
    )
    return _table(("mixture",), rows, left=(1,))


def _transition_table(plan: RunPlan) -> Table:
    def row(stage: StagePlan) -> tuple[str, ...]:
        transition = stage.config.transition
        if transition is None or stage.growth is None:
            start = (stage.name, "new model", "", "", "new", "start")
        else:
            grown = layers = rate = ""
            if stage.grows:
                grown = text.growth(transition, stage.growth, stage.shape)
                layers = text.layer_map(stage.growth.layer_map) if stage.growth.is_copy else ""
                rate = f"{stage.growth.connection_rate:.1%}"
            start = (
                stage.name,
                grown or "none",
                layers,
                rate,
                text.moments(transition),
                text.rate_policy(transition),
            )
        follows = transition is not None and transition.learning_rate != "restart"
        rates = "" if follows else text.learning_rate(stage.config.learning_rate)
        return (*start, stage.config.trainable, rates)

    heads = ("growth", "layers from", "Rc", "optimizer", "LR", "trained", "LR schedule")
    return _table(heads, (row(stage) for stage in plan.stages), left=(1, 2, 4, 5, 6, 7))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = ()) -> Table:
    """A table whose first column names the stage; numbers right, columns in `left` left."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for column, head in enumerate(("stage", *heads)):
        on_left = column == 0 or column in left
        table.add_column(head, justify="left" if on_left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _growth_lines(plan: RunPlan) -> list[str]:
    """When the published formula would grow and when this run does, and what has to travel."""
    lines = []
    for before, stage in pairwise(plan.stages):
        if stage.timing is not None:
            lines.append(
                f"growth before {stage.name}: after {format_count(stage.first_token)} tokens; the "
                f"G_stack guideline says {format_count(stage.timing.recommended)}, growth by "
                f"{GROWTH_FACTOR}; its nearest experiment: {text.experiment(stage.timing.nearest)}"
            )
            lines += [
                f"  warning: guideline out of range: {warning}"
                for warning in ("; ".join(stage.timing.warnings),)
                if warning
            ]
        if stage.growth_flops:
            lines.append(
                f"into {stage.name}: learning how to grow takes "
                f"{format_flops(stage.growth_flops)}, which the run is charged with"
            )
        lines += _traffic_lines(before, stage)
    return lines


def _traffic_lines(before: StagePlan, stage: StagePlan) -> list[str]:
    """How the state gets into a stage."""
    moved, transition = growth_traffic(before, stage), stage.config.transition
    if moved is None or transition is None:
        return []
    filled = f"filling at most {format_bytes(moved.filled)} on each"
    if transition.through == "checkpoint":
        written = before.parameters.total * BYTES_PER_PARAMETER
        return [f"into {stage.name}: up to {format_bytes(written)} through the scratch folder"]
    if not moved.moved:
        return [f"into {stage.name}: no state moves between processes, {filled}"]
    return [
        f"into {stage.name}: about {format_bytes(moved.moved)} of state move between processes, at "
        f"most {format_bytes(moved.most_received)} to one ({format_duration(moved.seconds)} at "
        f"{LINK_GB_PER_SECOND:g} GB/s), {filled}"
    ]


def _bucket_lines(plan: RunPlan, sizes: Mapping[str, int] | None) -> list[str]:
    epochs = None if sizes is None else plan.epochs(sizes)
    drawn = [
        f"{name} {format_count(tokens)}"
        + ("" if epochs is None else f" ({epochs[name]:.3g} epochs)")
        for name, tokens in plan.bucket_tokens.items()
    ]
    return [f"tokens drawn per bucket: {', '.join(drawn)}"]


def _notes(plan: RunPlan, hardware: Hardware | None) -> list[str]:
    lines = ["memory is an estimate for the fullest rank; leave a tenth of the device free on top"]
    if hardware is not None:
        lines.append(
            f"time assumes {hardware.devices} x {hardware.name} at {hardware.mfu:.0%} of "
            f"{hardware.peak_tflops:g} TFLOP/s ({hardware.source})"
        )
    return lines + [f"warning: {warning}" for warning in plan.warnings]
