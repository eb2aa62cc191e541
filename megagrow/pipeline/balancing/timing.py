"""Timing the parts of a model on this device, one of each shape, forward and backward."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from megatron.core import tensor_parallel

from megagrow.config.schema import ParallelConfig, RunConfig, StageConfig
from megagrow.errors import LayoutError
from megagrow.model.build import build_model, wrap_ddp
from megagrow.model.initialisation import initialise
from megagrow.model.layer import LayerShape
from megagrow.model.shape import model_shape
from megagrow.pipeline.balancing.layer_times import LayerTimes, timed_settings
from megagrow.runtime import device, groups, processes, seeds

ROUND_S = 0.05
"""Seconds of work between two looks at the clock, so that launching it is hidden as in training."""

Work = Callable[[], None]
"""One forward and backward pass of a part."""

Report = Callable[[str], None]


def time_stage(config: RunConfig, stage: StageConfig, rounds: int, report: Report) -> LayerTimes:
    """Times the parts of a stage's model, with tensor size 1, in this process alone.

    Args:
        config: the run.
        stage: the stage; its micro-batch, recomputation and fusions count.
        rounds: how often each part is timed; its time is the median.
        report: gets a line for every part.

    Raises:
        LayoutError: there are several processes, or a part cannot be built here.
    """
    started = processes.start()
    try:
        if processes.world_size() > 1:
            raise LayoutError("layers are timed by one process: start without torchrun")
        groups.set_up()
        return _time_stage(config, stage, rounds, report)
    finally:
        groups.tear_down()
        if started:
            processes.stop()


def _time_stage(config: RunConfig, stage: StageConfig, rounds: int, report: Report) -> LayerTimes:
    shape = model_shape(stage.model, stage.layers)
    layers: dict[LayerShape, float] = {}
    embedding = output = 0.0
    for layer in dict.fromkeys(shape.layers):
        parts = _Parts(config, stage, layer)
        if not layers:
            embedding = _seconds("embedding", parts.embedding, rounds, report)
            output = _seconds("output layer and loss", parts.output, rounds, report)
        name = f"layer of {layer.num_attention_heads} heads, FFN {layer.ffn_hidden_size}"
        layers[layer] = _seconds(name, parts.layer, rounds, report)
    return LayerTimes(
        settings=timed_settings(
            shape,
            precision=config.precision,
            micro_size=stage.batch.micro_size,
            parallel=stage.parallel,
        ),
        device=device.name(),
        rounds=rounds,
        layers=layers,
        embedding=embedding,
        output=output,
    )


class _Parts:
    """A model of a single layer, and a forward and backward pass of each of its parts."""

    def __init__(self, config: RunConfig, stage: StageConfig, layer: LayerShape) -> None:
        shape = replace(model_shape(stage.model, stage.layers), layers=(layer,))
        parallel = _alone(stage.parallel)
        seeds.seed_step(config.seed, 0)
        chunks = build_model(shape, stage.model, parallel, config.precision)
        initialise(chunks, shape, stage.model.init, config.seed)
        # Gradients are accumulated as in training, and fused kernels find where.
        self._wrapped = wrap_ddp(chunks, parallel)
        self._model: Any = self._wrapped[0].module
        while hasattr(self._model, "module"):  # of bf16
            self._model = self._model.module
        size = (stage.batch.micro_size, shape.seq_length)
        self._tokens = torch.randint(shape.vocab_size, size, device=device.device())
        self._positions = torch.arange(shape.seq_length, device=device.device()).expand(*size)
        rotary = getattr(self._model, "rotary_pos_emb", None)
        self._rotary = None if rotary is None else rotary(shape.seq_length)
        self._full_recompute = parallel.recompute == "full"
        with torch.no_grad():
            hidden = self._model.embedding(input_ids=self._tokens, position_ids=self._positions)
        self._gradient = torch.randn_like(hidden)
        self._hidden = hidden.detach().requires_grad_()

    def embedding(self) -> None:
        """The embedding of one micro-batch."""
        hidden = self._model.embedding(input_ids=self._tokens, position_ids=self._positions)
        hidden.backward(self._gradient)

    def layer(self) -> None:
        """One layer."""
        self._hidden.grad = None
        if self._full_recompute:
            result = tensor_parallel.checkpoint(self._forward_layer, False, self._hidden)
        else:
            result = self._forward_layer(self._hidden)
        result.backward(self._gradient)

    def output(self) -> None:
        """Final norm, output layer and loss."""
        self._hidden.grad = None
        model = self._model
        tied = model.share_embeddings_and_output_weights
        weight = model.shared_embedding_or_output_weight() if tied else None
        logits, _ = model.output_layer(model.decoder.final_layernorm(self._hidden), weight=weight)
        model.compute_language_model_loss(self._tokens, logits).float().mean().backward()

    def _forward_layer(self, hidden: torch.Tensor) -> torch.Tensor:
        result, _ = self._model.decoder.layers[0](
            hidden_states=hidden, attention_mask=None, rotary_pos_emb=self._rotary
        )
        output: torch.Tensor = result
        return output


def _alone(parallel: ParallelConfig) -> ParallelConfig:
    """The same kernels in a single process."""
    return replace(
        parallel,
        tensor=1,
        pipeline=1,
        virtual_pipeline=1,
        sequence_parallel=False,
        overlap_grad_reduce=False,
        overlap_param_gather=False,
        layers_per_chunk=None,
    )


def _seconds(name: str, work: Work, rounds: int, report: Report) -> float:
    """The median over the rounds, after a warm-up."""
    first = _timed(work, 1)
    if first < 1.0:  # kernels that are still being chosen or compiled; not a slow device
        _timed(work, 3)
    count = max(1, round(ROUND_S / max(_timed(work, 1), 1e-9)))
    seconds = median(_timed(work, count) for _ in range(rounds))
    report(f"{name}: {1e3 * seconds:.3g} ms")
    return seconds


def _timed(work: Work, count: int) -> float:
    """Seconds of one of `count` passes, one after the other."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / count
