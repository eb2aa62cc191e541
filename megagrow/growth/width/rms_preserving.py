"""SPARKLING's copies: activations keep their root mean square."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from megagrow.errors import ConfigError
from megagrow.growth.width.axes import EMBEDDINGS, axes, input_axis
from megagrow.growth.width.channels import Channels, channels, copied, scaled_inputs
from megagrow.growth.width.checks import check_width
from megagrow.growth.width.draws import Draws
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import NORMS, Role, TensorName

Fill = Literal["copy", "random", "zero"]
"""How new channels begin: copies, N(0, s^2) with s^2 the mean square of the old weight, or 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RmsPreserving:
    """SPARKLING's width growth (arXiv 2602.02472, section 3.2), all but its optimizer and LR.

    New rows of a weight (its new outputs; of an embedding the new columns) and new columns (its new
    inputs) are filled as asked, copies in turn (channel i from i mod d). All columns are multiplied
    by one factor, which keeps the expected root mean square of the output where d inputs became D:

    - inputs and columns both copied: sqrt(d / (3 D - 2 d)) up to D = 2 d, d / D beyond;
    - otherwise sqrt(d / D); a side that is 0 counts as random.

    Rows, biases and norms get no factor; new biases are copies, or 0 where rows are not copied, and
    new gains are copies. Tied embeddings serve both sides: the factor of the output layer goes to
    the final norm's gain and bias (the authors multiply the output layer's result by it).

    The function is not kept, but for copies at a multiple of every old width. Any width may grow to
    any larger one, but the head dimension.

    Raises:
        ConfigError: both sides 0, where no gradient reaches what is new.
    """

    fan_out: Fill = "copy"
    """New outputs."""

    fan_in: Fill = "copy"
    """New inputs."""

    draws: Draws = field(default_factory=Draws)
    """Where random values come from."""

    def __post_init__(self) -> None:
        if self.fan_out == self.fan_in == "zero":
            raise ConfigError(
                "rms_preserving: fan_out and fan_in cannot both be zero, for then new channels get "
                "no gradient; set either to copy or random"
            )

    def check(self, old: ModelShape, new: ModelShape) -> None:
        """See `WidthOperator.check`."""
        check_width("rms_preserving", old, new)

    def widen(self, name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
        """See `WidthOperator.widen`."""
        wide = self._filled(name, tensor, old, new)
        axis = input_axis(name, old)
        if axis is None:
            return wide
        found = channels(axis, name.layer, old, new)
        fan_in = self.fan_out if name.role is Role.FINAL_NORM else self.fan_in
        factor = fan_in_factor(
            int(found.source.max()) + 1, len(found.source), self.fan_out == fan_in == "copy"
        )
        return wide if factor == 1 else scaled_inputs(wide, torch.tensor(factor))

    def _filled(self, name: TensorName, tensor: Tensor, old: ModelShape, new: ModelShape) -> Tensor:
        wide = copied(name, tensor, old, new)
        if name.role in NORMS or {self.fan_out, self.fan_in} == {"copy"}:
            return wide
        found = [channels(axis, name.layer, old, new) for axis in axes(name)]
        if name.bias:
            return _fill(wide, 0, found[0], "copy" if self.fan_out == "copy" else "zero", wide)
        std = tensor.float().square().mean().sqrt().item()
        drawn = self.draws.normal(name, tuple(wide.shape), std, wide.device).to(wide.dtype)
        rows, columns = found
        if name.role in EMBEDDINGS:
            return _fill(wide, 1, columns, self.fan_out, drawn)
        # A row that is drawn and whose inputs are copied repeats what it drew for the old inputs.
        repeated = drawn
        if self.fan_in == "copy":
            home = columns.copy.eq(0).nonzero().squeeze(1)
            place = home[columns.source[home].argsort()][columns.source]
            repeated = drawn.index_select(1, place.to(drawn.device))
        wide = _fill(wide, 0, rows, self.fan_out, repeated)
        return _fill(wide, 1, columns, self.fan_in, drawn)


def fan_in_factor(old: int, new: int, both_copied: bool) -> float:
    """The factor on a weight whose `old` inputs became `new` (SPARKLING, equations 14 and 17).

    Args:
        old: inputs before.
        new: inputs after, at least as many.
        both_copied: whether new inputs and new columns are both copies.
    """
    if not both_copied:
        return math.sqrt(old / new)
    return math.sqrt(old / (3 * new - 2 * old)) if new <= 2 * old else old / new


def _fill(wide: Tensor, dimension: int, found: Channels, fill: Fill, drawn: Tensor) -> Tensor:
    """`wide` with the new channels of a dimension taken from `drawn`, or 0, or as they are."""
    if fill == "copy":
        return wide
    added = found.copy.nonzero().squeeze(1).to(wide.device)
    if fill == "zero":
        return wide.index_fill(dimension, added, 0.0)
    return wide.index_copy(dimension, added, drawn.index_select(dimension, added))
