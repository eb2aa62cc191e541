from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from megagrow.difficulty import classifier
from megagrow.difficulty.classifier import Settings, from_scratch, pretrained, train, wordpiece
from megagrow.difficulty.distilbert import open_model
from megagrow.errors import DataError, TrainingError
from tests.difficulty.sentences import LEVELS, text, texts


def small(seed: int = 1) -> classifier.Classifier:
    return from_scratch(
        texts(60)[0], LEVELS, layers=1, hidden_size=32, vocab_size=300, max_length=32, seed=seed
    )


def trained_weights(seed: int) -> list[torch.Tensor]:
    documents, labels = texts(48)
    model = small(seed)
    settings = Settings(epochs=1, max_length=32, batch_size=8, learning_rate=1e-3, seed=seed)
    train(model, documents, np.array(labels), settings)
    return list(model.model.parameters())


def test_learns_to_tell_new_texts_apart(trained: Path) -> None:
    documents = [text(LEVELS[index % 3], 5000 + index) for index in range(90)]
    predicted = open_model(trained, max_length=64).probabilities(documents).argmax(axis=1)
    assert (predicted == np.arange(90) % 3).mean() > 0.85


def test_the_same_seed_gives_the_same_weights() -> None:
    state = torch.get_rng_state()
    one, same, other = (trained_weights(seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from tests.difficulty.sentences import texts;"
        "from megagrow.difficulty.classifier import wordpiece;"
        "print(hashlib.sha256(repr(wordpiece(texts(300)[0], 250)).encode()).hexdigest())"
    )
    root = Path(classifier.__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root,
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in range(3)
    }  # fmt: skip
    assert len(found) == 1


def test_vocabulary_holds_whole_words() -> None:
    vocabulary = wordpiece(texts(300)[0], 400)
    assert list(vocabulary.values()) == list(range(len(vocabulary)))
    assert list(vocabulary)[:2] == ["[PAD]", "[UNK]"]
    assert {"the", "manifold", "##s"} <= vocabulary.keys()
    with pytest.raises(DataError, match="does not hold these texts' characters"):
        wordpiece(texts(300)[0], 20)


def test_pretrained_weights_are_taken_and_the_head_is_new(trained: Path) -> None:
    model = pretrained(str(trained), ("a", "b"), max_length=64, seed=1)
    assert model.model.config.id2label == {0: "a", 1: "b"}
    assert model.model.classifier.out_features == 2
    from safetensors.torch import load_file

    name = "distilbert.transformer.layer.0.attention.q_lin.weight"
    assert torch.equal(
        model.model.state_dict()[name], load_file(trained / "model.safetensors")[name]
    )
    again = pretrained(str(trained), ("a", "b"), max_length=64, seed=1)
    assert torch.equal(model.model.classifier.weight, again.model.classifier.weight)
    with pytest.raises(DataError, match="reads 64 ids at most"):
        pretrained(str(trained), LEVELS, max_length=512, seed=1)


def test_a_diverging_run_says_so() -> None:
    model = small()
    with torch.no_grad():
        model.model.classifier.bias.fill_(float("inf"))
    with pytest.raises(TrainingError, match="lower --learning-rate"):
        train(model, texts(8)[0], np.zeros(8, np.int64), Settings(max_length=32))


def test_every_document_comes_once_an_epoch_and_lengths_stay_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, size=1000).tolist()
    settings = Settings(epochs=2, batch_size=16)
    batches = list(classifier._batches(lengths, settings))
    assert len(batches) == 2 * 63
    for epoch in (batches[:63], batches[63:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(1000))
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    assert padded < 1.1 * 2 * sum(lengths)


@pytest.mark.parametrize("sizes", [{"layers": 0}, {"hidden_size": 50}, {"hidden_size": 0}])
def test_sizes_that_make_no_model(sizes: dict[str, int]) -> None:
    settings = {"layers": 1, "hidden_size": 32, "vocab_size": 300, "max_length": 32} | sizes
    with pytest.raises(DataError, match="cannot be made"):
        from_scratch(texts(10)[0], LEVELS, seed=1, **settings)
