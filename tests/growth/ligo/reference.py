"""LiGO in plain PyTorch, head by head and layer by layer: what `Ligo` must equal."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import Model, names

SIDES: dict[Role, tuple[str | None, str | None]] = {
    Role.TOKEN_EMBEDDING: (None, "emb"),
    Role.POSITION_EMBEDDING: (None, "emb"),
    Role.OUTPUT: (None, "emb"),
    Role.FINAL_NORM: ("emb", None),
    Role.ATTENTION_NORM: ("emb", None),
    Role.MLP_NORM: ("emb", None),
    Role.QUERY: ("q", "emb"),
    Role.KEY: ("k", "emb"),
    Role.VALUE: ("v", "emb"),
    Role.QUERY_NORM: ("head", None),
    Role.KEY_NORM: ("head", None),
    Role.ATTENTION_OUTPUT: ("emb", "o"),
    Role.GATE: ("mlp", "emb"),
    Role.UP: ("mlp", "emb"),
    Role.DOWN: ("emb", "mlp"),
}


def reference(
    parameters: Mapping[str, Tensor], model: Model, old: ModelShape, new: ModelShape
) -> dict[TensorName, Tensor]:
    """Every tensor of the larger model, from parameters named as those of `Ligo`."""
    first = old.layers[0]
    sizes = {
        "emb": old.hidden_size,
        "q": first.num_attention_heads * first.kv_channels,
        "k": first.num_query_groups * first.kv_channels,
        "v": first.num_query_groups * first.kv_channels,
        "mlp": first.ffn_hidden_size,
        "head": first.kv_channels,
    }
    like = next(iter(parameters.values()))
    matrices = {
        side: parameters.get(f"width.{side}", torch.eye(size).to(like))
        for side, size in sizes.items()
    }
    matrices["o"] = _output(matrices["v"], old, new)
    grown = {}
    for name in names(new):
        depth = parameters.get(
            f"depth.{name.role.name.lower()}{'_bias' if name.bias else ''}", torch.ones(1, 1)
        )
        sources = range(old.num_layers) if name.layer is not None else [None]
        total: Tensor | None = None
        for j, layer in enumerate(sources):
            tensor = model[TensorName(role=name.role, layer=layer, bias=name.bias)]
            rows, columns = SIDES[name.role]
            if rows is not None:
                tensor = matrices[rows] @ tensor
            if columns is not None and not name.bias:
                tensor = tensor @ matrices[columns].T
            part = depth[name.layer or 0, j] * tensor
            total = part if total is None else total + part
        assert total is not None
        grown[name] = total
    return grown


def _output(value: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
    """The new heads' rows, each from the block of B_v of its group."""
    before, after = old.layers[0], new.layers[0]
    per_old = before.num_attention_heads // before.num_query_groups
    per_new = after.num_attention_heads // after.num_query_groups
    rows = []
    for head in range(after.num_attention_heads):
        group, place = head // per_new, head % per_new
        turn = (group // before.num_query_groups) * per_new + place
        block = value[group * after.kv_channels : (group + 1) * after.kv_channels]
        columns = []
        for source in range(before.num_attention_heads):
            start = source // per_old * before.kv_channels
            part = block[:, start : start + before.kv_channels]
            columns.append(part if source % per_old == turn % per_old else torch.zeros_like(part))
        rows.append(torch.cat(columns, dim=1))
    return torch.cat(rows)
