"""Layers that get narrower before they get wider: what layer-wise shapes ask of a growth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from megagrow.growth.between import narrowed_shape
from megagrow.growth.width.axes import Axis, axes
from megagrow.growth.width.channels import check_tensor
from megagrow.growth.width.interface import WidthOperator
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import TensorName, tensor_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Narrowing:
    """Keeps the first channels of what shrinks, then lets an operator grow the rest.

    Ours: no paper grows layer-wise scaled models. The first key/value groups stay, of each the
    first query heads, and the first channels of an MLP. Channels have no order of their own, but
    those that other operators added come last, so what they did is undone first.
    """

    then: WidthOperator
    """What grows the rest."""

    def check(self, old: ModelShape, new: ModelShape) -> None:
        """See `WidthOperator.check`; layers may also shrink, the hidden size may not."""
        self.then.check(narrowed_shape(old, new), new)

    def widen(self, name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
        """See `WidthOperator.widen`."""
        middle = narrowed_shape(old, new)
        return self.then.widen(name, narrowed(name, tensor, old, middle), middle, new)


def narrowed(name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
    """A tensor, or its moment, with the channels that a narrower model keeps.

    Args:
        name: which tensor.
        tensor: it in the old model, unsplit.
        old: the model.
        new: `narrowed_shape` of it.

    Raises:
        ValueError: the tensor has not the shape that it has in `old`.
    """
    check_tensor(name, tensor, old)
    if name.layer is None or tensor_shape(name, old) == tensor_shape(name, new):
        return tensor
    before, after = old.layers[name.layer], new.layers[name.layer]
    for dimension, axis in enumerate(axes(name)):
        if axis is Axis.FFN:
            tensor = tensor.narrow(dimension, 0, after.ffn_hidden_size)
        elif axis is Axis.GROUP:
            tensor = tensor.narrow(dimension, 0, after.num_query_groups * after.kv_channels)
        elif axis is Axis.QUERY:
            tensor = tensor.index_select(
                dimension, _query_channels(before, after).to(tensor.device)
            )
    return tensor.contiguous()


def _query_channels(before: LayerShape, after: LayerShape) -> Tensor:
    """Old channels of the query heads that stay."""
    had = before.num_attention_heads // before.num_query_groups
    keeps = after.num_attention_heads // after.num_query_groups
    groups = torch.arange(after.num_query_groups)[:, None, None]
    heads = groups * had + torch.arange(keeps)[:, None]
    return (heads * before.kv_channels + torch.arange(before.kv_channels)).reshape(-1)
