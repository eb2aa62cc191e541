"""A small model built and trained in any layout, for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func

from megagrow.config.schema import (
    InitConfig,
    LayerScalingConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
)
from megagrow.model.build import build_model, build_optimizer, wrap_ddp
from megagrow.model.initialisation import initialise, sharded_tensors
from megagrow.model.shape import ModelShape, model_shape
from megagrow.runtime import groups, seeds

SEED, SEQUENCES, MICRO = 7, 8, 2


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to build, and where."""

    style: str = "llama"
    tied: bool | None = None
    layers: int = 4
    heads: int = 4
    key_heads: int = 2
    dropout: float = 0.0
    qkv_bias: bool = False
    qk_norm: bool = False
    rotary_scaling: float | None = None
    layer_scaling: LayerScalingConfig | None = None
    precision: str = "fp32"
    init: InitConfig = field(default_factory=InitConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    layout: tuple[int, ...] | None = None

    @property
    def model(self) -> ModelConfig:
        return ModelConfig(
            style=self.style,  # type: ignore[arg-type]
            hidden_size=32,
            num_attention_heads=self.heads,
            num_query_groups=self.key_heads,
            vocab_size=50,
            vocab_padding=16,
            seq_length=16,
            tie_embeddings=self.tied,
            dropout=self.dropout,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            rotary_scaling=self.rotary_scaling,
            layer_scaling=self.layer_scaling,
            init=self.init,
        )

    @property
    def shape(self) -> ModelShape:
        return model_shape(self.model, self.layers)


def build(job: Job) -> list[Any]:
    """Set the groups up, and build and draw this rank's chunks."""
    parallel = job.parallel
    groups.set_up(
        tensor=parallel.tensor,
        pipeline=parallel.pipeline,
        virtual=parallel.virtual_pipeline if parallel.virtual_pipeline > 1 else None,
    )
    seeds.seed_step(SEED, 0)
    chunks = build_model(job.shape, job.model, parallel, job.precision, job.layout)  # type: ignore[arg-type]
    initialise(chunks, job.shape, job.init, SEED)
    return chunks


def weights(job: Job) -> list[tuple[str, tuple[int, ...], tuple[int, ...], torch.Tensor]]:
    """Key, global shape, offset and values of every tensor of this rank."""
    return [
        (tensor.key, tuple(tensor.global_shape), tuple(tensor.global_offset), tensor.data.detach())
        for chunk in build(job)
        for tensor in sharded_tensors(chunk)
    ]


def batch(step: int) -> torch.Tensor:
    """The global batch of a step: ``[sequences, length + 1]`` tokens."""
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randint(50, (SEQUENCES, 17), generator=generator)


def inputs(rows: torch.Tensor) -> tuple[tuple[Any, ...], torch.Tensor]:
    """Positional arguments and labels of the model."""
    positions = torch.arange(16).expand(len(rows), -1).contiguous()
    return (rows[:, :-1].contiguous(), positions, None), rows[:, 1:].contiguous()


def train(job: Job, steps: int = 3) -> list[tuple[float, float]]:
    """Mean loss of the global batch and gradient norm of each step (loss 0 without a head)."""
    chunks = build(job)
    wrapped = wrap_ddp(chunks, replace(job.parallel, ddp_bucket_size=500))
    optimizer = build_optimizer(wrapped, OptimizerConfig(), job.parallel, job.precision, 3e-3)  # type: ignore[arg-type]
    results = []
    for step in range(steps):
        seeds.seed_step(SEED, step)
        for chunk in wrapped:
            chunk.zero_grad_buffer()
        optimizer.zero_grad()
        loss = forward_backward(wrapped, 0)
        done, norm, _ = optimizer.step()
        assert done
        results.append((loss, float(norm)))
    return results


def forward_backward(wrapped: list[Any], step: int, *, forward_only: bool = False) -> float:
    """Run the schedule on this replica's share of the step's batch; the global mean loss."""
    replicas = groups.data_size()
    mine = batch(step).chunk(replicas)[groups.data_rank()]
    iterators = [iter(mine.split(MICRO)) for _ in wrapped]
    outputs = get_forward_backward_func()(
        forward_step_func=_forward,
        data_iterator=iterators if len(wrapped) > 1 else iterators[0],
        model=wrapped if len(wrapped) > 1 else wrapped[0],
        num_microbatches=len(mine) // MICRO,
        seq_length=16,
        micro_batch_size=MICRO,
        forward_only=forward_only,
    )
    total = torch.tensor(sum(float(each["loss"]) for each in outputs) * MICRO / SEQUENCES)
    torch.distributed.all_reduce(total, group=parallel_state.get_data_parallel_group())
    return float(total)


def _forward(batches: Iterator[torch.Tensor], model: Any) -> tuple[torch.Tensor, Any]:
    arguments, labels = inputs(next(batches))
    return model(*arguments, labels=labels), partial(_loss)


def _loss(output: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = output.mean()
    return loss, {"loss": loss.detach().clone()}
