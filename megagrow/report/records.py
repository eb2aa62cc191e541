"""What a finished or running run looks like once its `metrics.jsonl` has been read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """One entry per optimizer step, in order; a value that was not recorded is NaN."""

    step: FloatArray
    """Optimizer steps done."""

    stage: tuple[str, ...]
    """Stage the step belongs to."""

    tokens: FloatArray
    """Tokens trained on so far."""

    flops: FloatArray
    """Training FLOPs so far, every stage included."""

    loss: FloatArray
    """Training loss, nats per token."""

    lr: FloatArray
    """Learning rate."""

    grad_norm: FloatArray
    """Gradient norm before clipping."""

    layers: FloatArray
    """Depth of the model."""

    tokens_per_second: FloatArray
    """Throughput of the whole job."""

    tflops_per_device: FloatArray
    """Achieved TFLOP/s of one device."""

    mfu: FloatArray
    """Share of the device's peak, 0 to 1."""

    mixture: Mapping[str, FloatArray]
    """Weight of each bucket in the data, by bucket name."""

    samples: Mapping[str, FloatArray]
    """Samples drawn so far, by bucket name."""

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """The start of a stage."""

    step: int
    """Optimizer steps done before it."""

    name: str
    """Name of the stage."""

    tokens: float
    """Tokens trained on before it."""

    flops: float
    """Training FLOPs before it."""

    layers: int
    """Depth of its model."""

    parameters: int
    """Parameters of its model."""

    mixture: Mapping[str, float]
    """Weights of the buckets at its start."""

    total_tokens: float
    """Tokens the stage was given."""

    parallel: Mapping[str, Any]
    """Its parallel layout, as recorded."""

    layer_sizes: Mapping[str, tuple[int, ...]]
    """Sizes of every layer, by their names; none where all layers are alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthRecord:
    """A growth of the model: it has more layers, or wider ones, after it."""

    step: int
    """Optimizer steps done before it."""

    tokens: float
    """Tokens trained on before it."""

    flops: float
    """Training FLOPs before it."""

    from_layers: int
    """Depth before."""

    to_layers: int
    """Depth after."""

    operator: str
    """Growth operators, for example `stack`, or `stack, hyperclone` where the width grew too."""

    widens: bool
    """Whether the width may have grown."""

    optimizer: str
    """What became of the optimizer state."""

    seconds: float
    """How long training paused for it."""

    bytes_moved: float
    """Bytes sent between processes."""

    peak_bytes: float
    """Peak memory of one process during it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalRecord:
    """An evaluation."""

    step: int
    """Optimizer steps done before it."""

    stage: str
    """Stage the run was in."""

    tokens: float
    """Tokens trained on before it."""

    flops: float
    """Training FLOPs before it."""

    losses: Mapping[str, float]
    """Held-out loss of each bucket, nats per token."""

    loss: float
    """Their weighted mean, as the run recorded it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunMetrics:
    """Everything a report needs to know about one run."""

    name: str
    """Name of the run's folder."""

    folder: Path
    """The run's folder."""

    config: Mapping[str, Any]
    """Resolved configuration, empty where the run did not record one."""

    world_size: int | None
    """Processes."""

    device: str | None
    """Kind of device."""

    versions: Mapping[str, Any]
    """Versions of the libraries."""

    total_tokens: float
    """Tokens the run was given; NaN where not recorded."""

    total_steps: float
    """Steps the run was given; NaN where not recorded."""

    total_flops: float
    """Training FLOPs the run was planned to take; NaN where not recorded."""

    peak_tflops: float | None
    """Peak TFLOP/s of one device that MFU refers to."""

    peak_source: str | None
    """Where that peak is from."""

    steps: Steps
    """The optimizer steps, at least one."""

    stages: tuple[StageRecord, ...]
    """Stages begun."""

    growths: tuple[GrowthRecord, ...]
    """Growths done."""

    evals: tuple[EvalRecord, ...]
    """Evaluations done."""

    resumes: tuple[int, ...]
    """Step of each resume, in order."""

    end_reason: str | None
    """Why the last process ended; None where it is still running or was killed."""

    wall_seconds: float
    """Time the run's processes were at work, re-run steps included, pauses between them not."""

    notes: tuple[str, ...]
    """What the reader had to skip, in words."""

    @property
    def buckets(self) -> tuple[str, ...]:
        """Names of all buckets, in the order of the mixture, then of the evaluations."""
        names = dict.fromkeys(self.steps.mixture)
        for record in self.evals:
            names.update(dict.fromkeys(record.losses))
        return tuple(names)
