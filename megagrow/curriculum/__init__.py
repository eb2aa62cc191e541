"""Data that gets harder: bucket mixtures over time and the sampler that draws from them."""

from megagrow.curriculum.mixture import Ramp, epochs, expected_samples, ramps, weights_at
from megagrow.curriculum.sampler import Sample, next_batch, rank_share
from megagrow.curriculum.state import SamplerState, begin_stage, initial_state

__all__ = [
    "Ramp",
    "Sample",
    "SamplerState",
    "begin_stage",
    "epochs",
    "expected_samples",
    "initial_state",
    "next_batch",
    "ramps",
    "rank_share",
    "weights_at",
]
