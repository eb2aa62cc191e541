"""Layers that are listed one by one, in a new depth. Pure Python."""

from __future__ import annotations

from dataclasses import replace

from megagrow.config.schema import LayerTable, ModelConfig
from megagrow.errors import ConfigError
from megagrow.growth.plan import GrowthPlan


def with_grown_table(model: ModelConfig, growth: GrowthPlan) -> ModelConfig:
    """A model whose list of layers is that of its new depth: copies keep their sizes.

    Args:
        model: the old model; unchanged unless its layer-wise scaling is a table.
        growth: the change of depth.

    Raises:
        ConfigError: layers are drawn, which the table says nothing about.
    """
    scaling = model.layer_scaling
    if scaling is None or scaling.table is None:
        return model
    if growth.drawn:
        raise ConfigError(
            "the layers of this model are listed one by one, and nothing says how large those are "
            f"that {growth.operator} draws; choose an operator that copies layers"
        )
    table = scaling.table
    sources = [layer for layer in growth.layer_map if layer is not None]

    def grown(sizes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if sizes is None else tuple(sizes[layer] for layer in sources)

    listed = LayerTable(
        num_attention_heads=grown(table.num_attention_heads),
        num_query_groups=grown(table.num_query_groups),
        ffn_hidden_size=grown(table.ffn_hidden_size),
    )
    return replace(model, layer_scaling=replace(scaling, table=listed))
