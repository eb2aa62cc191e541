"""From the model of one stage to that of the next: in memory, or through a checkpoint."""

from __future__ import annotations

from pathlib import Path

from megagrow.checkpoint import sharded
from megagrow.checkpoint.sharded import TrainedModel
from megagrow.checkpoint.store import BYTES_PER_PARAMETER
from megagrow.config import TransitionConfig
from megagrow.conversion.megatron_names import unsplit
from megagrow.growth import in_memory, through_checkpoint
from megagrow.growth.adjust import adjust
from megagrow.growth.cost import GrowthCost
from megagrow.growth.dealing import Gather, gather_checkpoint, make
from megagrow.growth.in_memory import BuiltModel
from megagrow.growth.keys import Source, layer_of, moment_source, weight_source, without
from megagrow.growth.lesa.settings import lesa_settings
from megagrow.growth.making import Making, makings
from megagrow.growth.moments import moment_policy
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.seeds import draw_seed, noise_seed
from megagrow.growth.whole_tensors import WholeTensors
from megagrow.growth.width.draws import Draws
from megagrow.growth.width.operator import configured
from megagrow.pipeline.redistribution.shards import KINDS, Shards, publish, shards_of
from megagrow.plan.schedule import StagePlan
from megagrow.runtime.stopwatch import Stopwatch
from megagrow.train.engine import Engine, build_engine
from megagrow.train.learned_growth import LearnedGrowth
from megagrow.train.run import Run
from megagrow.train.state import TrainState


class Rebuild:
    """One change of model. Use it once.

    Args:
        run: the run.
        engine: the model of the stage that ended; freed by this.
        state: the end of that stage.
        after: the start of the next.
        transition: what is asked for in between.
        growth: what comes of it in depth.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        state: TrainState,
        after: TrainState,
        transition: TransitionConfig,
        growth: GrowthPlan,
    ) -> None:
        self._run, self._state, self._after = run, state, after
        self._old, self._new = run.stage(state), run.stage(after)
        self._engine, self._growth = engine, growth
        self._policy = moment_policy(transition)
        self._learned = None
        if transition.operator == "learned":
            self._learned = LearnedGrowth(run, self._old, after)
        self._jobs = self._learned.jobs if self._learned else _jobs(run, self._old, self._new)
        # A model has some keys under which two stored tensors are one.
        self._made = {
            name for job in self._jobs for key in job.makes for name in (key, unsplit(key))
        }
        self._weights = weight_source(growth)
        moments = moment_source(growth, self._policy, self._weights)
        self._moments = _trained_moments(self._old, moments)
        self._staging_bytes = run.config.checkpoint.growth_staging

    @property
    def engine(self) -> Engine:
        """The live model: the old one, and once it has been built the new one."""
        return self._engine

    @property
    def learned_losses(self) -> list[float] | None:
        """The loss before each step of learning how to grow; None: nothing is learned."""
        return None if self._learned is None else self._learned.losses

    def in_memory(self) -> GrowthCost:
        """Straight between processes; call on every rank."""
        return in_memory.grow(
            self._take,
            self._engine.release,
            self._build,
            self._adjust,
            weights=self._weights,
            moments=self._moments,
            jobs=self._jobs,
            learn=self._learn if self._learned else None,
            staging_bytes=self._staging_bytes,
        )

    def through_checkpoint(self) -> GrowthCost:
        """Through a folder that every process sees; call on every rank."""
        needed = self._old.parameters.total * BYTES_PER_PARAMETER
        return through_checkpoint.grow(
            self._write, self._read, scratch=self._run.scratch, needed_bytes=needed
        )

    def _take(self) -> TrainedModel:
        return self._engine.trained(self._state.updates)

    def _build(self) -> BuiltModel:
        def draws(key: str) -> bool:
            return layer_of(key) in self._growth.drawn and key not in self._made

        self._engine = build_engine(self._run.config, self._new, draws=draws)
        model = self._engine.trained(self._after.updates)
        return BuiltModel(model=model, wrapped=self._engine.chunks)

    def _learn(self, shards: Shards, gather: Gather) -> None:
        if self._learned is not None:
            self._learned.learn(self._engine, shards, gather)

    def _adjust(self, shards: Shards) -> None:
        seeds = noise_seed(self._run.config.seed, self._new.index)
        shape = self._new.shape
        adjust(shards, self._growth, self._policy, shape, seeds, complete=self._made)

    def _write(self, folder: Path) -> None:
        sharded.save(self._take(), folder)
        self._engine.release()

    def _read(self, folder: Path) -> None:
        grown = self._build()
        sharded.load(
            grown.model,
            folder,
            weights=without(self._weights, self._made),
            moments=without(self._moments or (lambda _: None), self._made),
            trained=self._old.trains,
        )
        shards, gather = shards_of(grown.model), gather_checkpoint(folder)
        self._learn(shards, gather)
        staging, watch = self._staging_bytes, Stopwatch()
        for kind in KINDS if self._policy.kept else KINDS[:1]:
            make(self._jobs, kind, shards, gather, staging_bytes=staging, watch=watch)
        self._adjust(shards)
        publish(grown.model, grown.wrapped)


def _jobs(run: Run, old: StagePlan, new: StagePlan) -> list[Making]:
    """What makes the tensors of `new` that are no copies of those of `old`."""
    transition, growth = new.config.transition, new.growth
    if transition is None or growth is None:
        return []
    if transition.width is None and not growth.predicted:
        return []
    seed, init = draw_seed(run.config.seed, new.index), new.config.model.init
    whole = WholeTensors(
        growth,
        old.shape,
        new.shape,
        init=init,
        draw_seed=seed,
        noise_seed=noise_seed(run.config.seed, new.index),
        width=configured(transition.width, Draws(seed=seed, init=init)),
    )
    return makings(
        growth,
        whole,
        moment_policy(transition),
        old.shape,
        widens=transition.width is not None,
        lesa=lesa_settings(transition.lesa, run.config.seed),
    )


def _trained_moments(old: StagePlan, source: Source | None) -> Source | None:
    """Where moments come from: weights that were frozen in `old` have none."""
    if source is None or old.config.trainable == "all":
        return source

    def trained(key: str) -> str | None:
        found = source(key)
        return found if found is not None and old.trains(found) else None

    return trained
