from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.errors import DataError
from megagrow.tokenization.tokenizer import END_OF_DOCUMENT, Tokenizer, load, train_bpe

TEXTS = ["The cat sat on the mat, and the cat was happy.", "A dog ran after the cat."] * 20


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_bpe(TEXTS, 280, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return load(path)


def edited(path: Path, folder: Path, **changes: Any) -> Path:
    other = folder / "edited.json"
    other.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return other


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_round_trip(tokenizer: Tokenizer, texts: list[str]) -> None:
    ids = tokenizer.encode_batch(texts)
    assert [tokenizer.decode(document) for document in ids] == texts
    assert all(0 <= i < tokenizer.vocab_size for document in ids for i in document)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=3))
def test_text_cannot_forge_a_document_end(tokenizer: Tokenizer, before: str, after: str) -> None:
    text = before + END_OF_DOCUMENT + after.encode(errors="ignore").decode()
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.eod not in ids
    assert tokenizer.decode(ids) == text


def test_an_ordinary_added_token_cannot_be_forged_either(path: Path, tmp_path: Path) -> None:
    tokens = json.loads(path.read_text())["added_tokens"]
    loose = load(edited(path, tmp_path, added_tokens=[{**t, "special": False} for t in tokens]))
    (ids,) = loose.encode_batch([f"cat {END_OF_DOCUMENT} dog"])
    assert loose.eod not in ids


def test_end_of_document_decodes_to_its_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([tokenizer.eod]) == END_OF_DOCUMENT


def test_training_compresses_and_fills_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 280
    (ids,) = tokenizer.encode_batch([TEXTS[0]])
    assert len(ids) < len(TEXTS[0]) / 2


def test_training_is_deterministic(path: Path, tmp_path: Path) -> None:
    train_bpe(TEXTS, 280, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_file_hash(path: Path, tokenizer: Tokenizer) -> None:
    assert tokenizer.file_hash == hashlib.sha256(path.read_bytes()).hexdigest()


def test_truncation_and_padding_in_the_file_are_ignored(path: Path, tmp_path: Path) -> None:
    short = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pad = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": END_OF_DOCUMENT,
    }
    other = load(edited(path, tmp_path, truncation=short, padding=pad))
    assert other.encode_batch(TEXTS[:2]) == load(path).encode_batch(TEXTS[:2])


def test_vocabulary_size_counts_added_tokens(path: Path, tmp_path: Path) -> None:
    tokens = json.loads(path.read_text())["added_tokens"]
    extra = {**tokens[0], "id": 280, "content": "<|extra|>"}
    assert load(edited(path, tmp_path, added_tokens=[*tokens, extra])).vocab_size == 281


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="257 or more"):
        train_bpe(TEXTS, 256, tmp_path / "t.json")
    assert train_bpe(TEXTS, 257, tmp_path / "t.json").vocab_size == 257


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": 3}'])
def test_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(DataError, match=r"t\.json is not a tokenizer\.json"):
        load(tmp_path / "t.json")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the tokenizer"):
        load(tmp_path / "none.json")


def test_missing_end_of_document_is_refused(path: Path) -> None:
    with pytest.raises(DataError, match="no token '</s>' to end documents"):
        load(path, end_of_document="</s>")
