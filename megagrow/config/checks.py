"""What must hold between the keys of one configuration, whatever the machine and the data."""

from __future__ import annotations

import math
from difflib import get_close_matches

from megagrow.config.schema import (
    BatchConfig,
    LearningRateConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    StageConfig,
)
from megagrow.config.source import KeyPath, Source

MIXTURE_TOLERANCE = 1e-6


def check(config: RunConfig, source: Source) -> None:
    """Raises ConfigError for the first combination that could not be trained."""
    _check_model(config.model, source)
    _check_data(config, source)
    _check_optimizer(config.optimizer, source)
    _check_intervals(config, source)
    names: set[str] = set()
    previous: StageConfig | None = None
    for index, stage in enumerate(config.stages):
        path: KeyPath = ("stages", index)
        if stage.name in names:
            raise source.error((*path, "name"), f"another stage is called {stage.name!r} too; rename one")
        names.add(stage.name)
        _check_sizes(stage, source, path)
        _check_mixture(config, stage.mixture, source, (*path, "mixture"))
        if stage.mixture_end is not None:
            _check_mixture(config, stage.mixture_end, source, (*path, "mixture_end"))
        _check_layout(config.model, stage.layers, stage.parallel, source, path)
        _check_batch(stage.batch, stage.parallel, source, path)
        _check_learning_rate(stage.learning_rate, source, (*path, "learning_rate"))
        if previous is not None:
            _check_transition(previous, stage, source, path)
        previous = stage


def _check_model(model: ModelConfig, source: Source) -> None:
    positive = ("hidden_size", "num_attention_heads", "vocab_size", "vocab_padding", "seq_length")
    for name in positive:
        if getattr(model, name) < 1:
            raise source.error(("model", name), "must be at least 1")
    for name in ("num_query_groups", "kv_channels", "ffn_hidden_size"):
        value = getattr(model, name)
        if value is not None and value < 1:
            raise source.error(("model", name), "must be at least 1, or left out")
    heads = model.num_attention_heads
    if model.kv_channels is None and model.hidden_size % heads:
        raise source.error(
            ("model", "num_attention_heads"),
            f"hidden_size {model.hidden_size} is not divisible by {heads} heads; "
            f"nearest: {nearest_divisor(model.hidden_size, heads)}, or set kv_channels",
        )
    head = model.kv_channels or model.hidden_size // heads
    if model.style == "llama" and head % 2:
        raise source.error(("model", "kv_channels"), f"rotary embeddings need an even head dimension, not {head}")
    groups = model.num_query_groups
    if groups is not None and heads % groups:
        raise source.error(
            ("model", "num_query_groups"),
            f"{heads} heads cannot share {groups} key/value heads; nearest: {nearest_divisor(heads, groups)}",
        )
    if not 0.0 <= model.dropout < 1.0:
        raise source.error(("model", "dropout"), "must be at least 0 and below 1")
    if model.init.std <= 0 or model.norm_epsilon <= 0:
        raise source.error(("model",), "init.std and norm_epsilon must be above 0")


def _check_data(config: RunConfig, source: Source) -> None:
    if not config.data.buckets:
        raise source.error(("data", "buckets"), "name at least one bucket and its .bin/.idx prefixes")
    for name, prefixes in config.data.buckets.items():
        if not prefixes:
            raise source.error(("data", "buckets", name), "the bucket has no prefix")
    if not 0.0 <= config.data.validation_fraction < 1.0:
        raise source.error(("data", "validation_fraction"), "must be at least 0 and below 1")


def _check_optimizer(optimizer: OptimizerConfig, source: Source) -> None:
    for name in ("beta1", "beta2"):
        if not 0.0 <= getattr(optimizer, name) < 1.0:
            raise source.error(("optimizer", name), "must be at least 0 and below 1")
    for name in ("weight_decay", "clip_grad"):
        if getattr(optimizer, name) < 0:
            raise source.error(("optimizer", name), "must not be negative")
    if optimizer.epsilon <= 0:
        raise source.error(("optimizer", "epsilon"), "must be above 0")


def _check_intervals(config: RunConfig, source: Source) -> None:
    if config.checkpoint.keep < 1:
        raise source.error(("checkpoint", "keep"), "keep at least one checkpoint")
    if config.logging.interval < 1:
        raise source.error(("logging", "interval"), "must be at least 1 step")
    if config.evaluation.sequences < 1:
        raise source.error(("evaluation", "sequences"), "must be at least 1")
    for section, interval in (
        ("checkpoint", config.checkpoint.interval),
        ("evaluation", config.evaluation.interval),
    ):
        if interval == 0:
            raise source.error((section, "interval"), "must be above 0, or left out")


def _check_sizes(stage: StageConfig, source: Source, path: KeyPath) -> None:
    if stage.layers < 1:
        raise source.error((*path, "layers"), "must be at least 1")
    if stage.tokens < 1:
        raise source.error((*path, "tokens"), "must be above 0")


