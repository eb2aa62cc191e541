"""Kinds of tensors: those that LiGO grows together. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass

from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName, tensor_names


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """The tensors of one role over all layers, or the one tensor of a role outside layers."""

    role: Role
    """What they do."""

    bias: bool
    """Whether they are the biases of their role."""

    layered: bool
    """Whether every layer has one."""

    @property
    def key(self) -> str:
        """A name for it, in those of parameters: `query`, `query_bias`."""
        return self.role.name.lower() + ("_bias" if self.bias else "")

    def names(self, shape: ModelShape) -> list[TensorName]:
        """Its tensors in a model, from the first layer to the last."""
        layers = range(shape.num_layers) if self.layered else (None,)
        return [TensorName(role=self.role, layer=layer, bias=self.bias) for layer in layers]


def kinds(shape: ModelShape) -> tuple[Kind, ...]:
    """The kinds that a model has; every tensor of it is of one. From input to output."""
    found = (
        Kind(role=name.role, bias=name.bias, layered=name.layer is not None)
        for name in tensor_names(shape)
    )
    return tuple(dict.fromkeys(found))
