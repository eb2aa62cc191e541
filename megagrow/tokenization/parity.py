"""Compare an engine's ids with those of the tokenizer's own library, on a sample of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch
from megagrow.tokenization.engine import Engine
from megagrow.tokenization.tokenizer import Tokenizer

# Enough for any published vocabulary's named tokens; some add thousands of reserved ones.
_TOKENS_TRIED = 200
_BATCH = 64
_IDS_SHOWN = 8
_CHARACTERS_SHOWN = 60

_NASTY = (
    "",
    " ",
    "\n",
    "\x00",
    "a\x00b\x00\x00",
    "\ufeffa byte order mark, and\ufeffone inside",
    "lines\u2028and\u2029paragraphs\x85and\x0bothers\x0c",
    "CRLF\r\n\r\nthen\rCR\n\rand tabs\t\t x \t\n \n",
    "e\u0301 \u0301 a\u0308\u0323 \u0327\u0301 o\u0302\u0301 \u1e9b\u0323 \ufb01 \u2460 \u212b",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd"
    " \U0001f1eb\U0001f1f7 \u2764\ufe0f \U0001f3f4\U000e0067\U000e0062\U000e007f",
    "汉字和假名かなカナ，한국어。中文ABC混排123",
    "नमस्ते العربية עברית ไทย Ελληνικά Русский Türkçe ı İ ß ẞ",
    "𝒜𝓁𝓅𝒽𝒶 𐍈 𠜎 \U0010ffff \ue000 \uffff \ufffd",
    "don't DON'T we'LL I'm they'd 'tis 'S ’s it''s",
    "0 12 123 1234 12345678901234567890 3.14 1,000,000 ½ Ⅷ ٣٤٥ x2y3",
    "$#@!%^&*()_+{}|:\"<>?-=[]\\;',./`~ ...!!!???",
    "a  b   c    d     e      f       g        h",
    "    indented\n\tcode(x)\n\n\n\n        more  \n ",
    "\u00a0no\u00a0break\u2003em\u3000wide\u200bzero",
    "▁▁ ▁a <0x0A> <0x41> <unk> <s> </s> <pad> [UNK] [CLS] [SEP] [MASK]",
    "<|endoftext|><|end_of_text|><|im_start|>system<|im_end|><eos><bos>",
    " " * 1000 + "x" + "\n" * 1000 + "x" + "\t" * 300,
    "a" * 3000,
    "=" * 3000 + "-" * 999,
    "é" * 700 + "汉" * 700 + "\U0001f600" * 300,
    "ab" * 1500 + "AaBb" * 500,
    "https://example.org/a_b-c/?q=1&r=%20#x user@example.org C:\\a\\b camelCaseWordsHTTPServer",
)


def nasty_texts(tokenizer: Tokenizer) -> list[str]:
    """Texts on which tokenizers are known to differ, with the special and added tokens in them."""
    return [*_NASTY, *_with_tokens(tokenizer)]


def check_parity(engine: Engine, tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Compare with the tokenizer's own library on `texts` and on `nasty_texts`.

    Args:
        engine: what encodes the run.
        tokenizer: the reference.
        texts: documents of the run.

    Returns:
        How many texts were compared.

    Raises:
        DataError: a text got other ids; the message shows the first one and where it differs.
    """
    compared = [*nasty_texts(tokenizer), *texts]
    for start in range(0, len(compared), _BATCH):
        batch = compared[start : start + _BATCH]
        got = engine.encode(batch)
        expected = TokenBatch.of(tokenizer.encode_batch(batch))
        if not np.array_equal(got.offsets, expected.offsets) or not np.array_equal(
            got.flat, expected.flat
        ):
            raise _difference(engine, tokenizer, batch, got, expected)
    return len(compared)


def _with_tokens(tokenizer: Tokenizer) -> Iterator[str]:
    end = tokenizer.end_of_document
    yield f"a document{end}another one {end} and{end}{end}\n{end}"
    for token in (end, *tokenizer.special_tokens[:_TOKENS_TRIED]):
        yield token
        yield f"x{token}y {token} z{token}{token}{token[:-1]} {token[1:]}\n{token.swapcase()}\n"
    for token in tokenizer.added_tokens[:_TOKENS_TRIED]:
        yield f"x{token}y {token} z{token}{token}{token[:-1]} {end} {token[1:]}\n{token}\n"


def _difference(
    engine: Engine,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    got: TokenBatch,
    expected: TokenBatch,
) -> DataError:
    head = f"{engine.version} and {tokenizer.library} disagree on the tokenizer {tokenizer.path}"
    tail = "go on with --engine reference"
    if got.documents != len(texts):
        return DataError(f"{head}: {len(texts)} texts gave {got.documents} documents; {tail}")
    for text, *ends in zip(texts, *_bounds(got), *_bounds(expected), strict=True):
        ours = got.flat[ends[0] : ends[1]].tolist()
        theirs = expected.flat[ends[2] : ends[3]].tolist()
        if ours != theirs:
            return DataError(f"{head}, {_where(tokenizer, text, ours, theirs)}; {tail}")
    raise AssertionError("no text differs")  # the caller has seen that one does


def _bounds(batch: TokenBatch) -> tuple[list[int], list[int]]:
    return batch.offsets[:-1].tolist(), batch.offsets[1:].tolist()


def _where(tokenizer: Tokenizer, text: str, ours: list[int], theirs: list[int]) -> str:
    pairs = zip(ours, theirs, strict=False)
    at = next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    first = max(0, at - 2)
    # Normalisation may have changed lengths, so this is about where it is.
    before = len(tokenizer.decode(theirs[:at]))
    cut = slice(max(0, before - _CHARACTERS_SHOWN // 2), before + _CHARACTERS_SHOWN // 2)
    return (
        f"from token {at} of a text of {len(text):,} characters, near {text[cut]!r}: "
        f"{ours[first : first + _IDS_SHOWN]} and {theirs[first : first + _IDS_SHOWN]} "
        f"from token {first} on"
    )
