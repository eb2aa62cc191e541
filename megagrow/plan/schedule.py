"""The run, worked out before it starts: steps, tokens, layout, FLOPs and memory of every stage.

The trainer follows the same plan that `--plan` prints. Pure Python: no torch, no data.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from megagrow.config.schema import ParallelConfig, RunConfig, StageConfig
from megagrow.errors import ConfigError, DataError, LayoutError
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.timing import GrowthTiming
from megagrow.growth.trained import trains
from megagrow.growth.width.masks import MASK_TURNS, mask_value
from megagrow.model.flops import Parameters, TrainFlops, flops_per_token, parameters
from megagrow.model.memory import MemoryModel, RankMemory
from megagrow.model.shape import ModelShape, model_shape
from megagrow.pipeline.balancing.costs import LayerCosts
from megagrow.plan import advice, world
from megagrow.plan.splits import Split, plan_splits
from megagrow.plan.stage_growth import growth_flops, growth_timing, stage_growth, stage_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """One stage, worked out. Steps, tokens and FLOPs before it are those of the whole run."""

    index: int
    """Place in the stage table, from 0."""

    config: StageConfig
    """Its row of the stage table."""

    shape: ModelShape
    """The model it trains."""

    shape_before: ModelShape | None
    """The model of the stage before; unset in the first stage."""

    parameters: Parameters
    """Weights of that model."""

    layout: tuple[int, ...]
    """Layers of each pipeline chunk; rank r holds chunks r, r + pipeline, ..."""

    splits: tuple[Split, ...]
    """What the layout was weighed against, and last the layout itself."""

    data_parallel: int
    """Data-parallel size."""

    micro_batches: int
    """Micro-batches of one optimizer step on each model replica."""

    steps: int
    """Optimizer steps, enough for the stage's tokens."""

    first_step: int
    """Optimizer steps before the stage: the stage runs steps `range(first_step, end_step)`."""

    first_token: int
    """Tokens trained on before the stage."""

    first_flops: int
    """Training FLOPs spent before the stage's first step, its growth's among them."""

    growth_flops: int
    """Training FLOPs of the growth that leads into the stage: 0 unless how to grow is learned."""

    flops_per_token: TrainFlops
    """FLOPs of one token."""

    memory: tuple[RankMemory, ...]
    """Estimated memory on each pipeline rank."""

    growth: GrowthPlan | None
    """Where the layers come from (`none` operator: themselves); unset in the first stage."""

    added: frozenset[int]
    """Layers that the last growth added."""

    timing: GrowthTiming | None
    """Guideline for the tokens before this stage; only where the model grows."""

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.config.name

    @property
    def imbalance(self) -> float:
        """Cost of the heaviest chunk over the mean: FLOPs, or measured times."""
        return self.splits[-1].imbalance

    @property
    def grows(self) -> bool:
        """Whether the model has other layers, or wider ones, than in the stage before."""
        deepens = self.growth is not None and self.growth.operator != "none"
        return deepens or self.widens

    @property
    def widens(self) -> bool:
        """Whether the model has wider layers than in the stage before."""
        return self.config.transition is not None and self.config.transition.width is not None

    def trains(self, key: str) -> bool:
        """Whether a weight is trained, by its key in a checkpoint."""
        tied = self.shape.tie_embeddings
        return trains(self.config.trainable, self.added, tied=tied)(key)

    @property
    def masked(self) -> frozenset[int]:
        """Layers behind a mask that rises in this stage."""
        return frozenset() if self.growth is None else self.growth.masked

    def mask_at(self, tokens: int) -> float:
        """The mask after `tokens` tokens of the run: 0 where the stage begins, later 1."""
        if not self.masked or self.config.transition is None:
            return 1.0
        return min(1.0, (tokens - self.first_token) / self.config.transition.mask_tokens)

    def channel_masks_at(self, tokens: int) -> tuple[float, ...]:
        """The masks of new channels, by turn, after `tokens` tokens of the run; none: no mask."""
        transition = self.config.transition
        width = None if transition is None else transition.width
        if width is None or width.mask_tokens is None:
            return ()
        since = tokens - self.first_token
        turns = sorted(set(MASK_TURNS.values()))
        return tuple(mask_value(since, width.mask_tokens, turn) for turn in turns)

    @property
    def lowest_trained_layer(self) -> int | None:
        """Below it nothing is trained; None: the embedding is."""
        return None if self.trains("embedding.word_embeddings.weight") else min(self.added)

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.config.batch.global_size * self.shape.seq_length

    @property
    def tokens(self) -> int:
        """Tokens trained on: whole steps, so at least those asked for."""
        return self.steps * self.step_tokens

    @property
    def flops(self) -> int:
        """Training FLOPs of the stage."""
        return self.tokens * self.flops_per_token.total

    @property
    def end_step(self) -> int:
        """Optimizer steps of the run when the stage is over."""
        return self.first_step + self.steps

    @property
    def end_token(self) -> int:
        """Tokens of the run when the stage is over."""
        return self.first_token + self.tokens

    @property
    def end_flops(self) -> int:
        """Training FLOPs of the run when the stage is over."""
        return self.first_flops + self.flops

    @property
    def peak_memory(self) -> RankMemory:
        """Memory of the fullest rank."""
        return max(self.memory, key=lambda rank: rank.total)

    @property
    def bucket_tokens(self) -> dict[str, float]:
        """Tokens drawn from each bucket, expected: the mixture's integral over the stage.

        A linear ramp draws the mean of its two ends.
        """
        end = self.config.mixture if self.config.mixture_end is None else self.config.mixture_end
        names = dict.fromkeys((*self.config.mixture, *end))
        return {
            name: self.tokens * (self.config.mixture.get(name, 0.0) + end.get(name, 0.0)) / 2
            for name in names
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """A whole run, worked out."""

    name: str
    """Name of the run."""

    world_size: int
    """Processes."""

    world_size_given: bool
    """Whether that number was asked for, or is the smallest that suits every stage."""

    stages: tuple[StagePlan, ...]
    """The stages, in order."""

    warnings: tuple[str, ...]
    """What will run, but probably is not meant."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.stages[-1].end_step

    @property
    def tokens(self) -> int:
        """Tokens of the run."""
        return self.stages[-1].end_token

    @property
    def flops(self) -> int:
        """Training FLOPs of the run."""
        return self.stages[-1].end_flops

    @property
    def bucket_tokens(self) -> dict[str, float]:
        """Tokens the run draws from each bucket, expected."""
        total: dict[str, float] = {}
        for stage in self.stages:
            for name, tokens in stage.bucket_tokens.items():
                total[name] = total.get(name, 0.0) + tokens
        return total

    def stage_at(self, step: int) -> StagePlan:
        """The stage that runs after `step` optimizer steps; at the end of the run, the last one.

        Raises:
            ValueError: `step` is negative or beyond the run.
        """
        if not 0 <= step <= self.steps:
            raise ValueError(f"step {step} is not in this run of {self.steps} steps")
        firsts = [stage.first_step for stage in self.stages]
        return self.stages[bisect_right(firsts, step) - 1]

    def tokens_at(self, step: int) -> int:
        """Tokens trained on after `step` optimizer steps. Raises as `stage_at`."""
        stage = self.stage_at(step)
        return stage.first_token + (step - stage.first_step) * stage.step_tokens

    def flops_at(self, step: int) -> int:
        """Training FLOPs spent after `step` optimizer steps. Raises as `stage_at`.

        Where a stage begins, those of its growth are still to come.
        """
        self.stage_at(step)
        firsts = [stage.first_step for stage in self.stages]
        stage = self.stages[max(0, bisect_left(firsts, step) - 1)]
        tokens = (step - stage.first_step) * stage.step_tokens
        return stage.first_flops + tokens * stage.flops_per_token.total

    def epochs(self, bucket_sizes: Mapping[str, int]) -> dict[str, float]:
        """How often the run goes through each bucket it draws from.

        Args:
            bucket_sizes: training tokens in each bucket.

        Raises:
            DataError: a bucket the run draws from is missing or empty.
        """
        epochs = {}
        for name, tokens in self.bucket_tokens.items():
            size = bucket_sizes.get(name, 0)
            if tokens and size < 1:
                raise DataError(
                    f"bucket {name!r} is empty, and the run draws {tokens:.3g} tokens from it; "
                    "prepare data for it, or take it out of every mixture"
                )
            epochs[name] = tokens / size if size else 0.0
        return epochs


def make_plan(config: RunConfig, world_size: int | None = None) -> RunPlan:
    """Works a run out.

    Args:
        config: a checked configuration.
        world_size: processes the run will have; unset: the fewest that suit every stage.

    Raises:
        LayoutError: a stage that cannot run on that many processes, or a model that cannot be
            split as its stage asks; names the stage and the nearest values.
    """
    world.check_shapes(config)
    size = world.smallest_world_size(config) if world_size is None else world_size
    world.check_world_size(config, size)
    stages: list[StagePlan] = []
    for index in range(len(config.stages)):
        stages.append(_plan_stage(config, index, size, stages[-1] if stages else None))
    return RunPlan(
        name=config.name,
        world_size=size,
        world_size_given=world_size is not None,
        stages=tuple(stages),
        warnings=advice.warnings(config, [stage.tokens for stage in stages]),
    )


def _plan_stage(
    config: RunConfig, index: int, world_size: int, previous: StagePlan | None
) -> StagePlan:
    stage = config.stages[index]
    parallel, batch = stage.parallel, stage.batch
    shape = model_shape(stage.model, stage.layers)
    data_parallel = world_size // (parallel.tensor * parallel.pipeline)
    memory = MemoryModel(
        shape=shape,
        parallel=parallel,
        batch=batch,
        data_parallel=data_parallel,
        precision=config.precision,
        dropout=config.model.dropout > 0,
    )
    growth = None if previous is None else stage_growth(stage, shape, previous.shape)
    added = previous.added if previous else frozenset()
    if growth is not None and growth.operator != "none":
        added = growth.added
    if stage.trainable != "all" and not added:
        raise ConfigError(
            f"stage {stage.name!r}: trainable is {stage.trainable}, and the last growth added no "
            "layer; set it to all"
        )
    try:
        splits = plan_splits(
            memory,
            previous.layout if previous else None,
            lambda costs: _costs(costs, stage, shape, added),
        )
    except LayoutError as error:
        raise LayoutError(f"stage {stage.name!r}: {error}") from None
    per_token = _flops(stage, shape, added)
    steps = stage_steps(stage, shape.seq_length)
    growing = growth_flops(
        stage,
        None if previous is None else previous.shape,
        shape,
        per_token.total * batch.global_size * shape.seq_length,
        steps,
    )
    return StagePlan(
        index=index,
        config=stage,
        shape=shape,
        shape_before=None if previous is None else previous.shape,
        parameters=parameters(shape),
        layout=splits[-1].layout,
        splits=splits,
        data_parallel=data_parallel,
        micro_batches=batch.global_size // (batch.micro_size * data_parallel),
        steps=steps,
        first_step=previous.end_step if previous else 0,
        first_token=previous.end_token if previous else 0,
        first_flops=(previous.end_flops if previous else 0) + growing,
        growth_flops=growing,
        flops_per_token=per_token,
        memory=_memory(memory, splits[-1].layout, stage, added),
        growth=growth,
        added=added,
        timing=growth_timing(config, index, shape),
    )


def rebuilds(old: StagePlan, new: StagePlan) -> bool:
    """Whether the model of `new`, the stage after `old`, is another one than that of `old`."""
    transition = new.config.transition
    changed = transition is not None and transition.optimizer in ("reset", "scale")
    return new.grows or changed or _placement(old) != _placement(new)


def _placement(stage: StagePlan) -> tuple[ParallelConfig, tuple[int, ...], str]:
    """How a stage's model is built, spread and trained, not how that was found."""
    plain = ParallelConfig()
    found = replace(
        stage.config.parallel,
        balance=plain.balance,
        layer_times=plain.layer_times,
        memory_limit=plain.memory_limit,
        layers_per_chunk=plain.layers_per_chunk,
    )
    return found, stage.layout, stage.config.trainable


def _memory(
    memory: MemoryModel, layout: Sequence[int], stage: StageConfig, added: frozenset[int]
) -> tuple[RankMemory, ...]:
    if stage.trainable == "all":
        return memory.ranks(layout)
    return memory.ranks_of(layout, added, head=stage.trainable == "new_and_head")


def _costs(
    costs: LayerCosts, stage: StageConfig, shape: ModelShape, added: frozenset[int]
) -> LayerCosts:
    if stage.trainable == "all":
        return costs
    head = stage.trainable == "new_and_head"
    return costs.partly_trained(added, embedding=head and shape.tie_embeddings, output=head)


def _flops(stage: StageConfig, shape: ModelShape, added: frozenset[int]) -> TrainFlops:
    if stage.trainable == "all":
        return flops_per_token(shape)
    head = stage.trainable == "new_and_head"
    return flops_per_token(
        shape,
        trainable_layers=added,
        trainable_embedding=head and shape.tie_embeddings,
        trainable_output=head,
    )
