"""Growth of a model on disk: a checkpoint, or a Hugging Face folder, into a new one of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from megagrow.checkpoint import integrity
from megagrow.checkpoint.store import read_state
from megagrow.config.schema import ModelConfig
from megagrow.conversion.distributed import CheckpointReader
from megagrow.conversion.exporting import (
    TOKENIZER_FILES,
    Progress,
    copy_tokenizer,
    find_checkpoint,
    stored_model,
)
from megagrow.conversion.families import is_needless, layout_of, read_config, write_config
from megagrow.conversion.importing import as_stored, model_yaml, publish_weights
from megagrow.conversion.layout import Converted, TensorSource, check
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.conversion.safetensors_folder import SafetensorsReader, SafetensorsWriter, read_json
from megagrow.growth.offline import GrownTensors
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.seeds import draw_seed, noise_seed
from megagrow.growth.width.operator import WidthOperator
from megagrow.model.shape import ModelShape, model_shape
from megagrow.model.tensors import TensorName

SHARD_BYTES = 2 * 1000**3
"""Largest file of a Hugging Face folder: one is in memory at a time."""

_MEND = "Give another checkpoint of the run: older ones lie beside it."


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """A model on disk."""

    folder: Path
    """Where it is."""

    model: ModelConfig
    """What it is."""

    layers: int
    """Its depth."""

    shape: ModelShape
    """The same, with as many embedding rows and positions as are stored."""

    family: str | None
    """Its `model_type` in transformers; None: it is a checkpoint of ours."""

    tensors: TensorSource
    """Its weights under megatron-core's keys."""

    dtype: torch.dtype
    """Of its weights; `tensors` may be fp32 master weights."""


def open_model(source: Path, *, verify: bool = True) -> StoredModel:
    """A model on disk, by its metadata.

    Args:
        source: a Hugging Face folder, a run (its newest checkpoint), or a checkpoint.
        verify: hold a checkpoint's files against their checksums first.

    Raises:
        CheckpointError: it is neither, or cannot be read.
    """
    return _open_folder(source) if (source / "config.json").is_file() else _open(source, verify)


def grow_model(
    old: StoredModel,
    output: Path,
    growth: GrowthPlan,
    model: ModelConfig,
    *,
    width: WidthOperator | None = None,
    predicted: Callable[[TensorName], torch.Tensor | None] = lambda name: None,
    norms_of: int | None = None,
    seed: int = 1234,
    dtype: torch.dtype | None = None,
    progress: Progress = lambda done, total: None,
) -> int:
    """Writes the grown model, in the format of the old one; the folder appears when complete.

    Args:
        old: the model.
        output: the folder to be; must not exist, or be empty.
        growth: the new depth.
        model: the new widths; other keys are the old one's.
        width: how tensors get wider; None: they do not.
        predicted: tensors of new layers that are not copies (`growth.lesa.layers`).
        norms_of: the old layer that the norms of new layers are copied from; None: the same as all
            else.
        seed: of drawn layers and noise, as if a run with this seed grew before its stage 1.
        dtype: of the weights; None: as they are.
        progress: told how far it is.

    Returns:
        How many weights the new model has, padding included.

    Raises:
        ConfigError: the width operator cannot make the one shape of the other.
        CheckpointError: reading or writing failed, or no such model can be written.
    """
    rows, positions = old.shape.padded_vocab_size, old.shape.seq_length
    shape = replace(
        model_shape(model, growth.new_layers), padded_vocab_size=rows, seq_length=positions
    )
    grown = GrownTensors(
        old.tensors,
        growth,
        old.shape,
        shape,
        init=model.init,
        draw_seed=draw_seed(seed, 1),
        noise_seed=noise_seed(seed, 1),
        width=width,
        predicted=predicted,
        norms_of=norms_of,
    )
    kind = dtype or old.dtype
    if old.family is not None:
        return _write_folder(old, old.family, output, grown, model, shape, kind, progress)
    text = model_yaml(old.folder, model, growth.new_layers, {})
    origin = {"grown": {"operator": growth.operator, "from": str(old.folder)}}
    return publish_weights(
        grown, output, model, growth.new_layers, text, origin, dtype=kind, progress=progress
    )


def _open_folder(folder: Path) -> StoredModel:
    file = folder / "config.json"
    found = read_config(read_json(file), file, vocab_padding=1)
    reader = SafetensorsReader(folder)
    shape = as_stored(model_shape(found.model, found.layers), reader)
    stored_as = layout_of(found.family, shape, reader.keys())
    check(reader, stored_as, str(folder), ignored=lambda key: is_needless(found.family, shape, key))
    tensors = Converted(reader, stored_as, megatron_layout(shape))
    return StoredModel(
        folder=folder,
        model=found.model,
        layers=found.layers,
        shape=shape,
        family=found.family,
        tensors=tensors,
        dtype=tensors.dtype(next(iter(tensors.keys()))),
    )


def _open(source: Path, verify: bool) -> StoredModel:
    checkpoint = find_checkpoint(source)
    state = read_state(checkpoint)
    model, layers = stored_model(state, checkpoint)
    if verify:
        integrity.check_contents(checkpoint, state["files"], _MEND, rank=0, ranks=1)
    shape = model_shape(model, layers)
    layout = megatron_layout(shape)
    weights = CheckpointReader(checkpoint)
    check(weights, layout, str(checkpoint), ignored=lambda key: key.startswith("optimizer."))
    return StoredModel(
        folder=checkpoint,
        model=model,
        layers=layers,
        shape=shape,
        family=None,
        tensors=CheckpointReader(checkpoint, masters=True),
        dtype=weights.dtype(next(iter(layout.by_key))),
    )


def _write_folder(
    old: StoredModel,
    family: str,
    output: Path,
    grown: GrownTensors,
    model: ModelConfig,
    shape: ModelShape,
    dtype: torch.dtype,
    progress: Progress,
) -> int:
    document: dict[str, Any] = write_config(family, model, shape)
    file = old.folder / "config.json"
    ids = read_config(read_json(file), file, vocab_padding=1).token_ids
    document |= {"torch_dtype": str(dtype).removeprefix("torch."), **ids}
    tensors = Converted(grown, megatron_layout(shape), layout_of(family, shape), dtype)
    keys = list(tensors.keys())
    sizes = {key: torch.Size(tensors.shape(key)).numel() for key in keys}
    needed = sum(sizes.values()) * dtype.itemsize
    with SafetensorsWriter(output, shard_bytes=SHARD_BYTES, needed_bytes=needed) as writer:
        for done, key in enumerate(keys, 1):
            # Copies of one layer may be one tensor in memory, which no such file can hold twice.
            writer.add(key, tensors.tensor(key).clone())
            progress(done, len(keys))
        text = json.dumps(document, indent=2) + "\n"
        (writer.folder / "config.json").write_text(text, encoding="utf-8")
        if any((old.folder / name).is_file() for name in TOKENIZER_FILES):
            copy_tokenizer(old.folder, writer.folder)
    return sum(sizes.values())
