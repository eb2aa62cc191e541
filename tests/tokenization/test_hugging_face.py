from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from megagrow.errors import DataError
from megagrow.tokenization.tokenizer import Tokenizer, load
from tests.tokenization.samples import (
    END,
    TEXTS,
    added,
    any_text,
    edited,
    gpt2_files,
    hugging_face,
    tricky_text,
    with_added_tokens,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_added_tokens(tmp_path_factory.mktemp("hf"))


@pytest.fixture(scope="module")
def neox(path: Path) -> Tokenizer:
    return load(path)


def test_ids_are_those_of_the_library(path: Path, neox: Tokenizer) -> None:
    library = Engine.from_file(str(path))
    plain = [text.replace(END, "") for text in TEXTS]
    expected = [library.encode(text, add_special_tokens=False).ids for text in plain]
    assert neox.encode_batch(plain) == expected
    assert neox.encode_batch(plain, parallel=False) == expected


def test_ordinary_added_tokens_are_kept(neox: Tokenizer) -> None:
    spaces = json.loads(neox.path.read_text())["added_tokens"][-2]["id"]
    (ids,) = neox.encode_batch([f"x{' ' * 8}y"])
    assert spaces in ids
    assert neox.decode(ids) == f"x{' ' * 8}y"
    assert neox.added_tokens == ("    ", "        ")


@pytest.mark.parametrize("token", ["<|user|>", "<|pad|>", END])
def test_special_tokens_are_plain_text(neox: Tokenizer, token: str) -> None:
    (ids,) = neox.encode_batch([f"a{token}b {token}"])
    vocabulary = Engine.from_file(str(neox.path)).get_vocab()
    assert vocabulary[token] not in ids
    assert neox.decode(ids) == f"a{token}b {token}"
    assert token in neox.special_tokens


@settings(deadline=None)
@given(any_text, tricky_text)
def test_round_trip(neox: Tokenizer, text: str, tricky: str) -> None:
    for document in neox.encode_batch([text + tricky]):
        assert neox.decode(document) == text + tricky
        assert neox.eod not in document


def test_vocabulary_size_is_beyond_the_last_added_token(neox: Tokenizer) -> None:
    last = json.loads(neox.path.read_text())["added_tokens"][-1]["id"]
    assert neox.vocab_size == last + 1


def test_the_end_of_document_is_special_even_if_the_file_does_not_say_so(tmp_path: Path) -> None:
    path = hugging_face(tmp_path)
    for tokens in ([], [added(END, 0, special=False)]):
        loose = load(edited(path, tmp_path, added_tokens=tokens))
        assert loose.eod == 0
        (ids,) = loose.encode_batch([f"cat {END} dog"])
        assert loose.eod not in ids
        assert loose.decode([*ids, loose.eod]) == f"cat {END} dog{END}"


def test_no_merge_makes_a_special_token(tmp_path: Path) -> None:
    description = json.loads(hugging_face(tmp_path).read_text())
    model = description["model"]
    size = len(model["vocab"])
    model["vocab"].update({"</": size, "</s": size + 1, "</s>": size + 2})
    model["merges"] += [["<", "/"], ["</", "s"], ["</s", ">"]]
    # Without a pre-tokenizer that takes the literal apart, as in Llama's tokenizer.json.
    description["pre_tokenizer"]["use_regex"] = False
    path = edited(tmp_path / "tokenizer.json", tmp_path, **description)
    other = load(path, end_of_document="</s>")
    (ids,) = other.encode_batch(["a</s>b"])
    assert other.eod == size + 2
    assert other.eod not in ids
    assert other.decode(ids) == "a</s>b"


def test_a_post_processor_adds_nothing(path: Path, neox: Tokenizer, tmp_path: Path) -> None:
    library = Engine.from_file(str(path))
    library.post_processor = processors.TemplateProcessing(
        single=f"{END} $A {END}", special_tokens=[(END, 0)]
    )
    library.save(str(tmp_path / "with.json"))
    assert load(tmp_path / "with.json").encode_batch(TEXTS[:3]) == neox.encode_batch(TEXTS[:3])


@pytest.mark.parametrize("end", ["<|end_of_text|>", "</s>", "<eos>"])
def test_the_first_usual_end_is_the_default(tmp_path: Path, end: str) -> None:
    path = hugging_face(tmp_path)
    vocab = json.loads(path.read_text())["model"]["vocab"]
    vocab["<|other|>"] = vocab.pop(END)
    model = {**json.loads(path.read_text())["model"], "vocab": vocab}
    tokens = [added("<|other|>", 0, special=True), added(end, len(vocab), special=True)]
    tokenizer = load(edited(path, tmp_path, model=model, added_tokens=tokens))
    assert (tokenizer.end_of_document, tokenizer.eod) == (end, len(vocab))
    with pytest.raises(DataError, match=r"none of the usual .*special tokens: '<\|other\|>'"):
        load(edited(path, tmp_path, model=model, added_tokens=tokens[:1]))


def test_a_missing_end_is_refused_with_the_nearest(path: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean '<\|user\|>'\?.*'<\|pad\|>'"):
        load(path, end_of_document="<|users|>")


def test_save_copies_the_file(path: Path, neox: Tokenizer, tmp_path: Path) -> None:
    assert neox.save(tmp_path) == "tokenizer.json"
    assert (tmp_path / "tokenizer.json").read_bytes() == path.read_bytes()
    again = load(tmp_path)
    assert again.file_hash == neox.file_hash == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["", "vocab.json", "merges.txt"])
def test_gpt2_files_from_a_folder_or_either_file(tmp_path: Path, name: str) -> None:
    folder = gpt2_files(tmp_path / "gpt2")
    library = Engine(models.BPE.from_file(f"{folder}/vocab.json", f"{folder}/merges.txt"))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    tokenizer = load(folder / name)
    assert (tokenizer.eod, tokenizer.end_of_document, tokenizer.format) == (
        0,
        END,
        "tokenizer.json",
    )
    assert tokenizer.encode_batch(TEXTS[:3]) == [library.encode(text).ids for text in TEXTS[:3]]
    assert tokenizer.vocab_size == library.get_vocab_size()
    assert tokenizer.path == folder / "vocab.json"


def test_gpt2_files_are_saved_as_one(tmp_path: Path) -> None:
    tokenizer = load(gpt2_files(tmp_path / "gpt2"))
    assert tokenizer.save(tmp_path) == "tokenizer.json"
    again = load(tmp_path / "tokenizer.json")
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert (again.file_hash, again.eod) == (tokenizer.file_hash, tokenizer.eod)
    content = (tmp_path / "tokenizer.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == tokenizer.file_hash
    # The library itself reads it, and knows the special token.
    assert Engine.from_str(content.decode()).encode(END).ids == [0]


def test_gpt2_files_with_megatrons_prefix_and_windows_line_ends(tmp_path: Path) -> None:
    folder = gpt2_files(tmp_path / "gpt2")
    plain = load(folder)
    (folder / "vocab.json").rename(folder / "gpt2-vocab.json")
    merges = (folder / "merges.txt").read_bytes()
    (folder / "gpt2-merges.txt").write_bytes(merges.replace(b"\n", b"\r\n"))
    for name in ("gpt2-vocab.json", "gpt2-merges.txt"):
        assert load(folder / name).file_hash == plain.file_hash


def test_gpt2_files_that_are_not(tmp_path: Path) -> None:
    folder = gpt2_files(tmp_path / "gpt2")
    merges = (folder / "merges.txt").read_text()
    (folder / "merges.txt").write_text(merges + "a b c\n")
    with pytest.raises(DataError, match="not a pair"):
        load(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read the tokenizer .*merges\.txt"):
        load(folder)
    (folder / "merges.txt").write_text(merges)
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocab, "cat</w>": len(vocab)}))
    with pytest.raises(DataError, match="ends of words"):
        load(folder)
    del vocab["Ġ"]
    (folder / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(DataError, match="lacks 1 of the 256"):
        load(folder)


def test_word_piece(tmp_path: Path) -> None:
    engine = Engine(models.WordPiece(unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[UNK]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=specials, show_progress=False
    )
    engine.train_from_iterator(TEXTS, trainer)
    engine.save(str(tmp_path / "t.json"))
    tokenizer = load(tmp_path / "t.json", end_of_document="[SEP]")
    (ids,) = tokenizer.encode_batch(["the cat [SEP] the mat"])
    assert tokenizer.eod == 1
    assert tokenizer.eod not in ids
