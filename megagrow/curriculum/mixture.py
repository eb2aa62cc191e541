"""How much of each bucket a stage draws, as a function of how far the stage is.

Weights move linearly from ``mixture`` to ``mixture_end``, so the samples a bucket is due after
``t`` of a stage's ``n`` samples have a closed form, ``w0 t + (w1 - w0) t^2 / (2 n)``. Everything
here and in the sampler uses it, not a running sum: nothing drifts, however long the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megagrow.config.schema import StageConfig
from megagrow.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Ramp:
    """One bucket's share over a stage."""

    start: float
    """Share at the start of the stage, of a whole of 1."""

    end: float
    """Share at its end."""

    samples: int
    """Samples of the whole stage."""

    def due(self, position: float) -> float:
        """Samples this bucket should have given after ``position`` samples of the stage."""
        slope = (self.end - self.start) / (2.0 * self.samples)
        return (self.start + slope * position) * position


def weights_at(stage: StageConfig, progress: float) -> dict[str, float]:
    """The share of each bucket, summing to 1, at ``progress`` (0 to 1) through the stage.

    Buckets that the stage never draws from have no entry.

    Raises:
        ValueError: ``progress`` outside 0 to 1.
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress must lie between 0 and 1, not {progress}")
    return {
        name: ramp.start + (ramp.end - ramp.start) * progress
        for name, ramp in ramps(stage, 1).items()
    }


def ramps(stage: StageConfig, samples: int) -> dict[str, Ramp]:
    """The ramp of every bucket that a stage of ``samples`` samples draws from, sorted by name.

    Sorted, so that the order never depends on how a mapping was written or stored.

    Raises:
        ValueError: a negative weight, weights that are all zero, or no samples.
    """
    if samples < 1:
        raise ValueError(f"stage {stage.name!r} must have at least one sample, not {samples}")
    first = _shares(stage.mixture, stage.name)
    last = first if stage.mixture_end is None else _shares(stage.mixture_end, stage.name)
    found = {}
    for name in sorted(first.keys() | last.keys()):
        start, end = first.get(name, 0.0), last.get(name, 0.0)
        if start > 0.0 or end > 0.0:
            found[name] = Ramp(start=start, end=end, samples=samples)
    return found


def expected_samples(plan: Sequence[tuple[StageConfig, int]]) -> dict[str, float]:
    """Samples that each bucket gives over a run of ``(stage, samples of the stage)``.

    The sampler's counts differ by less than one sample per bucket and stage.
    """
    total: dict[str, float] = {}
    for stage, samples in plan:
        for name, ramp in ramps(stage, samples).items():
            total[name] = total.get(name, 0.0) + ramp.due(samples)
    return dict(sorted(total.items()))


def epochs(plan: Sequence[tuple[StageConfig, int]], lengths: Mapping[str, int]) -> dict[str, float]:
    """How often a run goes through each bucket: 0.4 is less than half, 2.0 is all of it twice.

    Args:
        plan: Every stage with its number of samples.
        lengths: Samples per epoch of every bucket (``len`` of its dataset).

    Raises:
        DataError: a stage draws from a bucket that has no samples, or that is not there.
    """
    for stage, samples in plan:
        for name in ramps(stage, samples):
            if lengths.get(name, 0) < 1:
                what = "is empty" if name in lengths else "does not exist"
                raise DataError(
                    f"stage {stage.name!r} draws from bucket {name!r}, which {what}: add data to "
                    "the bucket, or give it weight 0 in the stage's mixture and mixture_end"
                )
    return {name: samples / lengths[name] for name, samples in expected_samples(plan).items()}


def _shares(mixture: Mapping[str, float], stage: str) -> dict[str, float]:
    total = sum(mixture.values())
    if total <= 0.0 or any(weight < 0.0 for weight in mixture.values()):
        raise ValueError(f"the weights of stage {stage!r} must be 0 or more, not all 0: {mixture}")
    return {name: weight / total for name, weight in mixture.items()}
