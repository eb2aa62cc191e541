"""A megagrow checkpoint -> a Hugging Face folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megagrow.checkpoint import integrity
from megagrow.checkpoint.store import STATE_FILE, CheckpointStore, read_state
from megagrow.config.build import build
from megagrow.config.schema import ModelConfig
from megagrow.config.source import Source
from megagrow.conversion.config_keys import TOKEN_IDS
from megagrow.conversion.families import family_of, layout_of, write_config
from megagrow.conversion.layout import Converted, check
from megagrow.conversion.megagrow_config import copy_code
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.conversion.safetensors_folder import SHARD_BYTES, SafetensorsWriter, read_json
from megagrow.conversion.unfinished import refuse_masks
from megagrow.errors import CheckpointError
from megagrow.model.shape import ModelShape, model_shape

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]
"""Told how many tensors are done, and of how many."""

_MEND = "Give another checkpoint of the run: older ones lie beside it."
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
"""What a tokenizer of transformers may be made of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written."""

    checkpoint: Path
    """The checkpoint it is of."""

    family: str
    """Its `model_type` in transformers."""

    tensors: int
    """How many tensors."""

    parameters: int
    """How many weights, without the vocabulary's padding."""

    tokenizer_files: tuple[str, ...]
    """What of the tokenizer was copied."""

    token_ids: Mapping[str, Any]
    """Special tokens in config.json."""


