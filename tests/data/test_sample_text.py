from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import psutil
import pytest
import zstandard

from megagrow.data.sample_text import library, pages, prepare, stories
from megagrow.data.sample_text.clean import clean_text
from megagrow.data.sample_text.library import Passage
from megagrow.errors import DataError
from megagrow.tokenization.tokenizer import load
from tools import prepare_quickstart

# ---- stories


def test_stories_are_the_same_everywhere() -> None:
    """A new hash means new text: raise prepare.TEXT_VERSION with it."""
    text = "\0".join(stories.story(1, index) for index in range(200))
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert (prepare.TEXT_VERSION, digest[:16]) == (2, "46b6fb59ec777182")


def test_stories_do_not_depend_on_their_order() -> None:
    assert list(islice(stories.stories(7), 5, 8)) == list(islice(stories.stories(7, start=5), 3))
    assert stories.story(7, 5) != stories.story(8, 5)


@pytest.fixture(scope="module")
def many_stories() -> list[str]:
    return [stories.story(3, index) for index in range(3000)]


def test_stories_are_well_formed(many_stories: list[str]) -> None:
    for text in many_stories:
        assert not re.search(r"[{}\[\]|]|  |\n\n\n| [.,!?]| $|^$", text), text
        assert text.count('"') % 2 == 0, text
        assert all(re.match(r'"?[A-Z]', paragraph) for paragraph in text.split("\n\n")), text
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiou]", text), text
        assert not re.search(r"[.?!] [a-z]", text), text
        assert re.search(r'[.!?]"?$', text), text


def test_stories_vary_within_a_small_vocabulary(many_stories: list[str]) -> None:
    words = Counter(re.findall(r"[a-z]+", " ".join(many_stories).lower()))
    assert 1000 < len(words) < 2000
    sentences = {sentence for text in many_stories for sentence in re.split(r"(?<=[.!?])\s", text)}
    assert len(sentences) > 25_000
    assert len(set(many_stories)) == len(many_stories)
    lengths = sorted(len(text.split()) for text in many_stories)
    assert 100 < lengths[len(lengths) // 2] < 250


def test_every_slot_of_the_grammar_has_words() -> None:
    """Renders every alternative of every beat: an unknown slot would raise a KeyError."""
    teller = stories._Teller(stories.random.Random(0))

    def visit(template: stories.Template) -> None:
        for node in template:
            if isinstance(node, list):
                for branch in node:
                    visit(branch)
            else:
                teller._render([node], [])

    beats = [beat for beats in stories._grammar().values() for beat in beats]
    assert len(beats) > 100
    for _, alternatives in beats:
        for template in alternatives:
            visit(template)


@pytest.mark.parametrize("text", ["a {b", "a [b|c", "a ]b", "a | b", "a } b", "[a {b|c} d]"])
def test_broken_templates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="story template"):
        stories.parse_template(text)


# ---- cleaning

PROSE = "Return the number of words in the text, counted the way a person would count them."


@pytest.mark.parametrize(
    "junk",
    [
        "1.0 2.5 3.75 4.125\n0.25 17.5 99.0 1e-9\n11 12 13 14",
        "ab12cd3 ef45ab6 cd78ef9 fa01bc2",
        "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5eg==",
        "本项目提供一个简单的接口，用于读取文本。",
        "Эта функция считает слова в тексте.",
        "[![build](badge.svg)](https://example.org/x)",
        '<img src="logo.png" width="200">',
        ".. _target: https://example.org/a/b",
        "=========  ======  =====",
        "+----+----+",
    ],
)
def test_junk_is_dropped(junk: str) -> None:
    assert clean_text(f"{PROSE}\n\n{junk}\n\n{PROSE}") == f"{PROSE}\n\n{PROSE}"


@pytest.mark.parametrize(
    "text",
    [PROSE, ">>> count('a b')\n2\n>>> for word in words:\n...     print(word)", "Café naïveté."],
)
def test_language_is_kept(text: str) -> None:
    assert clean_text(f"{PROSE}\n\n{text}") == f"{PROSE}\n\n{text}"


def test_markup_is_thinned() -> None:
    text = f"Notes\n-----\n{PROSE}\n\n.. note:: See :func:`x` at https://example.org/a/b?c=d."
    assert clean_text(text) == f"Notes\n{PROSE}\n\n See `x` at https://example.org"


def test_short_texts_are_dropped() -> None:
    assert clean_text("Return the number.") == ""


