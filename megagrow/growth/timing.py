"""When and how much to grow: the published guideline and experiments. Pure Python."""

from __future__ import annotations

import math
from dataclasses import dataclass

GROWTH_FACTOR = 4
"""g that the G_stack paper recommends; 2 to 4 were best. Its formula for g is not used: its authors
call the fit mediocre, and it asks for 24 at 8B parameters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """A run of the G_stack paper."""

    parameters: float
    """Of the target, without embeddings, as its name says."""

    tokens: float
    """Trained on after the growth."""

    base_tokens: float
    """Trained on before it."""

    factor: int
    """Layers after over layers before."""

    speedup: float
    """FLOPs from scratch over FLOPs grown, less 1, at equal loss."""


EXPERIMENTS = (
    Experiment(parameters=410e6, tokens=700e9, base_tokens=10e9, factor=4, speedup=0.310),
    Experiment(parameters=1.1e9, tokens=97.5e9, base_tokens=10e9, factor=4, speedup=0.491),
    Experiment(parameters=3e9, tokens=240e9, base_tokens=10e9, factor=4, speedup=0.545),
    Experiment(parameters=7e9, tokens=300e9, base_tokens=10e9, factor=4, speedup=0.546),
)
"""arXiv 2405.15319, its scaling results."""


def nearest_experiment(target_parameters: float, target_tokens: float) -> Experiment:
    """The experiment nearest to a target, parameters and tokens by their logarithms."""

    def distance(each: Experiment) -> float:
        return math.hypot(
            math.log(each.parameters / target_parameters), math.log(each.tokens / target_tokens)
        )

    return min(EXPERIMENTS, key=distance)


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

    nearest: Experiment
    """The paper's experiment that is nearest to the target."""


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
    return GrowthTiming(
        tokens=tokens,
        recommended=min(tokens, ceiling),
        warnings=tuple(warnings),
        nearest=nearest_experiment(target_parameters, target_tokens),
    )
