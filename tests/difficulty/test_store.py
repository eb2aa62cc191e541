from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from megagrow.difficulty import store, surprisal
from megagrow.difficulty.linear import Linear
from megagrow.difficulty.readability import Readability
from megagrow.difficulty.scorer import Scorer
from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch

TEXTS = ["The cat sat on the mat. " * 3, "Heterogeneous regularisation of manifolds. " * 4]
TOKENS = TokenBatch.of([[1, 2, 3], [4, 4, 0]])


def scorers() -> dict[str, Scorer]:
    counts = np.array([5, 0, 1, 7, 2], np.uint64)
    weights = np.array([0.5, -0.25, 1.0, 0.0, 0.125], np.float32)
    return {
        "surprisal": surprisal.fit(counts, "a" * 64),
        "readability": Readability(max_bytes=1000, min_words=2),
        "linear": Linear(
            weights=weights, bias=0.5, levels=("a", "b", "c"), max_tokens=2,
            tokenizer_hash="b" * 64,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["surprisal", "readability", "linear"])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, kind: str) -> None:
    scorer = scorers()[kind]
    store.save(scorer, tmp_path / "new" / "folder")
    loaded = store.load(tmp_path / "new" / "folder")
    assert type(loaded) is type(scorer)
    assert (loaded.kind, loaded.digest, loaded.unit, loaded.tokenizer_hash) == (
        kind,
        scorer.digest,
        scorer.unit,
        scorer.tokenizer_hash,
    )
    assert loaded.score(TEXTS, TOKENS).tolist() == scorer.score(TEXTS, TOKENS).tolist()


@pytest.mark.parametrize("kind", ["surprisal", "linear"])
def test_other_weights_are_refused(tmp_path: Path, kind: str) -> None:
    store.save(scorers()[kind], tmp_path)
    (file,) = tmp_path.glob("*.npz")
    with np.load(file) as archive:
        arrays = {name: array.copy() for name, array in archive.items()}
    next(iter(arrays.values()))[0] += 1
    np.savez(file, **arrays)
    with pytest.raises(DataError, match="not those that were saved"):
        store.load(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged"):
        store.load(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"cannot be read: No such file"):
        store.load(tmp_path)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    store.save(scorers()["surprisal"], tmp_path)
    np.savez(tmp_path / "surprisal.npz", counts=np.array([print], dtype=object))
    with pytest.raises(DataError, match="damaged"):
        store.load(tmp_path)


def edit(folder: Path, **changes: object) -> None:
    path = folder / store.SCORER_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "liner"}, "unknown kind of scorer 'liner'; did you mean linear"),
        ({"version": 2}, "version 2 is not read"),
        ({"format": "other"}, "no megagrow-scorer file"),
        ({"digest": "0" * 64}, "not those that were saved"),
        ({"tokenizer_hash": None}, "damaged"),
        ({"tokenizer_hash": "c" * 64}, "not those that were saved"),
        ({"parameters": {"bias": 1}}, "damaged"),
        ({"parameters": []}, "damaged"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    store.save(scorers()["linear"], tmp_path)
    edit(tmp_path, **change)
    with pytest.raises(DataError, match=message):
        store.load(tmp_path)


def test_a_readability_scorer_has_no_other_parameters(tmp_path: Path) -> None:
    store.save(scorers()["readability"], tmp_path)
    edit(tmp_path, parameters={"max_bites": 3})
    with pytest.raises(DataError, match="damaged"):
        store.load(tmp_path)
    (tmp_path / store.SCORER_FILE).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        store.load(tmp_path)


@pytest.mark.parametrize("kind", ["surprisal", "linear"])
def test_named_by_kind_and_folder_or_by_folder(tmp_path: Path, kind: str) -> None:
    scorer = scorers()[kind]
    store.save(scorer, tmp_path)
    assert store.parse(f"{kind}:{tmp_path}").digest == scorer.digest
    assert store.parse(str(tmp_path)).digest == scorer.digest
    other = "linear" if kind == "surprisal" else "surprisal"
    with pytest.raises(DataError, match=f"holds a {kind} scorer, not {other}"):
        store.parse(f"{other}:{tmp_path}")


def test_readability_needs_no_folder() -> None:
    assert store.parse("readability").digest == Readability().digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("readibility", "did you mean readability"),
        ("Linear", "did you mean linear"),
        ("linear", "which one. Write linear:FOLDER"),
        ("surprisal", "which one. Write surprisal:FOLDER"),
        ("distilbert", "FOLDER_OR_HUB_ID"),
        ("distilbert:", "none of"),
        ("linear:nowhere", r"nowhere/scorer.json: cannot be read"),
        ("distilbert:no/such/folder", "no such folder"),
        ("/no/such", "none of"),
    ],
)
def test_names_that_are_none(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        store.parse(text)


def test_a_folder_without_a_scorer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no scorer.json$"):
        store.parse(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"write distilbert:"):
        store.parse(str(tmp_path))


def test_what_is_slow_to_import_is_not_imported_for_fast_scorers() -> None:
    code = (
        "import sys; from megagrow.difficulty import store; store.parse('readability');"
        "print(sorted({'torch', 'transformers', 'sklearn', 'scipy', 'nltk', 'onnx', 'onnxruntime'}"
        " & sys.modules.keys()))"
    )
    root = Path(store.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root,
        env=os.environ,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
