"""The operator of LiGO: every tensor of a larger model as a function of trainable matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from megagrow.growth.ligo.checks import check_ligo
from megagrow.growth.ligo.kinds import Kind, kinds
from megagrow.growth.ligo.matrices import WIDTHS, depth_matrix, output_matrix, width_matrix
from megagrow.growth.ligo.settings import LigoSettings
from megagrow.growth.width.channels import check_tensor
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role

_OUTPUT = "o"
"""B of the inputs of the attention output; made of B_v, not a parameter."""

_SIDES: Mapping[Role, tuple[str | None, str | None]] = MappingProxyType(
    {
        Role.TOKEN_EMBEDDING: (None, "emb"),
        Role.POSITION_EMBEDDING: (None, "emb"),
        Role.OUTPUT: (None, "emb"),
        Role.FINAL_NORM: ("emb", None),
        Role.ATTENTION_NORM: ("emb", None),
        Role.QUERY: ("q", "emb"),
        Role.KEY: ("k", "emb"),
        Role.VALUE: ("v", "emb"),
        Role.QUERY_NORM: ("head", None),
        Role.KEY_NORM: ("head", None),
        Role.ATTENTION_OUTPUT: ("emb", _OUTPUT),
        Role.MLP_NORM: ("emb", None),
        Role.GATE: ("mlp", "emb"),
        Role.UP: ("mlp", "emb"),
        Role.DOWN: ("emb", "mlp"),
    }
)
"""B of the rows and B of the columns; a vector, or a bias, has rows alone."""


class Ligo(nn.Module):
    """G_learn: `new_i = sum over j of D[i, j] B_out W_j B_in^T` (LiGO, arXiv 2303.00980).

    The formulas for Llama are those of arXiv 2405.15319, App. A: Q, K, V: `B_x W B_emb^T`; O:
    `B_emb W B_v^T`; gate and up: `B_mlp W B_emb^T`; down: `B_emb W B_mlp^T`; norms: `B_emb mu`;
    embeddings and output layer: `W B_emb^T`. Biases and the positions of GPT-2 go like the rows and
    the embeddings. With grouped-query attention see `matrices.output_matrix` for O.

    Every kind has its D, biases too. The Bs are one for all layers, as in those formulas, in which
    only D has layers as indices, and in tongxuluo/prts. In VITA-Group/LiGO B_emb is one as well,
    but each new layer has its B_q, B_k, B_v and B_mlp.

    Parameters are float32: `depth.<kind>` [new layers, old layers] and `width.<emb, q, k, v, mlp,
    head>` [new channels, old channels], where that axis grows; else B is the identity. `head` is
    for the norms of queries and keys. First values depend on the arguments only, not on a device
    or torch's global generators, and are on the CPU.

    Args:
        old: shape of the model.
        new: shape of the larger model; depth, widths or both grow.
        settings: how the matrices start.
        seed: of the noise in them.

    Raises:
        ConfigError: shapes that it cannot grow between; see `check_ligo`.
    """

    def __init__(
        self, old: ModelShape, new: ModelShape, settings: LigoSettings, seed: int = 0
    ) -> None:
        super().__init__()
        check_ligo(old, new)
        self.old, self.new = old, new
        self._kinds = {(kind.role, kind.bias): kind for kind in kinds(old)}
        self.depth = nn.ParameterDict()
        self.width = nn.ParameterDict()
        for kind in self._kinds.values():
            if kind.layered:
                self.depth[kind.key] = nn.Parameter(
                    depth_matrix(
                        old.num_layers, new.num_layers, settings.depth_init, seed, kind.key
                    )
                )
        used = {width for kind in self._kinds.values() for width in _trained(kind)}
        for width in WIDTHS:
            first = width_matrix(width, old, new, settings.width_init, seed)
            if first is not None and width in used:
                self.width[width] = nn.Parameter(first)

    def reads(self, role: Role, bias: bool) -> tuple[str, ...]:
        """Names of the parameters that `grow` reads for a kind, as in `named_parameters`.

        Gradients of those that several kinds read, the `width` ones, add up over kinds. A kind
        that reads none does not change.

        Raises:
            ValueError: the model has no such kind.
        """
        kind = self._kind(role, bias)
        depth = (f"depth.{kind.key}",) if kind.layered else ()
        return depth + tuple(f"width.{width}" for width in _trained(kind) if width in self.width)

    def grow(self, role: Role, bias: bool, old: Sequence[Tensor]) -> list[Tensor]:
        """The tensors of one kind in the larger model, differentiable in the parameters.

        Under gradients, what is kept until the backward pass is the kind's old tensors once, and
        once as wide as the new ones. So rather than keep the results of all kinds while the
        gradient of a model is computed, call this again, kind by kind, before each backward pass.

        Args:
            role: what the tensors do.
            bias: whether they are the biases of their role.
            old: the tensors of all old layers, first to last, or the one tensor of a role outside
                layers; unsplit, on the parameters' device. Other dtypes than float32 are converted.

        Returns:
            The tensors of all new layers, or the one tensor: float32, views of one new tensor. For
            a kind that `reads` no parameter the old tensors, without a gradient.

        Raises:
            ValueError: the model has no such kind, or other tensors of it.
        """
        kind = self._kind(role, bias)
        names = kind.names(self.old)
        if len(old) != len(names):
            raise ValueError(f"{role.value}: {len(old)} tensors, expected {len(names)}")
        for name, tensor in zip(names, old, strict=True):
            check_tensor(name, tensor, self.old)
        precise = [tensor.float() for tensor in old]
        if not self.reads(role, bias):
            return precise
        wide = self._widened(kind, torch.stack(precise) if kind.layered else precise[0][None])
        if kind.layered:
            wide = (self.depth[kind.key] @ wide.flatten(1)).unflatten(1, wide.shape[1:])
        return list(wide.unbind())

    def _kind(self, role: Role, bias: bool) -> Kind:
        if (role, bias) not in self._kinds:
            raise ValueError(f"the model has no {role.value}{' bias' if bias else ''}")
        return self._kinds[role, bias]

    def _matrix(self, width: str | None) -> Tensor | None:
        """A matrix B; None: the identity."""
        if width == _OUTPUT:
            device = next(self.parameters()).device
            return output_matrix(self._matrix("v"), self.old, self.new, device)
        return self.width[width] if width is not None and width in self.width else None

    def _widened(self, kind: Kind, stacked: Tensor) -> Tensor:
        """`B_out W B_in^T` of [tensors, rows, columns], or `B_out w` of [tensors, rows]."""
        rows, columns = (self._matrix(width) for width in _sides(kind))
        if rows is not None:
            stacked = rows @ stacked if stacked.dim() == 3 else stacked @ rows.T
        return stacked if columns is None else stacked @ columns.T


def _sides(kind: Kind) -> tuple[str | None, str | None]:
    rows, columns = _SIDES[kind.role]
    return rows, None if kind.bias else columns


def _trained(kind: Kind) -> tuple[str, ...]:
    """The trainable matrices B on both sides of a kind, of any shape."""
    named = ("v" if width == _OUTPUT else width for width in _sides(kind))
    return tuple(width for width in named if width is not None)
