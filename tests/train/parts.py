"""The parts of a run inside a worker: a live model at a stage boundary, and what holds of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from megagrow.checkpoint import sharded
from megagrow.checkpoint.store import read_state
from megagrow.checkpoint.writer import CheckpointWriter
from megagrow.config import RunConfig
from megagrow.curriculum import initial_state
from megagrow.evaluate.validation import validation_losses
from megagrow.model.forward_backward import GlobalBatch
from megagrow.plan.schedule import make_plan
from megagrow.runtime import processes
from megagrow.train.data import open_data, stage_batches
from megagrow.train.engine import Engine, build_engine
from megagrow.train.learning_rate import learning_rates
from megagrow.train.metrics import MetricsWriter
from megagrow.train.progress import ProgressLine
from megagrow.train.run import Run, store_of
from megagrow.train.state import TrainState
from megagrow.train.step import StepResult, train_step
from tests.train.layouts import freeze_imports


def open_run(config: RunConfig) -> Run:
    """The fixed parts of a run, with rank 0 recording."""
    freeze_imports()
    plan = make_plan(config, processes.world_size())
    return Run(
        config=config,
        plan=plan,
        rates=learning_rates(config.stages, [stage.tokens for stage in plan.stages]),
        data=open_data(config, plan),
        metrics=MetricsWriter(config.output, tensorboard=False, enabled=processes.is_main()),
        progress=ProgressLine(enabled=False),
        checkpoints=CheckpointWriter(
            store_of(config), asynchronous=False, on_saved=lambda saved: None
        ),
        begun=0.0,
        peak_tflops=None,
    )


def fresh(run: Run) -> tuple[Engine, TrainState]:
    """The run's first model with its first weights."""
    state = TrainState(
        step=0, stage=0, updates=0, skipped=0, sampler=initial_state(run.config.data.buckets)
    )
    return build_engine(run.config, run.stage(state), draws=lambda _: True), state


def restored(run: Run, checkpoint: Path) -> tuple[Engine, TrainState]:
    """The model of a checkpoint under the layout of the run."""
    state = TrainState.from_dict(read_state(checkpoint)["train"], str(checkpoint))
    engine = build_engine(run.config, run.stage(state), draws=lambda _: False)
    sharded.load(engine.trained(state.updates), checkpoint)
    return engine, state


def batches(run: Run, state: TrainState, count: int) -> list[GlobalBatch]:
    """This rank's share of the stage's next global batches."""
    stage = run.stage(state)
    with closing(stage_batches(run.config, run.data, stage, state.sampler)) as source:  # type: ignore[type-var]
        return [
            GlobalBatch(
                data=next(source).micro_batches,
                count=stage.micro_batches,
                micro_size=stage.config.batch.micro_size,
                seq_length=stage.shape.seq_length,
            )
            for _ in range(count)
        ]


def step(engine: Engine, batch: GlobalBatch, learning_rate: float = 5e-3) -> StepResult:
    """One optimizer step."""
    return train_step(engine.chunks, engine.optimizer, batch, learning_rate=learning_rate)


def parameters(engine: Engine) -> dict[str, torch.nn.Parameter]:
    """The parameters of this rank's chunks, by chunk and name."""
    return {
        f"{index}.{name}": parameter
        for index, chunk in enumerate(engine.chunks)
        for name, parameter in chunk.module.named_parameters()
    }


def values(engine: Engine) -> dict[str, torch.Tensor]:
    """A copy of this rank's weights, current on every replica."""
    engine.settle()
    return {name: parameter.detach().clone() for name, parameter in parameters(engine).items()}


def check_registered(engine: Engine, data_group: Any) -> None:
    """Every parameter is in the optimizer exactly once, whole, over its data-parallel ranks.

    The optimizer holds the fp32 parameter itself, or of a bf16 one the copy megatron-core notes as
    its `main_param`; distributed, each rank a slice of either.
    """
    held = [
        parameter
        for part in engine.optimizer.chained_optimizers
        for group in part.optimizer.param_groups
        for parameter in group["params"]
    ]
    wrong = []
    for name, parameter in parameters(engine).items():
        elements = torch.tensor(sum(each.numel() for each in held if _updates(each, parameter)))
        if engine.chunks[0].ddp_config.use_distributed_optimizer:
            torch.distributed.all_reduce(elements, group=data_group)
        if int(elements) != parameter.numel():
            wrong.append(name)
    if wrong:
        raise AssertionError(f"not in exactly one optimizer group: {wrong}")


def _updates(held: torch.Tensor, parameter: torch.nn.Parameter) -> bool:
    """Whether a tensor in the optimizer is (part of) this parameter, or of its fp32 copy."""
    if parameter.dtype != torch.float32:
        return held is getattr(parameter, "main_param", None)
    offset = held.data_ptr() - parameter.data_ptr()
    return held.numel() > 0 and 0 <= offset < parameter.numel() * parameter.element_size()


def check_moves(engine: Engine, take_step: Callable[[], StepResult]) -> None:
    """One optimizer step changes (nearly) every element of every parameter on this rank.

    Rows of the embedding that no batch has touched move by their weight decay alone: give the step
    a rate that bf16 can see.
    """
    before = values(engine)
    assert take_step().updated
    after = values(engine)
    still = {name: float((after[name] == before[name]).float().mean()) for name in before}
    wrong = {name: share for name, share in still.items() if share > 0.05}
    if wrong:
        raise AssertionError(f"not changed by the first step: {wrong}")


def adam_steps(engine: Engine) -> set[float]:
    """Adam's step counts, wherever the optimizers in use keep them."""
    found: set[float] = set()
    for part in engine.optimizer.chained_optimizers:
        inner = part.optimizer
        found |= {float(state["step"]) for state in inner.state.values() if "step" in state}
        found |= {float(group["step"]) for group in inner.param_groups if "step" in group}
    return found


def validation_loss(run: Run, engine: Engine) -> float:
    """Mean validation loss over the buckets."""
    engine.settle()
    losses = validation_losses(
        engine.chunks,
        run.data.validation,
        sequences=run.config.evaluation.sequences,
        micro_size=2,
        vocab_size=run.config.model.vocab_size,
    )
    return sum(losses.values()) / len(losses)
