"""The shape of one transformer layer. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass


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
