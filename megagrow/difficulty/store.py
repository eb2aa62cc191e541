"""A scorer in a folder: `scorer.json` and weights; and the scorer that a user names."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from megagrow.difficulty.distilbert import open_model
from megagrow.difficulty.linear import Linear
from megagrow.difficulty.readability import Readability
from megagrow.difficulty.scorer import Scorer
from megagrow.difficulty.surprisal import Surprisal
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically

SCORER_FILE = "scorer.json"
FORMAT = "megagrow-scorer"
VERSION = 1

KINDS = ("surprisal", "readability", "linear", "distilbert")
"""Every kind of scorer."""

_INT8 = "distilbert-int8"
_TRAINER = "tools/train_difficulty_classifier.py"
_Description = dict[str, Any]


def save(scorer: Scorer, folder: Path) -> None:
    """Writes a scorer into a folder, which is made; `scorer.json` comes last.

    Of a classifier only the place is written: a folder inside `folder` relative to it, any other
    one absolute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "kind": scorer.kind,
        "unit": scorer.unit,
        "tokenizer_hash": scorer.tokenizer_hash,
        "digest": scorer.digest,
        "parameters": scorer.save(folder),
    }
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / SCORER_FILE, text)


def load(folder: Path, *, device: str = "auto", threads: int | None = None) -> Scorer:
    """Reads a scorer that `save` wrote, and checks that it is the same one.

    Args:
        folder: holds `scorer.json`.
        device: where a classifier runs; see `distilbert.open_model`.
        threads: CPU threads for a classifier.

    Raises:
        DataError: a file is missing, damaged, or not what was saved.
    """
    path = folder / SCORER_FILE
    description = _read(path)
    builders: dict[str, Callable[[], Scorer]] = {
        "surprisal": lambda: Surprisal.load(folder, _tokenizer(description)),
        "readability": lambda: Readability.load(description["parameters"]),
        "linear": lambda: Linear.load(folder, _tokenizer(description), description["parameters"]),
        "distilbert": lambda: _classifier(folder, description["parameters"], device, threads),
    }
    try:
        kind, digest = description["kind"], description["digest"]
        if kind not in builders:
            raise DataError(f"{path}: unknown kind of scorer {kind!r}{_nearest(str(kind))}")
        scorer = builders[kind]()
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: damaged: {error!r} where the scorer's settings should be; save it again"
        ) from None
    if scorer.digest != digest:
        raise DataError(
            f"{folder}: its weights or settings are not those that were saved ({SCORER_FILE} says "
            f"{str(digest)[:12]}..., found {scorer.digest[:12]}...) and give other scores; restore "
            "the files, or save the scorer again"
        )
    return scorer


def parse(text: str, *, device: str = "auto", threads: int | None = None) -> Scorer:
    """The scorer that a user named.

    Args:
        text: `readability`, `surprisal:FOLDER`, `linear:FOLDER`, `distilbert:FOLDER_OR_HUB_ID`,
            `distilbert-int8:FOLDER` with an exported model, or a folder that holds `scorer.json`.
            `surprisal` alone has no counts yet: see `surprisal.fit`.
        device: where a classifier runs; see `distilbert.open_model`.
        threads: CPU threads for a classifier.

    Raises:
        DataError: none of these, naming the nearest; or what it names is missing or damaged.
    """
    kind, colon, source = text.partition(":")
    if kind == _INT8 and source:
        return open_model(source, backend="onnx", threads=threads)
    if kind not in KINDS or (colon and not source):
        return _from_folder(text, kind, device, threads)
    if not source:
        if kind == "readability":
            return Readability()
        made_by = "megagrow.difficulty.surprisal.fit" if kind == "surprisal" else _TRAINER
        what = "FOLDER_OR_HUB_ID" if kind == "distilbert" else "FOLDER"
        raise DataError(f"scorer {kind}: which one? Write {kind}:{what}; {made_by} makes one")
    folder = Path(source).expanduser()
    if kind == "distilbert" and not (folder / SCORER_FILE).is_file():
        return open_model(source, device=device, threads=threads)
    scorer = load(folder, device=device, threads=threads)
    if scorer.kind != kind:
        raise DataError(
            f"{folder} holds a {scorer.kind} scorer, not {kind}: write {scorer.kind}:{source}"
        )
    return scorer


def _from_folder(text: str, kind: str, device: str, threads: int | None) -> Scorer:
    folder = Path(text).expanduser()
    if (folder / SCORER_FILE).is_file():
        return load(folder, device=device, threads=threads)
    if folder.is_dir():
        hint = f"; write distilbert:{text}" if (folder / "config.json").is_file() else ""
        raise DataError(f"scorer {text}: this folder holds no {SCORER_FILE}{hint}")
    raise DataError(
        f"scorer {text!r} is none of surprisal, readability, linear:FOLDER, "
        f"distilbert:FOLDER_OR_HUB_ID, {_INT8}:FOLDER, or a folder with {SCORER_FILE}"
        f"{_nearest(kind)}"
    )


def _read(path: Path) -> _Description:
    try:
        description = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; is this the folder of a scorer?"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: damaged: {error}; save the scorer again") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise DataError(f"{path}: is no {FORMAT} file; save the scorer again")
    if description.get("version") != VERSION:
        raise DataError(
            f"{path}: version {description.get('version')!r} is not read by this megagrow, which "
            f"writes version {VERSION}; save the scorer again"
        )
    return description


def _tokenizer(description: _Description) -> str:
    value = description["tokenizer_hash"]
    if not isinstance(value, str):
        raise TypeError("no tokenizer_hash")
    return value


def _classifier(folder: Path, parameters: _Description, device: str, threads: int | None) -> Scorer:
    if "hub" in parameters:
        source = str(parameters["hub"])
    else:
        named = Path(str(parameters["folder"]))
        source = str(folder / named)
        # An absolute path was written on purpose; a relative one means a part of this folder.
        if not named.is_absolute() and ".." in named.parts:
            raise DataError(f"{folder / SCORER_FILE}: {named} leads out of the folder; refused")
    return open_model(
        source,
        max_length=int(parameters["max_length"]),
        device=device,
        backend=parameters["backend"],
        threads=threads,
    )


def _nearest(kind: str) -> str:
    close = get_close_matches(kind.lower(), KINDS, n=1)
    return f"; did you mean {close[0]}?" if close else ""
