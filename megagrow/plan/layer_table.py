"""The layers of models with layer-wise scaling, as a table with its profile drawn beside it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from megagrow.model.flops import layer_flops_per_token, layer_parameters
from megagrow.plan import text
from megagrow.plan.schedule import RunPlan, StagePlan
from megagrow.units import format_count

BAR = 16
"""Characters of the longest bar."""


def layer_tables(plan: RunPlan) -> Iterator[Table]:
    """A table for every stage whose layers differ and are not those of the stage before."""
    before = None
    for stage in plan.stages:
        if stage.config.model.layer_scaling is not None and stage.shape != before:
            yield _table(stage)
        before = stage.shape


def _table(stage: StagePlan) -> Table:
    counts, shape = stage.parameters, stage.shape
    scaling = stage.config.model.layer_scaling
    assert scaling is not None
    title = (
        f"layers of {stage.name} ({scaling.variant}): {format_count(counts.total)} parameters, "
        f"{format_count(counts.non_embedding)} without embeddings and output layer"
    )
    table = Table(
        title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, pad_edge=False,
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    for head in ("layer", "heads", "KV heads", "FFN", "parameters", "FLOPs/token"):
        table.add_column(head, justify="right")
    table.add_column("heads, drawn")
    table.add_column("FFN, drawn")
    most_heads = max(layer.num_attention_heads for layer in shape.layers)
    widest = max(layer.ffn_hidden_size for layer in shape.layers)
    for layer, group in groupby(range(shape.num_layers), key=lambda index: shape.layers[index]):
        numbers = list(group)
        several = len(numbers) > 1
        table.add_row(
            f"{numbers[0]}-{numbers[-1]}" if several else str(numbers[0]),
            str(layer.num_attention_heads),
            str(layer.num_query_groups),
            str(layer.ffn_hidden_size),
            format_count(layer_parameters(layer, shape)) + (" each" if several else ""),
            text.flops(layer_flops_per_token(layer, shape).total),
            Text(_bar(layer.num_attention_heads / most_heads)),
            Text(_bar(layer.ffn_hidden_size / widest)),
        )
    return table


def _bar(share: float) -> str:
    """A bar of `share` of `BAR` characters, to an eighth of one."""
    whole, eighths = divmod(round(share * BAR * 8), 8)
    return "█" * whole + (" ▏▎▍▌▋▊▉"[eighths] if eighths else "")
