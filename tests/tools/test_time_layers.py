from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megagrow.config import load
from megagrow.pipeline.balancing.layer_times import read_layer_times
from megagrow.plan.schedule import make_plan
from tests.config.conftest import BASE
from tools.time_layers import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(BASE.replace("    parallel: {tensor: 2}\n", ""))
    return file


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["precision=fp32", "model.style=gpt2"],
        ["precision=fp32", "parallel.recompute=full"],
        ["precision=fp32", "parallel.recompute=selective"],
    ],
    ids=["bf16", "gpt2", "full", "selective"],
)
def test_its_file_balances_the_run(
    config: Path, tmp_path: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "times.json"
    arguments = [
        str(config),
        *overrides,
        "--stage",
        "small",
        "--rounds",
        "2",
        "--output",
        str(file),
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "one process, tensor size 1, micro-batch of 2" in shown
    assert shown.count(" ms\n") == 3
    times = read_layer_times(file)
    assert min(*times.layers.values(), times.embedding, times.output) > 0
    # The stage with more of the same layers is served too, and the costs are those of the file.
    balanced = ["parallel.balance=times", f"parallel.layer_times={file}"]
    (_, large) = make_plan(load(config, [*overrides, *balanced])).stages
    (seconds,) = times.layers.values()
    loads = [times.embedding + large.layout[0] * seconds, times.output + large.layout[1] * seconds]
    assert large.imbalance == pytest.approx(2 * max(loads) / sum(loads))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "larg"], "no stage 'larg'; did you mean large?"),
        (["--stage", "x"], "no stage 'x'; stages: small, large"),
        (["model.hidden=5"], "unknown key; did you mean `hidden_size`?"),
    ],
)
def test_mistakes(
    config: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[Any]
) -> None:
    assert main([str(config), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_help_teaches() -> None:
    result = subprocess.run(
        [sys.executable, "tools/time_layers.py", "--help"],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "balance: times, layer_times: layer_times.json" in result.stdout
