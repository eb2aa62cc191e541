"""What growth in width makes of Adam's moments."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from megagrow.growth.between import narrowed_shape
from megagrow.growth.width.channels import copied, kept
from megagrow.growth.width.corners import Random, Zero
from megagrow.growth.width.double import Double, duplicated, moment_factors
from megagrow.growth.width.interface import WidthOperator
from megagrow.growth.width.narrowing import Narrowing, narrowed
from megagrow.growth.width.rms_preserving import RmsPreserving
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import TensorName

Moment = Literal["exp_avg", "exp_avg_sq"]
"""First and second moment, as torch names them."""


def widened_moment(
    operator: WidthOperator,
    moment: Moment,
    name: TensorName,
    tensor: Tensor,
    old: ModelShape,
    new: ModelShape,
    *,
    copies: bool,
) -> Tensor:
    """A moment of one tensor of the wider model.

    Args:
        operator: what made the weight.
        moment: which one.
        name: the weight.
        tensor: its moment in the old model, unsplit.
        old: the model.
        new: the wider model.
        copies: whether new channels that are copies take the moments of what they copy; else
            theirs are 0 (SPARKLING, MSG). Channels that are drawn or 0 have none to take. Of
            `double` neither half is the new one: both have the moments that their gradients would
            have made (Staged Training, arXiv 2203.06211), half and a quarter of the old ones.
    """
    if isinstance(operator, Narrowing):
        middle = narrowed_shape(old, new)
        tensor, old, operator = narrowed(name, tensor, old, middle), middle, operator.then
    if isinstance(operator, Double):
        first, second = moment_factors(name)
        return duplicated(name, tensor, old) * (first if moment == "exp_avg" else second)
    if copies and _copies(operator):
        return copied(name, tensor, old, new)
    return kept(name, tensor, old, new)


def _copies(operator: WidthOperator) -> bool:
    """Whether all that is new is a copy."""
    if isinstance(operator, RmsPreserving):
        return operator.fan_out == operator.fan_in == "copy"
    return not isinstance(operator, Zero | Random)
