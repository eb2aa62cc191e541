"""What must hold between the keys of one configuration, whatever the machine and the data."""

from __future__ import annotations

import math
import os.path
import re
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

from megagrow.config.layer_scaling import check_layer_scaling
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
from megagrow.config.transitions import check_transitions
from megagrow.units import nearest_divisor, nearest_multiple

MIXTURE_TOLERANCE = 1e-6
WIDTHS = (
    "hidden_size",
    "num_attention_heads",
    "num_query_groups",
    "kv_channels",
    "ffn_hidden_size",
    "layer_scaling",
)
"""Keys of the model that a stage may set: what growth in width changes."""

LEAST_STAGING = 1024**2
"""Smallest `checkpoint.growth_staging`: below, a growth would be mostly waiting."""

_NAME = re.compile(r"\w[\w.+=@-]{0,99}")


def check(config: RunConfig, source: Source) -> None:
    """Raises ConfigError for the first combination that could not be trained."""
    _check_run(config, source)
    check_model(config.model, source, ("model",))
    _check_data(config, source)
    _check_optimizer(config.optimizer, source)
    names: set[str] = set()
    for index, stage in enumerate(config.stages):
        path: KeyPath = ("stages", index)
        if stage.name in names:
            raise source.error(
                (*path, "name"), f"another stage is called {stage.name!r} too; rename one"
            )
        names.add(stage.name)
        _check_stage(config, stage, source, path)
    check_transitions(config.stages, source)


def _check_run(config: RunConfig, source: Source) -> None:
    if not _NAME.fullmatch(config.name):
        raise source.error(
            ("name",),
            f"{config.name!r} cannot name a run (unset, it is the file's name): it is part of "
            "folder names; set name to up to 100 letters, digits and . _ - + = @, the first a "
            "letter, a digit or _",
        )
    if not config.output.strip():
        raise source.error(("output",), "is empty; name the run's folder, or remove the key")
    if config.initialise_from is not None and not config.initialise_from.strip():
        raise source.error(
            ("initialise_from",), "is empty; name a checkpoint or a run, or remove the key"
        )
    least: tuple[tuple[KeyPath, float | None, int], ...] = (
        (("seed",), config.seed, 0),
        (("checkpoint", "keep"), config.checkpoint.keep, 1),
        (("checkpoint", "interval"), config.checkpoint.interval, 1),
        (("evaluation", "interval"), config.evaluation.interval, 1),
        (("evaluation", "sequences"), config.evaluation.sequences, 1),
        (("logging", "interval"), config.logging.interval, 1),
        (("limits", "max_skips"), config.limits.max_skips, 1),
    )
    for path, value, minimum in least:
        if value is not None and value < minimum:
            raise source.error(path, f"must be at least {minimum}, not {value}")
    staging = config.checkpoint.growth_staging
    if staging < LEAST_STAGING:
        raise source.error(
            ("checkpoint", "growth_staging"), f"must be at least 1MiB, not {staging} bytes"
        )


def check_model(model: ModelConfig, source: Source, path: KeyPath) -> None:
    """Raises ConfigError for sizes that make no model; `path` is where they stand in `source`."""
    _check_positive(
        model,
        "hidden_size",
        "num_attention_heads",
        "num_query_groups",
        "kv_channels",
        "ffn_hidden_size",
        "vocab_size",
        "vocab_padding",
        "seq_length",
        "rotary_base",
        source=source,
        path=path,
    )
    heads, groups = model.num_attention_heads, model.num_query_groups
    if model.kv_channels is None and model.hidden_size % heads:
        raise source.error(
            (*path, "num_attention_heads"),
            f"hidden_size {model.hidden_size} is not divisible by {heads} heads; "
            f"nearest: {nearest_divisor(model.hidden_size, heads)} heads, or hidden_size "
            f"{nearest_multiple(heads, model.hidden_size)}, or set kv_channels",
        )
    head = model.kv_channels or model.hidden_size // heads
    if model.style == "llama" and head % 2:
        raise source.error(
            (*path, "kv_channels" if model.kv_channels else "num_attention_heads"),
            f"rotary embeddings need an even head dimension, not {head}; "
            f"set kv_channels to {head + 1}",
        )
    if groups is not None and heads % groups:
        raise source.error(
            (*path, "num_query_groups"),
            f"{heads} heads cannot share {groups} key/value heads; "
            f"nearest: {nearest_divisor(heads, groups)}",
        )
    if model.rotary_scaling is not None and model.rotary_scaling < 1:
        raise source.error(
            (*path, "rotary_scaling"), f"must be at least 1, not {model.rotary_scaling:g}"
        )
    if not 0.0 <= model.dropout < 1.0:
        raise source.error((*path, "dropout"), "must be at least 0 and below 1")
    for key, value in (
        ((*path, "init", "std"), model.init.std),
        ((*path, "norm_epsilon"), model.norm_epsilon),
    ):
        if value <= 0:
            raise source.error(key, "must be above 0")


