from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megagrow.config import RunConfig, load

BASE = """\
model:
  hidden_size: 64
  num_attention_heads: 4
  num_query_groups: 2
  vocab_size: 1000
  seq_length: 32
data:
  buckets:
    easy: easy
    hard: [hard-0, hard-1]
parallel:
  pipeline: 2
batch:
  global_size: 8
  micro_size: 2
learning_rate:
  peak: 3e-4
  warmup: 1K
stages:
  - name: small
    layers: 2
    tokens: 10K
    mixture: {easy: 1.0}
  - name: large
    layers: 4
    tokens: 20K
    mixture: {easy: 0.5, hard: 0.5}
    parallel: {tensor: 2}
"""

Load = Callable[..., RunConfig]


@pytest.fixture
def base() -> str:
    return BASE


@pytest.fixture
def load_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads YAML text as `run.yaml` in the working folder, with overrides."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str, *overrides: str) -> RunConfig:
        Path("run.yaml").write_text(text, encoding="utf-8")
        return load("run.yaml", overrides)

    return load_text
