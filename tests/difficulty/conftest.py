"""A tiny classifier, trained once for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.difficulty.sentences import LEVELS, texts


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a DistilBERT of two layers, trained from scratch on generated sentences."""
    pytest.importorskip("transformers")
    from megagrow.difficulty.classifier import Settings, from_scratch, train

    documents, labels = texts(240)
    model = from_scratch(
        documents, LEVELS, layers=2, hidden_size=64, vocab_size=400, max_length=64, seed=1
    )
    settings = Settings(epochs=8, max_length=64, batch_size=16, learning_rate=2e-3, seed=1)
    losses = train(model, documents, np.array(labels), settings)
    assert np.mean(losses[-5:]) < losses[0] / 2
    folder = tmp_path_factory.mktemp("classifier") / "model"
    model.save(folder)
    return folder