def _check_positive(model: ModelConfig, *names: str, source: Source, path: KeyPath) -> None:
    for name in names:
        value = getattr(model, name)
        if value is not None and value < 1:
            raise source.error((*path, name), f"must be at least 1, not {value}")


def _check_stage_model(
    config: RunConfig, stage: StageConfig, source: Source, path: KeyPath
) -> None:
    for entry in fields(ModelConfig):
        here, there = getattr(stage.model, entry.name), getattr(config.model, entry.name)
        if here != there and entry.name not in WIDTHS:
            raise source.error(
                (*path, entry.name),
                f"is {here} in this stage and {there} in the run; stages may differ only in "
                f"{', '.join(WIDTHS)}",
            )
    check_model(stage.model, source, path)
    check_layer_scaling(stage.model, source, path, stage.layers)


def _check_data(config: RunConfig, source: Source) -> None:
    if not config.data.buckets:
        raise source.error(
            ("data", "buckets"), "name at least one bucket and its .bin/.idx prefixes"
        )
    owners: dict[str, str] = {}
    for name, prefixes in config.data.buckets.items():
        path: KeyPath = ("data", "buckets", name)
        if not prefixes:
            raise source.error(path, "the bucket has no prefix; give it one, or remove it")
        for prefix in prefixes:
            file = _data_file(config.data.path, prefix)
            if file in owners:
                raise source.error(
                    path,
                    f"{prefix!r} is in bucket {owners[file]!r} already, which would repeat its "
                    "documents; leave it in one place",
                )
            owners[file] = name
    if not 0.0 <= config.data.validation_fraction < 1.0:
        raise source.error(("data", "validation_fraction"), "must be at least 0 and below 1")


def _data_file(folder: str, prefix: str) -> str:
    """One text for one pair of files, however its prefix is written."""
    stem = prefix.removesuffix(".idx").removesuffix(".bin")
    return os.path.normpath(Path.cwd() / folder / stem)


def _check_optimizer(optimizer: OptimizerConfig, source: Source) -> None:
    for name in ("beta1", "beta2"):
        if not 0.0 <= getattr(optimizer, name) < 1.0:
            raise source.error(("optimizer", name), "must be at least 0 and below 1")
    for name in ("weight_decay", "clip_grad"):
        if getattr(optimizer, name) < 0:
            raise source.error(("optimizer", name), "must not be negative")
    if optimizer.epsilon <= 0:
        raise source.error(("optimizer", "epsilon"), "must be above 0")


def _check_stage(config: RunConfig, stage: StageConfig, source: Source, path: KeyPath) -> None:
    if stage.layers < 1:
        raise source.error((*path, "layers"), "must be at least 1")
    is_base = stage is config.stages[0] and len(config.stages) > 1
    if stage.tokens < 0 or (stage.tokens == 0 and not (is_base and config.initialise_from)):
        raise source.error(
            (*path, "tokens"),
            "must be above 0; only a first stage that initialise_from gives weights to may have "
            "none, and grow at once",
        )
    _check_mixture(config, stage.mixture, source, (*path, "mixture"))
    if stage.mixture_end is not None:
        _check_mixture(config, stage.mixture_end, source, (*path, "mixture_end"))
    _check_stage_model(config, stage, source, (*path, "model"))
    _check_tensor(stage.model, stage.parallel, source, (*path, "parallel"))
    _check_pipeline(stage.layers, stage.parallel, source, (*path, "parallel"))
    _check_layer_times(config, stage.parallel, source, (*path, "parallel", "layer_times"))
    _check_fusion(config, stage.parallel, source, (*path, "parallel"))
    _check_batch(stage.batch, stage.parallel, source, (*path, "batch"))
    _check_learning_rate(stage.learning_rate, source, (*path, "learning_rate"))


