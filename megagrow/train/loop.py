"""The training loop: steps inside stages, and what happens between them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from megagrow.checkpoint.store import BYTES_PER_PARAMETER
from megagrow.curriculum import SamplerState, weights_at
from megagrow.data.loader import Batch
from megagrow.errors import TrainingError
from megagrow.model.forward_backward import GlobalBatch
from megagrow.plan.schedule import StagePlan
from megagrow.runtime import processes, seeds
from megagrow.train.data import stage_batches
from megagrow.train.engine import Engine
from megagrow.train.evaluation import as_record, validation
from megagrow.train.progress import Progress
from megagrow.train.run import EndReason, Run, plain_config
from megagrow.train.state import TrainState
from megagrow.train.step import StepResult, train_step
from megagrow.train.stop import StopReason, StopWatch
from megagrow.train.transition import enter_stage

logger = logging.getLogger(__name__)


def train(
    run: Run, engine: Engine, state: TrainState, watch: StopWatch
) -> tuple[TrainState, EndReason]:
    """Trains from `state` to the end of the run, or until it is asked to stop.

    Returns where it stopped, and why.

    Raises:
        TrainingError: the loss is not finite and the policy is to stop.
        DataError, CheckpointError: reading data or saving failed.
    """
    while True:
        state, reason = _train_stage(run, engine, state, watch)
        if reason is not None:
            return state, reason
        if state.stage + 1 == len(run.plan.stages):
            return state, "completed"
        engine, state = enter_stage(run, engine, state)


def _train_stage(
    run: Run, engine: Engine, state: TrainState, watch: StopWatch
) -> tuple[TrainState, StopReason | None]:
    stage = run.stage(state)
    _record_stage(run, state)
    with closing(stage_batches(run.config, run.data, stage, state.sampler)) as batches:  # type: ignore[type-var]
        # A step's time runs from loss to loss: the device updates the weights while the next
        # step begins.
        begun = time.perf_counter()
        while state.step < stage.end_step:
            batch = next(batches)
            result = _step(run, engine, state, batch, watch.votes())
            after = _advance(run, state, batch, result)
            now = time.perf_counter()
            _record_step(run, after, result, now - begun)
            run.checkpoints.poll()
            reason = watch.reason(result.votes)
            paused = _between_steps(run, engine, state, after, stopping=reason is not None)
            begun = time.perf_counter() if paused else now
            state = after
            if reason is not None and not _completes(run, state):
                return state, reason
    return state, None


def _step(
    run: Run,
    engine: Engine,
    state: TrainState,
    batch: Batch[SamplerState],
    votes: Sequence[bool],
) -> StepResult:
    stage = run.stage(state)
    if run.config.model.dropout > 0:
        seeds.seed_step(run.config.seed, state.step)
    share = GlobalBatch(
        data=batch.micro_batches,
        count=stage.micro_batches,
        micro_size=stage.config.batch.micro_size,
        seq_length=stage.shape.seq_length,
    )
    engine.fade_in(stage, run.plan.tokens_at(state.step))
    return train_step(
        engine.chunks,
        engine.optimizer,
        share,
        learning_rate=_learning_rate(run, state),
        learning_rate_of_added=run.rates.of_added(*_position(run, state)),
        votes=votes,
    )


def _learning_rate(run: Run, state: TrainState) -> float:
    return run.rates.at(*_position(run, state))


def _position(run: Run, state: TrainState) -> tuple[int, int, int]:
    """Of the next step: its stage, the tokens before it, and its own."""
    stage = run.stage(state)
    return stage.index, run.plan.tokens_at(state.step), stage.step_tokens


def _advance(
    run: Run, state: TrainState, batch: Batch[SamplerState], result: StepResult
) -> TrainState:
    """The state after a step; applies the policy for numbers that are not finite."""
    skipped = 0 if result.updated else state.skipped + 1
    if skipped:
        what = (
            f"step {state.step + 1}, stage {run.stage(state).name!r}: the loss is {result.loss}, "
            f"the gradient norm {result.grad_norm}"
        )
        limits = run.config.limits
        if limits.on_nan == "stop" or skipped > limits.max_skips:
            run.checkpoints.wait()  # every rank comes here: what is being saved is good
            run.record_end(state, "nan")
            option = (
                "set limits.on_nan=skip to skip such updates"
                if limits.on_nan == "stop"
                else f"raise limits.max_skips ({limits.max_skips}): {skipped} in a row were refused"
            )
            raise TrainingError(
                f"{what}. The weights were not updated and the last checkpoint is intact. Lower "
                f"learning_rate.peak or lengthen the warmup, look at the data of this step, or "
                f"{option}."
            )
        logger.warning("%s; update skipped (%d in a row)", what, skipped)
    return replace(
        state,
        step=state.step + 1,
        updates=state.updates + int(result.updated),
        skipped=skipped,
        sampler=batch.state,
    )


def _between_steps(
    run: Run, engine: Engine, before: TrainState, after: TrainState, *, stopping: bool
) -> bool:
    """Evaluates and saves where it is time to, always at the end of a stage; whether it did."""
    stage_ends = after.step == run.stage(after).end_step
    evaluates = stage_ends or _crossed(run, run.config.evaluation.interval, before, after)
    saves = stopping or stage_ends or _crossed(run, run.config.checkpoint.interval, before, after)
    if evaluates:
        _evaluate(run, engine, after)
    if saves:
        save(run, engine, after, blocking=stopping or _completes(run, after))
    return evaluates or saves


def _completes(run: Run, state: TrainState) -> bool:
    return state.step == run.plan.steps


def _crossed(run: Run, interval: int | None, before: TrainState, after: TrainState) -> bool:
    if interval is None:
        return False
    tokens = run.plan.tokens_at
    return tokens(before.step) // interval != tokens(after.step) // interval


def save(run: Run, engine: Engine, state: TrainState, *, blocking: bool) -> None:
    """Saves the run as it stands at `state`."""
    parameters = run.stage(state).parameters.total
    run.checkpoints.save(
        engine.trained(state.updates),
        state.step,
        {
            "train": state.to_dict(),
            "config": plain_config(run.config),
            "data": dict(run.data.fingerprints),
            "world_size": processes.world_size(),
        },
        needed_bytes=parameters * BYTES_PER_PARAMETER,
        blocking=blocking,
    )


def _evaluate(run: Run, engine: Engine, state: TrainState) -> None:
    losses = validation(run, engine, state)
    if losses:
        run.record("eval", state, **as_record(losses))


def _record_stage(run: Run, state: TrainState) -> None:
    stage = run.stage(state)
    parallel: dict[str, Any] = plain_config(run.config)["stages"][stage.index]["parallel"]
    run.record(
        "stage",
        state,
        layers=stage.shape.num_layers,
        parameters=stage.parameters.total,
        mixture=dict(stage.config.mixture),
        total_tokens=stage.tokens,
        parallel={**parallel, "data": stage.data_parallel, "layout": list(stage.layout)},
        **_layer_sizes(stage),
    )


def _layer_sizes(stage: StagePlan) -> dict[str, Any]:
    """Sizes of every layer, where they differ."""
    if stage.config.model.layer_scaling is None:
        return {}
    layers = stage.shape.layers
    names = ("num_attention_heads", "num_query_groups", "ffn_hidden_size")
    return {"layer_sizes": {name: [getattr(each, name) for each in layers] for name in names}}


def _record_step(run: Run, state: TrainState, result: StepResult, seconds: float) -> None:
    stage = run.stage(state)
    per_second = stage.step_tokens / seconds
    tflops = per_second * stage.flops_per_token.total / processes.world_size() / 1e12
    mfu = None if run.peak_tflops is None else tflops / run.peak_tflops
    _show_progress(run, stage, state, result, per_second, tflops, mfu)
    last = state.step == stage.end_step
    if state.step % run.config.logging.interval and not last:
        return
    done = (state.step - stage.first_step) / stage.steps
    run.record(
        "step",
        state,
        loss=result.loss,
        lr=_learning_rate(run, replace(state, step=state.step - 1)),
        grad_norm=None if math.isnan(result.grad_norm) else result.grad_norm,
        layers=stage.shape.num_layers,
        tokens_per_second=per_second,
        tflops_per_device=tflops,
        mfu=mfu,
        mixture=weights_at(stage.config, done),
        samples=dict(state.sampler.cursors),
    )


def _show_progress(
    run: Run,
    stage: StagePlan,
    state: TrainState,
    result: StepResult,
    tokens_per_second: float,
    tflops: float,
    mfu: float | None,
) -> None:
    run.progress.update(
        Progress(
            step=state.step,
            total_steps=run.plan.steps,
            stage=stage.name,
            layers=stage.shape.num_layers,
            loss=result.loss,
            flops=float(run.plan.flops_at(state.step)),
            total_flops=float(run.plan.flops),
            tokens_per_second=tokens_per_second,
            tflops_per_device=tflops,
            mfu=mfu,
        )
    )
