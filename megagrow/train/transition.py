"""Between two stages: growth, a new layout, a reset optimizer, or nothing but new data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from megagrow.config import TransitionConfig
from megagrow.growth.cost import GrowthCost
from megagrow.growth.plan import GrowthPlan
from megagrow.plan.schedule import StagePlan, rebuilds
from megagrow.train.engine import Engine
from megagrow.train.evaluation import as_record, validation
from megagrow.train.rebuild import Rebuild
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
    transition, growth = _transition(new)
    updates = 0 if transition.optimizer == "reset" else state.updates
    after = replace(state, stage=new.index, updates=updates)
    if not rebuilds(old, new):
        return engine, after
    run.checkpoints.wait()
    rebuild = Rebuild(run, engine, state, after, transition, growth)
    in_memory = transition.through == "memory"
    cost = rebuild.in_memory() if in_memory else rebuild.through_checkpoint()
    losses = validation(run, rebuild.engine, after) if new.grows else {}
    learned = rebuild.learned_losses
    found = {**as_record(losses), **({} if learned is None else {"learned_losses": learned})}
    _report(run, after, old, new, cost, found)
    return rebuild.engine, after


def _transition(stage: StagePlan) -> tuple[TransitionConfig, GrowthPlan]:
    if stage.config.transition is None or stage.growth is None:
        raise ValueError(f"stage {stage.name!r} has no transition: only the first stage has none")
    return stage.config.transition, stage.growth


def _operators(transition: TransitionConfig) -> str:
    width = transition.width
    names = [transition.operator] if width is None or transition.operator != "none" else []
    return ", ".join([*names, *([] if width is None else [width.operator])])


def _report(
    run: Run,
    state: TrainState,
    old: StagePlan,
    new: StagePlan,
    cost: GrowthCost,
    found: Mapping[str, object],
) -> None:
    transition, growth = _transition(new)
    run.record(
        "growth",
        state,
        from_layers=growth.old_layers,
        to_layers=growth.new_layers,
        operator=transition.operator,
        width=None if transition.width is None else transition.width.operator,
        optimizer=transition.optimizer,
        through=transition.through,
        **found,
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
        f"{growth.old_layers} -> {growth.new_layers} layers, hidden {old.shape.hidden_size} -> "
        f"{new.shape.hidden_size} ({_operators(transition)}, optimizer {transition.optimizer})"
        if new.grows
        else f"{growth.new_layers} layers in {len(new.layout)} chunks, imbalance "
        f"{old.imbalance:.3f} -> {new.imbalance:.3f}"
    )
    loss = f", validation loss {found['loss']:.4f}" if "loss" in found else ""
    run.progress.note(f"{what} in {cost.seconds:.1f} s{loss}")
