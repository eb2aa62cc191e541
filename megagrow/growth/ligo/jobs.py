"""LiGO as jobs that processes share: all layers' tensors of a kind of stored tensor make a job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from torch import Tensor

from megagrow.conversion.layout import Layout
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.growth.keys import family
from megagrow.growth.ligo.operator import Ligo
from megagrow.growth.making import Making, Tensors
from megagrow.model.tensors import TensorName


def ligo_jobs(ligo: Ligo) -> list[Making]:
    """The jobs that make a model grown by `ligo`, as it is when they run.

    Under gradients their `weights` can be differentiated by its parameters. Moments are zero.
    """
    before, after = megatron_layout(ligo.old), megatron_layout(ligo.new)
    needs, makes = _families(before), _families(after)
    return [
        Making(
            needs={key: before.stored_shape(key) for key in needs[family]},
            makes={key: after.stored_shape(key) for key in keys},
            weights=_Family(ligo, before, needs[family], after, keys),
            moments=None,
        )
        for family, keys in makes.items()
    ]


def _families(layout: Layout) -> Mapping[str, list[str]]:
    """Keys that differ by nothing but the layer, from the first layer to the last."""
    found: dict[str, list[str]] = defaultdict(list)
    for key in layout.by_key:
        found[family(key)].append(key)
    return found


class _Family:
    def __init__(
        self, ligo: Ligo, before: Layout, needs: Sequence[str], after: Layout, makes: Sequence[str]
    ) -> None:
        self._ligo, self._before, self._after = ligo, before, after
        self._needs, self._makes = needs, makes

    def __call__(self, given: Tensors) -> dict[str, Tensor]:
        old: dict[TensorName, Tensor] = {}
        for key in self._needs:
            old |= self._before.split(self._before.by_key[key], given[key])
        new: dict[TensorName, Tensor] = {}
        for sample in self._before.by_key[self._needs[0]].parts:
            kind = (sample.role, sample.bias)
            tensors = [old[name] for name in old if (name.role, name.bias) == kind]
            grown = self._ligo.grow(*kind, tensors)
            new |= {
                TensorName(role=sample.role, layer=layer, bias=sample.bias): tensor
                for layer, tensor in zip(
                    (None,) if sample.layer is None else range(len(grown)), grown, strict=True
                )
            }
        return {
            key: self._after.join(stored, [new[name] for name in stored.parts])
            for key in self._makes
            for stored in (self._after.by_key[key],)
        }
