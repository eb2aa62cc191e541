from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from megagrow.difficulty import onnx_int8, store
from megagrow.difficulty.distilbert import open_model
from megagrow.errors import DataError
from tests.difficulty.sentences import texts


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("onnx") / "model"))
    assert onnx_int8.export(folder) == folder / "model.int8.onnx"
    return folder


def test_int8_scores_are_close(exported: Path) -> None:
    documents, _ = texts(90)
    documents += ["cat", "the manifold " * 60]
    full = open_model(exported, max_length=64)
    small = open_model(exported, max_length=64, backend="onnx")
    scores = full.score(documents), small.score(documents)
    assert np.abs(scores[0] - scores[1]).max() < 0.1
    assert np.abs(scores[0] - scores[1]).max() > 0  # it is another model
    assert small.digest != full.digest


def test_saved_and_loaded_with_its_backend(exported: Path, tmp_path: Path) -> None:
    small = open_model(exported, max_length=64, backend="onnx")
    store.save(small, tmp_path)
    loaded = store.load(tmp_path)
    assert loaded.digest == small.digest
    assert loaded.score(["a cat"], None) == small.score(["a cat"])  # type: ignore[arg-type]


def test_no_export_a_damaged_one_and_a_gpu(exported: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no model.int8.onnx; export it first"):
        open_model(trained, max_length=64, backend="onnx")
    with pytest.raises(DataError, match="not on cuda"):
        open_model(exported, max_length=64, backend="onnx", device="cuda")
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    file = folder / "model.int8.onnx"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be loaded"):
        open_model(folder, max_length=64, backend="onnx")


def test_a_graph_that_computes_something_else_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    monkeypatch.setattr(onnx_int8, "_TOLERANCE", 0.0)
    with pytest.raises(DataError, match="logits are off by"):
        onnx_int8.export(folder)
    assert not (folder / "model.int8.onnx").exists()


def test_it_is_named_on_the_command_line_and_loads_again(exported: Path, tmp_path: Path) -> None:
    named = store.parse(f"distilbert-int8:{exported}", threads=1)
    assert named.digest != store.parse(f"distilbert:{exported}", threads=1).digest
    store.save(named, tmp_path)
    assert store.load(tmp_path, threads=1).digest == named.digest
