"""Models between an old one and what it grows into: first deeper, then narrower. Pure Python."""

from __future__ import annotations

from dataclasses import replace

from megagrow.growth.plan import GrowthPlan
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape


def deepened_shape(growth: GrowthPlan, old: ModelShape, new: ModelShape) -> ModelShape:
    """`old` in its new depth, every layer of the shape of the one that it comes from.

    Layers that are drawn are as the others are, or where these differ as in `new`.

    Args:
        growth: the change of depth, which mixes no layers.
        old: the model before.
        new: the model after, in its widths.
    """
    drawn = old.layers[:1] * new.num_layers if old.is_isotropic else new.layers
    layers = (
        drawn[layer] if source is None else old.layers[source]
        for layer, source in enumerate(growth.layer_map)
    )
    return replace(old, layers=tuple(layers))


def narrowed_shape(old: ModelShape, new: ModelShape) -> ModelShape:
    """`old` with no layer wider than in `new`, of as many layers; other widths stay."""
    pairs = zip(old.layers, new.layers, strict=True)
    return replace(old, layers=tuple(_narrowed(before, after) for before, after in pairs))


def _narrowed(before: LayerShape, after: LayerShape) -> LayerShape:
    groups = min(before.num_query_groups, after.num_query_groups)
    per_group = min(
        layer.num_attention_heads // layer.num_query_groups for layer in (before, after)
    )
    return LayerShape(
        num_attention_heads=groups * per_group,
        num_query_groups=groups,
        kv_channels=before.kv_channels,
        ffn_hidden_size=min(before.ffn_hidden_size, after.ffn_hidden_size),
    )
