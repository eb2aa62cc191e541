"""Reading a run back: the resume rule, torn and strange lines, and errors that help."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.errors import DataError
from megagrow.report.reader import read


def record(event: str, step: int, **fields: Any) -> dict[str, Any]:
    common = {"stage": "only", "tokens": 10 * step, "flops": 1e3 * step, "time": float(step)}
    return {"event": event, "step": step} | common | fields


def step(number: int, loss: float = 1.0, **fields: Any) -> dict[str, Any]:
    return record("step", number, loss=loss, layers=2, **fields)


def text(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(one) + "\n" for one in records)


def test_resumed_run_reads_as_one_that_was_never_stopped(grown_run: Path, synthetic: Any) -> None:
    run = read(grown_run)
    truth = synthetic(folder=grown_run, grows=True)
    assert run.steps.step.tolist() == list(range(1, 601))
    assert np.all(np.diff(run.steps.flops) > 0)
    assert run.steps.flops[-1] == pytest.approx(truth.flops(600))
    assert [(g.step, g.from_layers, g.to_layers) for g in run.growths] == [(150, 2, 4), (300, 4, 8)]
    assert [stage.name for stage in run.stages] == ["small", "middle", "full"]
    assert [e.step for e in run.evals] == list(range(50, 601, 50))
    assert run.resumes == (300,)
    assert run.end_reason == "completed"
    assert run.buckets == ("stories", "prose", "reference")
    assert run.notes == ()


def test_wall_time_leaves_out_the_pause_between_processes(grown_run: Path) -> None:
    assert read(grown_run).wall_seconds == pytest.approx(5 + 330 * 0.2 + 66)


def test_records_beyond_the_resume_are_void_even_if_not_run_again(
    write_lines: Callable[[str], Path],
) -> None:
    folder = write_lines(
        text(
            step(1),
            step(2, loss=2.0),
            step(3, loss=3.0),
            record("eval", 3, losses={"a": 9.0}, loss=9.0),
            record("growth", 3, from_layers=2, to_layers=4),
            record("end", 3, reason="preempted", seconds=1.0),
            record("resume", 1, path="step_1"),
            step(2, loss=2.5),
        )
    )
    run = read(folder)
    assert run.steps.loss.tolist() == [1.0, 2.5]
    assert run.evals == ()
    assert run.growths == ()
    assert run.end_reason is None


def test_last_record_of_a_step_counts(write_lines: Callable[[str], Path]) -> None:
    run = read(write_lines(text(step(1), step(2), step(2, loss=7.0))))
    assert run.steps.loss.tolist() == [1.0, 7.0]


def test_evaluations_before_and_after_a_growth_at_one_step_are_both_kept(
    write_lines: Callable[[str], Path],
) -> None:
    run = read(
        write_lines(
            text(
                step(1),
                record("eval", 1, losses={"a": 2.0}, loss=2.0, stage="small"),
                record("eval", 1, losses={"a": 3.0}, loss=3.0, stage="large"),
            )
        )
    )
    assert [e.loss for e in run.evals] == [2.0, 3.0]


def test_run_record_of_a_resuming_process_drops_nothing(write_lines: Callable[[str], Path]) -> None:
    begun, again = record("run", 0, config={"a": 1}), record("run", 0, config={"a": 2})
    run = read(write_lines(text(begun, step(1), again, again, record("resume", 1, path="p"))))
    assert run.steps.step.tolist() == [1]
    assert run.config == {"a": 2}


def test_fresh_start_in_the_same_folder_drops_the_old_run(
    write_lines: Callable[[str], Path],
) -> None:
    begun = record("run", 0, config={})
    run = read(write_lines(text(begun, step(1), step(2), begun, step(1, loss=5.0))))
    assert run.steps.loss.tolist() == [5.0]


@settings(deadline=None)  # a busy machine is no failure
@given(stops=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4))
def test_any_chain_of_kills_reads_as_the_last_writing_of_each_step(
    tmp_path_factory: pytest.TempPathFactory, stops: list[tuple[int, int]]
) -> None:
    """Against a plain replay: each process runs some steps, the next resumes somewhere before."""
    folder = tmp_path_factory.mktemp("chain")
    lines: list[dict[str, Any]] = []
    truth: dict[int, float] = {}
    at = 0
    for process, (length, back) in enumerate([(3, 0), *stops]):
        if process:
            at = max(1, at - back)
            lines.append(record("resume", at, path="p"))
            truth = {s: loss for s, loss in truth.items() if s <= at}
        for _ in range(length):
            at += 1
            lines.append(step(at, loss=float(process)))
            truth[at] = float(process)
    (folder / "metrics.jsonl").write_text(text(*lines))
    run = read(folder)
    assert dict(zip(run.steps.step.tolist(), run.steps.loss.tolist(), strict=True)) == truth


def test_strange_lines_are_skipped_and_noted(write_lines: Callable[[str], Path]) -> None:
    folder = write_lines(
        text(step(1))
        + "not json\n[1, 2]\n\0\0\0\n"
        + text(record("telemetry", 1), record("growth", 1, from_layers="two", to_layers=4))
        + text(step(2, loss=float("nan")))
        + '{"event":"step","step":3,"lo'
    )
    run = read(folder)
    assert run.steps.step.tolist() == [1, 2]
    notes = "\n".join(run.notes)
    assert "4 unreadable line(s) skipped: 2, 3, 4, 8" in notes
    assert "unknown event 'telemetry'" in notes
    assert "'growth' record at step 1 skipped" in notes
    assert "1 step(s) without a finite loss" in notes


def test_words_for_numbers_that_are_not_finite(write_lines: Callable[[str], Path]) -> None:
    run = read(write_lines(text(step(1, loss="NaN", grad_norm="Infinity", mfu=None))))  # type: ignore[arg-type]
    assert np.isnan(run.steps.loss[0])
    assert np.isposinf(run.steps.grad_norm[0])
    assert np.isnan(run.steps.mfu[0])


def test_bucket_that_comes_later_weighs_nothing_before(write_lines: Callable[[str], Path]) -> None:
    run = read(
        write_lines(
            text(step(1, mixture={"easy": 1.0}), step(2, mixture={"easy": 0.5, "hard": 0.5}))
        )
    )
    assert run.steps.mixture["hard"].tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("garbage\n", "no readable record"),
        (text(record("run", 0, config={})), "no training step yet"),
    ],
)
def test_metrics_without_steps(
    write_lines: Callable[[str], Path], content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write_lines(content))


def test_missing_run_names_the_nearest_one(grown_run: Path, scratch_run: Path) -> None:
    parent = scratch_run.parent
    with pytest.raises(DataError, match=r"did you mean .*scratch_8\?"):
        read(parent / "scrach_8")
    with pytest.raises(DataError, match=r"runs in .*: grow <2-4-8> & co, scratch_8"):
        read(parent / "zzzzzz")
    with pytest.raises(DataError, match="does not exist either"):
        read(parent / "nowhere" / "x")
    with pytest.raises(DataError, match=r"has no metrics\.jsonl"):
        read(parent)
