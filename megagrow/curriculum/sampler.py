"""Which samples come next.

Buckets are interleaved so that each is always within one sample of its share, for constant and
for ramping weights. This is the chairman assignment problem; the method is R. Tijdeman's (Discrete
Mathematics 32, 1980): a bucket may give its next sample once it is due by ``d = 1/(2K - 2)``, and
of those that may, the one goes first that would soonest be due by ``1 - d``. For K buckets the
deviation stays at or below ``1 - d``. Taking the bucket with the largest deficit each time, as
Megatron's BlendedDataset does, exceeds one sample from 5 buckets on.

Drawing is a pure function of a :class:`SamplerState`. It knows nothing of ranks: each takes its
part of the batch with :func:`rank_share`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from megagrow.config.schema import StageConfig
from megagrow.curriculum.mixture import Ramp, ramps
from megagrow.curriculum.state import SamplerState
from megagrow.errors import LayoutError

Sample = tuple[str, int]
"""A bucket and the number of the sample in it, counted over all epochs."""

T = TypeVar("T")

_NEVER = 2**62


def next_batch(
    state: SamplerState, stage: StageConfig, size: int, total_stage_samples: int
) -> tuple[list[Sample], SamplerState]:
    """The next ``size`` samples of a stage, and the state after them.

    Drawing 64 is the same as drawing 32 twice. Within a stage the samples of a bucket are numbered
    on from where the stage before left off.

    Args:
        state: Where the run stands; not changed.
        stage: The current stage, whose mixture and ramp count.
        size: Samples to draw: the global batch size.
        total_stage_samples: Samples of the whole stage, over which the weights ramp.

    Raises:
        ValueError: the stage has fewer than ``size`` samples left.
    """
    first = state.samples
    if not 0 <= size <= total_stage_samples - first:
        raise ValueError(
            f"stage {stage.name!r} has {total_stage_samples - first} samples left, "
            f"{size} were asked for"
        )
    active = ramps(stage, total_stage_samples)
    names = list(active)
    picks = _interleave(
        list(active.values()), [state.drawn.get(name, 0) for name in names], first, size
    )
    indices = np.empty(size, dtype=np.int64)
    drawn, cursors = dict(state.drawn), dict(state.cursors)
    for number, name in enumerate(names):
        places = np.flatnonzero(picks == number)
        cursor = cursors.get(name, 0)
        indices[places] = np.arange(cursor, cursor + len(places))
        cursors[name] = cursor + len(places)
        drawn[name] = drawn.get(name, 0) + len(places)
    samples = list(zip(map(names.__getitem__, picks.tolist()), indices.tolist(), strict=True))
    return samples, SamplerState(stage=state.stage, drawn=drawn, cursors=cursors)


def rank_share(samples: Sequence[T], rank: int, ranks: int) -> Sequence[T]:
    """The part of a global batch that data-parallel rank ``rank`` of ``ranks`` trains on.

    Consecutive samples, not every ``ranks``-th one: the interleaving repeats after a few samples,
    and with a period that divides ``ranks`` a strided rank would see one bucket only. It also
    makes micro-batches the same sets of samples for any number of ranks.

    Raises:
        LayoutError: the batch cannot be split evenly.
    """
    if len(samples) % ranks:
        raise LayoutError(
            f"a global batch of {len(samples)} sequences cannot be split over {ranks} "
            "data-parallel ranks: make batch.global_size a multiple of micro_size x data-parallel "
            "size"
        )
    local = len(samples) // ranks
    return samples[rank * local : (rank + 1) * local]


def _interleave(
    shares: list[Ramp], drawn: list[int], first: int, size: int
) -> npt.NDArray[np.int64]:
    """The bucket number of samples ``first`` to ``first + size - 1`` of the stage."""
    if len(shares) == 1:
        return np.zeros(size, dtype=np.int64)
    slack = 1.0 / (2 * len(shares) - 2)
    releases, deadlines = [], []
    for ramp, given in zip(shares, drawn, strict=True):
        # No bucket gives a sample before it is due: these are all that can come up, and one more.
        most = max(int(ramp.due(first + size)) + 2 - given, 1)
        numbers = given + np.arange(min(most, size) + 1, dtype=np.float64)
        releases.append(_reached(ramp, numbers + slack))
        deadlines.append(_reached(ramp, numbers + (1.0 - slack)))
    buckets = range(len(shares))
    release = [times[0] for times in releases]
    deadline = [times[0] for times in deadlines]
    taken = [0] * len(shares)
    picks = []
    for position in range(first + 1, first + size + 1):
        best, soonest = -1, _NEVER + 1
        for bucket in buckets:
            if release[bucket] <= position and deadline[bucket] < soonest:
                best, soonest = bucket, deadline[bucket]
        if best < 0:  # rounding hid the one that is due
            best = min(buckets, key=release.__getitem__)
        picks.append(best)
        taken[best] += 1
        release[best] = releases[best][taken[best]]
        deadline[best] = deadlines[best][taken[best]]
    return np.array(picks, dtype=np.int64)


def _reached(ramp: Ramp, amounts: npt.NDArray[np.float64]) -> list[int]:
    """The first positions of the stage at which the bucket is due the given amounts."""
    # The inverse of Ramp.due, in the form that stays exact when the slope is nearly zero.
    slope = (ramp.end - ramp.start) / (2.0 * ramp.samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(ramp.start * ramp.start + 4.0 * slope * amounts)
        times = np.ceil(2.0 * amounts / (ramp.start + root))
    # Beyond the top of a falling ramp there is no root: that amount is never due.
    times = np.where(np.isfinite(times), np.minimum(times, _NEVER), _NEVER)
    positions: list[int] = times.astype(np.int64).tolist()
    return positions
