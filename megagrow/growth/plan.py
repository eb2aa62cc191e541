"""Which new layer comes from which old ones, and when to grow. Pure Python, no tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from megagrow.errors import ConfigError
from megagrow.units import nearest_multiple

LayerSource = tuple[int, float]
"""An old layer (from 0) and the weight its tensors are taken with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthPlan:
    """A change of depth, as data."""

    operator: str
    """Name of the operator that made it."""

    old_layers: int
    """Layers of the model before."""

    sources: tuple[tuple[LayerSource, ...], ...]
    """For every new layer, from input to output, the old layers it is the weighted sum of."""

    @property
    def new_layers(self) -> int:
        """Layers of the model after."""
        return len(self.sources)

    @property
    def is_copy(self) -> bool:
        """Whether every new layer is one old layer, unchanged."""
        return all(len(pairs) == 1 and pairs[0][1] == 1.0 for pairs in self.sources)

    @property
    def layer_map(self) -> tuple[int, ...]:
        """The old layer of every new one.

        Raises:
            ValueError: the plan is more than a copy.
        """
        if not self.is_copy:
            raise ValueError(f"the plan of {self.operator} mixes layers; it has no layer map")
        return tuple(pairs[0][0] for pairs in self.sources)


def copy_plan(operator: str, old_layers: int, layer_map: Sequence[int]) -> GrowthPlan:
    """A plan in which new layer i is a copy of old layer `layer_map[i]`.

    Raises:
        ValueError: an old layer that does not exist.
    """
    missing = sorted(set(layer_map) - set(range(old_layers)))
    if missing:
        raise ValueError(f"{operator}: no old layers {missing} among {old_layers}")
    sources = tuple(((source, 1.0),) for source in layer_map)
    return GrowthPlan(operator=operator, old_layers=old_layers, sources=sources)


def stack(old_layers: int, new_layers: int) -> GrowthPlan:
    """G_stack: the whole model on top of itself, src(i) = i mod l (arXiv 2405.15319).

    Raises:
        ConfigError: the new depth is no multiple of the old one.
    """
    if old_layers < 1 or new_layers < old_layers or new_layers % old_layers:
        raise ConfigError(
            f"stack: {new_layers} layers are no multiple of {old_layers}; nearest: "
            f"{nearest_multiple(max(old_layers, 1), new_layers)}"
        )
    return copy_plan("stack", old_layers, [layer % old_layers for layer in range(new_layers)])


def identity(old_layers: int, new_layers: int) -> GrowthPlan:
    """No growth: every layer stays itself.

    Raises:
        ConfigError: the depths differ.
    """
    if old_layers < 1 or new_layers != old_layers:
        raise ConfigError(
            f"{old_layers} -> {new_layers} layers need a growth operator such as stack"
        )
    return copy_plan("none", old_layers, range(new_layers))


OPERATORS: Mapping[str, Callable[[int, int], GrowthPlan]] = MappingProxyType(
    {"none": identity, "stack": stack}
)
"""Growth operators by the name they have in a configuration."""


def plan_growth(operator: str, old_layers: int, new_layers: int) -> GrowthPlan:
    """The plan of a named operator.

    Raises:
        ConfigError: no such operator, or depths it cannot join.
    """
    if operator not in OPERATORS:
        raise ConfigError(f"no growth operator {operator!r}; one of: {', '.join(OPERATORS)}")
    return OPERATORS[operator](old_layers, new_layers)


TIMING_PARAMETERS = (3e8, 3.2e9)
"""Non-embedding parameters of the targets the timing formula was fitted to (410M, 1.1B, 3B)."""

TIMING_FLOPS = (0.8e20, 1.2e21)
"""Compute budgets the timing formula was fitted to."""

TIMING_SHARE = 0.15
"""Largest share of the budget recommended before growth. Ours: the paper's own runs took 1.3% to
10%, and inside the range of the fit the formula stays below this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthTiming:
    """How long to train the base model before it grows."""

    tokens: float
    """Value of the published formula."""

    recommended: float
    """That value, at most `TIMING_SHARE` of the target's tokens."""

    warnings: tuple[str, ...]
    """Why the formula should not be trusted here; empty inside the range it was fitted to."""


def timing(target_parameters: float, target_tokens: float) -> GrowthTiming:
    """The growth-timing guideline of G_stack (arXiv 2405.15319).

    log10(d) = 0.88 log10(N) + 163.27 / log10(C) - 5.74 with C = 6 N D. It reproduces the published
    rows (8B at 15T tokens: 6.58B; 13B at 2T: 15.84B), but d falls as C rises, so at small budgets
    it asks for more tokens than there are.

    Args:
        target_parameters: N, non-embedding parameters of the grown model.
        target_tokens: D, tokens the grown model is to be worth.

    Raises:
        ValueError: N or D is not above 0, or their compute is below the 10 FLOPs the formula needs.
    """
    compute = 6.0 * target_parameters * target_tokens
    if target_parameters <= 0 or target_tokens <= 0 or compute <= 10:
        raise ValueError("the timing formula needs parameters and tokens above 0")
    exponent = 0.88 * math.log10(target_parameters) + 163.27 / math.log10(compute) - 5.74
    tokens = 10.0 ** min(exponent, 300.0)
    ceiling = TIMING_SHARE * target_tokens
    warnings = []
    for what, value, (low, high) in (
        ("non-embedding parameters", target_parameters, TIMING_PARAMETERS),
        ("FLOPs", compute, TIMING_FLOPS),
    ):
        if not low <= value <= high:
            warnings.append(f"{value:.2g} {what}, fitted to {low:.2g} to {high:.2g}")
    if tokens > ceiling:
        share = tokens / target_tokens
        much = "more than the whole budget" if share > 1 else f"{share:.0%} of the budget"
        warnings.append(f"it gives {tokens:.3g} tokens, {much}: clamped to {TIMING_SHARE:.0%}")
    return GrowthTiming(tokens=tokens, recommended=min(tokens, ceiling), warnings=tuple(warnings))