# ---- documentation

SOURCE = f'''"""{PROSE}"""
import os

class Counter(dict, os.PathLike):
    """{PROSE} One."""

    async def count(self, text: str, *, limit=3) -> int:
        """{PROSE} Two."""

    def undocumented(self):
        return 1

if os.name:
    def late():
        """{PROSE} Three."""

add_docstr(os.path, """
{PROSE}
{PROSE}

Four.
""")
print("""
no
documentation
{PROSE}
""")
'''


def test_documentation_of_a_source_file(tmp_path: Path) -> None:
    path = tmp_path / "package" / "module.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    found = library.passages_of_file(tmp_path, path)
    assert [passage.documented for passage in found] == [
        PROSE,
        f"class Counter(dict, os.PathLike)\n{PROSE} One.",
        f"def count(self, text: str, *, limit=3)\n{PROSE} Two.",
        f"def late()\n{PROSE} Three.",
        f"{PROSE}\n{PROSE}\n\nFour.",
    ]
    assert {passage.origin for passage in found} == {"package/module.py"}


@pytest.mark.parametrize(
    "content",
    [
        b'"""\xff\xfe"""',
        b'def broken(:\n    """Doc."""',
        b'"""a\x00b"""',
        b"x = '''" + b"(" * 10**5,
    ],
)
def test_unreadable_sources_give_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.py"
    path.write_bytes(content)
    assert library.passages_of_file(tmp_path, path) == []
    assert library.passages_of_file(tmp_path, tmp_path / "missing.py") == []


def test_tests_and_nested_packages_are_no_sources(tmp_path: Path) -> None:
    for name in ("a.py", "b/c.py", "tests/d.py", "b/test/e.py", "site-packages/f.py", "g.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = library.source_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.py", "b/c.py"]


def test_packages_describe_themselves() -> None:
    passages = library.passages_of_packages()
    origins = [passage.origin for passage in passages]
    assert origins == sorted(origins)
    assert {"numpy", "torch"} <= set(origins)


