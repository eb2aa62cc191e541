"""Prose and reference text that every Python installation carries: docstrings and package texts.

Sources, read and never imported: the docstrings of the standard library and of the installed
packages (with the signature they document), the documentation strings that C extensions attach by
calls such as ``add_docstr``, the language reference in ``pydoc_data``, and the descriptions,
readme and licence files in the packages' metadata. Which packages are installed decides the text,
so it is the same for every run in one environment and differs between environments.
"""

from __future__ import annotations

import ast
import contextlib
import email
import importlib.metadata
import inspect
import multiprocessing
import os
import random
import signal
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from megagrow.data.sample_text.clean import clean_text

# Larger sources are generated tables; tests hold fixtures, not documentation.
MAX_SOURCE_BYTES = 1_000_000
SKIPPED_FOLDERS = frozenset({"test", "tests", "testing", "site-packages", "dist-packages"})
# Share of a well documented source that stands between triple quotes. Parsing takes most of the
# time, and half of the sources hold four fifths of the documentation.
WELL_DOCUMENTED = 0.2
FILES_PER_TASK = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A cleaned piece of text and where it was found."""

    origin: str
    """File path relative to its import root, or the package name; the same on every machine."""
    text: str
    """Cleaned text, at least a sentence long."""
    signature: str = ""
    """The Python definition that the text documents, if any."""

    @property
    def documented(self) -> str:
        """The text after its signature."""
        return f"{self.signature}\n{self.text}" if self.signature else self.text


def import_roots() -> list[Path]:
    """The standard library's folder and the folders of installed packages, in import order."""
    paths = sysconfig.get_paths()
    candidates = [paths["stdlib"], paths["purelib"], paths["platlib"]]
    candidates += [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    return [root for root in map(Path, dict.fromkeys(candidates)) if root.is_dir()]


def source_files(root: Path) -> list[Path]:
    """Python sources below ``root`` that may hold documentation, sorted."""
    return sorted(
        path
        for path in root.rglob("*.py")
        if SKIPPED_FOLDERS.isdisjoint(path.relative_to(root).parts)
    )


def is_well_documented(path: Path) -> bool:
    """Guess, without parsing, whether much of a source file is documentation."""
    try:
        source = path.read_bytes()
    except OSError:
        return False
    return sum(map(len, source.split(b'"""')[1::2])) > WELL_DOCUMENTED * len(source)


def passages_of_file(root: Path, path: Path) -> list[Passage]:
    """Docstrings of one source file, each after its signature; unreadable sources give none."""
    try:
        if path.stat().st_size > MAX_SOURCE_BYTES:
            return []
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
            documentation = list(_documentation(tree))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    origin = path.relative_to(root).as_posix()
    return [
        Passage(origin=origin, signature=signature, text=text)
        for signature, raw in documentation
        if (text := clean_text(raw))
    ]


def _documentation(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Signature and documentation of everything that a module defines, in source order."""
    if docstring := ast.get_docstring(tree):
        yield "", docstring
    pending: list[ast.stmt] = tree.body[::-1]
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if docstring := ast.get_docstring(node):
                yield _signature(node), docstring
            pending.extend(node.body[::-1])
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            # Documentation of C functions, attached by calls like `add_docstr(abs, text)`.
            function = node.value.func
            name = getattr(function, "attr", getattr(function, "id", ""))
            if "doc" in name.lower():
                yield from (("", text) for text in _long_strings(node.value.args))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            yield from (("", text) for text in _long_strings(node.value.values))
        elif isinstance(node, (ast.If, ast.Try)):
            pending.extend(node.body[::-1])


def _long_strings(nodes: Iterable[ast.expr | None]) -> Iterator[str]:
    for node in nodes:
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            continue
        if node.value.count("\n") >= 3:
            yield inspect.cleandoc(node.value)


def _signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"
    return f"def {node.name}({ast.unparse(node.args)})"


def passages_of_packages() -> list[Passage]:
    """Descriptions, readme and licence texts of the installed packages, by package name."""
    found: dict[str, list[Passage]] = {}
    for distribution in importlib.metadata.distributions():
        raw = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")
        metadata = email.message_from_string(raw or "")
        name = metadata.get("Name", "").lower()
        if not name or name in found:
            continue
        texts = [str(metadata.get_payload()), metadata.get("Description", "")]
        for file in sorted(distribution.files or [], key=str):
            if _is_package_text(file.name) and ".dist-info" in str(file):
                with contextlib.suppress(OSError, ValueError):
                    texts.append(Path(str(file.locate())).read_text(encoding="utf-8"))
        cleaned = map(clean_text, texts)
        found[name] = [Passage(origin=name, text=text) for text in cleaned if text]
    return [passage for name in sorted(found) for passage in found[name]]


def _is_package_text(name: str) -> bool:
    stem = name.upper()
    return stem.startswith(("LICEN", "COPYING", "NOTICE", "README", "HISTORY", "CHANGE"))


def library_passages(seed: int, max_characters: int, workers: int = 2) -> list[Passage]:
    """Passages of this environment: those of package texts, then those of source files.

    Args:
        seed: decides the order of the well documented source files, and of the others after them.
        max_characters: stop reading sources after this much text.
        workers: processes that parse sources; they change the time only.
    """
    found = passages_of_packages()
    characters = sum(len(passage.text) for passage in found)
    files = [(str(root), str(path)) for root in import_roots() for path in source_files(root)]
    random.Random(seed).shuffle(files)
    files.sort(key=lambda file: not is_well_documented(Path(file[1])))
    jobs = [files[at : at + FILES_PER_TASK] for at in range(0, len(files), FILES_PER_TASK)]
    # Spawned, because the caller may hold a tokenizer's threads.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent) as pool:
        for passages in pool.map(_passages_of_files, jobs):
            found += passages
            characters += sum(len(passage.text) for passage in passages)
            if characters >= max_characters:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    return found


def _follow_parent() -> None:
    """Leave interrupts to the parent, and end when it does: a killed parent leaves no orphans."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _passages_of_files(files: list[tuple[str, str]]) -> list[Passage]:
    return [passage for root, path in files for passage in passages_of_file(Path(root), Path(path))]
