from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch
from megagrow.tokenization.engine import open_engine
from megagrow.tokenization.parity import check_parity, nasty_texts
from megagrow.tokenization.tokenizer import Tokenizer, load
from tests.tokenization.samples import END, TEXTS, added, edited, hugging_face, with_added_tokens

Ids = list[list[int]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(with_added_tokens(tmp_path_factory.mktemp("t")))


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_the_same_tokenizer_agrees(tokenizer: Tokenizer, name: str) -> None:
    nasty = len(nasty_texts(tokenizer))
    engine = open_engine(tokenizer, name)
    assert check_parity(engine, tokenizer, TEXTS) == nasty + len(TEXTS)
    assert check_parity(engine, tokenizer, []) == nasty


def test_nasty_texts_hold_every_special_and_added_token(tokenizer: Tokenizer) -> None:
    texts = nasty_texts(tokenizer)
    assert END in tokenizer.special_tokens
    for token in (*tokenizer.special_tokens, *tokenizer.added_tokens):
        assert any(f"x{token}y" in text for text in texts)


def test_another_vocabulary_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    other = load(hugging_face(tmp_path, vocab_size=300))
    with pytest.raises(DataError, match=r"disagree on the tokenizer .*--engine reference"):
        check_parity(open_engine(other), tokenizer, [])


def test_the_message_shows_the_first_difference(tokenizer: Tokenizer, tmp_path: Path) -> None:
    # The two differ in one added word only, which no nasty text has.
    word = added("happy", tokenizer.vocab_size, special=False)
    tokens = json.loads(tokenizer.path.read_text())["added_tokens"]
    other = load(edited(tokenizer.path, tmp_path, added_tokens=[*tokens, word]))
    texts = ["nothing here", "x" * 500 + " is a happy cat " + "y" * 500, "happy"]
    with pytest.raises(DataError) as caught:
        check_parity(open_engine(other), tokenizer, texts)
    message = str(caught.value)
    assert f", {word['id']}," in message
    assert "of a text of 1,016 characters, near '" in message
    assert " is a happy cat " in message
    assert "x" * 40 not in message


class Wrong:
    """An engine that does something to the ids of `on a mark`, the second of two texts."""

    name, version = "wrong", "wrong 1"

    def __init__(self, tokenizer: Tokenizer, spoil: Callable[[Ids], Ids]) -> None:
        self._tokenizer, self._spoil = tokenizer, spoil

    def encode(self, texts: list[str]) -> TokenBatch:
        ids = self._tokenizer.encode_batch(texts)
        if texts[-1] == "on a mark":
            ids[-2:] = self._spoil(ids[-2:])
        return TokenBatch.of(ids)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda ids: [ids[0], ids[1][:-1]],
        lambda ids: [ids[0], [*ids[1], 7]],
        lambda ids: [ids[0], [*ids[1][:-1], 7]],
        lambda ids: [[*ids[0], ids[1][0]], ids[1][1:]],
        lambda ids: [ids[0]],
    ],
    ids=["lost", "more", "other", "moved", "no document"],
)
def test_every_kind_of_difference(tokenizer: Tokenizer, spoil: Callable[[Ids], Ids]) -> None:
    engine = Wrong(tokenizer, spoil)
    assert check_parity(engine, tokenizer, ["the birch"])
    with pytest.raises(DataError, match=r"wrong 1 and tokenizers disagree"):
        check_parity(engine, tokenizer, ["the birch", "on a mark"])
