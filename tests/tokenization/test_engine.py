from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, trainers

from megagrow.errors import DataError
from megagrow.tokenization import engine as module
from megagrow.tokenization.engine import Engine, open_engine
from megagrow.tokenization.tokenizer import Tokenizer, load
from tests.tokenization.samples import (
    END,
    TEXTS,
    any_text,
    gpt2_files,
    hugging_face,
    rank_file,
    sentence_piece,
    tricky_text,
    with_added_tokens,
)

pytest.importorskip("gigatoken")


def _cl100k(folder: Path) -> Tokenizer:
    pytest.importorskip("tiktoken")
    return load(rank_file(folder / "x.tiktoken"), pattern="cl100k")


def _o200k(folder: Path) -> Tokenizer:
    pytest.importorskip("tiktoken")
    return load(rank_file(folder / "x.tiktoken"), pattern="o200k")


def _sentence_piece(folder: Path) -> Tokenizer:
    pytest.importorskip("sentencepiece")
    return load(sentence_piece(folder / "x.model"))


def _user_defined(folder: Path) -> Tokenizer:
    pytest.importorskip("sentencepiece")
    path = sentence_piece(
        folder / "x.model", user_defined_symbols=[END, "<tool>"], add_dummy_prefix=False
    )
    return load(path, end_of_document=END)


FORMATS: dict[str, Callable[[Path], Tokenizer]] = {
    "tokenizer.json": lambda folder: load(hugging_face(folder)),
    "added tokens": lambda folder: load(with_added_tokens(folder)),
    "gpt2": lambda folder: load(gpt2_files(folder / "gpt2")),
    "cl100k": _cl100k,
    "o200k": _o200k,
    "sentencepiece": _sentence_piece,
    "user-defined end": _user_defined,
}


@pytest.fixture(scope="module", params=FORMATS)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    return FORMATS[request.param](tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def fast(tokenizer: Tokenizer) -> Engine:
    return open_engine(tokenizer, "gigatoken")


def lists(engine: Engine, texts: list[str]) -> list[list[int]]:
    batch = engine.encode(texts)
    assert batch.documents == len(texts)
    return [part.tolist() for part in np.split(batch.flat, batch.offsets[1:-1])] if texts else []


@settings(deadline=None)
@given(st.lists(any_text | tricky_text, max_size=6))
def test_ids_are_those_of_the_reference(
    tokenizer: Tokenizer, fast: Engine, texts: list[str]
) -> None:
    assert lists(fast, texts) == tokenizer.encode_batch(texts)


@pytest.mark.parametrize("name", ["gigatoken", "reference"])
def test_text_cannot_forge_the_end_of_a_document(tokenizer: Tokenizer, name: str) -> None:
    engine = open_engine(tokenizer, name)
    end = tokenizer.end_of_document
    for text in (end, f"a{end}b", f" {end} {end}{end}\n", *TEXTS[:3]):
        assert tokenizer.eod not in engine.encode([text]).flat
        assert tokenizer.decode(engine.encode([text]).flat.tolist()) == text


@pytest.mark.parametrize("name", ["gigatoken", "reference"])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_batch(tokenizer: Tokenizer, name: str, parallel: bool) -> None:
    engine = open_engine(tokenizer, name, parallel=parallel)
    texts = ["", *TEXTS, "", "x", ""]
    batch = engine.encode(texts)
    assert batch.flat.dtype == np.uint32
    assert batch.offsets.dtype == np.int64
    assert batch.offsets[0] == 0
    assert batch.offsets[-1] == batch.flat.size
    assert lists(engine, texts) == tokenizer.encode_batch(texts)
    assert engine.encode([]).documents == 0


def test_names_and_versions(tokenizer: Tokenizer) -> None:
    assert open_engine(tokenizer).name == "gigatoken"
    assert open_engine(tokenizer).version.startswith("gigatoken 0.")
    reference = open_engine(tokenizer, "reference")
    assert reference.name == "reference"
    assert reference.version.split()[0] == tokenizer.library


def test_ordinary_added_tokens_are_kept(tmp_path: Path) -> None:
    tokenizer = load(with_added_tokens(tmp_path))
    text = f"x{' ' * 12}y <|user|>"
    spaces = tokenizer.vocab_size - 2
    for name in ("gigatoken", "reference"):
        ids = open_engine(tokenizer, name).encode([text]).flat
        assert (ids == spaces).sum() == 1
        assert (ids == spaces - 1).sum() == 1
        assert not np.isin(ids, [spaces - 2, spaces + 1]).any()


def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    for name in ("gigatoken", "reference"):
        with pytest.raises(DataError, match=r"text 1 of 2 cannot be encoded: .* at character 1"):
            open_engine(tokenizer, name).encode(["fine", "a\ud800b"])


def test_slices_of_an_array_of_lists(tmp_path: Path) -> None:
    ak = pytest.importorskip("awkward")
    whole = ak.Array([[9, 9], [1, 2], [], [3], [9]])
    for array in (whole[1:4], whole[[1, 2, 3]]):
        batch = module._token_batch(array.layout)
        assert batch.flat.tolist() == [1, 2, 3]
        assert batch.offsets.tolist() == [0, 2, 2, 3]


def test_the_ids_are_not_copied(tmp_path: Path) -> None:
    tokenizer = load(hugging_face(tmp_path))
    array = tokenizer.open_gigatoken().encode_batch(TEXTS, parallel=False)
    batch = module._token_batch(array.layout)
    assert np.shares_memory(batch.flat, array.layout.content.data)


def word_piece(folder: Path) -> Tokenizer:
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[UNK]", "[SEP]"], show_progress=False
    )
    library.train_from_iterator(TEXTS, trainer)
    library.save(str(folder / "t.json"))
    return load(folder / "t.json", end_of_document="[SEP]")


