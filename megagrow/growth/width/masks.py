"""The masks of G_random in width, as data. Pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from megagrow.growth.width.axes import EMBEDDINGS, Axis, axes
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import TensorName, tensor_shape

MASK_TURNS: Mapping[Axis, int] = MappingProxyType(
    {Axis.FFN: 0, Axis.HIDDEN: 1, Axis.QUERY: 2, Axis.GROUP: 2}
)
"""One axis after the other: FFN, then hidden, then queries, keys and values (tongxuluo/prts)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask:
    """What is masked of the output of an embedding, a linear layer or a norm."""

    axis: Axis
    """The axis of the output."""

    old: int
    """The first `old` channels are multiplied by 1."""

    new: int
    """The channels from `old` to `new` are multiplied by `mask_value`."""


def mask_of(name: TensorName, old: ModelShape, new: ModelShape) -> Mask | None:
    """The mask on the output of a weight's module, bias included; None: there is none.

    None for a bias, whose output is its weight's, and for outputs that do not grow, such as logits.
    """
    if name.bias:
        return None
    dimension = -1 if name.role in EMBEDDINGS else 0
    axis = axes(name)[dimension]
    before, after = (tensor_shape(name, shape)[dimension] for shape in (old, new))
    return None if before == after else Mask(axis=axis, old=before, new=after)


def mask_value(step: int, steps: int, turn: int = 0) -> float:
    """Value of a mask: 0 until its turn, 1 after it, linear in between.

    Args:
        step: steps since growth, from 0.
        steps: steps in which one axis goes from 0 to 1; 5000 in the authors' code.
        turn: turns that come before: `MASK_TURNS[axis]`, or 0 to let all rise together.

    Raises:
        ValueError: no steps.
    """
    if steps < 1:
        raise ValueError(f"a mask needs at least one step to rise, not {steps}")
    return min(max(step / steps - turn, 0.0), 1.0)
