from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from megagrow.errors import DataError
from megagrow.tokenization.formats.schemes import PATTERNS
from megagrow.tokenization.tokenizer import Tokenizer, load
from tests.tokenization.samples import (
    END,
    TEXTS,
    byte_ranks,
    published_rank_file,
    rank_file,
    tricky_text,
    write_ranks,
)

tiktoken = pytest.importorskip("tiktoken")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rank_file(tmp_path_factory.mktemp("ranks") / "mine.tiktoken")


@pytest.fixture(scope="module", params=PATTERNS)
def tokenizer(path: Path, request: pytest.FixtureRequest) -> Tokenizer:
    return load(path, pattern=request.param)


def test_ids_are_those_of_the_library(path: Path) -> None:
    ranks = {token: rank for rank, token in enumerate(byte_ranks(path.parent))}
    # The pattern as GPT-2 published it; the one in the package is a faster equivalent.
    published = r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    library = tiktoken.Encoding("mine", pat_str=published, mergeable_ranks=ranks, special_tokens={})
    tokenizer = load(path, pattern="gpt2")
    expected = [library.encode_ordinary(text) for text in TEXTS]
    assert tokenizer.encode_batch(TEXTS) == expected
    assert tokenizer.encode_batch(TEXTS, parallel=False) == expected


@settings(deadline=None)
@given(tricky_text)
def test_round_trip_without_the_end_of_document(tokenizer: Tokenizer, text: str) -> None:
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.eod not in ids
    assert tokenizer.decode([*ids, tokenizer.eod]) == text + END


def test_the_end_of_document_takes_the_next_id(path: Path) -> None:
    ranks = len(byte_ranks(path.parent))
    for end, token in ((None, END), ("<|done|>", "<|done|>")):
        tokenizer = load(path, pattern="cl100k", end_of_document=end)
        assert (tokenizer.eod, tokenizer.vocab_size) == (ranks, ranks + 1)
        assert tokenizer.end_of_document == token


def test_a_published_name_says_all(tmp_path: Path) -> None:
    path = published_rank_file(tmp_path)
    tokenizer = load(tmp_path)
    assert (tokenizer.eod, tokenizer.vocab_size, tokenizer.end_of_document) == (50256, 50257, END)
    assert tokenizer.file_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "copy").mkdir()
    assert tokenizer.save(tmp_path / "copy") == "r50k_base.tiktoken"
    again = load(tmp_path / "copy" / "r50k_base.tiktoken")
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    with pytest.raises(DataError, match=r"did you mean '<\|endoftext\|>'"):
        load(path, end_of_document="<|end_of_text|>")
    other_name = path.rename(tmp_path / "other.txt")
    assert load(other_name, pattern="r50k_base").encode_batch(TEXTS) == again.encode_batch(TEXTS)


def test_part_of_a_published_file_is_refused(tmp_path: Path) -> None:
    path = published_rank_file(tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="holds 50,255 ranks, but r50k_base has 50,256"):
        load(path)


@pytest.mark.parametrize("end", [None, "<|done|>"])
def test_other_files_are_saved_with_a_note(path: Path, tmp_path: Path, end: str | None) -> None:
    tokenizer = load(path, pattern="o200k", end_of_document=end)
    assert tokenizer.save(tmp_path) == "tokenizer.tiktoken"
    again = load(tmp_path / "tokenizer.tiktoken")
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert (again.eod, again.end_of_document) == (tokenizer.eod, tokenizer.end_of_document)
    assert again.file_hash == tokenizer.file_hash
    names = ("tokenizer.tiktoken", "tokenizer.tiktoken.json")
    contents = b"".join((tmp_path / name).read_bytes() for name in names)
    assert hashlib.sha256(contents).hexdigest() == tokenizer.file_hash
    assert load(path, pattern="gpt2", end_of_document=end).file_hash != tokenizer.file_hash


@pytest.mark.parametrize("note", ["{", "[]", '{"pattern": "gpt9", "special_tokens": {"a": 1}}'])
def test_a_damaged_note_is_refused(path: Path, tmp_path: Path, note: str) -> None:
    name = load(path, pattern="gpt2").save(tmp_path)
    (tmp_path / f"{name}.json").write_text(note)
    with pytest.raises(DataError, match=r"tokenizer\.tiktoken\.json is not the note"):
        load(tmp_path / name)


def test_a_file_without_a_pattern_is_refused(path: Path) -> None:
    with pytest.raises(DataError, match="name the pattern, one of gpt2, cl100k"):
        load(path)
    with pytest.raises(DataError, match=r"unknown pattern 'cl10k': did you mean 'cl100k'\?"):
        load(path, pattern="cl10k")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [*lines, "IQ== x"], "line 326, is not `base64 rank`"),
        (lambda lines: [*lines, "!!!! 7000"], "line 326, is not `base64 rank`"),
        (lambda lines: [*lines, "YWFhYWFh 5"], "one rank to two tokens"),
        (lambda lines: lines[1:], "lacks some of the 256 single bytes"),
    ],
)
def test_damaged_files_are_refused(path: Path, tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    lines = path.read_text().splitlines()[:325]
    other = tmp_path / "damaged.tiktoken"
    other.write_text("\n".join(damage(lines)) + "\n")
    with pytest.raises(DataError, match=message):
        load(other, pattern="gpt2")


def test_a_gap_in_the_ranks_is_no_damage(tmp_path: Path) -> None:
    singles = [bytes([byte]) for byte in range(256)]
    path = write_ranks(tmp_path / "gap.tiktoken", singles)
    path.write_text(path.read_text() + "YWE= 300\n")
    tokenizer = load(path, pattern="gpt2")
    assert tokenizer.encode_batch(["aa"]) == [[300]]
    assert (tokenizer.eod, tokenizer.vocab_size) == (301, 302)


def test_note_is_readable(path: Path, tmp_path: Path) -> None:
    load(path, pattern="qwen2").save(tmp_path)
    note = json.loads((tmp_path / "tokenizer.tiktoken.json").read_text())
    assert note["pattern"] == "qwen2"
    assert list(note["special_tokens"]) == [END]
