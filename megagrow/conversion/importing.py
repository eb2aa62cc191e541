"""A Hugging Face folder -> a megagrow checkpoint, and the `model` section that fits it."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megagrow.checkpoint.store import CheckpointStore
from megagrow.config.schema import ModelConfig
from megagrow.config.sections import to_yaml, without_defaults
from megagrow.conversion.exporting import Progress, cut_shape
from megagrow.conversion.families import is_needless, layout_of, read_config
from megagrow.conversion.layout import Converted, TensorSource, check
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.conversion.safetensors_folder import (
    SafetensorsReader,
    new_folder,
    publish_folder,
    read_json,
)
from megagrow.model.shape import ModelShape, model_shape

if TYPE_CHECKING:
    import torch

MODEL_FILE = "model.yaml"
"""The `model` section, inside the checkpoint's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What was written."""

    family: str
    """The `model_type` it was."""

    model: ModelConfig
    """The model."""

    layers: int
    """Its depth."""

    parameters: int
    """Its weights, without the vocabulary's padding."""

    padding: int
    """Rows of zeros that were added to the embedding, and to the output layer."""

    token_ids: Mapping[str, Any]
    """Special tokens of its config.json."""

    text: str
    """The content of `model.yaml`."""


def from_hugging_face(
    source: Path,
    output: Path,
    *,
    dtype: torch.dtype | None = None,
    seq_length: int | None = None,
    vocab_padding: int = 128,
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Write a Hugging Face model as a checkpoint, with `model.yaml` in it.

    Rows that the vocabulary's padding adds are zeros: no token has those ids, and the output layer
    gives them the logit 0.

    Args:
        source: a folder with config.json and safetensors.
        output: the checkpoint's folder to be; must not exist, or be empty.
        dtype: of the weights; None: as they are. Master weights are fp32.
        seq_length: tokens per sequence to train with; None: as many as the model has positions.
        vocab_padding: the multiple of embedding rows to have.
        progress: told how far it is.

    Raises:
        CheckpointError: the folder cannot be converted, or the output cannot be written.
    """
    file = source / "config.json"
    found = read_config(read_json(file), file, seq_length=seq_length, vocab_padding=vocab_padding)
    shape = model_shape(found.model, found.layers)
    reader = SafetensorsReader(source)
    stored_as = layout_of(found.family, as_stored(shape, reader), reader.keys())
    check(reader, stored_as, str(source), ignored=lambda key: is_needless(found.family, shape, key))
    tensors = Converted(reader, stored_as, megatron_layout(shape))
    text = model_yaml(source, found.model, found.layers, found.token_ids)
    origin = {"family": found.family, "token_ids": dict(found.token_ids)}
    parameters = publish_weights(
        tensors, output, found.model, found.layers, text, origin, dtype=dtype, progress=progress
    )
    padding = shape.padded_vocab_size - shape.vocab_size
    tables = 1 if shape.tie_embeddings else 2
    return Imported(
        family=found.family, model=found.model, layers=found.layers,
        parameters=parameters - tables * padding * shape.hidden_size,
        padding=padding, token_ids=found.token_ids, text=text,
    )  # fmt: skip


def publish_weights(
    tensors: TensorSource,
    output: Path,
    model: ModelConfig,
    layers: int,
    text: str,
    origin: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    progress: Progress = lambda done, total: None,
) -> int:
    """Writes weights as a checkpoint to begin a run from; the folder appears when it is complete.

    Args:
        tensors: under megatron-core's keys.
        output: the checkpoint's folder to be; must not exist, or be empty.
        model: what they are the weights of.
        layers: its depth.
        text: content of its `model.yaml`.
        origin: where they are from, for `state.json`.
        dtype: of the weights; None: as they are. Master weights are fp32.
        progress: told how far it is.

    Returns:
        How many weights there are, padding included.

    Raises:
        CheckpointError: the output cannot be written.
    """
    from megagrow.conversion.distributed import write_checkpoint

    keys = list(tensors.keys())
    sizes = {key: math.prod(tensors.shape(key)) for key in keys}
    needed = sum(
        count * ((dtype or tensors.dtype(key)).itemsize + 4) for key, count in sizes.items()
    )
    temporary = new_folder(output, needed)
    try:
        store = CheckpointStore(folder=temporary, keep=1)
        partial = store.begin(0)
        write_checkpoint(
            tensors, partial, dtype=dtype, progress=lambda done: progress(done, len(keys))
        )
        (partial / MODEL_FILE).write_text(text, encoding="utf-8")
        state = {
            "config": {"model": dataclasses.asdict(model), "stages": [{"layers": layers}]},
            "train": {"step": 0, "stage": 0},
            "imported": dict(origin),
        }
        publish_folder(store.commit(partial, 0, state), output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sum(sizes.values())


def as_stored(shape: ModelShape, reader: SafetensorsReader) -> ModelShape:
    """The model as the folder has it: no padding, and all learned positions."""
    stored = cut_shape(shape)
    if shape.style == "llama":
        return stored
    for key in reader.keys():  # noqa: SIM118 - no mapping
        if key.endswith("wpe.weight"):
            positions = max(reader.shape(key)[0], shape.seq_length)
            return dataclasses.replace(stored, seq_length=positions)
    return stored


def model_section(model: ModelConfig) -> dict[str, Any]:
    """The keys of a model that are not the defaults; `init`, which is of no use, is left out."""
    section: dict[str, Any] = without_defaults(model)
    del section["init"]
    return section


def model_yaml(source: Path, model: ModelConfig, layers: int, token_ids: Mapping[str, Any]) -> str:
    """The content of `model.yaml`: the section of a run's file that fits the weights."""
    named = ", ".join(f"{key} {value}" for key, value in token_ids.items() if value is not None)
    section = to_yaml({"model": model_section(model)})
    return (
        f"# {source.resolve().name}: {layers} layers, which is `layers` of the first stage.\n"
        f"# Special tokens: {named or 'none named'}. Bucket the data with its own tokenizer.\n"
        f"{section}"
    )
