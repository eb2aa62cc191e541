"""The splits of a stage's layers over its pipeline that a plan sets side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from megagrow.model.memory import MemoryModel
from megagrow.pipeline.balancing.costs import LayerCosts
from megagrow.pipeline.balancing.layout import costs_for, even_layout, kept_layout, layout_for


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One way to split a model over its pipeline."""

    name: Literal["even", "kept", "chosen"]
    """`even`: as equal numbers of layers as can be. `kept`: the layout of the stage before,
    stretched where the model grew. `chosen`: what the stage runs with."""

    layout: tuple[int, ...]
    """Layers of each pipeline chunk."""

    imbalance: float
    """Cost of the heaviest chunk over the mean."""

    peak_bytes: int
    """Estimated bytes on the fullest rank."""

    device: str | None
    """What the times were measured on that `imbalance` compares; unset: it compares FLOPs."""


def plan_splits(
    memory: MemoryModel,
    before: Sequence[int] | None,
    adapt: Callable[[LayerCosts], LayerCosts] = lambda costs: costs,
) -> tuple[Split, ...]:
    """The splits to compare, the chosen one last.

    Args:
        memory: the stage's model, layout and batch.
        before: layers of each chunk in the stage before; unset in the first stage. `kept` is among
            the splits where this stage has as many chunks.
        adapt: what the costs become where only a part of the model is trained.

    Raises:
        LayoutError: fewer layers than chunks, a split that `memory_limit` has no room for, or a
            file of times that does not fit the model.
    """
    parallel, layers = memory.parallel, memory.shape.num_layers
    chunks = parallel.pipeline * parallel.virtual_pipeline
    costs = adapt(costs_for(memory))
    chosen = layout_for(memory, costs)
    splits = [_split("even", even_layout(layers, chunks), memory, costs)]
    if before is not None and len(before) == chunks:
        splits.append(_split("kept", kept_layout(before, layers), memory, costs))
    return (*splits, _split("chosen", chosen, memory, costs))


def _split(
    name: Literal["even", "kept", "chosen"],
    layout: tuple[int, ...],
    memory: MemoryModel,
    costs: LayerCosts,
) -> Split:
    return Split(
        name=name,
        layout=layout,
        imbalance=costs.imbalance(layout),
        peak_bytes=max(rank.total for rank in memory.ranks(layout)),
        device=costs.device,
    )