def test_what_gigatoken_cannot_load_falls_back_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = word_piece(tmp_path)
    with caplog.at_level(logging.WARNING):
        engine = open_engine(tokenizer)
    assert engine.name == "reference"
    assert lists(engine, TEXTS) == tokenizer.encode_batch(TEXTS)
    (message,) = caplog.messages
    assert "WordPiece" in message
    assert "about 40 times as slow" in message
    assert "install gigatoken==0.10.0" in message
    with pytest.raises(DataError, match=r"WordPiece.*--engine reference"):
        open_engine(tokenizer, "gigatoken")


@pytest.mark.parametrize(
    "options",
    [
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"user_defined_symbols": ["<tool>"]},
        {"model_type": "unigram", "vocab_size": 325},
        {"byte_fallback": False, "vocab_size": 180},
    ],
)
def test_sentencepiece_models_that_gigatoken_reads_otherwise(
    tmp_path: Path, options: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("sentencepiece")
    tokenizer = load(sentence_piece(tmp_path / "x.model", **options))
    assert open_engine(tokenizer).name == "reference"
    assert "about 8 times as slow" in caplog.text
    with pytest.raises(DataError, match="gigatoken"):
        open_engine(tokenizer, "gigatoken")


def test_no_merge_of_a_sentencepiece_model_makes_a_control_piece(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    # `</` and `s>` are pieces, which gigatoken would merge to the control piece.
    texts = ["as> bs> cs> ds> es> </a </b </c </d </e"] * 50
    path = sentence_piece(
        tmp_path / "x.model", texts, vocab_size=276, split_by_unicode_script=False
    )
    tokenizer = load(path)
    description = json.loads(tokenizer.open_gigatoken()._hf_json)
    assert {"</", "s>"} <= set(description["model"]["vocab"])
    trap = ["</s>", "a</s>b", "<unk>", "<0x0A>", "<s>"]
    assert lists(open_engine(tokenizer, "gigatoken"), trap) == tokenizer.encode_batch(trap)


def test_a_large_cache_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load(hugging_face(tmp_path))
    engine = open_engine(tokenizer, "gigatoken")
    assert isinstance(engine, module.GigatokenEngine)
    first = engine._engine
    engine.encode(TEXTS)
    monkeypatch.setattr(module, "_RENEWAL_BYTES", -(1 << 40))
    engine.encode(TEXTS)
    assert engine._engine is first
    monkeypatch.setattr(module, "_RENEWAL_CHARACTERS", 3 * sum(map(len, TEXTS)))
    engine.encode(TEXTS)
    second = engine._engine
    assert second is not first
    assert lists(engine, TEXTS) == tokenizer.encode_batch(TEXTS)
    assert engine._engine is second


def test_without_gigatoken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load(hugging_face(tmp_path))
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert open_engine(tokenizer).name == "reference"
    assert "cannot be imported" in caplog.text
    with pytest.raises(DataError, match=r"pip install gigatoken==0\.10\.0"):
        open_engine(tokenizer, "gigatoken")
    assert open_engine(tokenizer, "reference").name == "reference"


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'gigatokens': did you mean 'gigatoken'\?"):
        open_engine(load(hugging_face(tmp_path)), "gigatokens")