@pytest.fixture
def small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library be two folders of the standard library, in small tasks."""
    root = Path(sysconfig.get_paths()["stdlib"])
    monkeypatch.setattr(library, "import_roots", lambda: [root / "email", root / "asyncio"])
    monkeypatch.setattr(library, "passages_of_packages", list)
    monkeypatch.setattr(library, "FILES_PER_TASK", 8)


@pytest.mark.usefixtures("small_library")
def test_workers_change_nothing() -> None:
    alone = library.library_passages(1, 10**9, workers=1)
    assert alone == library.library_passages(1, 10**9, workers=2)
    other = library.library_passages(2, 10**9, workers=1)
    assert alone != other
    assert Counter(p.text for p in alone) == Counter(p.text for p in other)


@pytest.mark.usefixtures("small_library")
def test_reading_stops_when_there_is_enough() -> None:
    everything = library.library_passages(1, 10**9)
    part = library.library_passages(1, 20_000)
    assert part == everything[: len(part)]
    assert 20_000 <= sum(len(p.text) for p in part) < sum(len(p.text) for p in everything)


def test_killed_parent_leaves_no_orphans(tmp_path: Path) -> None:
    """The parent is killed in the middle of reading; its workers must end too."""
    command = [sys.executable, "-m", "tools.prepare_quickstart", "--output", str(tmp_path / "q")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        parent = psutil.Process(process.pid)
        workers: list[psutil.Process] = []
        for _ in range(600):
            workers = [c for c in parent.children() if "spawn_main" in " ".join(c.cmdline())]
            if workers and all(worker.num_threads() > 1 for worker in workers):
                break
            time.sleep(0.1)
        assert workers
        process.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for worker in alive:
        worker.kill()
    assert not alive


# ---- pages


def passage(text: str, origin: str = "a", signature: str = "") -> Passage:
    return Passage(origin=origin, text=text, signature=signature)


def test_repeated_paragraphs_are_dropped() -> None:
    shouted = PROSE.upper().replace(",", ";")
    kept = pages.without_repeats(
        [
            passage(f"Notes\n\n{PROSE}"),
            passage(f"Notes\n\n{shouted}"),
            passage(f"Notes\n\n{PROSE}\n\nAnd eight more words that nobody has said before."),
        ]
    )
    assert [p.text for p in kept] == [
        f"Notes\n\n{PROSE}",
        "Notes\n\nAnd eight more words that nobody has said before.",
    ]


def test_signatures_are_kept_and_pages_follow_files() -> None:
    found = pages.pages([passage("the cat", origin, "def cat()") for origin in "aab"])
    assert found == [("a", "def cat()\nthe cat\n\ndef cat()\nthe cat"), ("b", "def cat()\nthe cat")]


def test_long_pages_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MAX_PAGE", 25)
    found = pages.pages(
        [passage("x" * 10, "a"), passage("y" * 10, "a"), passage("z" * 10, "a"), passage("w", "b")]
    )
    assert found == [("a", "x" * 10 + "\n\n" + "y" * 10), ("a", "z" * 10), ("b", "w")]


# ---- the folder

SMALL = ["--vocab-size", "600", "--tokens", "60K"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make(folder: Path, *more: str) -> int:
    return prepare_quickstart.main(["--output", str(folder), *SMALL, *more])


def records(folder: Path) -> list[dict[str, str]]:
    return [
        json.loads(line)
        for shard in sorted(folder.glob("*.jsonl.zst"))
        for line in zstandard.ZstdDecompressor().decompress(shard.read_bytes()).splitlines()
    ]


@pytest.mark.usefixtures("small_library")
def test_quickstart_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "deep" / "text"
    assert make(folder) == 0
    found = records(folder)
    sizes = {
        source: sum(len(record["text"]) for record in found if record["source"] == source)
        for source in ("story", "documentation")
    }
    assert sizes["documentation"] == pytest.approx(2 * sizes["story"], rel=0.1)
    assert sum(sizes.values()) == pytest.approx(60_000 * prepare._CHARACTERS_PER_TOKEN, rel=0.1)
    tokenizer = load(folder / "tokenizer.json")
    assert tokenizer.vocab_size == 600
    tokens = sum(map(len, tokenizer.encode_batch([record["text"] for record in found])))
    assert 60_000 < tokens < 150_000  # a tokenizer of 600 ids has shorter tokens than most

    before = contents(folder)
    capsys.readouterr()
    assert make(folder) == 0
    assert capsys.readouterr().out == f"{folder}: up to date\n"
    assert make(tmp_path / "again") == 0
    assert contents(tmp_path / "again") == before
    assert make(folder, "--seed", "2") == 0
    after = contents(folder)
    assert all(before[name] != after[name] for name in before if name.startswith("shard_"))


@pytest.mark.usefixtures("small_library")
def test_killed_run_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(tmp_path / "whole") == 0
    write_shard = prepare._write_shard

    def die(folder: Path, number: int, found: list[dict[str, str]]) -> Path:
        if number == 2:
            raise KeyboardInterrupt
        return write_shard(folder, number, found)

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_write_shard", die)
        assert make(tmp_path / "killed") == 130
    assert not (tmp_path / "killed" / prepare.CONTENT_NAME).exists()
    assert make(tmp_path / "killed") == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    # Killed while it replaces a complete folder, it must not leave that folder's note either.
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_write_shard", die)
        assert make(tmp_path / "killed", "--seed", "2") == 130
    assert not (tmp_path / "killed" / prepare.CONTENT_NAME).exists()


@pytest.mark.usefixtures("small_library")
@pytest.mark.parametrize(
    "name", ["shard_00000001.jsonl.zst", "tokenizer.json", prepare.CONTENT_NAME]
)
def test_damage_is_noticed(tmp_path: Path, name: str) -> None:
    text = prepare.QuickstartText(folder=tmp_path, vocab_size=300, tokens=15_000)
    prepare.prepare(text, lambda line: None)
    assert prepare.is_up_to_date(text)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-2])
    assert not prepare.is_up_to_date(text)


def test_foreign_folders_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert make(tmp_path) == 2
    assert "holds files that this tool did not make" in capsys.readouterr().err
    assert make(tmp_path / "thesis.txt") == 2
    assert "is a file" in capsys.readouterr().err
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_environment_without_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "import_roots", list)
    monkeypatch.setattr(library, "passages_of_packages", list)
    data = prepare.QuickstartText(folder=tmp_path)
    with pytest.raises(DataError, match="too little documentation"):
        prepare.prepare(data, lambda line: None)


@pytest.mark.parametrize("arguments", [["--tokens", "many"], ["--vocab-size", "x"], ["--seed"]])
def test_bad_arguments(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        make(tmp_path / "new", *arguments)
    assert not (tmp_path / "new").exists()
