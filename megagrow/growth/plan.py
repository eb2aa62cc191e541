"""A change of depth, as data: which new layer comes from which old ones. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LayerSource = tuple[int, float]
"""An old layer (from 0) and the weight its tensors are taken with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthPlan:
    """A change of depth, as data.

    An old layer lives on in the first new layer that comes from it; all other new layers are *new*.
    """

    operator: str
    """Name of the operator that made it."""

    old_layers: int
    """Layers of the model before."""

    sources: tuple[tuple[LayerSource, ...], ...]
    """For every new layer, from input to output, the old layers it is the weighted sum of; none if
    it is drawn like the layers of a new model."""

    zeroed: frozenset[int] = frozenset()
    """New layers whose attention and MLP output projections are zero: they change nothing yet."""

    masked: frozenset[int] = frozenset()
    """New layers whose residual branches are multiplied by a mask that rises from 0 to 1."""

    predicted: frozenset[int] = frozenset()
    """New layers whose matrices LESA predicts from the old layers below and above; the rest of them
    is what `sources` says."""

    norms_of: int | None = None
    """The old layer that predicted layers take their norms from; unset: what `sources` says."""

    noise: float = 0.0
    """Share a of noise mixed into every matrix: (1 - a) W + a e."""

    @property
    def new_layers(self) -> int:
        """Layers of the model after."""
        return len(self.sources)

    @property
    def is_copy(self) -> bool:
        """Whether every new layer is drawn, or one old layer, unchanged but for noise and zeros."""
        return all(not pairs or (len(pairs) == 1 and pairs[0][1] == 1) for pairs in self.sources)

    @property
    def layer_map(self) -> tuple[int | None, ...]:
        """The old layer of every new one; None: drawn.

        Raises:
            ValueError: the plan mixes layers.
        """
        if not self.is_copy:
            raise ValueError(f"the plan of {self.operator} mixes layers; it has no layer map")
        return tuple(pairs[0][0] if pairs else None for pairs in self.sources)

    @property
    def drawn(self) -> frozenset[int]:
        """New layers that come from no old one."""
        return frozenset(layer for layer, pairs in enumerate(self.sources) if not pairs)

    @property
    def added(self) -> frozenset[int]:
        """New layers that no old layer lives on in: drawn, mixed, and copies but the first.

        None where every layer is learned from all old ones: then none is older than another.
        """
        if self.operator == "learned":
            return frozenset()
        seen: set[int] = set()
        added = set()
        for layer, pairs in enumerate(self.sources):
            if len(pairs) == 1 and pairs[0][0] not in seen:
                seen.add(pairs[0][0])
            else:
                added.add(layer)
        return frozenset(added)

    @property
    def left_of(self) -> dict[int, int]:
        """For every predicted layer the old one below it; the one above is the next old one."""
        layer_map = self.layer_map
        left = {layer: layer_map[layer] for layer in sorted(self.predicted)}
        return {layer: old for layer, old in left.items() if old is not None}

    @property
    def connection_rate(self) -> float:
        """Rc: links between neighbours that were neighbours before, over all links (1 if none).

        arXiv 2405.15319, appendix on interpolation and partial stacking.
        """
        names = [pairs[0][0] if len(pairs) == 1 else None for pairs in self.sources]
        links = list(pairwise(names))
        kept = sum(low is not None and high == low + 1 for low, high in links)
        return kept / len(links) if links else 1.0


def copy_plan(operator: str, old_layers: int, layer_map: Sequence[int | None]) -> GrowthPlan:
    """A plan in which new layer i is a copy of old layer `layer_map[i]`, or drawn where it is None.

    Raises:
        ValueError: an old layer that does not exist.
    """
    missing = sorted({layer for layer in layer_map if layer is not None} - set(range(old_layers)))
    if missing:
        raise ValueError(f"{operator}: no old layers {missing} among {old_layers}")
    sources = tuple(() if layer is None else ((layer, 1.0),) for layer in layer_map)
    return GrowthPlan(operator=operator, old_layers=old_layers, sources=sources)
