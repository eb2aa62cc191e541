"""Cleaning of documentation text: keep sentences and code examples, drop what is no language."""

from __future__ import annotations

import re
import string

MIN_WORDS = 8
MAX_CHARACTERS = 20_000
MAX_WORD = 60

_SPACES = string.whitespace.encode()
_LETTERS = string.ascii_letters.encode()
_DIGITS = string.digits.encode()

# Underlines of headings and borders of tables; `...` continues an example.
_RULE = re.compile(r"^(?=.*[^\w\s])[^a-zA-Z0-9\n.>]{3,}$\n?", re.MULTILINE)
_TAGS = "a|b|i|p|br|em|sub|sup|div|img|span|h[1-6]|t[dhr]|table|center|details|picture|summary"
_BADGE = re.compile(rf"^.*(?:</?(?:{_TAGS})[ >/]|!\[|\.\. (?:image|figure|\|)).*$\n?", re.MULTILINE)
_LINK_TARGET = re.compile(r"^ *(?:\.\. _|\[[^\]]+\]: ).*$\n?", re.MULTILINE)
_URL_PATH = re.compile(r"(https?://[^\s/<>()'\"`\]]+)/[^\s<>()'\"`\]]*")
_MARKUP = re.compile(r"^ *\.\. [\w-]+::|:[\w:+-]+:(?=`)", re.MULTILINE)
# Beyond Latin letters and typographic punctuation.
_FOREIGN = re.compile(r"[^\x00-\u024f\u2010-\u2027]")
_BLANK = re.compile(r"\n\s*\n+")
_WORD = re.compile(r"[A-Za-z]+")


def clean_text(text: str) -> str:
    """Clean one docstring or package text; the result is empty when too little is left."""
    text = text.expandtabs(4).replace("\r\n", "\n")
    for junk in (_BADGE, _LINK_TARGET, _RULE):
        text = junk.sub("", text)
    text = _MARKUP.sub("", text)
    text = _URL_PATH.sub(r"\1", text)
    paragraphs = [p.rstrip() for p in _BLANK.split(text.strip("\n")) if is_language(p)]
    cleaned = "\n\n".join(paragraphs)[:MAX_CHARACTERS]
    return cleaned if len(_WORD.findall(cleaned)) >= MIN_WORDS else ""


def is_language(paragraph: str) -> bool:
    """Whether a paragraph is mostly words of a Latin-script language or code, not data."""
    # Deleting character classes from bytes counts them at C speed.
    encoded = paragraph.encode("ascii", "replace")
    dense = len(encoded.translate(None, _SPACES))
    if not dense:
        return False
    letters = len(encoded) - len(encoded.translate(None, _LETTERS))
    digits = len(encoded) - len(encoded.translate(None, _DIGITS))
    foreign = 0 if paragraph.isascii() else len(_FOREIGN.findall(paragraph))
    longest = max(map(len, paragraph.split()))
    return (
        letters >= 0.5 * dense
        and digits <= 0.2 * dense
        and foreign <= 0.02 * dense
        and longest <= MAX_WORD
    )
