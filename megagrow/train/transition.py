"""Between two stages: growth, a new layout, a reset optimizer, or nothing but new data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from megagrow.checkpoint import sharded
from megagrow.checkpoint.store import BYTES_PER_PARAMETER
from megagrow.config import TransitionConfig
from megagrow.growth import through_checkpoint
from megagrow.growth.plan import GrowthPlan
from megagrow.train.engine import Engine, build_engine
from megagrow.train.run import Run, rebuilds
from megagrow.train.state import TrainState


def enter_stage(run: Run, engine: Engine, state: TrainState) -> tuple[Engine, TrainState]:
    """Makes the live model that of the next stage; call on every rank.

    Args:
        run: the run.
        engine: the model of the stage that ended; not usable afterwards.
        state: the end of that stage.
    """
    old, new = run.stage(state), run.plan.stages[state.stage + 1]
    transition, growth = new.config.transition, new.growth
    if transition is None or growth is None:
        raise ValueError(f"stage {new.name!r} has no transition: only the first stage has none")
    updates = 0 if transition.optimizer == "reset" else state.updates
    after = replace(state, stage=new.index, updates=updates)
    if not rebuilds(old, new):
        return engine, after
    run.checkpoints.wait()
    built: list[Engine] = []

    def write(folder: Path) -> None:
        sharded.save(engine.trained(state.updates), folder)
        engine.release()

    def read(folder: Path) -> None:
        built.append(build_engine(run.config, new, initialised=False))
        target = built[0].trained(updates)
        sharded.load(target, folder, growth=growth, moments=transition.optimizer)

    cost = through_checkpoint.grow(
        write,
        read,
        scratch=run.scratch,
        needed_bytes=old.parameters.total * BYTES_PER_PARAMETER,
    )
    _report(run, after, growth, transition, cost)
    return built[0], after


def _report(
    run: Run,
    state: TrainState,
    growth: GrowthPlan,
    transition: TransitionConfig,
    cost: through_checkpoint.GrowthCost,
) -> None:
    run.record(
        "growth",
        state,
        from_layers=growth.old_layers,
        to_layers=growth.new_layers,
        operator=transition.operator,
        optimizer=transition.optimizer,
        seconds=cost.seconds,
        bytes_moved=cost.bytes_moved,
        peak_bytes=cost.peak_bytes,
        layer_map=[[list(source) for source in sources] for sources in growth.sources],
    )
    run.progress.note(
        f"{growth.old_layers} -> {growth.new_layers} layers ({transition.operator}, optimizer "
        f"{transition.optimizer}) in {cost.seconds:.1f} s"
    )
