"""What each part of a model costs on its pipeline chunk: what the balancer makes equal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import frexp, ldexp

from megagrow.errors import LayoutError
from megagrow.model.flops import (
    layer_flops_per_token,
    output_flops_per_token,
    recomputed_flops_per_token,
)
from megagrow.model.shape import ModelShape

EXACT_BITS = 50
MOST_EXACT = 2**EXACT_BITS
"""Total cost up to which whole numbers are used as they are: sums stay exact in 64 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCosts:
    """Costs in any one unit, none negative."""

    layers: tuple[float, ...]
    """Of every layer, from input to output."""

    first: float = 0
    """Of what the first chunk holds besides its layers: the embedding."""

    last: float = 0
    """Of what the last chunk holds besides its layers: final norm, output layer and loss."""

    device: str | None = None
    """What they were measured on; unset: they are counted."""

    def __post_init__(self) -> None:
        """Raises LayoutError for a negative cost."""
        if min(self.first, self.last, *self.layers) < 0:
            raise LayoutError("a layer's cost must not be negative")

    @property
    def total(self) -> float:
        """Of the whole model."""
        return sum(self.layers) + self.first + self.last

    def loads(self, counts: Sequence[int]) -> list[float]:
        """The cost of each chunk, given the number of layers on each."""
        ends = list(accumulate(counts))
        spans = zip(ends, counts, strict=True)
        loads = [sum(self.layers[end - count : end]) for end, count in spans]
        loads[0] += self.first
        loads[-1] += self.last
        return loads

    def imbalance(self, counts: Sequence[int]) -> float:
        """Largest chunk cost over the mean: 1.0 is perfect, 1.25 leaves a fifth idle."""
        loads, total = self.loads(counts), self.total
        return max(loads) * len(loads) / total if total else 1.0

    def partly_trained(
        self, trained: Collection[int], *, embedding: bool, output: bool
    ) -> LayerCosts:
        """What it costs to train only a part of the model, in a third of the unit.

        Of the three parts of a training step, forward and the gradients by input and by weight, a
        frozen layer leaves out the last, and below all that is trained the last two. That is true
        of matrices; attention's own products, which have no weights, count as if they had.

        Args:
            trained: layers that are trained.
            embedding: whether the embedding is.
            output: whether the output layer is.
        """
        lowest = 0 if embedding else min(trained, default=len(self.layers))
        return LayerCosts(
            layers=tuple(
                cost * (3 if layer in trained else 2 if layer > lowest or embedding else 1)
                for layer, cost in enumerate(self.layers)
            ),
            first=self.first * (3 if embedding else 1),
            last=self.last * (3 if output else 2),
            device=self.device,
        )

    def whole(self) -> LayerCosts:
        """The same costs as whole numbers whose sums are exact.

        Whole numbers stay as they are up to a total of `MOST_EXACT`. Others are scaled by a power
        of two to about that total, and rounded: wrong by less than 1e-12 of the total in all.
        """
        values = (*self.layers, self.first, self.last)
        total = self.total
        shift = 0
        if total > MOST_EXACT or any(value != int(value) for value in values):
            shift = EXACT_BITS - frexp(total)[1]
        return LayerCosts(
            layers=tuple(_shifted(value, shift) for value in self.layers),
            first=_shifted(self.first, shift),
            last=_shifted(self.last, shift),
        )


def _shifted(value: float, shift: int) -> int:
    return round(ldexp(value, shift)) if shift else int(value)


def flops_costs(shape: ModelShape, recompute: str = "none") -> LayerCosts:
    """Training FLOPs per token, with those of activation recomputation.

    The embedding is a look-up and costs none.
    """
    return LayerCosts(
        layers=tuple(
            layer_flops_per_token(layer, shape).total
            + recomputed_flops_per_token(layer, shape, recompute)
            for layer in shape.layers
        ),
        last=output_flops_per_token(shape).total,
    )


def even_costs(layers: int) -> LayerCosts:
    """One for each layer and none for the ends: a chunk's cost is its number of layers."""
    return LayerCosts(layers=(1,) * layers)
