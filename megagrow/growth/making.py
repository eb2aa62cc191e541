"""Growth that needs whole tensors, in jobs that processes can share: wider tensors, and LESA."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

from torch import Tensor

from megagrow.conversion.megatron_names import megatron_layout
from megagrow.growth.keys import at_layer, family, layer_of
from megagrow.growth.lesa.layers import KINDS, predicted_parts
from megagrow.growth.lesa.settings import LesaSettings
from megagrow.growth.moments import MomentPolicy
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.whole_tensors import WholeTensors
from megagrow.growth.width.moments import Moment
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName

Sizes = Mapping[str, tuple[int, ...]]
"""Sizes of whole tensors, by their keys in a checkpoint."""

Tensors = Mapping[str, Tensor]
"""Whole fp32 tensors, by their keys in a checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Making:
    """One job: some whole tensors of the old model into some of the new one."""

    needs: Sizes
    """The old tensors that it reads."""

    makes: Sizes
    """The new tensors that it makes."""

    weights: Callable[[Tensors], dict[str, Tensor]]
    """Makes weights, of the old ones' weights."""

    moments: Callable[[Moment, Tensors], dict[str, Tensor]] | None
    """Makes moments, of the old ones' moments; what it leaves out is zero. None: all are."""

    @property
    def elements(self) -> int:
        """How much it reads and makes."""
        return sum(prod(size) for sizes in (self.needs, self.makes) for size in sizes.values())


def makings(
    growth: GrowthPlan,
    whole: WholeTensors,
    policy: MomentPolicy,
    old: ModelShape,
    *,
    widens: bool,
    lesa: LesaSettings,
) -> list[Making]:
    """The jobs of a growth; none where every new tensor is a copy of an old one, or drawn.

    Args:
        growth: the plan.
        whole: what becomes of a tensor.
        policy: what happens to moments.
        old: the model before.
        widens: whether the model gets wider, and all tensors are made; else only those that are
            predicted.
        lesa: how these are.
    """
    jobs: dict[str, list[str]] = defaultdict(list)
    for key in whole.layout.by_key:
        predicted = layer_of(key) in growth.predicted
        if growth.predicted and _kinds(whole, key) and (widens or predicted):
            jobs[family(key)].append(key)
        elif widens:
            jobs[key].append(key)
    before = megatron_layout(old)
    maker = _Maker(growth, whole, policy, lesa)
    return [
        Making(
            needs={key: before.stored_shape(key) for key in maker.needs(keys)},
            makes={key: whole.layout.stored_shape(key) for key in keys},
            weights=partial(maker.weights, keys),
            moments=maker.moments_of(keys),
        )
        for keys in jobs.values()
    ]


class _Maker:
    def __init__(
        self, growth: GrowthPlan, whole: WholeTensors, policy: MomentPolicy, lesa: LesaSettings
    ) -> None:
        self._growth, self._whole, self._policy, self._lesa = growth, whole, policy, lesa

    def needs(self, keys: Sequence[str]) -> list[str]:
        """The old tensors that new ones are made of: for predicted ones, those of all layers."""
        if self._predicts(keys):
            layers = range(self._growth.old_layers)
            return [at_layer(keys[0], layer) for layer in layers]
        origin = self._whole.origin(keys[0])
        return [] if origin is None else [origin]

    def weights(self, keys: Sequence[str], given: Tensors) -> dict[str, Tensor]:
        """New weights."""
        predicted = self._predicted(keys[0], given) if self._predicts(keys) else {}
        made = {}
        for key in keys:
            origin = self._whole.origin(key)
            old = None if origin is None else given[origin]
            made[key] = self._whole.tensor(key, old, predicted)
        return made

    def moments_of(
        self, keys: Sequence[str]
    ) -> Callable[[Moment, Tensors], dict[str, Tensor]] | None:
        """What makes their moments; None: they are zero."""
        kept = {key: self._whole.origin(key) for key in keys if self._keeps_moments(layer_of(key))}
        origins = {key: origin for key, origin in kept.items() if origin is not None}
        if not origins:
            return None
        return lambda moment, given: {
            key: self._whole.moment(moment, key, given[origin], copies=self._policy.copied)
            for key, origin in origins.items()
        }

    def _keeps_moments(self, layer: int | None) -> bool:
        if layer in self._growth.predicted or not self._policy.kept:
            return False
        return self._policy.copied or layer not in self._growth.added

    def _predicts(self, keys: Sequence[str]) -> bool:
        return bool(self._growth.predicted) and bool(_kinds(self._whole, keys[0]))

    def _predicted(self, key: str, given: Tensors) -> dict[TensorName, Tensor]:
        """The predicted parts of all new layers' tensors of the kind of `key`."""
        olds = [given[name] for name in self.needs([key])]
        stored = self._whole.before.by_key[at_layer(key, 0)]
        split = [self._whole.before.split(stored, old) for old in olds]
        found: dict[TensorName, Tensor] = {}
        for name in stored.parts:
            matrices = [parts[name].contiguous() for parts in split]
            parts, _ = predicted_parts(name.role, matrices, self._growth.left_of, self._lesa)
            found |= parts
        return found


def _kinds(whole: WholeTensors, key: str) -> list[Role]:
    """What of a stored tensor LESA predicts."""
    return [
        name.role for name in whole.layout.by_key[key].parts if name.role in KINDS and not name.bias
    ]
