"""Choosing the baseline and saying what came out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from megagrow.errors import ConfigError
from megagrow.report.comparison import (
    Comparison,
    compare,
    find_baseline,
    smoothing_scale,
    unique_names,
)
from megagrow.report.reader import read
from megagrow.report.records import RunMetrics


@pytest.fixture(scope="module")
def runs(grown_run: Path, scratch_run: Path) -> list[RunMetrics]:
    return [read(grown_run), read(scratch_run)]


def compared(runs: list[RunMetrics]) -> dict[str, Comparison]:
    found = compare(runs, runs[1], scale=smoothing_scale(runs, 0.02))
    return {one.measure: one for one in found}


def test_baseline_is_the_only_run_that_never_grew(runs: list[RunMetrics]) -> None:
    grown, scratch = runs
    assert find_baseline(runs, None) is scratch
    assert find_baseline([scratch], None) is None
    assert find_baseline([grown, scratch, replace(scratch, name="other")], None) is None
    assert find_baseline(runs, grown.name) is grown


def test_a_baseline_whose_layout_changed_did_not_grow(
    scratch_run: Path, grown_run: Path, tmp_path: Path
) -> None:
    """The trainer records a stage with a new layout, or a reset optimizer, as a growth too."""
    folder = tmp_path / "scratch_8"
    shutil.copytree(scratch_run, folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    first = json.loads(next(line for line in lines if '"growth"' in line or '"step"' in line))
    event = {
        **{key: first[key] for key in ("stage", "time", "tokens", "flops")},
        "event": "growth", "step": 1, "from_layers": 8, "to_layers": 8, "operator": "none",
        "optimizer": "copy", "seconds": 1.0, "bytes_moved": 1, "peak_bytes": 1,
        "layer_map": [[[layer, 1.0]] for layer in range(8)],
    }  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(event)]) + "\n")
    scratch = read(folder)
    assert scratch.growths == ()
    assert not scratch.notes
    runs = [read(grown_run), scratch]
    assert find_baseline(runs, None) is scratch
    wider = {**event, "width": "hyperclone"}
    (folder / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(wider)]) + "\n")
    (growth,) = read(folder).growths
    assert (growth.operator, growth.widens) == ("hyperclone", True)


def test_unknown_baseline_names_the_nearest(runs: list[RunMetrics]) -> None:
    with pytest.raises(ConfigError, match="did you mean scratch_8"):
        find_baseline(runs, "scratch8")
    with pytest.raises(ConfigError, match="the runs given are"):
        find_baseline(runs, "zzz")


def test_speedup_is_that_of_the_curves_the_runs_were_made_of(
    runs: list[RunMetrics], grown_run: Path, synthetic: type
) -> None:
    """The noise-free losses tell when the grown run really had the scratch run's final loss."""
    ours = synthetic(folder=grown_run, grows=True)
    theirs = synthetic(folder=grown_run, grows=False)
    target = theirs.loss(500)  # the last evaluation
    first = next(step for step in range(310, 601) if ours.loss(step) <= target)
    exact = theirs.flops(500) / ours.flops(first) - 1
    found = compared(runs)
    assert found["evaluation loss"].result.at_final == pytest.approx(exact, abs=0.01)
    assert found["training loss"].result.at_final == pytest.approx(exact, abs=0.15)
    assert f"speedup +{exact:.0%}"[:-2] in found["evaluation loss"].statement()


def test_different_mixtures_are_pointed_out(runs: list[RunMetrics]) -> None:
    found = compared(runs)
    assert "mixtures differ" in (found["training loss"].caution or "")
    assert found["evaluation loss"].caution is None
    same = [replace(runs[1], name="again"), runs[1]]
    assert compared(same)["training loss"].caution is None


def test_without_shared_buckets_only_training_loss_is_compared(runs: list[RunMetrics]) -> None:
    other = tuple(replace(e, losses={"else": 1.0}) for e in runs[0].evals)
    assert list(compared([replace(runs[0], evals=other), runs[1]])) == ["training loss"]


def test_no_speedup_says_why_and_what_there_is_instead(runs: list[RunMetrics]) -> None:
    grown, scratch = runs
    short = replace(grown, evals=grown.evals[:4])
    statement = compared([short, scratch])["evaluation loss"].statement()
    assert statement.startswith("No speedup on evaluation loss: the grown run never got down")
    assert "At equal compute" in statement


def test_slower_is_called_so(runs: list[RunMetrics]) -> None:
    dearer = tuple(replace(e, flops=4 * e.flops) for e in runs[0].evals)
    statement = compared([replace(runs[0], evals=dearer), runs[1]])["evaluation loss"].statement()
    assert "slowdown: speedup −" in statement


def test_runs_of_one_name_are_told_apart(runs: list[RunMetrics]) -> None:
    a = replace(runs[0], name="run", folder=Path("one/run"))
    b = replace(runs[0], name="run", folder=Path("two/run"))
    assert [run.name for run in unique_names([a, b, b])] == ["one/run", "two/run", "two/run (2)"]
