"""Training loops that are compared. Each trains the run of a YAML file until it is told to end.

Nothing heavy is imported before a contender needs it: what a loop imports counts as its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from importlib import import_module
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from megagrow.config import RunConfig
    from megagrow.plan.schedule import StagePlan

Pace = Callable[[], None]
Pairs = list[tuple[torch.Tensor, torch.Tensor]]

LEARNING_RATE = 1e-3
STEPS_OF_DATA = 16


def ours(path: str, pace: Pace) -> None:
    """The loop of `pretrain_grow.py`: sampler, reader, metrics, progress, polls, stop signals."""
    from megagrow.config import load
    from megagrow.runtime import logging, processes
    from megagrow.train.stop import StopReason, StopWatch

    class TurnWatch(StopWatch):
        """Asked at the end of every step; the rest of the loop does not notice the turns."""

        def reason(self, votes: Sequence[int]) -> StopReason | None:
            pace()
            return super().reason(votes)

    logging.configure("WARNING")
    processes.start()
    train: Any = import_module("megagrow.train.pretrain")
    train.StopWatch = TurnWatch
    train.pretrain(load(path), resume="never")


def bare(path: str, pace: Pace) -> None:
    """The shortest megatron-core loop, over the same model, wrapper and optimizer as ours."""
    from megatron.core.pipeline_parallel import get_forward_backward_func

    from megagrow.config import load
    from megagrow.model.build import build_model, build_optimizer, wrap_ddp
    from megagrow.model.initialisation import initialise
    from megagrow.runtime import groups, logging, processes, seeds

    logging.configure("WARNING")
    processes.start()
    config = load(path)
    stage = _stage(config, processes.world_size())
    parallel = stage.config.parallel
    groups.set_up(tensor=parallel.tensor, pipeline=parallel.pipeline)
    seeds.seed_step(config.seed, 0)
    models = build_model(stage.shape, config.model, parallel, config.precision, stage.layout)
    initialise(models, stage.shape, config.model.init, config.seed)
    (model,) = wrap_ddp(models, parallel)
    optimizer = build_optimizer(
        [model], config.optimizer, parallel, config.precision, LEARNING_RATE
    )
    _megatron_loop(config, stage, model, optimizer, get_forward_backward_func(), pace)


def stock(path: str, pace: Pace) -> None:
    """The same loop over megatron-core as it comes: its local layers, its wrapper, its AdamW."""
    from megatron.core import parallel_state
    from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
    from megatron.core.distributed.finalize_model_grads import finalize_model_grads
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import (
        get_gpt_layer_local_spec,
        get_gpt_layer_with_transformer_engine_spec,
    )
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
    from megatron.core.pipeline_parallel import get_forward_backward_func
    from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
    from megatron.core.transformer.module import Float16Module

    from megagrow.config import load
    from megagrow.model.transformer_config import transformer_config, uses_transformer_engine
    from megagrow.runtime import device, logging, processes

    logging.configure("WARNING")
    processes.start()
    config = load(path)
    stage = _stage(config, processes.world_size())
    shape, parallel = stage.shape, stage.config.parallel
    parallel_state.initialize_model_parallel(parallel.tensor, parallel.pipeline)
    model_parallel_cuda_manual_seed(config.seed)
    settings = transformer_config(shape, config.model, parallel, config.precision, stage.layout)
    settings.perform_initialization = True
    settings.use_te_activation_func = False
    te = uses_transformer_engine()
    spec = (
        get_gpt_layer_with_transformer_engine_spec()
        if te
        else get_gpt_layer_local_spec(normalization=settings.normalization)
    )
    gpt: torch.nn.Module = GPTModel(
        settings,
        spec,
        vocab_size=shape.padded_vocab_size,
        max_sequence_length=shape.seq_length,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=shape.tie_embeddings,
        position_embedding_type="rope" if shape.style == "llama" else "learned_absolute",
        rotary_base=config.model.rotary_base,
    ).to(device.device())
    bf16 = config.precision == "bf16"
    model = DistributedDataParallel(
        settings,
        DistributedDataParallelConfig(
            grad_reduce_in_fp32=True, use_distributed_optimizer=parallel.distributed_optimizer
        ),
        Float16Module(settings, gpt) if bf16 else gpt,
    )
    settings.finalize_model_grads_func = finalize_model_grads
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=LEARNING_RATE,
            weight_decay=config.optimizer.weight_decay,
            clip_grad=config.optimizer.clip_grad,
            bf16=bf16,
            params_dtype=settings.params_dtype,
            use_distributed_optimizer=parallel.distributed_optimizer,
        ),
        [model],
    )
    _megatron_loop(config, stage, model, optimizer, get_forward_backward_func(), pace)


def plain(path: str, pace: Pace) -> None:
    """A plain PyTorch GPT on one process: `nn.Module`, SDPA, fused AdamW."""
    from _plain_gpt import GPT

    from megagrow.config import load

    config = load(path)
    stage = _stage(config, 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    model = GPT(stage.shape, config.model.rotary_base).to(device)
    settings = config.optimizer
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )
    batches = cycle(_batches(config, stage, device))
    bf16 = config.precision == "bf16"
    while True:
        optimizer.zero_grad(set_to_none=True)
        for tokens, labels in islice(batches, stage.micro_batches):
            with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
                loss = model(tokens, labels)
            (loss / stage.micro_batches).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad)
        optimizer.step()
        pace()


def _megatron_loop(
    config: RunConfig,
    stage: StagePlan,
    model: Any,
    optimizer: Any,
    forward_backward: Callable[..., Any],
    pace: Pace,
) -> None:
    device = next(model.parameters()).device
    batches = cycle(_batches(config, stage, device))
    micro_size, length = stage.config.batch.micro_size, stage.shape.seq_length
    positions = torch.arange(length, device=device).expand(micro_size, length)

    def mean(losses: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        return losses.float().mean(), {}

    def forward(data: Iterator[Any], model: Any) -> tuple[torch.Tensor, Any]:
        tokens, labels = next(data)
        return model(tokens, positions, None, labels=labels), mean

    while True:
        model.zero_grad_buffer()
        optimizer.zero_grad()
        forward_backward(
            forward_step_func=forward,
            data_iterator=batches,
            model=model,
            num_microbatches=stage.micro_batches,
            seq_length=length,
            micro_batch_size=micro_size,
            forward_only=False,
        )
        optimizer.step()
        pace()


def _stage(config: RunConfig, processes: int) -> StagePlan:
    from megagrow.plan.schedule import make_plan

    return make_plan(config, processes).stages[0]


def _batches(config: RunConfig, stage: StagePlan, device: torch.device) -> Sequence[Any]:
    """Micro-batches in memory."""
    generator = torch.Generator().manual_seed(config.seed)
    shape = (stage.config.batch.micro_size, stage.shape.seq_length + 1)
    found: Pairs = []
    for _ in range(STEPS_OF_DATA * stage.micro_batches):
        rows = torch.randint(config.model.vocab_size, shape, generator=generator).to(device)
        found.append((rows[:, :-1].contiguous(), rows[:, 1:].contiguous()))
    return found
