from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from megagrow.difficulty import store
from megagrow.difficulty.distilbert import encode, open_model, pad
from megagrow.errors import DataError
from tests.difficulty.sentences import LEVELS, text, texts


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


def mixed_texts() -> list[str]:
    return [text(LEVELS[index % 3], 9000 + index, words=1 + 7 * (index % 9)) for index in range(40)]


def test_scores_are_expected_levels(trained: Path) -> None:
    documents, levels = texts(60)
    scorer = open_model(trained, max_length=64)
    scores = scorer.score(documents)
    assert scores.dtype == np.float32
    assert scorer.levels == LEVELS
    assert scorer.probabilities(documents) @ [0, 1, 2] == pytest.approx(scores, abs=1e-5)
    assert np.corrcoef(scores, levels)[0, 1] > 0.9
    assert scorer.score([]).tolist() == []


def test_batches_sorted_by_length_score_as_one_by_one(trained: Path) -> None:
    documents = mixed_texts()
    together = open_model(trained, max_length=64, batch_size=7).score(documents)
    one = open_model(trained, max_length=64, batch_size=1)
    alone = np.concatenate([one.score([each]) for each in documents])
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.ptp(together) > 0.5


def test_text_beyond_max_length_does_not_count(trained: Path) -> None:
    head = text("easy", 1, words=100)
    scorer = open_model(trained, max_length=16)
    scores = scorer.score([head, head + text("hard", 2, words=100)])
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert [len(each) for each in encode(scorer.tokenizer, [head, "a cat"], 16)] == [16, 4]


def test_digest_is_of_weights_settings_and_length(folder: Path) -> None:
    digests = [open_model(folder, max_length=length).digest for length in (64, 32, 64)]
    assert digests[0] == digests[2] != digests[1]
    (folder / "notes.txt").write_text("x")
    assert open_model(folder, max_length=64).digest == digests[0]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_heads": 1}))
    assert open_model(folder, max_length=64).digest != digests[0]


def test_saved_and_loaded_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    scorer = open_model(folder, max_length=64)
    documents = mixed_texts()
    for place in (folder, folder.parent, tmp_path / "elsewhere"):
        store.save(scorer, place)
        loaded = store.load(place)
        assert loaded.digest == scorer.digest
        assert loaded.score(documents, None).tolist() == scorer.score(documents).tolist()  # type: ignore[arg-type]
    assert not list((tmp_path / "elsewhere").glob("*.safetensors"))
    # A folder that holds both can be moved.
    moved = folder.rename(tmp_path / "moved")
    assert store.parse(f"distilbert:{moved}").digest == scorer.digest


def test_other_weights_are_refused(folder: Path) -> None:
    store.save(open_model(folder, max_length=64), folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match="not those that were saved"):
        store.load(folder)
    weights.write_bytes(content[:1000])
    with pytest.raises(DataError, match=r"damaged|cannot be loaded"):
        store.load(folder)


def test_a_folder_named_in_a_scorer_file_cannot_lead_out(folder: Path) -> None:
    store.save(open_model(folder, max_length=64), folder)
    path = folder / store.SCORER_FILE
    description = json.loads(path.read_text())
    description["parameters"]["folder"] = "../model"
    path.write_text(json.dumps(description))
    with pytest.raises(DataError, match="leads out of the folder"):
        store.load(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"no \*.safetensors"):
        open_model(folder)


def test_what_is_no_trained_classifier(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    with pytest.raises(DataError, match="reads from 3 to 64 ids, not 512"):
        open_model(folder, max_length=512)
    assert open_model(folder).max_length == 64
    weights = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in weights.items() if "classifier" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"has no weights for .*classifier"):
        open_model(folder, max_length=64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no config.json"):
        open_model(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder"):
        open_model("/no/such/folder")


def test_output_that_is_no_number_is_refused(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] = np.full_like(weights["classifier.bias"], np.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="not finite"):
        open_model(folder, max_length=64).score(["a cat"])


def test_padding() -> None:
    padded, mask = pad([[5, 6, 7], [8]], 0)
    assert padded.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
