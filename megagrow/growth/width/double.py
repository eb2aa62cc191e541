"""Staged Training: two models side by side, whose outputs are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from megagrow.growth.width.axes import Axis, axes
from megagrow.growth.width.channels import check_tensor
from megagrow.growth.width.checks import check_width
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName


@dataclass(frozen=True, kw_only=True, slots=True)
class Double:
    """Staged Training, width (arXiv 2203.06211; allenai/staged-training): W' = blockdiag(W, W).

    Hidden size, query heads, key/value groups and FFN all double; the head dimension stays. Biases,
    norms, embeddings and an untied output layer are duplicated, and gain and bias of the final norm
    are halved. The two halves of every activation are equal: root mean square, mean and variance
    over both are those of one, and each half of the heads reads its own half of the hidden
    channels, with its own keys and values. The output layer adds the halves, each of half the size:
    the function is kept, tied or not.
    """

    def check(self, old: ModelShape, new: ModelShape) -> None:
        """See `WidthOperator.check`."""
        check_width("double", old, new)

    def widen(self, name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
        """See `WidthOperator.widen`."""
        wide = duplicated(name, tensor, old)
        return wide / 2 if name.role is Role.FINAL_NORM else wide


def duplicated(name: TensorName, tensor: Tensor, shape: ModelShape) -> Tensor:
    """A tensor twice side by side: along the diagonal, along its hidden dimension, or end to end.

    Of Adam's moments too, which `moment_factors` then multiplies.

    Args:
        name: the tensor.
        tensor: it, or a moment of it.
        shape: the model it is of.

    Raises:
        ValueError: the tensor has not the shape that it has in `shape`.
    """
    check_tensor(name, tensor, shape)
    if axes(name) == (Axis.HEAD,):
        return tensor.clone()
    if tensor.dim() == 1:
        return tensor.repeat(2)
    if axes(name)[0] in (Axis.VOCABULARY, Axis.POSITION):
        return tensor.repeat(1, 2)
    columns = tensor.shape[1]
    return torch.cat([F.pad(tensor, (0, columns)), F.pad(tensor, (columns, 0))])


def moment_factors(name: TensorName) -> tuple[float, float]:
    """Factors of Adam's first and second moment, after `duplicated`.

    1/2 and 1/4, since each half makes half of the output. The final norm, halved itself, has the
    gradients that it had, and so have the gains of queries and keys, which both halves share.
    """
    kept = (Role.FINAL_NORM, Role.QUERY_NORM, Role.KEY_NORM)
    return (1.0, 1.0) if name.role in kept else (0.5, 0.25)
