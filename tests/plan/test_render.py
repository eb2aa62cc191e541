from __future__ import annotations

import json
import subprocess
import sys

import pytest

from megagrow.errors import DataError
from megagrow.plan.hardware import Hardware
from megagrow.plan.render import WIDTH, render, to_dict
from megagrow.plan.schedule import RunPlan, make_plan
from tests.plan.configs import config_of, stage

H100 = Hardware(name="H100", devices=8, peak_tflops=1000.0, source="data sheet")


@pytest.fixture
def plan() -> RunPlan:
    ramp = {"mixture_end": {"easy": 0.25, "hard": 0.75}}
    return make_plan(
        config_of(
            stage(2, 3328, name="small", **ramp),
            stage(
                4, 6400, name="large", transition={"optimizer": "copy"}, parallel={"pipeline": 2}
            ),
            stage(4, 2560, name="harder", mixture={"hard": 1.0}, parallel={"pipeline": 2}),
        )
    )


def row(shown: str, table: str, name: str) -> list[str]:
    """The cells of stage `name` in the table whose head contains `table`."""
    lines = shown.splitlines()
    head = next(number for number, line in enumerate(lines) if table in line)
    line = next(line for line in lines[head:] if line.split()[:1] == [name])
    return [cell for cell in line.strip().split("  ") if cell.strip()]


def cells(shown: str, table: str, name: str) -> list[str]:
    return [cell.strip() for cell in row(shown, table, name)]


def test_tables_hold_the_plan(plan: RunPlan) -> None:
    shown = render(plan)
    small, large, _ = plan.stages
    assert shown.startswith("run: 3 stages, 48 steps, 12.3K tokens, ")
    assert "2 processes (the fewest that suit every stage)" in " ".join(shown.split())
    assert cells(shown, "non-embedding", "small") == [
        "small", "2", "172K", "107K", "3.33K", "13", "8", "256",
    ]  # fmt: skip
    assert small.parameters.total == 2 * (64 * (3 * 64 + 64 + 3 * 192) + 2 * 64) + 64 + 2 * 512 * 64
    assert cells(shown, "TP x PP x DP", "large")[:3] == ["large", "1 x 2 x 1", "4 x 2"]
    assert cells(shown, "TP x PP x DP", "large")[-1] == " ".join(map(str, large.layout))
    assert cells(shown, "mixture", "small") == ["small", "easy 100%->25%, hard 0%->75%"]
    assert cells(shown, "layers from", "large")[1:7] == [
        "stack 2 -> 4",
        "0-1 x2",
        "66.7%",
        "copy",
        "restart",
        "all",
    ]
    assert cells(shown, "layers from", "harder")[1:] == ["none", "copy", "continue", "all"]
    assert "growth before large: after 3.33K tokens; the G_stack guideline says" in shown
    assert "warning: guideline out of range: " in shown
    assert "tokens drawn per bucket: easy 8.48K, hard 3.81K" in shown


def test_plain_and_narrow(plan: RunPlan) -> None:
    shown = render(plan, hardware=H100, bucket_sizes={"easy": 10**4, "hard": 10**4})
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert all(line == line.rstrip() for line in shown.splitlines())
    assert "\n\n\n" not in shown


def test_many_stages_and_long_names_stay_narrow() -> None:
    stages = [
        stage(32, 10**9, name=f"a-stage-with-a-rather-long-name-{index}", mixture_end={"hard": 1.0},
              parallel={"tensor": 4, "pipeline": 4, "virtual_pipeline": 8})
        for index in range(6)
    ]  # fmt: skip
    shown = render(make_plan(config_of(*stages)), hardware=H100)
    assert max(map(len, shown.splitlines())) <= WIDTH


def test_world_size_that_was_given(plan: RunPlan) -> None:
    given = make_plan(config_of(stage(2)), 4)
    assert ", 4 processes\n" in render(given)
    assert ", 1 process (the" in render(make_plan(config_of(stage(2))))


def test_time_on_hardware(plan: RunPlan) -> None:
    assert "time" not in render(plan)
    shown = render(plan, hardware=Hardware(name="abacus", devices=2, peak_tflops=1e-7, source="us"))
    expected = plan.flops / (2 * 1e5 * 0.4)
    assert expected > 86_400
    assert f"about {expected // 86_400:.0f}d " in shown
    assert "time assumes 2 x abacus at 40% of 1e-07 TFLOP/s (us)" in shown


def test_epochs(plan: RunPlan) -> None:
    sizes = {"easy": 4240, "hard": 38_080}
    assert "easy 8.48K (2 epochs), hard 3.81K (0.1 epochs)" in render(plan, bucket_sizes=sizes)
    with pytest.raises(DataError, match="bucket 'hard' is empty"):
        render(plan, bucket_sizes={"easy": 1, "hard": 0})


def test_warnings_are_printed() -> None:
    shown = render(make_plan(config_of(stage(1), stage(2))))
    assert "warning: stage 'stage1' grows from a single layer" in shown


def test_json(plan: RunPlan) -> None:
    data = to_dict(plan, hardware=H100, bucket_sizes={"easy": 4240, "hard": 38_080})
    assert json.loads(json.dumps(data)) == data
    assert (data["steps"], data["tokens"]) == (plan.steps, plan.tokens)
    assert data["epochs"] == plan.epochs({"easy": 4240, "hard": 38_080})
    assert data["hardware"]["seconds"] == H100.seconds(plan.flops)
    large = data["stages"][1]
    assert large["transition"]["sources"] == [[[0, 1.0]], [[1, 1.0]], [[0, 1.0]], [[1, 1.0]]]
    assert large["memory_bytes"] == [rank.total for rank in plan.stages[1].memory]
    assert large["timing"]["recommended"] < large["timing"]["tokens"]
    assert "transition" not in data["stages"][0]
    assert "timing" not in data["stages"][2]
    assert "epochs" not in to_dict(plan)


def test_needs_no_torch() -> None:
    code = (
        "import sys, megagrow.plan.render\nprint(sorted({'torch', 'megatron'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
