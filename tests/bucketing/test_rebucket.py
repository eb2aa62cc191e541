from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.bucketing.finished import open_finished
from megagrow.bucketing.job import bucket
from megagrow.bucketing.levels import fit_thresholds
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recutting import cut, exact, survey
from megagrow.bucketing.recutting import files as rebucket_files
from megagrow.bucketing.recutting.exact import Histogram
from megagrow.bucketing.recutting.rebucket import RebucketSettings, rebucket
from megagrow.bucketing.settings import Settings
from megagrow.errors import DataError
from tests.bucketing.make_inputs import tiny_tokenizer, write_rows, write_shards

ROOT = Path(__file__).resolve().parents[2]
QUIET = Progress(quiet=True)
TOKENS_PER_FILE = 14_000


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards, one of them with rejected rows, one empty."""
    folder = tmp_path_factory.mktemp("text")
    write_shards(folder, seed=3, shards=3, documents=180)
    write_shards(folder / "more", seed=4, shards=1, documents=90, suffix=".jsonl.gz")
    rows: list[dict[str, Any]] = [{"text": None}, {"text": "one good row"}, {"no": 1}]
    write_rows(folder / "z.jsonl", rows)
    (folder / "zz.jsonl").write_bytes(b"")
    tiny_tokenizer(folder / "tokenizer")
    return folder


def fresh(text: Path, output: Path, **changes: Any) -> Path:
    inputs = (f"{text}/*.jsonl.zst", f"{text}/more", f"{text}/z.jsonl", f"{text}/zz.jsonl")
    given: dict[str, Any] = {"tokens_per_file": TOKENS_PER_FILE, **changes}
    tokenizer = text / "tokenizer" / "tokenizer.json"
    bucket(Settings(inputs=inputs, output=output, tokenizer=tokenizer, **given), QUIET)
    return output


@pytest.fixture(scope="module")
def source(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh(text, tmp_path_factory.mktemp("source"))


def recut(source: Path, output: Path, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"tokens_per_file": TOKENS_PER_FILE, **changes}
    return rebucket(RebucketSettings(source=source, output=output, **given), QUIET)


def contents(folder: Path) -> dict[str, bytes]:
    """What must be the same, by file name."""
    kept = (".bin", ".idx", ".npy", ".jsonl")
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in kept
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_same_bytes_as_a_job_over_the_text(
    text: Path, source: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("a", "b", "c", "d")
    monkeypatch.setattr(rebucket_files, "_TASK_BYTES", 1)  # a task for each input file
    monkeypatch.setattr(survey, "_WORTH_A_WORKER", 1)
    manifest = recut(
        source, tmp_path / "new", levels=names, shares=(0.1, 0.4, 0.3, 0.2), workers=workers
    )
    thresholds = tuple(manifest["levels"]["thresholds"])
    expected = fresh(text, tmp_path / "fresh", levels=names, thresholds=thresholds)
    assert contents(tmp_path / "new") == contents(expected)
    assert any(name.startswith("b-00001.bin") for name in contents(expected))  # several files
    theirs = json.loads((expected / "manifest.json").read_text())
    for key in ("buckets", "rows", "documents", "rejects", "text_bytes", "inputs", "tokenizer"):
        assert manifest[key] == theirs[key], key
    assert not (tmp_path / "new" / ".work").exists()
    assert (tmp_path / "new" / "scores.png").stat().st_size


def test_small_windows_change_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recut(source, tmp_path / "large", levels=("a", "b"))
    monkeypatch.setattr(survey.windows, "__defaults__", (7,))
    monkeypatch.setattr(cut, "_DOCUMENTS", 5)
    monkeypatch.setattr(cut, "_BYTES", 300)
    monkeypatch.setattr(cut, "_BLOCK_BYTES", 64)
    recut(source, tmp_path / "small", levels=("a", "b"))
    assert contents(tmp_path / "large") == contents(tmp_path / "small")


def test_there_and_back_again(source: Path, tmp_path: Path) -> None:
    found = open_finished(source)
    recut(source, tmp_path / "one", levels=("all",))
    back = recut(
        tmp_path / "one", tmp_path / "back", levels=found.names, thresholds=found.levels.thresholds
    )
    assert contents(tmp_path / "back") == contents(source)
    assert back["rebucketed_from"]["rebucketed_from"]["manifest_sha256"] == found.manifest_sha256
    assert back["levels"]["digest"] == found.levels.digest


def test_shares_are_those_of_all_documents(source: Path, tmp_path: Path) -> None:
    shares = (0.25, 0.5, 0.25)
    manifest = recut(source, tmp_path / "new", levels=("a", "b", "c"), shares=shares)
    found = open_finished(source)
    scores = np.concatenate([f.records(0, f.documents)["score"] for f in found.files])
    tokens = np.concatenate([f.lengths(0, f.documents) for f in found.files])
    assert tuple(manifest["levels"]["thresholds"]) == fit_thresholds(scores, tokens, shares)
    for bucket_, share in zip(manifest["buckets"].values(), shares, strict=True):
        assert bucket_["tokens"] / tokens.sum() == pytest.approx(share, abs=0.02)


few_scores = st.lists(
    st.tuples(
        st.one_of(
            st.floats(-40, 40, width=32),
            st.sampled_from([0.0, -0.0, 1.0, np.float32(1.0000001), 1e-45, -1e30, 3e38]),
            st.integers(0, 40).map(
                lambda n: float(np.float32(9.5) + n * np.spacing(np.float32(9)))
            ),
        ),
        st.integers(1, 1000),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(few_scores, st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 20))
def test_exact_thresholds_are_those_of_a_sort(
    documents: list[tuple[float, int]], parts: list[int], pieces: int
) -> None:
    scores = np.array([score for score, _ in documents], dtype=np.float32)
    tokens = np.array([count for _, count in documents], dtype=np.int64)
    shares = [part / sum(parts) for part in parts]
    split = [each for each in np.array_split(np.arange(scores.size), pieces) if each.size]
    whole = exact.add([exact.coarse(scores[each], tokens[each]) for each in split])
    assert whole.tokens.sum() == tokens.sum()
    ranges = exact.ranges_to_refine(whole, shares)
    refined = exact.add([exact.fine(scores[each], tokens[each], ranges) for each in split])
    if np.unique(scores).size < len(shares):
        with pytest.raises(DataError, match="distinct scores"):
            exact.thresholds(whole, refined, ranges, shares)
        return
    assert exact.thresholds(whole, refined, ranges, shares) == fit_thresholds(
        scores, tokens, shares
    )


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_ordered_numbers_sort_like_scores(values: list[float]) -> None:
    scores = np.array(values, dtype=np.float32)
    keys = exact.ordered(scores)
    assert [exact.score_of(int(key)) for key in keys] == scores.tolist()
    assert np.array_equal(scores[np.argsort(keys, kind="stable")], np.sort(scores))


def test_quantiles_are_near() -> None:
    scores = np.linspace(1, 9, 8001, dtype=np.float32)
    found: Histogram = exact.coarse(scores, np.ones(scores.size, np.int64))
    assert exact.quantiles(found, [0, 0.25, 0.5, 1]) == pytest.approx((1, 3, 5, 9), rel=1e-3)


def test_up_to_date_and_other_settings(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "new"
    first = recut(source, output, levels=("a", "b"))
    stamps = {path: path.stat().st_mtime_ns for path in output.glob("*.bin")}
    assert recut(source, output, levels=("a", "b"), workers=2) == first
    assert {path: path.stat().st_mtime_ns for path in output.glob("*.bin")} == stamps
    with pytest.raises(DataError, match=r"holds the result of other arguments.*--overwrite"):
        recut(source, output, levels=("a", "c"))
    recut(source, output, levels=("c",), tokens_per_file=10**9, overwrite=True)
    kept = {path.name for path in output.iterdir() if path.suffix in (".bin", ".idx", ".npy")}
    assert kept == {"c.bin", "c.idx", "c.documents.npy"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": (1e6,)}, "'b' would get no document"),
        ({"shares": (0.5, 0.25, 0.25)}, "2 levels.*3 shares"),
        ({"shares": (0.5, 0.5), "thresholds": (1.0,)}, "shares or thresholds"),
        ({"thresholds": (1.0, 2.0)}, "need 1 thresholds"),
        ({"workers": 0}, "--workers"),
    ],
)
def test_levels_that_cannot_be(
    source: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        recut(source, tmp_path / "new", levels=("a", "b"), **changes)
    assert only_a_lock(tmp_path / "new")


def only_a_lock(folder: Path) -> bool:
    return not folder.exists() or [path.name for path in folder.iterdir()] == [".lock"]


def test_source_is_not_the_output(source: Path) -> None:
    with pytest.raises(DataError, match="is the folder to read"):
        recut(source, source / "." / "../" / source.name)


def damage_bin(folder: Path) -> None:
    path = sorted(folder.glob("middle*.bin"))[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_score(folder: Path) -> None:
    path = sorted(folder.glob("easy*.npy"))[0]
    records = np.load(path)
    records["score"][1] = 1e3
    np.save(path, records)


def swap_rows(folder: Path) -> None:
    path = sorted(folder.glob("hard*.npy"))[0]
    records = np.load(path)
    records[[3, 4]] = records[[4, 3]]
    np.save(path, records)


def change_length(folder: Path) -> None:
    path = sorted(folder.glob("easy*.idx"))[0]
    content = bytearray(path.read_bytes())
    content[34] ^= 1
    path.write_bytes(content)


def cut_short(folder: Path) -> None:
    path = sorted(folder.glob("easy*.bin"))[0]
    path.write_bytes(path.read_bytes()[:-2])


def fewer_records(folder: Path) -> None:
    path = sorted(folder.glob("easy*.npy"))[0]
    np.save(path, np.load(path)[:-1])


def move_documents(folder: Path) -> None:
    path = folder / "inputs.jsonl"
    path.write_text(path.read_text().replace('"rows": 180', '"rows": 181'))


def edit_levels(folder: Path) -> None:
    path = folder / "levels.json"
    path.write_text(path.read_text().replace('"easy"', '"light"'))


def other_scorer(folder: Path) -> None:
    path = folder / "scorer" / "scorer.json"
    path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_bin, "CRC-32"),
        (change_score, "not one of the level 'easy'"),
        (swap_rows, "not in the order of the input"),
        (change_length, "damaged near document 0"),
        (cut_short, "bytes, manifest.json stands for"),
        (fewer_records, "records for"),
        (move_documents, "changed after it was written"),
        (edit_levels, "cannot be used"),
        (other_scorer, "not the scorer"),
    ],
)
def test_damaged_source_is_refused(source: Path, tmp_path: Path, damage: Any, message: str) -> None:
    shutil.copytree(source, tmp_path / "old")
    damage(tmp_path / "old")
    with pytest.raises(DataError, match=message):
        recut(tmp_path / "old", tmp_path / "new", levels=("a", "b"))
    assert not (tmp_path / "new" / "manifest.json").exists()
    if damage not in (damage_bin, other_scorer):
        assert only_a_lock(tmp_path / "new")


def test_no_folder_and_unfinished_folder(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no finished buckets here"):
        recut(tmp_path / "nowhere", tmp_path / "new")
    shutil.copytree(source, tmp_path / "old")
    manifest = json.loads((source / "manifest.json").read_text())
    del manifest["inputs"]
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"lacks what is needed here.*'inputs'"):
        recut(tmp_path / "old", tmp_path / "new")


def test_too_little_room(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"0\.977 KiB are free"):
        recut(source, tmp_path / "new", levels=("a", "b"))


KILLED = """
import os, signal, sys
from pathlib import Path
from megagrow.bucketing.recutting import cut
from megagrow.bucketing.recutting import rebucket
from megagrow.bucketing.recutting import files as rebucket_files
from megagrow.runtime import files

