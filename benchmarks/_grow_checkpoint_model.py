"""The folder that `grow_checkpoint.py` grows, and a comparison with what it became.

python benchmarks/_grow_checkpoint_model.py make FOLDER HIDDEN LAYERS VOCABULARY
python benchmarks/_grow_checkpoint_model.py compare FOLDER GROWN LAYERS
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import torch

from megagrow.config import ModelConfig
from megagrow.conversion.families import layout_of, write_config
from megagrow.conversion.safetensors_folder import SafetensorsReader, SafetensorsWriter
from megagrow.growth.on_disk import SHARD_BYTES
from megagrow.model.shape import model_shape

HEAD_CHANNELS = 64
FINITE = 0x7F80
"""Bit patterns of bf16 below this one are finite."""


def make(folder: Path, hidden: int, layers: int, vocabulary: int) -> None:
    """Writes a Llama-shaped folder of random bf16 weights."""
    heads = hidden // HEAD_CHANNELS
    model = ModelConfig(
        hidden_size=hidden,
        num_attention_heads=heads,
        num_query_groups=max(1, heads // 4),
        ffn_hidden_size=4 * hidden,
        vocab_size=vocabulary,
        seq_length=2048,
        tie_embeddings=False,
    )
    shape = replace(model_shape(model, layers), padded_vocab_size=vocabulary)
    layout = layout_of("llama", shape)
    generator = torch.Generator().manual_seed(1)
    with SafetensorsWriter(folder, shard_bytes=SHARD_BYTES) as writer:
        for key in layout.by_key:
            size = layout.stored_shape(key)
            drawn = torch.randint(FINITE, size, dtype=torch.int16, generator=generator)
            writer.add(key, drawn.view(torch.bfloat16))
        text = json.dumps(write_config("llama", model, shape))
        (writer.folder / "config.json").write_text(text)


def compare(folder: Path, grown: Path, layers: int) -> None:
    """Checks that a folder is another one stacked.

    Raises:
        SystemExit: it is not.
    """
    old, new = SafetensorsReader(folder), SafetensorsReader(grown)
    seen = set()
    for key in new.keys():  # noqa: SIM118 - no mapping
        origin = re.sub(r"layers\.(\d+)", lambda found: f"layers.{int(found[1]) % layers}", key)
        seen.add(origin)
        one, other = old.tensor(origin), new.tensor(key)
        if one.dtype != other.dtype or not torch.equal(one, other):
            raise SystemExit(f"{key} is not what {origin} was")
    if seen != set(old.keys()) or len(list(new.keys())) <= len(seen):
        raise SystemExit("tensors are missing")


if __name__ == "__main__":
    work, path, *others = sys.argv[1:]
    if work == "make":
        make(Path(path), *map(int, others))
    else:
        compare(Path(path), Path(others[0]), int(others[1]))
