"""The shape of one transformer layer. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass

from megagrow.config.schema import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerShape:
    """One transformer layer."""

    num_attention_heads: int
    """Query heads."""

    num_query_groups: int
    """Key/value heads."""

    kv_channels: int
    """Dimension of one head."""

    ffn_hidden_size: int
    """Inner width of the MLP."""


def head_dimension(model: ModelConfig) -> int:
    """Dimension of one head, the same in all layers."""
    return model.kv_channels or model.hidden_size // model.num_attention_heads
