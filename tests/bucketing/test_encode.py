from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from megagrow.bucketing.recipe import OpenEncoding
from megagrow.bucketing.writing.encode import encode
from megagrow.errors import DataError
from megagrow.shards.rows import Rows
from megagrow.tokenization.batch import TokenBatch
from megagrow.tokenization.engine import Engine, open_engine
from megagrow.tokenization.tokenizer import load


class Fixed:
    """An engine that gives what it is told to."""

    name = "gigatoken"
    version = "none"

    def __init__(self, documents: list[list[int]]) -> None:
        self._documents = documents

    def encode(self, texts: list[str]) -> TokenBatch:
        return TokenBatch.of(self._documents)


def rows(*texts: str) -> Rows:
    return Rows(
        texts=list(texts),
        numbers=np.arange(len(texts)) * 10,
        rejects=Counter({"text is null": 2}),
        count=len(texts) + 2,
        consumed=0,
    )


def encoding(tokenizer_file: Path, engine: Engine | None = None) -> OpenEncoding:
    tokenizer = load(tokenizer_file)
    return OpenEncoding(
        tokenizer=tokenizer,
        engine=engine or open_engine(tokenizer, "gigatoken"),
        text_key="text",
    )


def test_documents_keep_their_order_and_rows(tokenizer_file: Path) -> None:
    opened = encoding(tokenizer_file)
    found = encode(rows("the cat", "ö<|endoftext|>"), opened)
    assert found.texts == ["the cat", "ö<|endoftext|>"]
    assert found.numbers.tolist() == [0, 10]
    assert found.text_bytes == 7 + 15
    assert found.rejects == {"text is null": 2}
    expected = opened.tokenizer.encode_batch(found.texts)
    assert [each.tolist() for each in np.split(found.tokens.flat, found.tokens.offsets[1:-1])] == (
        expected
    )
    assert opened.tokenizer.eod not in found.tokens.flat


def test_empty_and_forged_documents_are_rejected(tokenizer_file: Path) -> None:
    eod = load(tokenizer_file).eod
    documents = [[], [1, 2], [3, eod, 4], [], [eod], [5]]
    found = encode(rows(*"abcdef"), encoding(tokenizer_file, Fixed(documents)))
    assert found.texts == ["b", "f"]
    assert found.numbers.tolist() == [10, 50]
    assert found.tokens.flat.tolist() == [1, 2, 5]
    assert found.tokens.offsets.tolist() == [0, 2, 3]
    assert found.rejects == {
        "text is null": 2, "no tokens": 2, "holds the end-of-document token": 2,
    }  # fmt: skip


@pytest.mark.parametrize("documents", [[[1], []], [[1], [0, 2]]])
def test_one_kind_of_reject_alone(tokenizer_file: Path, documents: list[list[int]]) -> None:
    opened = encoding(tokenizer_file, Fixed(documents))
    assert opened.tokenizer.eod == 0
    assert encode(rows("a", "b"), opened).texts == ["a"]


def test_nothing_at_all(tokenizer_file: Path) -> None:
    assert encode(rows(), encoding(tokenizer_file)).tokens.documents == 0
    assert encode(rows("a"), encoding(tokenizer_file, Fixed([[]]))).texts == []


@pytest.mark.parametrize(
    ("documents", "message"),
    [([[1]], "gave 1 documents for 2 texts"), ([[1], [400]], "gave id 400, but the vocabulary")],
)
def test_an_engine_out_of_step_is_refused(
    tokenizer_file: Path, documents: list[list[int]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        encode(rows("a", "b"), encoding(tokenizer_file, Fixed(documents)))
