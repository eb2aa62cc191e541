"""Small tokenizers of every format, made on the spot."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from megagrow.tokenization.tokenizer import train_bpe

TEXTS = [
    "The cat sat on the mat, and the cat was happy. It's the cat's mat: 12, 345 and 6789!",
    "A dog ran after the cat.\n\n    def f(x):\n        return x\r\n",
    "Été naïf, façade, 漢字 and </s> or <s> or unk> <|endoftext|> in the text. 🙂 I'LL don't",
] * 20

END = "<|endoftext|>"

any_text = st.text(st.characters(exclude_categories=["Cs"]))
# Pieces on which splitting patterns and special tokens decide.
tricky_text = st.lists(
    st.sampled_from(
        [
            *"aT1 \n\r\t'.é漢🙂\u0301\x00\u2028",
            "  ",
            "'s",
            "'LL",
            END,
            "</s>",
            "<s>",
            "cat",
            "\u00a0",
        ]
    )
).map("".join)


def hugging_face(folder: Path, vocab_size: int = 400) -> Path:
    train_bpe(TEXTS, vocab_size, folder / "tokenizer.json")
    return folder / "tokenizer.json"


def edited(path: Path, folder: Path, **changes: Any) -> Path:
    other = folder / "edited.json"
    other.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return other


def added(content: str, identity: int, *, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": identity, "content": content, "special": special, **flags}


def with_added_tokens(folder: Path) -> Path:
    """As GPT-NeoX: runs of spaces are ordinary added tokens, between special ones."""
    path = hugging_face(folder)
    tokens = json.loads(path.read_text())["added_tokens"]
    size = 1 + max(json.loads(path.read_text())["model"]["vocab"].values())
    tokens += [
        added("<|user|>", size, special=True),
        added("    ", size + 1, special=False),
        added("        ", size + 2, special=False),
        added("<|pad|>", size + 3, special=True),
    ]
    return edited(path, folder, added_tokens=tokens)


def gpt2_files(folder: Path) -> Path:
    """vocab.json and merges.txt of a small byte-level BPE, with GPT-2's end of document."""
    folder.mkdir(exist_ok=True)
    model = json.loads(hugging_face(folder).read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]), "utf-8")
    return folder


def byte_ranks(folder: Path) -> list[bytes]:
    """Tokens of a small byte-level BPE in order of their ranks."""
    vocab = json.loads(hugging_face(folder).read_text())["model"]["vocab"]
    alphabet = _byte_alphabet()
    names = sorted((name for name in vocab if name != END), key=lambda name: vocab[name])
    return [bytes(alphabet[letter] for letter in name) for name in names]


def rank_file(path: Path) -> Path:
    return write_ranks(path, byte_ranks(path.parent))


def write_ranks(path: Path, tokens: list[bytes]) -> Path:
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    path.write_text("".join(lines))
    return path


def published_rank_file(folder: Path) -> Path:
    """As many ranks as r50k_base has: all bytes, then pairs of bytes."""
    singles = [bytes([byte]) for byte in range(256)]
    pairs = [a + b for a in singles for b in singles]
    return write_ranks(folder / "r50k_base.tiktoken", [*singles, *pairs][:50_256])


def sentence_piece(path: Path, texts: Sequence[str] = TEXTS, **options: Any) -> Path:
    import sentencepiece

    model = io.BytesIO()
    llama = {
        "vocab_size": 420,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, **{**llama, **options}
    )
    path.write_bytes(model.getvalue())
    return path


def _byte_alphabet() -> dict[str, int]:
    """Letter -> byte of GPT-2's alphabet: printable bytes are themselves, others follow 255."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in own]
    letters = {chr(byte): byte for byte in own}
    letters.update((chr(256 + i), byte) for i, byte in enumerate(rest))
    assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
    return letters
