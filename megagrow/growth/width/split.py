"""G_direct in width: channels are copied, and what reads them splits its weight unevenly."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from megagrow.errors import ConfigError
from megagrow.growth.width.axes import input_axis, is_rms_gain
from megagrow.growth.width.channels import Channels, channels, copied, scaled_inputs
from megagrow.growth.width.checks import check_width
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import TensorName


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """G_direct, width (arXiv 2405.15319, App. A): W' = L W R.

    Rows, biases and embedding columns are copied in turn (channel i from i mod d); the columns that
    read the copies of one channel share its weight in unequal parts that sum to 1, so that the
    copies learn apart. RMSNorm's gain becomes sqrt(d / D) [mu, mu copied], as the paper has it; the
    gain of a LayerNorm, which it does not treat, is copied.

    Any width may grow to any larger one, but the head dimension. The function is kept where the
    hidden size grows to a multiple (or not at all) and `scale_norms` is off or changes nothing:
    copied channels have the old root mean square, so the paper's factor shrinks what a norm returns
    by sqrt(d / D). Where it grows to no multiple, no gain keeps the function.

    Tied embeddings cannot be copied and split at once: the final norm's gain and bias then carry
    the shares. That is the same function.

    Raises:
        ConfigError: a share that is not between 0 and 1, or is one half.
    """

    alpha: float = 2 / 3
    """Share that the old channel keeps of two copies, its copy getting 1 - alpha; of more copies,
    each gets (1 - alpha) / alpha of what the one before it gets. The paper asks for unequal shares
    and gives no value; this one is ours."""

    scale_norms: bool = True
    """Whether gains of RMSNorm are multiplied by sqrt(d / D)."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or self.alpha == 0.5:
            raise ConfigError(
                f"split: alpha is {self.alpha}; choose one between 0 and 1 but not 0.5, with which "
                "copies would stay equal for ever"
            )

    def check(self, old: ModelShape, new: ModelShape) -> None:
        """See `WidthOperator.check`."""
        check_width("split", old, new)

    def widen(self, name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
        """See `WidthOperator.widen`."""
        wide = copied(name, tensor, old, new)
        axis = input_axis(name, old)
        if axis is not None:
            wide = scaled_inputs(wide, shares(channels(axis, name.layer, old, new), self.alpha))
        if self.scale_norms and is_rms_gain(name, old):
            wide = wide * math.sqrt(old.hidden_size / new.hidden_size)
        return wide


def shares(axis: Channels, alpha: float) -> Tensor:
    """The share of each new channel: over the copies of an old one they sum to 1.

    Args:
        axis: the channels.
        alpha: share of the old channel, of two copies.

    Returns:
        float64 [new channels].
    """
    ratio = (1 - alpha) / alpha
    copy, count = axis.copy.double(), axis.count.double()
    return ratio**copy * (1 - ratio) / (1 - ratio**count)
