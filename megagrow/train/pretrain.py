"""A whole run: open, resume or begin, train, end."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path

from megagrow.checkpoint import integrity, sharded
from megagrow.checkpoint.guard import guarded
from megagrow.checkpoint.store import MEND, read_state
from megagrow.checkpoint.writer import CheckpointWriter, Saved
from megagrow.config import RunConfig
from megagrow.curriculum import initial_state
from megagrow.errors import CheckpointError, MegagrowError
from megagrow.growth import through_checkpoint
from megagrow.plan.schedule import RunPlan, make_plan
from megagrow.runtime import device, failure, processes
from megagrow.train.data import open_data
from megagrow.train.engine import Engine, build_engine
from megagrow.train.identity import check_identity
from megagrow.train.initial_weights import read_initial_weights
from megagrow.train.learning_rate import learning_rates
from megagrow.train.loop import train
from megagrow.train.metrics import MetricsWriter
from megagrow.train.progress import ProgressLine
from megagrow.train.run import (
    EndReason,
    Run,
    plain_config,
    sole_writer,
    store_of,
    versions,
    write_config,
    write_status,
)
from megagrow.train.state import TrainState
from megagrow.train.stop import EXIT_REQUEUE, StopWatch

logger = logging.getLogger(__name__)


def pretrain(config: RunConfig, *, resume: str = "auto") -> int:
    """Runs a configuration on the processes that are up; call on every rank.

    Args:
        config: the run.
        resume: `auto` goes on from the newest checkpoint if there is one; `never` begins anew and
            refuses a folder that holds checkpoints; else the folder of a checkpoint.

    Returns:
        Exit code: 0 when complete, 75 when stopped early with everything saved.

    Raises:
        MegagrowError: anything a user can mend.
    """
    begun = time.monotonic()
    folder = Path(config.output)
    with sole_writer(folder):  # before anything is read there that another run may be writing
        return _pretrain(config, resume, folder, begun)


def _pretrain(config: RunConfig, resume: str, folder: Path, begun: float) -> int:
    run: Run | None = None
    try:
        plan = make_plan(config, processes.world_size())
        checkpoint = find_checkpoint(config, resume)
        with StopWatch(config.limits.wall_time) as watch:
            run = _open(config, plan, begun)
            write_status(folder, "running", world_size=processes.world_size())
            engine, state = _begin(run, checkpoint)
            state, reason = train(run, engine, state, watch)
            _end(run, state, reason)
    except BaseException as error:
        if run is not None:
            run.progress.close()
            run.checkpoints.abandon()
        _note_failure(folder, error)
        raise
    return 0 if reason == "completed" else EXIT_REQUEUE


def _note_failure(folder: Path, error: BaseException) -> None:
    mendable = isinstance(error, MegagrowError)
    text = str(error) if mendable else repr(error)
    code = failure.EXIT_ERROR if mendable else failure.EXIT_CRASH
    with contextlib.suppress(MegagrowError):  # the folder may be what is wrong
        write_status(folder, "failed", error=text, exit_code=code)


def find_checkpoint(config: RunConfig, resume: str) -> Path | None:
    """The checkpoint to begin from, the same on every rank.

    Raises:
        CheckpointError: `resume` asks for what is not there, or would overwrite a run.
    """
    store = store_of(config)

    def find() -> Path | None:
        if resume == "auto":
            return store.latest()
        if resume != "never":
            return Path(resume)
        if store.complete():
            raise CheckpointError(
                f"{store.folder} holds checkpoints; --resume never would overwrite that run. Use "
                "--resume auto, another name, or delete the folder."
            )
        return None

    return failure.on_main(find)


def _open(config: RunConfig, plan: RunPlan, begun: float) -> Run:
    data = open_data(config, plan)
    main = processes.is_main()
    with failure.together():
        if main:
            write_config(config)
        metrics = MetricsWriter(
            config.output,
            tensorboard=config.logging.tensorboard,
            wandb_project=config.logging.wandb_project,
            enabled=main,
        )
    run = Run(
        config=config,
        plan=plan,
        rates=learning_rates(config.stages, [stage.tokens for stage in plan.stages]),
        data=data,
        metrics=metrics,
        progress=ProgressLine(enabled=main),
        checkpoints=CheckpointWriter(
            store_of(config),
            asynchronous=config.checkpoint.asynchronous,
            on_saved=lambda saved: _record_checkpoint(metrics, plan, saved),
        ),
        begun=begun,
        peak_tflops=device.peak_tflops(config.precision)[0],
    )
    if main:
        through_checkpoint.clean(run.scratch)
    return run


def _begin(run: Run, checkpoint: Path | None) -> tuple[Engine, TrainState]:
    """The live model and where it stands: the initial weights, or those of a checkpoint."""
    fresh = TrainState(
        step=0, stage=0, updates=0, skipped=0, sampler=initial_state(run.config.data.buckets)
    )
    state = fresh if checkpoint is None else _saved_state(run, checkpoint)
    growth_bytes = run.largest_growth_bytes(state)
    if growth_bytes is not None:
        through_checkpoint.check_scratch(run.scratch, needed_bytes=growth_bytes)
    _record_run(run, state)
    drawn = checkpoint is None and run.config.initialise_from is None
    engine = build_engine(run.config, run.stage(state), draws=lambda _: drawn)
    if checkpoint is None:
        read_initial_weights(run, engine, run.stage(state))
    else:
        with guarded(checkpoint, "loading", MEND):
            sharded.load(engine.trained(state.updates), checkpoint)
        run.record("resume", state, path=str(checkpoint))
        run.progress.note(f"resumed {checkpoint} at step {state.step}")
    return engine, state


def _saved_state(run: Run, checkpoint: Path) -> TrainState:
    document = failure.on_main(lambda: read_state(checkpoint))
    try:
        state = TrainState.from_dict(document["train"], str(checkpoint))
        saved_config, saved_data = document["config"], dict(document["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: state.json is damaged: {error!r}. {MEND}") from None
    check_identity(saved_config, plain_config(run.config), state.stage, str(checkpoint))
    stages = run.plan.stages
    if state.stage >= len(stages) or not (
        stages[state.stage].first_step <= state.step <= stages[state.stage].end_step
    ):
        raise CheckpointError(f"{checkpoint}: step {state.step} is not in its stage. {MEND}")
    with failure.together():
        integrity.check_contents(
            checkpoint,
            document["files"],
            MEND,
            rank=processes.rank(),
            ranks=processes.world_size(),
        )
    changed = [
        name
        for name, fingerprint in saved_data.items()
        if run.data.fingerprints.get(name) != fingerprint
    ]
    if changed:
        raise CheckpointError(
            f"{checkpoint}: the data of {', '.join(changed)} is not what the run began with, so "
            "its position in it means nothing. Put the old files back, or begin a new run."
        )
    return state


def _end(run: Run, state: TrainState, reason: EndReason) -> None:
    run.checkpoints.close()
    run.record_end(state, reason)
    run.progress.close()
    run.metrics.close()
    code = 0 if reason == "completed" else EXIT_REQUEUE
    write_status(run.folder, reason, step=state.step, exit_code=code)


def _record_run(run: Run, state: TrainState) -> None:
    peak_tflops, peak_source = device.peak_tflops(run.config.precision)
    run.record(
        "run",
        state,
        config=plain_config(run.config),
        world_size=processes.world_size(),
        device=device.name(),
        versions=versions(),
        total_tokens=run.plan.tokens,
        total_steps=run.plan.steps,
        total_flops=float(run.plan.flops),
        peak_tflops=peak_tflops,
        peak_source=peak_source,
        epochs=dict(run.data.epochs),
    )


def _record_checkpoint(metrics: MetricsWriter, plan: RunPlan, saved: Saved) -> None:
    metrics.write(
        "checkpoint",
        step=saved.step,
        stage=plan.stages[saved.state["train"]["stage"]].name,
        tokens=plan.tokens_at(saved.step),
        flops=float(plan.flops_at(saved.step)),
        path=str(saved.path),
        seconds=saved.seconds,
        blocking=saved.blocking,
    )
