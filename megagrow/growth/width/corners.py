"""The old tensor in the first corner of a larger one: G_zero and G_random in width."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from megagrow.growth.width.axes import EMBEDDINGS, is_rms_gain
from megagrow.growth.width.channels import check_tensor
from megagrow.growth.width.checks import check_width
from megagrow.growth.width.draws import Draws
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName

_DRAWN_ALONE = frozenset({Role.GATE, Role.QUERY})
"""Whose new rows G_zero draws where the hidden size stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Zero:
    """G_zero, width (arXiv 2405.15319, App. A): W' = [[W, A], [0, C]], E' = [E, 0].

    A and C are random. The zero block has the new rows and the old columns: what is new sees
    nothing of what is old. The new columns of the embedding are 0, so at first the new hidden
    channels hold 0 in every layer; queries, keys, values and MLP channels that are new read only
    those, and are 0; what A and C multiply is therefore 0. So the function is kept, and needs both
    zeros: in the embeddings, and in the new rows of every linear layer. Gradients reach the zero
    block through A, and training leaves the point at once.

    The gain of RMSNorm becomes [sqrt(d / D) mu, 1]: D channels with d that are not 0 have sqrt(d /
    D) of the root mean square. Epsilon is added before the root, so it weighs D / d times as much:
    the function moves by about epsilon (D / d - 1) / (2 mean square), relatively. The paper calls
    the gain's new part random; as in a new model it is 1, a new bias 0.

    Where the hidden size stays, there is no A to reach some zeros through: where gate and up of a
    new MLP channel are both 0, so are their gradients, for ever, and likewise query and key of a
    new head. There the new rows of gate and query are random, and the function is kept all the
    same, since up and values are 0.

    Refused: a larger hidden size with LayerNorm, which subtracts the mean over all channels, so
    that new ones would not stay 0; more query heads to a key/value group, since a new head would
    average the old values of its group; and another head dimension.
    """

    draws: Draws = field(default_factory=Draws)
    """Where A and C come from."""

    def check(self, old: ModelShape, new: ModelShape) -> None:
        """See `WidthOperator.check`."""
        check_width("zero", old, new)

    def widen(self, name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
        """See `WidthOperator.widen`."""
        wide = _in_corner(name, tensor, old, new, self.draws)
        if tensor.dim() < 2:
            return wide
        rows, columns = tensor.shape
        if name.role in EMBEDDINGS:
            wide[:, columns:] = 0
        elif name.role not in _DRAWN_ALONE or old.hidden_size != new.hidden_size:
            wide[rows:, :columns] = 0
        return wide


@dataclass(frozen=True, kw_only=True, slots=True)
class Random:
    """G_random, width (arXiv 2405.15319, App. A; MSG): W' = [[W, A], [B, C]], E' = [E, random].

    All new blocks are drawn as in a new model: gains 1, biases 0. The outputs that are new are
    multiplied by a mask that rises from 0 to 1 (`masks`, `model.mask.ChannelMask`). While it is 0
    the model computes the old function:

    - RMSNorm's gain is [sqrt(d / D) mu, 1], which is right for a plain RMSNorm over all D channels.
      (The authors' code leaves the gain and takes the root mean square over the unmasked share.)
    - LayerNorm's gain and bias are [mu, 1] and [b, 0]: it must take mean and variance over the
      channels weighted by the mask, and be masked too (MSG).

    Refused: more query heads to a key/value group, since a masked query averages the old values of
    its group; and another head dimension.
    """

    draws: Draws = field(default_factory=Draws)
    """Where A, B and C come from."""

    def check(self, old: ModelShape, new: ModelShape) -> None:
        """See `WidthOperator.check`."""
        check_width("random", old, new)

    def widen(self, name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
        """See `WidthOperator.widen`."""
        return _in_corner(name, tensor, old, new, self.draws)


def _in_corner(
    name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape, draws: Draws
) -> Tensor:
    # With as many query heads to a group as before, the old channels of every axis are its first.
    check_tensor(name, tensor, old)
    wide = draws.fresh(name, new, like=tensor)
    corner = wide[tuple(slice(size) for size in tensor.shape)]
    corner.copy_(tensor)
    if is_rms_gain(name, old):
        corner.mul_(math.sqrt(old.hidden_size / new.hidden_size))
    return wide