rebucket_files._TASK_BYTES = 1
left = int(sys.argv[3])

def count(event, arguments):
    global left
    if event in ("open", "os.rename", "os.remove", "os.truncate") and sys.argv[2] in str(arguments):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
from megagrow.bucketing.progress import Progress
rebucket.rebucket(
    rebucket.RebucketSettings(
        source=Path(sys.argv[1]), output=Path(sys.argv[2]), levels=("a", "b"),
        shares=(0.3, 0.7), tokens_per_file=14000, overwrite=sys.argv[4] == "overwrite",
    ),
    Progress(quiet=True),
)
"""


def run_killed(source: Path, output: Path, after: int, overwrite: str = "") -> int:
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(output), str(after), overwrite],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        stderr=subprocess.DEVNULL,
    ).returncode


@pytest.mark.slow
def test_killed_at_any_moment(source: Path, tmp_path: Path) -> None:
    recut(source, tmp_path / "whole", levels=("a", "b"), shares=(0.3, 0.7))
    expected = contents(tmp_path / "whole")
    output = tmp_path / "new"
    deaths = 0
    for after in (2, 9, 17, 23, 31, 38, 44, 51, 60, 72, 90):
        if run_killed(source, output, after) == -signal.SIGKILL:
            deaths += 1
            if not (output / ".work").exists():
                continue
            assert not (output / "manifest.json").exists() or contents(output) == expected
    assert deaths >= 6
    recut(source, output, levels=("a", "b"), shares=(0.3, 0.7))
    assert contents(output) == expected
    assert not (output / ".work").exists()


def test_finished_inputs_are_not_copied_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recut(source, tmp_path / "whole", levels=("a", "b"))
    monkeypatch.setattr(rebucket_files, "_TASK_BYTES", 1)
    copied = []
    real = cut._copy

    def stop(piece: cut.Piece, *others: Any) -> list[int]:
        copied.append(piece.input)
        if len(copied) == 3:
            raise OSError(28, "No space left on device")
        return real(piece, *others)

    monkeypatch.setattr(cut, "_copy", stop)
    with pytest.raises(OSError, match="No space left"):
        recut(source, tmp_path / "new", levels=("a", "b"))
    with pytest.raises(DataError, match="unfinished work of other arguments"):
        recut(source, tmp_path / "new", levels=("a", "b", "c"))
    recut(source, tmp_path / "new", levels=("a", "b"), overwrite=True)
    assert copied.count(copied[0]) == 1
    assert copied.count(copied[2]) == 2
    assert contents(tmp_path / "new") == contents(tmp_path / "whole")


def test_source_that_changes_meanwhile(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(source, tmp_path / "old")
    manifest = tmp_path / "old" / "manifest.json"

    def touch(*_: Any) -> None:
        manifest.write_text(manifest.read_text() + " ")

    monkeypatch.setattr("megagrow.bucketing.recutting.rebucket._check_filled", touch)
    with pytest.raises(DataError, match="changed while it was read"):
        recut(tmp_path / "old", tmp_path / "new", levels=("a", "b"))
    assert not (tmp_path / "new" / "manifest.json").exists()
