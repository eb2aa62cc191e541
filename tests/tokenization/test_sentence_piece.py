from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings

from megagrow.errors import DataError
from megagrow.tokenization.tokenizer import Tokenizer, load
from tests.tokenization.samples import END, TEXTS, sentence_piece, tricky_text

sentencepiece = pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_piece(tmp_path_factory.mktemp("sp") / "any.name")


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return load(path)


@pytest.fixture(scope="module")
def with_symbols(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sp") / "x.model"
    return sentence_piece(path, user_defined_symbols=[END, "<tool>"])


@pytest.mark.parametrize("options", [{}, {"model_type": "unigram", "vocab_size": 325}])
def test_ids_are_those_of_the_library(tmp_path: Path, options: dict[str, object]) -> None:
    path = sentence_piece(tmp_path / "m.model", **options)
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = load(path)
    expected = [library.encode(text) for text in TEXTS]
    assert tokenizer.encode_batch(TEXTS) == expected
    assert tokenizer.encode_batch(TEXTS, parallel=False) == expected
    assert tokenizer.vocab_size == library.vocab_size()


@settings(deadline=None)
@given(tricky_text)
def test_round_trip_without_control_pieces(tokenizer: Tokenizer, text: str) -> None:
    (ids,) = tokenizer.encode_batch([text])
    assert not {1, 2} & set(ids)
    assert tokenizer.decode(ids) == text


def test_the_end_of_sentence_ends_documents(tokenizer: Tokenizer) -> None:
    assert (tokenizer.end_of_document, tokenizer.eod) == ("</s>", 2)
    first, second = tokenizer.encode_batch(["the cat", "a dog"])
    assert tokenizer.decode([*first, 2, *second, 2, 2]) == "the cat</s>a dog</s></s>"
    assert tokenizer.special_tokens == ("<s>", "</s>")


def test_a_user_defined_end_of_document_is_plain_text_in_text(with_symbols: Path) -> None:
    text = f"{END}a {END} b <tool>"
    plain = load(with_symbols)
    tokenizer = load(with_symbols, end_of_document=END)
    assert plain.end_of_document == "</s>"
    assert tokenizer.eod in plain.encode_batch([text])[0]
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.eod not in ids
    assert tokenizer.decode([*ids, tokenizer.eod]) == text + END
    tool = sentencepiece.SentencePieceProcessor(model_file=str(with_symbols)).piece_to_id("<tool>")
    assert tool in ids
    assert tokenizer.added_tokens == ("<tool>",)
    assert plain.file_hash == tokenizer.file_hash


def test_a_model_without_an_end_of_sentence(tmp_path: Path) -> None:
    path = sentence_piece(tmp_path / "m.model", eos_id=-1, control_symbols=["<eos>"])
    assert load(path).end_of_document == "<eos>"


@pytest.mark.parametrize("end", ["the", "<unk>", "<0x0A>", "</e>"])
def test_ordinary_pieces_end_no_document(tokenizer: Tokenizer, path: Path, end: str) -> None:
    with pytest.raises(DataError, match=f"no token '{end}' to end documents with.*'<s>', '</s>'"):
        load(path, end_of_document=end)


def test_save_copies_the_file(tokenizer: Tokenizer, path: Path, tmp_path: Path) -> None:
    assert tokenizer.save(tmp_path) == "tokenizer.model"
    assert (tmp_path / "tokenizer.model").read_bytes() == path.read_bytes()
    again = load(tmp_path)
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert again.file_hash == tokenizer.file_hash == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_damaged_model_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "t.model").write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"t\.model is not a SentencePiece model"):
        load(tmp_path / "t.model")