def _check_mixture(config: RunConfig, mixture: dict[str, float], source: Source, path: KeyPath) -> None:
    buckets = list(config.data.buckets)
    for name, share in mixture.items():
        if name not in buckets:
            close = get_close_matches(name, buckets, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"buckets: {', '.join(buckets)}"
            raise source.error((*path, name), f"unknown bucket; {hint}")
        if not (math.isfinite(share) and share >= 0):
            raise source.error((*path, name), f"a share is a number from 0 to 1, not {share}")
    total = sum(mixture.values())
    if abs(total - 1.0) > MIXTURE_TOLERANCE:
        raise source.error(path, f"the shares sum to {total:.6g}; they must sum to 1")


def _check_layout(
    model: ModelConfig, layers: int, parallel: ParallelConfig, source: Source, path: KeyPath
) -> None:
    where = (*path, "parallel")
    for name in ("tensor", "pipeline", "virtual_pipeline"):
        if getattr(parallel, name) < 1:
            raise source.error((*where, name), "must be at least 1")
    tensor = parallel.tensor
    sizes = {
        "num_attention_heads": model.num_attention_heads,
        "num_query_groups": model.num_query_groups or model.num_attention_heads,
    }
    if model.ffn_hidden_size is not None:
        sizes["ffn_hidden_size"] = model.ffn_hidden_size
    for name, size in sizes.items():
        if size % tensor:
            raise source.error(
                (*where, "tensor"),
                f"{name} {size} is not divisible by tensor parallel size {tensor}; "
                f"nearest size that works: {nearest_divisor(size, tensor)}",
            )
    if model.vocab_padding % tensor:
        raise source.error((*where, "tensor"), f"vocab_padding {model.vocab_padding} is not divisible by {tensor}")
    if parallel.sequence_parallel and tensor == 1:
        raise source.error((*where, "sequence_parallel"), "needs a tensor parallel size above 1")
    if parallel.sequence_parallel and model.seq_length % tensor:
        raise source.error((*where, "sequence_parallel"), f"seq_length {model.seq_length} is not divisible by {tensor}")
    chunks = parallel.pipeline * parallel.virtual_pipeline
    if parallel.virtual_pipeline > 1 and parallel.pipeline == 1:
        raise source.error((*where, "virtual_pipeline"), "needs a pipeline size above 1")
    if chunks > layers:
        raise source.error(
            (*where, "pipeline"),
            f"{layers} layers cannot fill {chunks} pipeline stages "
            f"(pipeline {parallel.pipeline} x virtual {parallel.virtual_pipeline}); use at most {layers}",
        )
    if parallel.overlap_param_gather and not (parallel.distributed_optimizer and parallel.overlap_grad_reduce):
        raise source.error((*where, "overlap_param_gather"), "needs distributed_optimizer and overlap_grad_reduce")


def _check_batch(batch: BatchConfig, parallel: ParallelConfig, source: Source, path: KeyPath) -> None:
    where = (*path, "batch")
    if batch.global_size < 1 or batch.micro_size < 1:
        raise source.error(where, "global_size and micro_size must be at least 1")
    if batch.global_size % batch.micro_size:
        raise source.error((*where, "global_size"), f"{batch.global_size} is not a multiple of micro_size {batch.micro_size}")
    if parallel.virtual_pipeline > 1 and (batch.global_size // batch.micro_size) % parallel.pipeline:
        raise source.error(
            (*where, "global_size"),
            "the interleaved schedule needs a number of micro-batches divisible by the pipeline size "
            f"{parallel.pipeline}",
        )


def _check_learning_rate(rate: LearningRateConfig, source: Source, path: KeyPath) -> None:
    if rate.peak <= 0:
        raise source.error((*path, "peak"), "must be above 0")
    if rate.minimum is not None and not 0 <= rate.minimum <= rate.peak:
        raise source.error((*path, "minimum"), f"must lie between 0 and the peak {rate.peak}")
    if rate.decay == "wsd" and rate.decay_tokens == 0:
        raise source.error((*path, "decay_tokens"), "wsd needs the length of its final fall")
    if rate.horizon is not None and rate.horizon <= rate.warmup:
        raise source.error((*path, "horizon"), "must lie beyond the warmup")


def _check_transition(previous: StageConfig, stage: StageConfig, source: Source, path: KeyPath) -> None:
    transition = stage.transition
    assert transition is not None  # the loader completes it
    where = (*path, "layers")
    if stage.layers < previous.layers:
        raise source.error(where, f"depth cannot shrink: {previous.layers} -> {stage.layers} layers")
    if stage.layers == previous.layers and transition.operator != "none":
        raise source.error((*path, "transition", "operator"), f"{transition.operator} needs more layers than {previous.layers}")
    if stage.layers > previous.layers and transition.operator == "none":
        raise source.error((*path, "transition", "operator"), "the stage has more layers; name the growth operator")
    if transition.operator == "stack" and stage.layers % previous.layers:
        low = stage.layers // previous.layers * previous.layers
        raise source.error(
            where,
            f"stack needs a multiple of {previous.layers} layers; nearest: {low} or {low + previous.layers}",
        )
    if transition.learning_rate == "continue" and stage.learning_rate != previous.learning_rate:
        raise source.error(
            (*path, "learning_rate"),
            "a stage that continues the schedule cannot change it; set the keys where it restarts",
        )


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` nearest to `wanted`."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - wanted), d))