def _check_mixture(
    config: RunConfig, mixture: dict[str, float], source: Source, path: KeyPath
) -> None:
    buckets = list(config.data.buckets)
    for name, share in mixture.items():
        if name not in buckets:
            close = get_close_matches(name, buckets, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"buckets: {', '.join(buckets)}"
            raise source.error((*path, name), f"unknown bucket; {hint}")
        if share < 0:
            raise source.error((*path, name), f"a share is a number from 0 to 1, not {share}")
    total = sum(mixture.values())
    if abs(total - 1.0) > MIXTURE_TOLERANCE:
        raise source.error(path, f"the shares sum to {total:.6g}; they must sum to 1")


def _check_tensor(
    model: ModelConfig, parallel: ParallelConfig, source: Source, path: KeyPath
) -> None:
    for name in ("tensor", "pipeline", "virtual_pipeline"):
        if getattr(parallel, name) < 1:
            raise source.error((*path, name), "must be at least 1")
    tensor = parallel.tensor
    sizes = {"vocab_padding": model.vocab_padding}
    if model.layer_scaling is None:  # else, and where the FFN width is derived: `--plan` checks it
        sizes |= {
            "num_attention_heads": model.num_attention_heads,
            "num_query_groups": model.num_query_groups or model.num_attention_heads,
            "ffn_hidden_size": model.ffn_hidden_size or 0,
        }
    for name, size in sizes.items():
        if size % tensor:
            raise source.error(
                (*path, "tensor"),
                f"{name} {size} is not divisible by tensor parallel size {tensor}; "
                f"nearest size that works: {nearest_divisor(math.gcd(*sizes.values()), tensor)}",
            )
    if parallel.sequence_parallel and tensor == 1:
        raise source.error(
            (*path, "sequence_parallel"), "needs a tensor parallel size above 1; set it to false"
        )
    if parallel.sequence_parallel and model.seq_length % tensor:
        raise source.error(
            (*path, "sequence_parallel"),
            f"seq_length {model.seq_length} is not divisible by tensor parallel size {tensor}; "
            f"nearest size that works: {nearest_divisor(model.seq_length, tensor)}",
        )


def _check_fusion(
    config: RunConfig, parallel: ParallelConfig, source: Source, path: KeyPath
) -> None:
    if parallel.ddp_bucket_size is not None and parallel.ddp_bucket_size < 1:
        raise source.error((*path, "ddp_bucket_size"), "must be at least 1")
    if parallel.cross_entropy_fusion == "native" and config.precision != "bf16":
        raise source.error(
            (*path, "cross_entropy_fusion"),
            f"native rounds gradients to bf16, and the precision is {config.precision}; "
            "set it to none",
        )
    if parallel.cross_entropy_fusion != "none" and config.deterministic:
        raise source.error(
            (*path, "cross_entropy_fusion"),
            "is not deterministic; set it to none, or deterministic to false",
        )


def _check_pipeline(layers: int, parallel: ParallelConfig, source: Source, path: KeyPath) -> None:
    chunks = parallel.pipeline * parallel.virtual_pipeline
    if parallel.virtual_pipeline > 1 and parallel.pipeline == 1:
        raise source.error(
            (*path, "virtual_pipeline"), "needs a pipeline size above 1; set it to 1"
        )
    if chunks > layers:
        raise source.error(
            (*path, "pipeline"),
            f"{layers} layers cannot fill {chunks} pipeline stages "
            f"(pipeline {parallel.pipeline} x virtual {parallel.virtual_pipeline}); "
            f"use at most {layers}",
        )
    _check_balance(layers, parallel, source, path)
    if parallel.overlap_param_gather and not (
        parallel.distributed_optimizer and parallel.overlap_grad_reduce
    ):
        raise source.error(
            (*path, "overlap_param_gather"),
            "needs distributed_optimizer and overlap_grad_reduce; set both, or remove this key",
        )


def _check_balance(layers: int, parallel: ParallelConfig, source: Source, path: KeyPath) -> None:
    if parallel.balance == "times" and parallel.layer_times is None:
        raise source.error(
            (*path, "balance"),
            "times needs a file of measured times; set layer_times to one that "
            "tools/time_layers.py wrote, or balance to flops",
        )
    if parallel.memory_limit == 0:
        raise source.error((*path, "memory_limit"), "must be above 0; remove the key for no limit")
    counts = parallel.layers_per_chunk
    if counts is None:
        return
    chunks = parallel.pipeline * parallel.virtual_pipeline
    fault = None
    if len(counts) != chunks:
        fault = (
            f"names {len(counts)} chunks, and pipeline {parallel.pipeline} x virtual "
            f"{parallel.virtual_pipeline} has {chunks}"
        )
    elif min(counts) < 1:
        fault = "gives a chunk no layer; each needs one"
    elif sum(counts) != layers:
        fault = f"sums to {sum(counts)}, and the stage has {layers} layers"
    if fault is not None:
        raise source.error(
            (*path, "layers_per_chunk"),
            f"{fault}; nearest: {_nearest_counts(counts, chunks, layers)}, or remove the key",
        )


def _check_layer_times(
    config: RunConfig, parallel: ParallelConfig, source: Source, path: KeyPath
) -> None:
    """A file that nothing reads; a stage may take over the run's and balance by something else."""
    if parallel.layer_times is None or parallel.balance == "times":
        return
    if path in source.inherited and any(
        stage.parallel.balance == "times" for stage in config.stages
    ):
        return
    raise source.error(
        path, f"is not read with balance {parallel.balance}; set that to times, or remove this key"
    )


def _nearest_counts(counts: tuple[int, ...], chunks: int, layers: int) -> list[int]:
    """A list that fits: the given one, or else one of equal counts, mended from its end."""
    even = [layers // chunks] * chunks
    near = [max(1, count) for count in counts] if len(counts) == chunks else even
    near[-1] += max(0, layers - sum(near))
    for index in reversed(range(chunks)):
        near[index] -= max(0, min(near[index] - 1, sum(near) - layers))
    return near


def _check_batch(
    batch: BatchConfig, parallel: ParallelConfig, source: Source, path: KeyPath
) -> None:
    size, micro = batch.global_size, batch.micro_size
    for name in ("global_size", "micro_size"):
        if getattr(batch, name) < 1:
            raise source.error((*path, name), "must be at least 1")
    if size % micro:
        raise source.error(
            (*path, "global_size"),
            f"{size} is not a multiple of micro_size {micro}; "
            f"nearest: {nearest_multiple(micro, size)}",
        )
    if parallel.virtual_pipeline > 1 and (size // micro) % parallel.pipeline:
        group = micro * parallel.pipeline
        raise source.error(
            (*path, "global_size"),
            "the interleaved schedule needs a number of micro-batches divisible by the pipeline "
            f"size {parallel.pipeline}, not {size // micro}; "
            f"nearest: {nearest_multiple(group, size)}",
        )


def _check_learning_rate(rate: LearningRateConfig, source: Source, path: KeyPath) -> None:
    if rate.peak <= 0:
        raise source.error((*path, "peak"), "must be above 0")
    if rate.minimum is not None and not 0 <= rate.minimum <= rate.peak:
        raise source.error(
            (*path, "minimum"),
            f"must lie between 0 and the peak {rate.peak:g}, not {rate.minimum:g}",
        )
    if rate.decay == "wsd" and rate.decay_tokens == 0:
        raise source.error(
            (*path, "decay"), "wsd needs the length of its final fall; set decay_tokens"
        )
    if rate.horizon is not None and rate.horizon <= rate.warmup:
        raise source.error(
            (*path, "horizon"), f"must lie beyond the warmup of {rate.warmup} tokens"
        )
