"""The matrices of LiGO as they start, and the one that is made of another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from megagrow.growth.ligo.settings import DepthInit, WidthInit
from megagrow.growth.width.axes import Axis
from megagrow.growth.width.channels import channels
from megagrow.model.shape import ModelShape
from megagrow.runtime.seeds import seed_for

DEPTH_NOISE = 0.03
"""Largest noise in D (VITA-Group/LiGO)."""

WIDTHS: Mapping[str, Axis] = MappingProxyType(
    {
        "emb": Axis.HIDDEN,
        "q": Axis.QUERY,
        "k": Axis.GROUP,
        "v": Axis.GROUP,
        "mlp": Axis.FFN,
        "head": Axis.HEAD,
    }
)
"""The axis that each width matrix B grows."""


def depth_matrix(old: int, new: int, init: DepthInit, seed: int, key: str) -> Tensor:
    """A first D: `new layer i = sum over j of D[i, j] x old layer j`; its rows sum to 1.

    Args:
        old: layers before.
        new: layers after.
        init: see `LigoSettings.depth_init`.
        seed: the operator's.
        key: the kind that it is for; others draw other noise.

    Returns:
        float32 [new, old], on the CPU.
    """
    drawn = torch.zeros(new, old, dtype=torch.float32, device="cpu")
    if init == "stack_noisy":
        drawn.uniform_(0.0, DEPTH_NOISE, generator=_generator(seed, "depth", key))
    layer = torch.arange(new, device="cpu")
    drawn[layer, layer % old] = 1.0
    return drawn / drawn.sum(dim=1, keepdim=True)


def width_matrix(
    width: str, old: ModelShape, new: ModelShape, init: WidthInit, seed: int
) -> Tensor | None:
    """A first B, given shapes that `check_ligo` accepts.

    Old channels stay where `split` and `zero` have them: before the added ones, head by head and
    group by group. Where heads are as long and groups as large as before, B is `[I; added rows]`.

    Args:
        width: one of `WIDTHS`.
        old: the model.
        new: the larger model.
        init: see `LigoSettings.width_init`.
        seed: the operator's.

    Returns:
        float32 [new channels, old channels], on the CPU; None where the axis does not grow.
    """
    axis = WIDTHS[width]
    before, found = channels(axis, 0, old, old), channels(axis, 0, old, new)
    rows, columns = len(found.source), len(before.source)
    if rows == columns:
        return None
    matrix = torch.zeros(rows, columns, dtype=torch.float32, device="cpu")
    kept, added = (found.copy == 0).nonzero().squeeze(1), found.copy.nonzero().squeeze(1)
    matrix[kept, found.source[kept]] = 1.0
    drawn = torch.empty(len(added), columns, dtype=torch.float32, device="cpu")
    generator = _generator(seed, "width", width)
    if init == "identity":
        drawn.normal_(0.0, 1 / math.sqrt(rows), generator=generator)
    else:
        drawn.uniform_(0.0, 1.0, generator=generator)
        drawn /= drawn.sum(dim=1, keepdim=True)
    matrix[added] = drawn
    return matrix


def output_matrix(
    value: Tensor | None, old: ModelShape, new: ModelShape, device: torch.device
) -> Tensor | None:
    """B_o, for the inputs of the attention output: what every query head reads of its group.

    The papers have B_v here, for they have a key/value head for each query head. With fewer, B_v
    maps groups, and B_o must map heads. Let R repeat the values of each group for its heads in the
    old model, and R' in the new one: then `B_o R = R' B_v`. For a new head that reads new group g',
    B_o has, for each old group g, the block of B_v at (g', g) in one of the heads of g, and zeros
    in its others. That head is the one whose place in g is that of the new head in g'; where groups
    get more heads, added ones take the places of the old ones in turn. With a group for each head,
    B_o is B_v.

    Args:
        value: B_v [new groups x head dimension, old ones]; None: groups do not grow.
        old: the model.
        new: the larger model.
        device: where it is to be.

    Returns:
        [new heads x head dimension, old ones], differentiable in `value`; None where neither heads
        nor groups grow.
    """
    before, after = old.layers[0], new.layers[0]
    size, groups = before.kv_channels, before.num_query_groups
    source = channels(Axis.QUERY, 0, old, new).source
    if len(source) == before.num_attention_heads * size:
        return None
    if value is None:
        value = torch.eye(groups * size, dtype=torch.float32, device=device)
    per_group = before.num_attention_heads // groups
    head = source.view(after.num_attention_heads, -1)[:, 0] // size
    place = F.one_hot(head % per_group, per_group).to(value)
    blocks = value.view(after.num_query_groups, after.kv_channels, groups, 1, size)
    read = blocks.repeat_interleave(after.num_attention_heads // after.num_query_groups, dim=0)
    return (read * place[:, None, None, :, None]).flatten(2).flatten(0, 1)


def _generator(seed: int, *parts: str) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(seed_for(seed, "LiGO", *parts))
