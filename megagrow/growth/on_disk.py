"""Growth of a model on disk: a checkpoint, or a Hugging Face folder, into a new one of its kind."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megagrow.checkpoint import integrity
from megagrow.checkpoint.store import read_state
from megagrow.config.schema import ModelConfig
from megagrow.conversion.exporting import (
    TOKENIZER_FILES,
    Progress,
    copy_tokenizer,
    find_checkpoint,
    stored_model,
    write_document,
)
from megagrow.conversion.families import is_needless, layout_of, read_config, write_config
from megagrow.conversion.importing import as_stored, model_yaml, publish_weights
from megagrow.conversion.layout import Converted, Layout, TensorSource, check
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.conversion.safetensors_file import Content, itemsize, torch_dtype, torch_name
from megagrow.conversion.safetensors_folder import SafetensorsReader, SafetensorsWriter, read_json
from megagrow.conversion.unfinished import refuse_masks
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.verbatim import copied_tensors
from megagrow.model.shape import ModelShape, model_shape

if TYPE_CHECKING:  # a folder that grows by copies of layers needs no torch, which is slow to start
    import torch

    from megagrow.growth.offline import GrownTensors
    from megagrow.growth.whole_tensors import Predicted
    from megagrow.growth.width.interface import WidthOperator

SHARD_BYTES = 2 * 1000**3
"""Largest file of a Hugging Face folder; what is no copy of one is in memory at a time."""

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

    layout: Layout
    """How it is stored."""

    files: SafetensorsReader | None
    """Its files, where it is a Hugging Face folder."""

    tensors: TensorSource
    """Its weights under megatron-core's keys."""

    dtype: str
    """Of its weights, by its name in torch (`bfloat16`); `tensors` may be fp32 master weights."""


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
    predicted: Callable[[str], Predicted] = lambda key: {},
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

    def grown() -> GrownTensors:
        from megagrow.runtime import megatron_core

        megatron_core.load()
        from megagrow.growth.offline import GrownTensors
        from megagrow.growth.seeds import draw_seed, noise_seed
        from megagrow.growth.whole_tensors import WholeTensors

        whole = WholeTensors(
            growth,
            old.shape,
            shape,
            init=model.init,
            draw_seed=draw_seed(seed, 1),
            noise_seed=noise_seed(seed, 1),
            width=width,
        )
        return GrownTensors(old.tensors, whole, predicted)

    kind = old.dtype if dtype is None else torch_name(dtype)
    if old.files is not None and old.family is not None:
        wanted = layout_of(old.family, shape)
        contents = _contents(
            old.files,
            _copies(old.files, growth, old.layout, wanted, kind) if width is None else {},
            lambda: Converted(grown(), megatron_layout(shape), wanted, torch_dtype(kind)),
        )
        document = write_config(old.family, model, shape)
        return _write_folder(old.folder, output, wanted, contents, document, kind, progress)
    text = model_yaml(old.folder, model, growth.new_layers, {})
    origin = {"grown": {"operator": growth.operator, "from": str(old.folder)}}
    return publish_weights(
        grown(), output, model, growth.new_layers, text, origin,
        dtype=torch_dtype(kind), progress=progress,
    )  # fmt: skip


def _open_folder(folder: Path) -> StoredModel:
    file = folder / "config.json"
    found = read_config(read_json(file), file, vocab_padding=1)
    reader = SafetensorsReader(folder)
    shape = as_stored(model_shape(found.model, found.layers), reader)
    stored_as = layout_of(found.family, shape, reader.keys())
    check(reader, stored_as, str(folder), ignored=lambda key: is_needless(found.family, shape, key))
    return StoredModel(
        folder=folder,
        model=found.model,
        layers=found.layers,
        shape=shape,
        family=found.family,
        layout=stored_as,
        files=reader,
        tensors=Converted(reader, stored_as, megatron_layout(shape)),
        dtype=reader.dtype_name(next(iter(stored_as.by_key))),
    )


def _open(source: Path, verify: bool) -> StoredModel:
    checkpoint = find_checkpoint(source)
    state = read_state(checkpoint)
    model, layers = stored_model(state, checkpoint)
    refuse_masks(state, checkpoint)
    if verify:
        integrity.check_contents(checkpoint, state["files"], _MEND, rank=0, ranks=1)
    from megagrow.conversion.distributed import CheckpointReader  # torch: not for what is refused

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
        layout=layout,
        files=None,
        tensors=CheckpointReader(checkpoint, masters=True),
        dtype=torch_name(weights.dtype(next(iter(layout.by_key)))),
    )


def _copies(
    files: SafetensorsReader, growth: GrowthPlan, old: Layout, new: Layout, dtype: str
) -> dict[str, str]:
    """What is in the old files already, byte for byte: new keys and old ones."""
    copies = copied_tensors(growth, old, new)
    return {key: origin for key, origin in copies.items() if files.dtype_name(origin) == dtype}


def _contents(
    files: SafetensorsReader, copies: Mapping[str, str], make: Callable[[], Converted]
) -> Callable[[str], Content]:
    """What each key of the new folder holds; all but copies is made, tensor by tensor."""
    made = functools.cache(make)
    return lambda key: files.stored(copies[key]) if key in copies else made().tensor(key)


def _write_folder(
    source: Path,
    output: Path,
    layout: Layout,
    contents: Callable[[str], Content],
    document: dict[str, Any],
    dtype: str,
    progress: Progress,
) -> int:
    file = source / "config.json"
    ids = read_config(read_json(file), file, vocab_padding=1).token_ids
    document |= {"torch_dtype": dtype, **ids}
    count = sum(math.prod(layout.stored_shape(key)) for key in layout.by_key)
    needed = count * itemsize(dtype)
    with SafetensorsWriter(output, shard_bytes=SHARD_BYTES, needed_bytes=needed) as writer:
        for done, key in enumerate(layout.by_key, 1):
            writer.add(key, contents(key))
            progress(done, len(layout.by_key))
        write_document(document, writer.folder)
        if any((source / name).is_file() for name in TOKENIZER_FILES):
            copy_tokenizer(source, writer.folder)
    return count
