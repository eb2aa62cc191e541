from __future__ import annotations

from pathlib import Path

import pytest

from tests.bucketing import inputs


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer.json."""
    folder = tmp_path_factory.mktemp("tokenizer")
    inputs.tokenizer(folder)
    return folder / "tokenizer.json"
