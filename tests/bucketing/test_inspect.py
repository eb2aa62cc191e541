from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megagrow.bucketing.finished import Finished, open_finished
from megagrow.bucketing.inspection import inspect as looking
from megagrow.bucketing.inspection import verify as verifying
from megagrow.bucketing.inspection.inspect import choose, level_of, overview, show, source_row
from megagrow.bucketing.inspection.verify import verify
from megagrow.bucketing.inspection.view import printable
from megagrow.bucketing.job import bucket
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recutting.rebucket import RebucketSettings, rebucket
from megagrow.bucketing.settings import Settings
from megagrow.errors import DataError
from megagrow.shards.rows import read
from megagrow.shards.shard import look_at
from megagrow.tokenization.tokenizer import Tokenizer, load
from tests.bucketing.make_inputs import tiny_tokenizer, write_rows, write_shards

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = tmp_path_factory.mktemp("text")
    write_shards(text, seed=5, shards=3, documents=150)
    write_shards(text / "other", seed=6, shards=1, documents=100, suffix=".parquet")
    rows: list[dict[str, Any]] = [
        {"text": ""},
        {"text": "fine text \x1b[31m"},
        {},
        {"text": "é" * 99},
    ]
    write_rows(text / "z.jsonl", rows)
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    output = tmp_path_factory.mktemp("buckets")
    settings = Settings(
        inputs=(str(text),), output=output, tokenizer=tokenizer, tokens_per_file=6_000
    )
    bucket(settings, QUIET)
    return output