def to_hugging_face(
    source: Path,
    output: Path,
    *,
    dtype: torch.dtype | None = None,
    family: str | None = None,
    tokenizer: Path | None = None,
    token_ids: Mapping[str, int] | None = None,
    shard_bytes: int = SHARD_BYTES,
    verify: bool = True,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Write a checkpoint as a folder that `AutoModelForCausalLM.from_pretrained` loads.

    The vocabulary's padding rows are cut off. The family `megagrow` brings Python files along, and
    loads with `trust_remote_code=True`.

    Args:
        source: a run's folder (its newest checkpoint), or a checkpoint.
        output: the folder to be; must not exist, or be empty.
        dtype: of the weights; None: that of the training. In fp32 and fp16 they come from the
            master weights of a bf16 run.
        family: `model_type` to give it; None: the plainest that has what the model has.
        tokenizer: a folder with tokenizer files, or a `tokenizer.json`, to copy.
        token_ids: special tokens of config.json, over those of the tokenizer.
        shard_bytes: largest file.
        verify: hold the checkpoint's files against their checksums first.
        progress: told how far it is.

    Raises:
        CheckpointError: the checkpoint or the output cannot be used, or the family or the tokenizer
            does not fit the model.
    """
    checkpoint = find_checkpoint(source)
    state = read_state(checkpoint)
    model, layers = stored_model(state, checkpoint)
    refuse_masks(state, checkpoint)
    shape = model_shape(model, layers)
    family = family or family_of(model, shape)
    document = write_config(family, model, shape)
    named = _token_ids(tokenizer, shape) | dict(token_ids or {})
    for key, value in named.items():
        if value is not None and not 0 <= value < shape.vocab_size:
            raise CheckpointError(f"{key}={value} is no id of a vocabulary of {shape.vocab_size}.")
    if verify:
        integrity.check_contents(checkpoint, state["files"], _MEND, rank=0, ranks=1)
    import torch  # not for what is refused

    from megagrow.conversion.distributed import CheckpointReader

    stored_as, wanted = megatron_layout(shape), layout_of(family, cut_shape(shape))
    reader = CheckpointReader(checkpoint, masters=dtype in (torch.float32, torch.float16))
    check(reader, stored_as, str(checkpoint), ignored=lambda key: key.startswith("optimizer."))
    tensors = Converted(reader, stored_as, wanted, dtype)
    keys = list(tensors.keys())
    document |= {"torch_dtype": str(tensors.dtype(keys[0])).removeprefix("torch."), **named}
    sizes = {key: math.prod(tensors.shape(key)) for key in keys}
    needed = sum(count * tensors.dtype(key).itemsize for key, count in sizes.items())
    with SafetensorsWriter(output, shard_bytes=shard_bytes, needed_bytes=needed) as writer:
        for done, key in enumerate(keys, 1):
            writer.add(key, tensors.tensor(key))
            progress(done, len(keys))
        write_document(document, writer.folder)
        files = () if tokenizer is None else copy_tokenizer(tokenizer, writer.folder)
    return Exported(
        checkpoint=checkpoint, family=family, tensors=len(keys), parameters=sum(sizes.values()),
        tokenizer_files=files, token_ids=named,
    )  # fmt: skip


def write_document(document: Mapping[str, Any], folder: Path) -> None:
    """Writes a config.json into a folder, and the code that it names."""
    text = json.dumps(document, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    if "auto_map" in document:
        copy_code(folder)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest of a run.

    Raises:
        CheckpointError: it is neither, or the run has none.
    """
    if (path / STATE_FILE).is_file():
        return path
    folder = path if any(path.glob("step_*")) else path / "checkpoints"
    found = CheckpointStore(folder=folder, keep=1).latest()
    if found is None:
        raise CheckpointError(
            f"{path} is neither a run nor a checkpoint. Give a run's folder, such as runs/NAME, or "
            "one checkpoint of it, such as runs/NAME/checkpoints/step_00000100."
        )
    return found


def stored_model(state: Mapping[str, Any], checkpoint: Path) -> tuple[ModelConfig, int]:
    """Model and depth that a checkpoint's `state.json` speaks of.

    Raises:
        MegagrowError: it does not, or has keys that this version does not know.
    """
    try:
        config, stage = state["config"], state["config"]["stages"][state["train"]["stage"]]
        # Before widths could differ by stage, a run had one model.
        section, layers = dict(stage.get("model", config["model"])), int(stage["layers"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: state.json is damaged: {error!r}. {_MEND}") from None
    where = Source(file=f"{checkpoint / STATE_FILE}: model", data=section, lines={})
    return build(ModelConfig, section, where), layers


def cut_shape(shape: ModelShape) -> ModelShape:
    """A model without padding rows, as other formats store it."""
    return replace(shape, padded_vocab_size=shape.vocab_size)


def _token_ids(tokenizer: Path | None, shape: ModelShape) -> dict[str, int | None]:
    """Ids of the special tokens that a tokenizer's settings name; null where they name none."""
    found: dict[str, int | None] = dict.fromkeys(TOKEN_IDS)
    if tokenizer is None:
        return found
    if not tokenizer.exists():
        raise CheckpointError(f"{tokenizer}: there is no such tokenizer. Give its folder or file.")
    file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    if not file.is_file():
        return found
    from tokenizers import Tokenizer

    try:
        loaded = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare exceptions
        raise CheckpointError(f"{file} is no tokenizer: {error}. Give a tokenizer.json.") from None
    largest = max(loaded.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= shape.vocab_size:
        raise CheckpointError(
            f"{file} has ids up to {largest}, and the model's vocabulary is {shape.vocab_size}: it "
            "is not the tokenizer of the run's data."
        )
    settings = file.with_name("tokenizer_config.json")
    names = read_json(settings) if settings.is_file() else {}
    for key in found:
        token = names.get(key.removesuffix("_id"))
        token = token.get("content") if isinstance(token, dict) else token
        found[key] = None if token is None else loaded.token_to_id(token)
    return found


def copy_tokenizer(tokenizer: Path, folder: Path) -> tuple[str, ...]:
    """Copies a tokenizer's files into a folder; their names.

    Raises:
        CheckpointError: there are none.
    """
    if tokenizer.is_file():
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
        settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
        text = json.dumps(settings, indent=2) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
        return ("tokenizer.json", "tokenizer_config.json")
    names = tuple(name for name in TOKENIZER_FILES if (tokenizer / name).is_file())
    if not names:
        raise CheckpointError(
            f"{tokenizer} holds no tokenizer: none of {', '.join(TOKENIZER_FILES)} is there."
        )
    for name in names:
        shutil.copyfile(tokenizer / name, folder / name)
    return names
