from __future__ import annotations

from pathlib import Path

import pytest

from megagrow.errors import DataError
from megagrow.tokenization.formats import codec
from megagrow.tokenization.tokenizer import load
from tests.tokenization.samples import hugging_face, rank_file, sentence_piece


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    pytest.importorskip("tiktoken")
    pytest.importorskip("sentencepiece")
    made = {
        "tokenizer.json": hugging_face(tmp_path),
        "tiktoken": rank_file(tmp_path / "x.tiktoken"),
        "sentencepiece": sentence_piece(tmp_path / "x.model"),
    }
    for name, path in made.items():
        pattern = "gpt2" if name == "tiktoken" else None
        assert load(path.rename(tmp_path / "nameless"), pattern=pattern).format == name


def test_a_tokenizer_json_comes_first_in_a_folder(tmp_path: Path) -> None:
    hugging_face(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "tokenizer.model").write_text("")
    assert load(tmp_path).path == tmp_path / "tokenizer.json"


def test_folders_without_one_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds none: give a tokenizer\.json, a folder with one"):
        load(tmp_path)
    for name in ("a.model", "b.tiktoken"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"holds a\.model, b\.tiktoken: give"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"some text\n", b"\x00\x01\x02", b"\nsome text"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="x is not a tokenizer of a known format"):
        load(tmp_path / "x")


def test_a_pattern_is_for_rank_files_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave the pattern 'gpt2' out"):
        load(hugging_face(tmp_path), pattern="gpt2")


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(DataError, match=r"needs megagrow_none.*pip install 'none>=1'"):
        codec.optional_package("megagrow_none", "it", "'none>=1'")
