"""What a stage's growth is, when it would best come, and what it costs. Pure Python."""

from __future__ import annotations

from megagrow.config.schema import RunConfig, StageConfig, TransitionConfig
from megagrow.errors import ConfigError
from megagrow.growth.depth import plan_growth
from megagrow.growth.ligo.checks import check_ligo
from megagrow.growth.ligo.cost import ligo_step_flops
from megagrow.growth.ligo.settings import ligo_settings
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.shape_checks import check_layers
from megagrow.growth.timing import GrowthTiming, timing
from megagrow.growth.width.masks import MASK_TURNS
from megagrow.model.flops import parameters
from megagrow.model.shape import ModelShape, model_shape


def stage_growth(stage: StageConfig, shape: ModelShape, before: ModelShape) -> GrowthPlan | None:
    """How the model of a stage comes from that of the stage before; None: the stage is the first.

    Args:
        stage: the stage.
        shape: its model.
        before: the model of the stage before.

    Raises:
        ConfigError: its operators cannot make the one of the other; names the stage.
    """
    transition = stage.transition
    if transition is None:
        return None
    _check_masks(stage, transition)
    try:
        growth = plan_growth(transition, before.num_layers, stage.layers)
        if transition.operator == "learned":
            check_ligo(before, shape)
        else:
            check_layers(growth, transition.width, before, shape)
    except ConfigError as error:
        raise ConfigError(f"stage {stage.name!r}: {error}") from None
    return growth


def _check_masks(stage: StageConfig, transition: TransitionConfig) -> None:
    width = transition.width
    one_by_one = 0 if width is None or width.mask_tokens is None else width.mask_tokens
    for tokens in (transition.mask_tokens, len(set(MASK_TURNS.values())) * one_by_one):
        if tokens > stage.tokens:
            raise ConfigError(
                f"stage {stage.name!r}: the mask rises over {tokens} tokens and the stage has "
                f"{stage.tokens}; make mask_tokens smaller, or the stage longer"
            )


def growth_flops(
    stage: StageConfig, before: ModelShape | None, shape: ModelShape, step_flops: int, steps: int
) -> int:
    """Training FLOPs of a growth itself: those of learning how to grow.

    Args:
        stage: the stage that it leads into.
        before: the model before it; None: there is none.
        shape: the grown model.
        step_flops: FLOPs of one training step of that.
        steps: training steps of the stage.

    Raises:
        ConfigError: the stage has fewer batches than are to be learned from; names it.
    """
    if before is None or stage.transition is None or stage.transition.operator != "learned":
        return 0
    settings = ligo_settings(stage.transition.learned)
    if settings.steps > steps:
        raise ConfigError(
            f"stage {stage.name!r}: learning to grow takes {settings.steps} batches of the stage, "
            f"which has {steps}; set transition.learned.steps, or make the stage longer"
        )
    return settings.steps * (step_flops + ligo_step_flops(before, shape))


def growth_timing(config: RunConfig, index: int, shape: ModelShape) -> GrowthTiming | None:
    """The guideline for a growth, with the tokens at the new size as the target's budget.

    Args:
        config: the run.
        index: the stage that the growth leads into.
        shape: its model.
    """
    stages = config.stages
    shapes = [model_shape(stage.model, stage.layers) for stage in stages]
    if index == 0 or shape == shapes[index - 1]:
        return None
    budget = 0
    for stage, its_shape in zip(stages[index:], shapes[index:], strict=True):
        if its_shape != shape:
            break
        budget += stage_steps(stage, shape.seq_length) * stage.batch.global_size * shape.seq_length
    return timing(parameters(shape).non_embedding, budget)


def stage_steps(stage: StageConfig, seq_length: int) -> int:
    """Optimizer steps of a stage: its tokens in whole steps, rounded up."""
    return -(-stage.tokens // (stage.batch.global_size * seq_length))
