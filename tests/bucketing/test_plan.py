from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megagrow.bucketing.job import bucket
from megagrow.bucketing.planning import measure as measure_module
from megagrow.bucketing.planning import plan as plan_module
from megagrow.bucketing.planning.measure import read_start
from megagrow.bucketing.planning.plan import Plan, plan
from megagrow.bucketing.planning.view import add_arguments, render
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.settings import Settings
from megagrow.difficulty.readability import Readability
from megagrow.errors import DataError
from tests.bucketing.make_inputs import record, tiny_tokenizer, write_rows, write_shards

SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for seed, suffix in enumerate(SUFFIXES):
        write_shards(folder / f"kind{seed}", seed, shards=8, documents=400, suffix=suffix)
    (folder / "empty.jsonl").write_bytes(b"")
    tiny_tokenizer(folder / "tokenizer")
    return folder


def asked(text: Path, output: Path, **changes: Any) -> Settings:
    inputs = tuple(f"{text}/kind{kind}" for kind in range(len(SUFFIXES)))
    tokenizer = text / "tokenizer" / "tokenizer.json"
    given: dict[str, Any] = {"inputs": inputs, "workers": 1, **changes}
    return Settings(output=output, tokenizer=tokenizer, **given)


@pytest.fixture(scope="module")
def planned(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    output = tmp_path_factory.mktemp("plan") / "deep" / "down"
    found = plan(asked(text, output), price_per_core_hour=0.5, sample_bytes=400_000)
    assert not output.parent.exists()  # nothing was written
    return found


def test_estimates_come_near_the_truth(text: Path, planned: Plan, tmp_path: Path) -> None:
    manifest = bucket(asked(text, tmp_path / "out"), Progress(quiet=True))
    tokens = sum(each["tokens"] for each in manifest["buckets"].values())
    assert planned.sampled_files == 24
    assert planned.sampled_text_bytes < 0.9 * manifest["text_bytes"]
    assert planned.text_bytes == pytest.approx(manifest["text_bytes"], rel=0.05)
    assert planned.documents == pytest.approx(manifest["documents"], rel=0.05)
    assert planned.tokens == pytest.approx(tokens, rel=0.05)
    kept = [
        each for each in (tmp_path / "out").iterdir() if each.suffix in (".bin", ".idx", ".npy")
    ]
    size = sum(each.stat().st_size for each in kept)
    assert planned.output_bytes == pytest.approx(size, rel=0.05)
    assert planned.peak_bytes > planned.peak_bytes_shared > planned.output_bytes


def test_all_read_is_all_known(text: Path, tmp_path: Path) -> None:
    inputs = (f"{text}/kind1/shard_00000000_processed.jsonl.zst", str(text / "empty.jsonl"))
    found = plan(asked(text, tmp_path / "out", inputs=inputs))
    assert found.documents == 400
    assert found.error == 0
    assert "The sample is all of the text" in render(found)


def test_numbers_belong_together(planned: Plan) -> None:
    speed = planned.speed
    assert planned.files == 32
    assert planned.cost == pytest.approx(planned.core_hours * 0.5)
    assert planned.core_hours == pytest.approx(planned.seconds / 3600)
    assert speed.scoring_share > 0
    assert speed.tokens_per_second < speed.text_bytes_per_second
    assert 30e6 < speed.memory_bytes < 1e9
    assert planned.free_bytes


def test_the_text_of_a_plan(planned: Plan) -> None:
    shown = render(planned)
    for part in ("32 files", "MB/s of text", "with 1 worker:", "core-hours", "at 0.5 each", "free"):
        assert part in shown
    assert "cold start" in shown
    assert "warning" not in shown
    short = render(replace(planned, free_bytes=10, workers=40, price_per_core_hour=None))
    assert "fits at no moment" in short
    assert "40 workers for 32 files" in short
    assert "--price-per-core-hour" in short
    between = int(planned.output_bytes + planned.peak_bytes) // 2
    assert "only with shared blocks" in render(replace(planned, free_bytes=between))


def test_slow_scorer_is_measured_on_a_part_and_warned_of(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_module, "_SLOW_S", 0.0)  # readability, taken for slow
    monkeypatch.setattr(measure_module, "_SCORING_S", 1e-9)
    seen: list[int] = []
    real = Readability.score

    def score(self: Readability, texts: Any, tokens: Any) -> Any:
        seen.append(len(texts))
        return real(self, texts, tokens)

    monkeypatch.setattr(Readability, "score", score)
    found = plan(asked(text, tmp_path / "out", scorer="readability"), sample_bytes=200_000)
    assert seen == [1, 8]
    assert found.speed.scored_documents == 8
    rates = replace(found.speed, text_bytes_per_second=90.0, score_bytes_per_second=100.0)
    shown = render(replace(found, speed=rates))
    assert "the scorer readability does" in shown
    assert "tools/train_difficulty_classifier.py" in shown


def test_workers_share_files_not_bytes() -> None:
    assert plan_module._makespan([5, 4, 3, 3, 3], 2) == 10
    assert plan_module._makespan([9, 1, 1], 3) == 9
    assert plan_module._makespan([4, 4], 8) == 4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_start_of_a_file_stands_for_its_bytes(tmp_path: Path, suffix: str) -> None:
    generator = random.Random(1)
    rows = [record(generator, 0, row) for row in range(12_000)]
    path = tmp_path / f"one{suffix}"
    write_rows(path, rows)
    start = read_start(str(path), "text", 2_000_000)
    assert len(start.texts) < 11_000
    texts = sum(len(row["text"].encode()) for row in rows)
    scale = path.stat().st_size / start.stored_bytes
    assert start.text_bytes * scale == pytest.approx(texts, rel=0.03)
    assert start.documents * scale == pytest.approx(12_000, rel=0.03)


def test_rejects_are_counted(text: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "good words here"}, {"text": None}] * 50
    write_rows(tmp_path / "half.jsonl", rows)
    found = plan(asked(text, tmp_path / "out", inputs=(str(tmp_path),)))
    assert (found.documents, found.rejected) == (50, 50)


def test_inputs_that_cannot_be_planned(text: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all input files are empty"):
        plan(asked(text, tmp_path / "out", inputs=(str(text / "empty.jsonl"),)))
    with pytest.raises(DataError, match="no text: is --text-key right"):
        plan(asked(text, tmp_path / "out", text_key="body", inputs=(f"{text}/kind0",)))


def test_choice_of_files_depends_on_the_seed(text: Path) -> None:
    paths = sorted((text / "kind0").iterdir())
    files = plan_module._sizes([str(path) for path in paths])
    assert plan_module._chosen(files, 1) == plan_module._chosen(files[::-1], 1)
    picks = {tuple(each.location for each in plan_module._chosen(files, s)) for s in range(20)}
    assert len(picks) > 5
    assert np.mean([len(pick) for pick in picks]) == 6


def test_arguments() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert (
        parser.parse_args(["--plan", "--price-per-core-hour", "0.04"]).price_per_core_hour == 0.04
    )
    assert not parser.parse_args([]).plan
    for bad in ("-1", "nan", "cheap"):
        with pytest.raises(SystemExit):
            parser.parse_args([f"--price-per-core-hour={bad}"])
