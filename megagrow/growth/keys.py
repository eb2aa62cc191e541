"""Names of a model's stored tensors, and where growth takes them from. Pure Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from megagrow.growth.moments import MomentPolicy
from megagrow.growth.plan import GrowthPlan

Source = Callable[[str], str | None]
"""The old tensor that a new one begins as, by keys; None: it comes from no old one."""

_LAYER = re.compile(r"(?P<before>(?:^|\.)layers\.)(?P<layer>\d+)(?P<after>\.)")
"""The global number of the transformer layer that a tensor belongs to, in its key."""

_RESIDUAL_OUTPUTS = ("self_attention.linear_proj.", "mlp.linear_fc2.")


def layer_of(key: str) -> int | None:
    """The layer (from 0) that a tensor belongs to; None: to no layer."""
    match = _LAYER.search(key)
    return int(match["layer"]) if match else None


def at_layer(key: str, layer: int) -> str:
    """The key of the same tensor of another layer."""
    return _LAYER.sub(rf"\g<before>{layer}\g<after>", key)


def family(key: str) -> str:
    """What the same tensors of all layers have in common in their keys."""
    return _LAYER.sub(r"\g<before>*\g<after>", key)


def is_residual_output(key: str) -> bool:
    """Whether a tensor is weight or bias of what a layer adds to the residual stream."""
    return any(name in key for name in _RESIDUAL_OUTPUTS)


def without(source: Source, keys: Collection[str]) -> Source:
    """The same, but that some tensors come from no old one."""
    return (lambda key: None if key in keys else source(key)) if keys else source


def weight_source(growth: GrowthPlan) -> Source:
    """Where the weights of a grown model come from; for a predicted one, what stands in for it."""
    layer_map = growth.layer_map

    def source(key: str) -> str | None:
        match = _LAYER.search(key)
        if match is None:
            return key
        new = int(match["layer"])
        old = layer_map[new]
        if growth.norms_of is not None and new in growth.predicted and "norm" in key:
            old = growth.norms_of
        if old is None:
            return None
        return f"{key[: match.start()]}{match['before']}{old}{match['after']}{key[match.end() :]}"

    return source


def moment_source(growth: GrowthPlan, moments: MomentPolicy, weights: Source) -> Source | None:
    """Where the moments of a grown model come from; None: all of them are zero.

    Args:
        growth: the plan.
        moments: what happens to moments.
        weights: where the weights come from; returned itself if the moments go with them.
    """
    if not moments.kept:
        return None
    if moments.copied:
        return weights
    added = growth.added
    return lambda key: None if layer_of(key) in added else weights(key)