@pytest.fixture(scope="module")
def found(folder: Path) -> Finished:
    return open_finished(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load(folder / "tokenizer.json")


def scores(found: Finished, level: int) -> list[float]:
    every = [file.records(0, file.documents)["score"] for file in found.of_level(level)]
    return [float(each) for each in np.concatenate(every)]


def test_overview_has_the_quantiles(found: Finished) -> None:
    views = overview(found)
    assert [view.name for view in views] == ["easy", "middle", "hard"]
    assert views[0].threshold is None
    assert views[1].threshold == found.levels.thresholds[0]
    for level, view in enumerate(views):
        of = sorted(scores(found, level))
        assert (view.quantiles[0], view.quantiles[-1]) == (of[0], of[-1])
        assert view.quantiles[2] == pytest.approx(np.median(of), abs=0.05)
        assert view.documents == len(of)


def test_overview_of_many_looks_at_some(found: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = overview(found)
    monkeypatch.setattr(looking, "_SAMPLED_SCORES", 40)
    monkeypatch.setattr(looking, "_SAMPLED_TOGETHER", 4)
    for view, all_of in zip(overview(found), exact, strict=True):
        assert view.quantiles[2] == pytest.approx(all_of.quantiles[2], abs=0.6)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_choices(found: Finished, level: int) -> None:
    of = scores(found, level)

    def chosen(choice: looking.Choice) -> list[float]:
        picked = choose(found, level, count=4, choice=choice, seed=1)
        return [float(file.records(number, 1)["score"][0]) for file, number in picked]

    assert chosen("hardest") == sorted(of, reverse=True)[:4]
    assert chosen("easiest") == sorted(of)[:4]
    edges = found.levels.thresholds[max(level - 1, 0) : level + 1]
    near = sorted(of, key=lambda score: min(abs(score - edge) for edge in edges))[:4]
    assert sorted(chosen("near-thresholds")) == sorted(near)


def test_random_choice_is_seeded_and_without_repeats(found: Finished) -> None:
    one = choose(found, 1, count=5, choice="random", seed=1)
    assert one == choose(found, 1, count=5, choice="random", seed=1)
    assert one != choose(found, 1, count=5, choice="random", seed=2)
    documents = sum(file.documents for file in found.of_level(1))
    every = choose(found, 1, count=10**6, choice="random", seed=1)
    assert len({(file.prefix, number) for file, number in every}) == documents == len(every)


def test_shown_text_is_that_of_the_source(found: Finished, tokenizer: Tokenizer) -> None:
    for level in range(3):
        for file, number in choose(found, level, count=6, choice="random", seed=3):
            whole = show(found, file, number, tokenizer, 10**6)
            row = source_row(found, whole.input, whole.row)
            assert whole.whole
            assert whole.text == row["text"]
            assert whole.tokens == len(tokenizer.encode_batch([row["text"]])[0]) + 1
            part = show(found, file, number, tokenizer, 10)
            assert part.text == row["text"][:10]
            assert part.whole == (len(row["text"]) <= 10)


def test_source_rows_count_rejects(found: Finished) -> None:
    number = next(n for n, line in enumerate(found.inputs) if line["location"].endswith("z.jsonl"))
    assert source_row(found, number, 3)["text"] == "é" * 99
    parquet = next(n for n, each in enumerate(found.inputs) if each["format"] == "parquet")
    shard = look_at(found.inputs[parquet]["location"])
    texts = [text for rows in read(shard) for text in rows.texts]
    assert source_row(found, parquet, 57)["text"] == texts[57]
    assert source_row(found, parquet, 57)["url"].endswith("/57")


def test_source_that_changed(found: Finished, tmp_path: Path) -> None:
    changed = tmp_path / "z.jsonl"
    changed.write_text("{}\n")
    line = {**found.inputs[0], "location": str(changed)}
    other = Finished(
        **{name: getattr(found, name) for name in Finished.__slots__ if name != "inputs"},
        inputs=(line,),
    )
    with pytest.raises(DataError, match="changed since it was bucketed"):
        source_row(other, 0, 0)


def test_bucket_names(found: Finished) -> None:
    assert level_of(found, "hard") == 2
    with pytest.raises(DataError, match="did you mean 'middle'"):
        level_of(found, "midle")


def test_text_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[31m\x07\r\nb\tc\x9b2J\u202edcba") == "a␛[31m␇\nb\tc�2J�dcba"


def test_whole_folder_has_no_fault(folder: Path, tmp_path: Path) -> None:
    assert verify(open_finished(folder), 1, QUIET) == []
    rebucket(RebucketSettings(source=folder, output=tmp_path / "new", levels=("a", "b")), QUIET)
    assert verify(open_finished(tmp_path / "new"), 2, QUIET) == []


def test_small_windows_find_no_fault_either(
    found: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "_TOKENS", 200)
    monkeypatch.setattr(verifying, "_ROWS", 16)
    monkeypatch.setattr(verifying, "WINDOW", 3)
    assert verify(found, 1, QUIET) == []


def edit(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


def flip_token(folder: Path) -> None:
    def change(content: bytearray) -> None:
        content[100] ^= 1

    edit(first(folder, "hard*.bin"), change)


def id_beyond_vocabulary(folder: Path) -> None:
    def change(content: bytearray) -> None:
        content[20:22] = b"\xff\x7f"

    edit(first(folder, "easy*.bin"), change)


def end_inside(folder: Path) -> None:
    eod = json.loads((folder / "manifest.json").read_text())["eod"]

    def change(content: bytearray) -> None:
        content[0:2] = int(eod).to_bytes(2, "little")

    edit(first(folder, "easy*.bin"), change)


def no_end(folder: Path) -> None:
    def change(content: bytearray) -> None:
        content[-2:] = b"\x05\x00"

    edit(first(folder, "easy*.bin"), change)


def index_bounds(folder: Path) -> None:
    def change(content: bytearray) -> None:
        content[-8:] = b"\x01" * 8  # a document bound, which only the sha256 covers

    edit(first(folder, "middle*.idx"), change)


def row_twice(folder: Path) -> None:
    """Gives a document of one bucket the row of one in another; the order stays right."""
    row = open_finished(folder).of_level(0)[0].records(2, 1)["row"][0]
    path = first(folder, "hard*.npy")
    records = np.load(path)
    assert records["input"][0] == 0
    mine = records["row"][records["input"] == 0]
    records["row"][max(int(np.searchsorted(mine, row)) - 1, 0)] = row
    np.save(path, records)


def beyond_last_row(folder: Path) -> None:
    path = first(folder, "hard*.npy")
    records = np.load(path)
    last = int(np.flatnonzero(records["input"] == records["input"][0])[-1])
    records["row"][last] = 10**6
    np.save(path, records)


def other_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text() + "\n")


def other_rows(folder: Path) -> None:
    path = folder / "inputs.jsonl"
    path.write_text(path.read_text().replace('"rows": 150', '"rows": 151', 1))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["inputs"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_token, "are not those that were written (CRC-32)"),
        (id_beyond_vocabulary, "document 0 has id 32767, beyond the vocabulary"),
        (end_inside, "document 0 has an end-of-document id inside it"),
        (no_end, "does not end with the end-of-document id"),
        (index_bounds, "not the index that was written (sha256)"),
        (row_twice, "is in two buckets"),
        (beyond_last_row, "has row 1000000 of it"),
        (other_tokenizer, "not the tokenizer that wrote the tokens"),
        (other_rows, "rows in all, but"),
    ],
)
def test_faults_are_found(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy)
    faults = verify(open_finished(copy), 1, QUIET)
    assert any(message in fault for fault in faults), faults
