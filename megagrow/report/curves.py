"""Loss curves and what they say about compute: smoothing, interpolation, speedup at equal loss.

Speedup is that of the G_stack paper (arXiv 2405.15319, section 4): at equal loss,
`FLOPs_scratch / FLOPs_grown - 1`. The FLOPs of the grown run include those of the small models it
grew from, because a run's `flops` are cumulative over its stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megagrow.report.records import EvalRecord, FloatArray, Steps


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCurve:
    """A loss against what it cost; equal lengths, in order, finite."""

    tokens: FloatArray
    """Tokens trained on."""

    flops: FloatArray
    """Training FLOPs, cumulative."""

    loss: FloatArray
    """Loss, nats per token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualCompute:
    """Two runs at the same FLOPs."""

    flops: float
    """The FLOPs of the run that stopped first."""

    grown: float
    """Loss of the grown run there."""

    scratch: float
    """Loss of the scratch run there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speedup:
    """How much less compute a grown run took than a scratch run, at equal loss."""

    loss: FloatArray
    """Losses compared, falling; empty where the curves do not overlap."""

    scratch_flops: FloatArray
    """FLOPs after which the scratch run first had each loss."""

    grown_flops: FloatArray
    """The same for the grown run."""

    speedup: FloatArray
    """`scratch_flops / grown_flops - 1`."""

    final_loss: float
    """Loss at the end of the scratch run."""

    scratch_final_flops: float
    """FLOPs after which the scratch run first had `final_loss`."""

    grown_final_flops: float | None
    """The same for the grown run; None where it never had that loss."""

    at_final: float | None
    """Speedup at `final_loss`; None where the grown run never had that loss."""

    reason: str | None
    """Why there is no speedup at the final loss, in words."""

    equal_compute: EqualCompute | None
    """Both losses at the same FLOPs, which exists also where no loss is shared."""


def smooth(values: FloatArray, positions: FloatArray, *, scale: float) -> FloatArray:
    """Exponential moving average over `positions`, looking both ways.

    Looking both ways, it does not lag behind a falling loss as the running average of a live plot
    does, which would shift the curves of a small and a large model by different FLOPs. Weighting
    by distance and not by count gives runs of different batch size the same smoothing.

    Args:
        values: finite values.
        positions: where they were taken, increasing from 0 (for example tokens since a growth).
            Near 0, where losses fall fastest, the scale shrinks to a fifth of the position.
        scale: distance at which a value weighs 1/e; 0 or less gives the values back.
    """
    if scale <= 0 or len(values) < 2:
        return values.copy()
    gaps = np.maximum(np.diff(positions, prepend=0.0), 0.0)
    reach = np.maximum(np.minimum(scale, positions / 5), 1e-9 * scale)
    behind = _decaying_sums(values, gaps, reach)
    ahead = _decaying_sums(values[::-1], np.append(0.0, gaps[:0:-1]), reach[::-1])[:, ::-1]
    # A value of its own is in both sums.
    own = np.stack([values, np.ones_like(values)])
    total, weight = behind + ahead - own
    return np.asarray(total / weight, dtype=np.float64)


def _decaying_sums(values: FloatArray, gaps: FloatArray, reach: FloatArray) -> FloatArray:
    """Sums of values and of weights so far, each fading by exp(-gap / reach) per entry."""
    with np.errstate(over="ignore"):  # a reach of next to nothing fades all
        fades = np.exp(-gaps / reach)
    sums = np.empty((2, len(values)))
    total = weight = 0.0
    for index, (value, fade) in enumerate(zip(values.tolist(), fades.tolist(), strict=True)):
        total, weight = fade * total + value, fade * weight + 1.0
        sums[:, index] = total, weight
    return sums


def training_curve(steps: Steps, *, scale: float = 0.0) -> LossCurve:
    """Training loss smoothed over `scale` tokens.

    Every depth is smoothed by itself, so that the jump at a growth stays a jump. Steps without a
    finite loss are left out.
    """
    good = np.isfinite(steps.loss) & np.isfinite(steps.flops) & np.isfinite(steps.tokens)
    tokens, loss = steps.tokens[good], steps.loss[good]
    grown = np.flatnonzero(np.diff(np.nan_to_num(steps.layers[good]))) + 1
    starts = [0.0, *tokens[grown - 1].tolist()]
    pieces = [
        smooth(piece, where - start, scale=scale)
        for piece, where, start in zip(
            np.split(loss, grown), np.split(tokens, grown), starts, strict=True
        )
    ]
    return LossCurve(tokens=tokens, flops=steps.flops[good], loss=np.concatenate(pieces))


def evaluation_curve(evals: Sequence[EvalRecord], buckets: Sequence[str]) -> LossCurve:
    """Held-out loss: the plain mean over `buckets`, or the recorded mean where none are given.

    The plain mean over the same buckets is comparable between runs; the recorded one is weighted
    by whatever mixture each run had.
    """
    points = []
    for record in evals:
        losses = [record.losses.get(bucket, np.nan) for bucket in buckets] or [record.loss]
        loss = float(np.mean(losses))
        if np.isfinite(loss):
            points.append((record.tokens, record.flops, loss))
    table = np.array(points, dtype=np.float64).reshape(-1, 3)
    return LossCurve(tokens=table[:, 0], flops=table[:, 1], loss=table[:, 2])


def flops_at_loss(curve: LossCurve, loss: float) -> float | None:
    """FLOPs after which `curve` first was at or below `loss`; None where it never was.

    Between two points the loss is taken as linear in the logarithm of the FLOPs, which a power
    law nearly is over a short stretch.
    """
    lowest = np.minimum.accumulate(curve.loss)
    index = int(np.searchsorted(-lowest, -loss, side="left"))
    if index == len(lowest):
        return None
    if index == 0:
        return float(curve.flops[0])
    high, low = float(curve.loss[index - 1]), float(curve.loss[index])
    before, after = float(curve.flops[index - 1]), float(curve.flops[index])
    part = (high - loss) / (high - low)
    if before <= 0:
        return before + part * (after - before)
    return float(before * (after / before) ** part)


def loss_at_flops(curve: LossCurve, flops: float) -> float | None:
    """Loss of `curve` at `flops`, interpolated; None outside the curve."""
    if not len(curve.flops) or not curve.flops[0] <= flops <= curve.flops[-1]:
        return None
    return float(np.interp(flops, curve.flops, curve.loss))


def speedup(
    grown: LossCurve, scratch: LossCurve, *, start: float = 0.1, points: int = 200
) -> Speedup:
    """Compare two runs at equal loss.

    Both are asked when they *first* had a loss, so noise favours neither. With smoothed curves
    the smoothing must be the same for both.

    Args:
        grown: the run that grew, its small models' FLOPs included.
        scratch: the run at full size from the start.
        start: share of the scratch run's FLOPs from which on to compare; the first steps of any
            run, where losses are far from trained ones, would say nothing.
        points: losses to compare, evenly spaced in the logarithm of the scratch run's FLOPs.
    """
    if not len(grown.loss) or not len(scratch.loss):
        which = "grown" if not len(grown.loss) else "baseline"
        return _nothing(f"the {which} run has no loss to compare")
    final_loss = float(scratch.loss[-1])
    scratch_final = flops_at_loss(scratch, final_loss)
    assert scratch_final is not None  # its own last loss is on the curve
    grown_final = flops_at_loss(grown, final_loss)
    reason = None
    if grown_final is None:
        reason = (
            f"the grown run never got down to the baseline's final loss of {final_loss:.4f}; "
            f"its lowest is {float(grown.loss.min()):.4f}"
        )
    elif grown_final <= 0:
        grown_final, reason = None, "the grown run is below that loss before any training"
    losses = _losses_to_compare(scratch, start * scratch_final, scratch_final, points)
    pairs = [
        (loss, ours, theirs)
        for loss in losses
        if loss <= grown.loss[0]
        and (ours := flops_at_loss(grown, loss))
        and (theirs := flops_at_loss(scratch, loss))
    ]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 3)
    return Speedup(
        loss=table[:, 0],
        grown_flops=table[:, 1],
        scratch_flops=table[:, 2],
        speedup=table[:, 2] / table[:, 1] - 1.0,
        final_loss=final_loss,
        scratch_final_flops=scratch_final,
        grown_final_flops=grown_final,
        at_final=None if grown_final is None else scratch_final / grown_final - 1.0,
        reason=reason,
        equal_compute=_equal_compute(grown, scratch),
    )


def _losses_to_compare(scratch: LossCurve, first: float, last: float, points: int) -> list[float]:
    """Falling losses the scratch run had between `first` and `last` FLOPs."""
    begin = max(first, float(scratch.flops[scratch.flops > 0].min(initial=last)))
    flops = np.geomspace(begin, last, points) if 0 < begin < last else np.array([last])
    lowest = np.minimum.accumulate(scratch.loss)
    # The very last loss exactly, so that the curve ends at the headline figure.
    losses = [*np.interp(flops[:-1], scratch.flops, lowest).tolist(), float(scratch.loss[-1])]
    return list(dict.fromkeys(loss for loss in losses if loss >= scratch.loss[-1]))


def _equal_compute(grown: LossCurve, scratch: LossCurve) -> EqualCompute | None:
    flops = float(min(grown.flops[-1], scratch.flops[-1]))
    ours, theirs = loss_at_flops(grown, flops), loss_at_flops(scratch, flops)
    if ours is None or theirs is None:
        return None
    return EqualCompute(flops=flops, grown=ours, scratch=theirs)


def _nothing(reason: str) -> Speedup:
    none = np.empty(0, dtype=np.float64)
    return Speedup(
        loss=none,
        scratch_flops=none,
        grown_flops=none,
        speedup=none,
        final_loss=float("nan"),
        scratch_final_flops=float("nan"),
        grown_final_flops=None,
        at_final=None,
        reason=reason,
        equal_compute=None,
    )
