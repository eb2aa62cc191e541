"""Which stored tensors of a deeper model are those of the old one, byte for byte."""

from __future__ import annotations

from dataclasses import replace

from megagrow.conversion.layout import Layout, StoredTensor
from megagrow.growth.plan import GrowthPlan
from megagrow.model.tensors import NORMS, RESIDUAL_OUTPUTS, TensorName


def copied_tensors(growth: GrowthPlan, old: Layout, new: Layout) -> dict[str, str]:
    """For each stored tensor that growth in depth only copies, which one it is a copy of.

    Every other one has to be made: it is drawn, predicted, zero, mixed with noise, or it is not
    stored alike.

    Args:
        growth: the new depth.
        old: how the old model is stored.
        new: how the new one will be.

    Returns:
        Keys of the old model by keys of the new one.
    """
    if growth.noise:
        return {}
    copies = {}
    for stored in new.tensors:
        origin = _origin(growth, stored.parts[0], old)
        if origin is not None and _alike(stored, origin, new, old):
            copies[stored.key] = origin.key
    return copies


def _origin(growth: GrowthPlan, name: TensorName, old: Layout) -> StoredTensor | None:
    layer = name.layer
    if layer is None:
        return old.by_name.get(name)
    source = growth.layer_map[layer]
    if source is None or (layer in growth.zeroed and name.role in RESIDUAL_OUTPUTS):
        return None
    if layer in growth.predicted and (name.role not in NORMS or growth.norms_of is not None):
        return None
    return old.by_name.get(replace(name, layer=source))


def _alike(stored: StoredTensor, origin: StoredTensor, new: Layout, old: Layout) -> bool:
    layer = origin.parts[0].layer
    renamed = tuple(name if layer is None else replace(name, layer=layer) for name in stored.parts)
    return (
        renamed == origin.parts
        and (stored.interleaved, stored.transposed) == (origin.interleaved, origin.transposed)
        and new.stored_shape(stored.key) == old.stored_shape(origin.key)
    )
