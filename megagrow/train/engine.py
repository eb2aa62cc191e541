"""A model that trains: chunks, optimizer and parallel groups of one stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megagrow.checkpoint import sharded
from megagrow.checkpoint.sharded import TrainedModel
from megagrow.config import RunConfig
from megagrow.growth.keys import layer_of
from megagrow.growth.seeds import draw_seed
from megagrow.growth.width.masked_modules import masked_modules
from megagrow.model.build import build_model, build_optimizer, wrap_ddp
from megagrow.model.initialisation import initialise
from megagrow.model.mask import ChannelMask, ResidualMask
from megagrow.model.trainable import freeze, mark_added, stop_backward
from megagrow.plan.schedule import StagePlan
from megagrow.runtime import compat, groups, seeds
from megagrow.train.learning_rate import rewarm_stage


class Engine:
    """The live model. Holds all tensors of a run: there is one at a time."""

    def __init__(
        self,
        chunks: Sequence[DistributedDataParallel],
        optimizer: MegatronOptimizer,
        mask: ResidualMask,
        channels: ChannelMask,
    ) -> None:
        self.chunks = chunks
        """Model chunks of this rank, one unless the pipeline is interleaved."""
        self.optimizer = optimizer
        """Their optimizer."""
        self._mask, self._channels = mask, channels

    def fade_in(self, stage: StagePlan, tokens: int) -> None:
        """Sets the masks over what is new in a stage to what they are after `tokens` tokens."""
        self._mask.value = stage.mask_at(tokens)
        self._channels.values = stage.channel_masks_at(tokens)

    def trained(self, updates: int) -> TrainedModel:
        """What a checkpoint or a growth takes from it, after `updates` optimizer steps."""
        self.settle()
        modules = [chunk.module for chunk in self.chunks]
        return TrainedModel(chunks=modules, optimizer=self.optimizer, updates=updates)

    def settle(self) -> None:
        """Completes the parameter gather that may overlap with the next forward pass.

        Until then the weights are those before the last update.
        """
        for chunk in self.chunks:
            if chunk.ddp_config.overlap_param_gather:
                chunk.start_param_sync(force_sync=True)

    def release(self) -> None:
        """Frees the model, so that another can be built; its parallel groups stay up."""
        for chunk in self.chunks:
            if chunk.ddp_config.overlap_param_gather:
                # megatron-core caches rotary embeddings for ever, and their hooks hold the model.
                chunk.disable_forward_pre_hook(param_sync=False)
        compat.release(self.chunks)
        del self.chunks, self.optimizer
        groups.forget_models()
        torch.cuda.empty_cache()


def build_engine(config: RunConfig, stage: StagePlan, *, draws: Callable[[str], bool]) -> Engine:
    """Builds model and optimizer of `stage`, on parallel groups of its sizes.

    Args:
        config: the run.
        stage: the stage whose depth and layout count.
        draws: which weights to draw, by their keys; others are read from elsewhere at once.
    """
    parallel = config.stages[stage.index].parallel
    virtual = parallel.virtual_pipeline
    groups.ensure(
        tensor=parallel.tensor,
        pipeline=parallel.pipeline,
        virtual=virtual if virtual > 1 else None,
    )
    seeds.seed_step(config.seed, 0)
    models = build_model(stage.shape, stage.config.model, parallel, config.precision, stage.layout)
    seed = draw_seed(config.seed, stage.index)
    initialise(models, stage.shape, config.model.init, seed, draws)
    freeze(models, stage.trains)
    lowest = stage.lowest_trained_layer
    if parallel.pipeline > 1 and lowest is not None:
        stop_backward(models, lowest)
    mask = ResidualMask(models, stage.masked)
    masked = stage.channel_masks_at(stage.first_token) and stage.shape_before
    channels = ChannelMask(models, masked_modules(masked, stage.shape) if masked else {})
    if rewarm_stage(config.stages, stage.index) is not None:
        mark_added(models, lambda key: layer_of(key) in stage.added)
    chunks = wrap_ddp(models, parallel)
    optimizer = build_optimizer(chunks, config.optimizer, parallel, config.precision)
    sharded.prepare(optimizer)
    return Engine(chunks, optimizer, mask, channels)
