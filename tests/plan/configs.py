"""Configurations for the tests of this folder, built without a file."""

from __future__ import annotations

import copy
from typing import Any

from megagrow.config import RunConfig
from megagrow.config.loader import from_source
from megagrow.config.source import Source

MODEL: dict[str, Any] = {
    "hidden_size": 64, "num_attention_heads": 4, "ffn_hidden_size": 192, "vocab_size": 500,
    "seq_length": 32,
}  # fmt: skip


def stage(layers: int, tokens: int = 3200, **keys: Any) -> dict[str, Any]:
    return {"layers": layers, "tokens": tokens, "mixture": {"easy": 1.0}, **keys}


def config_of(*stages: dict[str, Any], **sections: Any) -> RunConfig:
    """A checked configuration with the given stage table; `model` is laid over `MODEL`."""
    data: dict[str, Any] = {
        "name": "run",
        "data": {"buckets": {"easy": "easy", "hard": "hard"}},
        "batch": {"global_size": 8, "micro_size": 2},
        "learning_rate": {"peak": 1e-3},
        "precision": "bf16",
        **sections,
        "model": {**MODEL, **sections.get("model", {})},
        "stages": list(stages),
    }
    return from_source(Source(file="run.yaml", data=copy.deepcopy(data), lines={}))
