"""The files of a classifier in Hugging Face's layout: finding, fetching and fingerprinting them."""

from __future__ import annotations

import re
from pathlib import Path

from megagrow.errors import DataError
from megagrow.shards.storage import sha256

INT8_FILE = "model.int8.onnx"
"""Name of the quantised model that `megagrow.difficulty.onnx_int8.export` writes."""

_SETTINGS = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model",
)  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_hub_id(source: str) -> bool:
    """Whether it can only be a name on the Hugging Face hub: no such folder, and no path."""
    return not Path(source).exists() and _HUB_ID.fullmatch(source) is not None


def model_folder(source: str) -> Path:
    """The folder of a model, fetched from the hub where `source` names no folder.

    Args:
        source: a folder, or a hub id such as `distilbert/distilbert-base-uncased`. Of the hub's
            files only safetensors, ONNX int8 and settings are taken: nothing that runs code.

    Raises:
        DataError: no such folder, or the hub does not give it.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_id(source):
        raise DataError(
            f"{source}: no such folder, and no name on the Hugging Face hub; give the folder that "
            "holds the model's config.json, or an id such as distilbert/distilbert-base-uncased"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise DataError(
            f"{source}: no such folder, and fetching it from the Hugging Face hub needs "
            "transformers: pip install 'megagrow[classifier]'"
        ) from None
    try:
        fetched = snapshot_download(
            source,
            allow_patterns=["*.safetensors", "*.safetensors.index.json", INT8_FILE, *_SETTINGS],
        )
    except Exception as error:  # requests, httpx and the hub raise their own
        raise DataError(
            f"{source}: no such folder here, and the Hugging Face hub does not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); check the name, or download "
            "the model where there is a network and give its folder"
        ) from None
    return Path(fetched)


def weight_files(folder: Path, backend: str) -> list[Path]:
    """The files that hold the weights, for `backend` `torch` or `onnx`.

    Raises:
        DataError: there are none.
    """
    if backend == "onnx":
        found = [folder / INT8_FILE] if (folder / INT8_FILE).is_file() else []
        hint = "export it first: tools/train_difficulty_classifier.py --export-onnx"
    else:
        found = sorted(folder.glob("*.safetensors"))
        hint = (
            "convert the weights with save_pretrained() of transformers; "
            "other formats can run code when they are read, and are not"
        )
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json, so no model in Hugging Face's layout")
    if not found:
        wanted = INT8_FILE if backend == "onnx" else "*.safetensors"
        raise DataError(f"{folder}: no {wanted}; {hint}")
    return found


def fingerprints(folder: Path, backend: str) -> dict[str, str]:
    """sha256 of each file that decides what the model says, by name.

    Raises:
        DataError: there are no weights, or a file cannot be read.
    """
    settings = [folder / name for name in _SETTINGS if (folder / name).is_file()]
    settings += sorted(folder.glob("*.safetensors.index.json"))
    return {path.name: sha256(path) for path in settings + weight_files(folder, backend)}
