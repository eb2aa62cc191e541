"""Layers per pipeline chunk, in the form megatron-core takes them. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence

from megagrow.config.schema import ParallelConfig
from megagrow.errors import LayoutError


def pipeline_model_parallel_layout(
    num_layers: int, parallel: ParallelConfig, layout: Sequence[int] | None
) -> list[list[str]] | None:
    """The ``TransformerConfig`` field of that name, as ``PipelineParallelLayerLayout`` reads it.

    Args:
        num_layers: Layers of the model.
        parallel: Pipeline and virtual pipeline sizes.
        layout: Layers of each chunk, from input to output; chunk ``v * pipeline + p`` is virtual
            stage ``v`` of pipeline rank ``p``. None: equal chunks.

    Returns:
        For each chunk what it holds, the embedding first and the loss last; None where there is
        nothing to tell: equal chunks were asked for, or there is one alone.

    Raises:
        LayoutError: The layout is not one of this model, or the layers do not divide equally.
    """
    chunks = parallel.pipeline * parallel.virtual_pipeline
    if layout is None:
        if num_layers % chunks:
            raise LayoutError(
                f"{num_layers} layers do not divide into {chunks} equal pipeline chunks: "
                "give the number of layers of each chunk."
            )
        return None
    if len(layout) != chunks:
        raise LayoutError(
            f"the pipeline layout {list(layout)} has {len(layout)} chunks, but pipeline="
            f"{parallel.pipeline} x virtual_pipeline={parallel.virtual_pipeline} = {chunks}."
        )
    if sum(layout) != num_layers or min(layout) < 0:
        raise LayoutError(
            f"the pipeline layout {list(layout)} holds {sum(layout)} layers; "
            f"the model has {num_layers}."
        )
    if chunks == 1:
        return None
    rows = [["decoder"] * count for count in layout]
    rows[0].insert(0, "embedding")
    rows[-1].append("loss")
    return rows
