"""FLOPs of learning to grow. Pure Python."""

from __future__ import annotations

from megagrow.growth.ligo.kinds import kinds
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import tensor_shape

_PASSES = 4
"""The model is made twice in a step, once to be filled and once to be differentiated, and a
backward pass is two products for each one forward."""


def ligo_step_flops(old: ModelShape, new: ModelShape) -> int:
    """What LiGO's own products cost in a step, beside the training step of the grown model.

    `B_out W B_in^T` for each old tensor, and the sum over old layers for each new one; a product
    with an identity costs nothing.
    """
    total = 0
    for kind in kinds(old):
        narrow = tensor_shape(kind.names(old)[0], old)
        wide = tensor_shape(kind.names(new)[0], new)
        rows, columns = narrow[0], narrow[1] if len(narrow) > 1 else 1
        layers = old.num_layers if kind.layered else 1
        if wide[0] != rows:
            total += 2 * layers * wide[0] * rows * columns
        if len(wide) > 1 and wide[1] != columns:
            total += 2 * layers * wide[0] * columns * wide[1]
        if kind.layered:
            elements = wide[0] * (wide[1] if len(wide) > 1 else 1)
            total += 2 * old.num_layers * new.num_layers * elements
    return _PASSES * total
