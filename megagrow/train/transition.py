"""Between two stages: growth, a new layout, a reset optimizer, or nothing but new data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from megagrow.checkpoint import sharded
from megagrow.checkpoint.sharded import TrainedModel
from megagrow.checkpoint.store import BYTES_PER_PARAMETER
from megagrow.config import TransitionConfig
from megagrow.growth import in_memory, through_checkpoint
from megagrow.growth.adjust import adjust as adjust_shards
from megagrow.growth.cost import GrowthCost
from megagrow.growth.in_memory import BuiltModel
from megagrow.growth.keys import Source, layer_of, moment_source, weight_source
from megagrow.growth.moments import moment_policy
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.seeds import noise_seed
from megagrow.pipeline.redistribution.shards import Shards, publish, shards_of
from megagrow.plan.schedule import StagePlan, rebuilds
from megagrow.train.engine import Engine, build_engine
from megagrow.train.run import Run
from megagrow.train.state import TrainState


def enter_stage(run: Run, engine: Engine, state: TrainState) -> tuple[Engine, TrainState]:
    """Makes the live model that of the next stage; call on every rank.

    Args:
        run: the run.
        engine: the model of the stage that ended; not usable afterwards.
        state: the end of that stage.
    """
    old, new = run.stage(state), run.plan.stages[state.stage + 1]
    transition, _ = _transition(new)
    updates = 0 if transition.optimizer == "reset" else state.updates
    after = replace(state, stage=new.index, updates=updates)
    if not rebuilds(old, new):
        return engine, after
    run.checkpoints.wait()
    engine, cost = _rebuild(run, engine, state, after)
    _report(run, after, old, new, cost)
    return engine, after


def _rebuild(
    run: Run, engine: Engine, state: TrainState, after: TrainState
) -> tuple[Engine, GrowthCost]:
    """The engine of the stage of `after` with the state of `engine`, which is freed."""
    old, new = run.stage(state), run.stage(after)
    transition, growth = _transition(new)
    policy = moment_policy(transition)
    weights = weight_source(growth)
    moments = _moments(old, moment_source(growth, policy, weights))
    built: list[Engine] = []

    def take() -> TrainedModel:
        return engine.trained(state.updates)

    def build() -> BuiltModel:
        built.append(build_engine(run.config, new, draws=lambda key: layer_of(key) in growth.drawn))
        return BuiltModel(model=built[0].trained(after.updates), wrapped=built[0].chunks)

    def adjust(shards: Shards) -> None:
        adjust_shards(shards, growth, policy, new.shape, noise_seed(run.config.seed, new.index))

    if transition.through == "memory":
        cost = in_memory.grow(
            take,
            engine.release,
            build,
            adjust,
            weights=weights,
            moments=moments,
            staging_bytes=run.config.checkpoint.growth_staging,
        )
        return built[0], cost

    def write(folder: Path) -> None:
        sharded.save(take(), folder)
        engine.release()

    def read(folder: Path) -> None:
        grown = build()
        sharded.load(
            grown.model,
            folder,
            weights=weights,
            moments=moments or (lambda _: None),
            trained=old.trains,
        )
        adjust(shards_of(grown.model))
        publish(grown.model, grown.wrapped)

    needed = old.parameters.total * BYTES_PER_PARAMETER
    cost = through_checkpoint.grow(write, read, scratch=run.scratch, needed_bytes=needed)
    return built[0], cost


def _moments(old: StagePlan, source: Source | None) -> Source | None:
    """Where moments come from: weights that were frozen in `old` have none."""
    if source is None or old.config.trainable == "all":
        return source

    def trained(key: str) -> str | None:
        found = source(key)
        return found if found is not None and old.trains(found) else None

    return trained


def _transition(stage: StagePlan) -> tuple[TransitionConfig, GrowthPlan]:
    if stage.config.transition is None or stage.growth is None:
        raise ValueError(f"stage {stage.name!r} has no transition: only the first stage has none")
    return stage.config.transition, stage.growth


def _report(run: Run, state: TrainState, old: StagePlan, new: StagePlan, cost: GrowthCost) -> None:
    transition, growth = _transition(new)
    run.record(
        "growth",
        state,
        from_layers=growth.old_layers,
        to_layers=growth.new_layers,
        operator=transition.operator,
        optimizer=transition.optimizer,
        through=transition.through,
        seconds=cost.seconds,
        phases=dict(cost.phases),
        bytes_moved=cost.bytes_moved,
        kept_bytes=cost.kept_bytes,
        peak_bytes=cost.peak_bytes,
        imbalance={"before": old.imbalance, "after": new.imbalance},
        layout={"before": list(old.layout), "after": list(new.layout)},
        layer_map=[[list(source) for source in sources] for sources in growth.sources],
    )
    what = (
        f"{growth.old_layers} -> {growth.new_layers} layers ({transition.operator}, optimizer "
        f"{transition.optimizer})"
        if new.grows
        else f"{growth.new_layers} layers in {len(new.layout)} chunks, imbalance "
        f"{old.imbalance:.3f} -> {new.imbalance:.3f}"
    )
    run.progress.note(f"{what} in {cost.seconds:.1f} s")
