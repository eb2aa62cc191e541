"""The facts in the tables, and their form in a terminal."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from megagrow.config import ParallelConfig
from megagrow.report.reader import read
from megagrow.report.records import RunMetrics
from megagrow.report.summary import (
    Table,
    growth_table,
    loss_around,
    stage_table,
    summary_table,
)
from megagrow.report.table import render


@pytest.fixture(scope="module")
def run(grown_run: Path) -> RunMetrics:
    return read(grown_run)


def column(table: Table, label: str) -> str:
    return next(row[1] for row in table.rows if row[0].strip() == label)


def test_summary_facts(run: RunMetrics) -> None:
    table = summary_table([run], scale=0.0)
    assert column(table, "Parameters") == "894K → 1.29M → 2.08M"
    assert column(table, "Tokens") == "2.46M"
    assert column(table, "Wall time") == "2m 17s"
    assert column(table, "Training loss, smoothed") == f"{run.steps.loss[-1]:.4f}"
    assert column(table, "reference") == f"{run.evals[-1].losses['reference']:.4f}"
    assert column(table, "Processes") == "2 x cpu"


def test_summary_of_an_unfinished_gpu_run(run: RunMetrics) -> None:
    steps = replace(run.steps, mfu=run.steps.mfu * 0 + 0.41)
    steps = replace(steps, mfu=run.steps.layers * 0 + 0.41)
    gpu = replace(
        run,
        steps=steps,
        end_reason="wall_time",
        total_tokens=5e6,
        peak_tflops=989.0,
        peak_source="H100 dense bf16",
    )
    table = summary_table([gpu], scale=0.0)
    assert column(table, "State") == "wall time, resumed 1x"
    assert column(table, "Tokens") == "2.46M of 5M"
    assert column(table, "MFU (median)") == "41.0%"
    assert column(table, "Peak per device") == "989 TFLOP/s (H100 dense bf16)"


def test_loss_around_a_growth(run: RunMetrics) -> None:
    losses = dict(zip(run.steps.step.tolist(), run.steps.loss.tolist(), strict=True))
    assert loss_around(run, 150) == (losses[150], losses[151])
    row = growth_table([run]).rows[0]
    assert row[-2:] == (f"{losses[150]:.4f}", f"{losses[151]:.4f}")


def test_stages_share_the_compute(run: RunMetrics) -> None:
    rows = stage_table([run]).rows
    assert [row[1] for row in rows] == ["small", "middle", "full"]
    assert sum(float(row[5].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.2)
    assert rows[0][6] == "stories 80%, prose 15%, reference 5%"
    assert rows[0][7] == "tensor 1, pipeline 2, data 1"
    assert float(rows[0][8].rstrip("K")) == pytest.approx(34.7, abs=0.2)


def test_of_a_layout_only_what_is_chosen_is_shown(run: RunMetrics) -> None:
    chosen = ParallelConfig(pipeline=2, overlap_grad_reduce=True, ddp_bucket_size=500)
    recorded = {**asdict(chosen), "data": 4, "layout": [1, 3]}
    first = replace(run.stages[0], parallel=recorded)
    assert stage_table([replace(run, stages=(first,))]).rows[0][7] == (
        "tensor 1, pipeline 2, overlap_grad_reduce True, ddp_bucket_size 500, data 4, layout [1, 3]"
    )


def test_terminal_table_is_aligned_and_takes_markup_as_text() -> None:
    table = Table(title="T", head=("", "[bold]a"), rows=(("x", "1"), ("long row", "23")))
    lines = render(table, title=False).splitlines()
    assert "[bold]a" in lines[0]
    assert lines[2].startswith("x ")
    assert lines[2].index("1") - lines[3].index("23") == 1


def test_wide_tables_do_not_wrap(run: RunMetrics) -> None:
    text = render(growth_table([run, run]))
    assert len(text.splitlines()) == 1 + 2 + 4
