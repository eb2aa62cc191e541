"""The masks of G_random in width, by the modules whose outputs they multiply."""

from __future__ import annotations

from megagrow.growth.width.axes import Axis
from megagrow.growth.width.masks import MASK_TURNS, Mask, mask_of
from megagrow.model.mask import NewChannels
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName


def masked_modules(old: ModelShape, new: ModelShape) -> dict[str, NewChannels]:
    """The masks of all modules of a model with layers that are alike, by the modules' last names.

    Args:
        old: the model before it got wider.
        new: the wider one.
    """

    def of(*roles: Role, layer: int | None = 0) -> list[Mask | None]:
        return [mask_of(TensorName(role=role, layer=layer), old, new) for role in roles]

    (hidden,) = of(Role.TOKEN_EMBEDDING, layer=None)
    (inner,) = of(Role.UP)
    found: dict[str, NewChannels] = {}
    if hidden is not None:
        for name in ("embedding", "linear_proj", "linear_fc2"):
            found[name] = _channels(hidden, 1, split=False)
    if inner is not None:
        found["linear_fc1"] = _channels(inner, 2 if new.style == "llama" else 1, split=True)
    heads = of(Role.QUERY, Role.KEY, Role.VALUE)
    if any(heads):
        found["linear_qkv"] = NewChannels(
            parts=(_heads(old, new),), split=True, turn=MASK_TURNS[Axis.QUERY]
        )
    return found


def _channels(mask: Mask, times: int, *, split: bool) -> NewChannels:
    part = tuple(channel >= mask.old for channel in range(mask.new))
    return NewChannels(parts=(part,) * times, split=split, turn=MASK_TURNS[mask.axis])


def _heads(old: ModelShape, new: ModelShape) -> tuple[bool, ...]:
    """New outputs of queries, keys and values, dealt by group as megatron-core stores them.

    With as many query heads to a group as before, the old groups are the first ones.
    """
    narrow, wide = old.layers[0], new.layers[0]
    per_group = wide.num_attention_heads // wide.num_query_groups + 2
    return tuple(
        group >= narrow.num_query_groups
        for group in range(wide.num_query_groups)
        for _ in range(per_group * wide.kv_channels)
    )
