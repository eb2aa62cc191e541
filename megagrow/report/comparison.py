"""Comparing runs with a baseline: which run is it, on which loss, and what came out, in words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from megagrow.errors import ConfigError
from megagrow.report.curves import Speedup, evaluation_curve, speedup, training_curve
from megagrow.report.records import RunMetrics
from megagrow.units import format_flops


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A run against the baseline on one kind of loss."""

    run: str
    """Name of the run."""

    baseline: str
    """Name of the baseline."""

    measure: str
    """`evaluation loss` or `training loss`."""

    result: Speedup
    """Speedup at equal loss."""

    caution: str | None
    """What to keep in mind about it, in words."""

    def statement(self) -> str:
        """The outcome in one sentence."""
        result = self.result
        if result.at_final is None or result.grown_final_flops is None:
            text = f"No speedup on {self.measure}: {result.reason}."
            if result.equal_compute is not None:
                even = result.equal_compute
                text += (
                    f" At equal compute ({format_flops(even.flops)}) {self.run} has "
                    f"{even.grown:.4f} and {self.baseline} {even.scratch:.4f}."
                )
            return text
        verb = "speedup" if result.at_final >= 0 else "slowdown: speedup"
        return (
            f"On {self.measure}, {self.run} reaches {self.baseline}'s final "
            f"{result.final_loss:.4f} with {format_flops(result.grown_final_flops)} instead of "
            f"{format_flops(result.scratch_final_flops)}: {verb} {percent(result.at_final)}."
        )


def percent(share: float) -> str:
    """A share as a signed percentage, with a true minus sign."""
    return f"{share:+.1%}".replace("-", "\N{MINUS SIGN}")


def unique_names(runs: Sequence[RunMetrics]) -> list[RunMetrics]:
    """The runs, those with the same folder name told apart by their parent folders."""
    names = [run.name for run in runs]
    renamed: list[RunMetrics] = []
    for run in runs:
        name = run.name
        if names.count(name) > 1:
            name = f"{run.folder.resolve().parent.name}/{name}"
        taken = [other.name for other in renamed]
        if name in taken:
            name = f"{name} ({taken.count(name) + 1})"
        renamed.append(replace(run, name=name))
    return renamed


def find_baseline(runs: Sequence[RunMetrics], name: str | None) -> RunMetrics | None:
    """The run to compare with: the one of that name, else the only one that never grew.

    Raises:
        ConfigError: none of the runs has that name.
    """
    if name is not None:
        for run in runs:
            if name in (run.name, str(run.folder), run.folder.name):
                return run
        names = [run.name for run in runs]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the runs given are {', '.join(names)}"
        raise ConfigError(f"no run named {name!r} to be the baseline; {hint}")
    never_grown = [run for run in runs if not run.growths]
    return never_grown[0] if len(runs) > 1 and len(never_grown) == 1 else None


def smoothing_scale(runs: Sequence[RunMetrics], share: float) -> float:
    """Tokens to smooth training losses over: that share of the shortest run, the same for all."""
    return share * min(float(run.steps.tokens[-1]) for run in runs)


def compare(
    runs: Sequence[RunMetrics], baseline: RunMetrics | None, *, scale: float
) -> list[Comparison]:
    """Every run but the baseline against it, on evaluation loss where both have it, and training.

    Args:
        runs: the runs, the baseline among them.
        baseline: the run to compare with; without one there is nothing to compare.
        scale: tokens to smooth training losses over.
    """
    if baseline is None:
        return []
    found = []
    for run in runs:
        if run is baseline:
            continue
        shared = _shared_buckets(run, baseline)
        if shared is not None:
            found.append(
                Comparison(
                    run=run.name,
                    baseline=baseline.name,
                    measure="evaluation loss",
                    result=speedup(
                        evaluation_curve(run.evals, shared),
                        evaluation_curve(baseline.evals, shared),
                    ),
                    caution=None,
                )
            )
        found.append(
            Comparison(
                run=run.name,
                baseline=baseline.name,
                measure="training loss",
                result=speedup(
                    training_curve(run.steps, scale=scale),
                    training_curve(baseline.steps, scale=scale),
                ),
                caution=_mixture_caution(run, baseline),
            )
        )
    return found


def _shared_buckets(run: RunMetrics, baseline: RunMetrics) -> tuple[str, ...] | None:
    """Buckets both evaluate on, `()` where neither names any, None where they cannot compare."""
    if len(run.evals) < 2 or len(baseline.evals) < 2:
        return None
    ours = {name for record in run.evals for name in record.losses}
    theirs = {name for record in baseline.evals for name in record.losses}
    shared = tuple(name for name in run.buckets if name in ours & theirs)
    return shared if shared or not (ours or theirs) else None


def _mixture_caution(run: RunMetrics, baseline: RunMetrics) -> str | None:
    def spans(one: RunMetrics) -> dict[str, tuple[float, float]]:
        return {
            name: (round(float(np.nanmin(w)), 3), round(float(np.nanmax(w)), 3))
            for name, w in one.steps.mixture.items()
            if np.isfinite(w).any() and np.nanmax(w) > 0
        }

    ours, theirs = spans(run), spans(baseline)
    changes = any(low != high for low, high in [*ours.values(), *theirs.values()])
    if ours == theirs and not changes:
        return None
    return (
        "the data mixtures differ along the way, so these training losses are partly of different "
        "text; rely on the evaluation loss"
    )
