from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from megagrow.config import load
from megagrow.model.flops import flops_per_token, parameters
from megagrow.model.shape import ModelShape, model_shape
from tools.solve_layer_scaling import main

ROOT = Path(__file__).resolve().parents[2]
LWS = ROOT / "examples" / "lws"


def shape_of(file: Path, *overrides: str) -> ModelShape:
    stage = load(file, overrides).stages[-1]
    return model_shape(stage.model, stage.layers)


def pasted(shown: str, file: Path) -> ModelShape:
    """The model of a file whose layer_scaling is the section that was shown."""
    section = yaml.safe_load(shown.split("\n\n")[0])["layer_scaling"]
    return shape_of(file, f"model.layer_scaling={yaml.safe_dump(section, default_flow_style=True)}")


def test_its_section_makes_a_model_like_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    file, other = LWS / "reverse_18l.yaml", LWS / "baseline_18l.yaml"
    assert main([str(file), "--free", "ffn.first", "--like", str(other)]) == 0
    shown = capsys.readouterr().out
    ours, theirs = (parameters(shape).non_embedding for shape in (
        pasted(shown, file), shape_of(other)
    ))  # fmt: skip
    assert ours == pytest.approx(theirs, rel=0.005)
    assert f"parameters: {ours:,}, {ours / theirs - 1:+.2%} of the budget {theirs:,}, without" in (
        shown
    )
    assert re.search(r"FLOPs per token: [\d,]+\n", shown)
    assert "layers of all (reverse): " in shown
    rows = re.findall(r"^ +(\d+)(?:-(\d+))? ", shown, flags=re.MULTILINE)
    assert [int(last or first) for first, last in rows][-1] == 17
    assert not re.search(r" $", shown, flags=re.MULTILINE)


def test_two_budgets_with_embeddings(capsys: pytest.CaptureFixture[str]) -> None:
    file, other = LWS / "crown_18l.yaml", LWS / "baseline_18l.yaml"
    arguments = ["--free", "ffn.middle,qkv.middle", "--embeddings", "--flops"]
    assert main([str(file), *arguments, "--like", f"{other}:all"]) == 0
    shown = capsys.readouterr().out
    ours, theirs = pasted(shown, file), shape_of(other)
    assert parameters(ours).total == pytest.approx(parameters(theirs).total, rel=0.005)
    flops = [flops_per_token(shape).total for shape in (ours, theirs)]
    assert flops[0] == pytest.approx(flops[1], rel=0.005)
    assert f"FLOPs per token: {flops[0]:,}, {flops[0] / flops[1] - 1:+.2%} of the budget" in shown
    assert "without embeddings" not in shown.split("layers of")[0]


def test_depth_and_scaling_may_be_overridden(capsys: pytest.CaptureFixture[str]) -> None:
    file = LWS / "baseline_12l.yaml"
    scaling = "model.layer_scaling={variant: reverse, ffn_multipliers: [4, 1]}"
    overrides = ["stages.0.layers=7", scaling, "model.ffn_hidden_size=null"]
    arguments = ["--free", "ffn.last", "--parameters", "55M", "--stage", "all"]
    assert main([str(file), *overrides, *arguments]) == 0
    shown = capsys.readouterr().out
    section = yaml.safe_load(shown.split("\n\n")[0])["layer_scaling"]
    assert section["ffn_multipliers"][0] == 4
    found = shape_of(file, *overrides, f"model.layer_scaling={section}")
    assert found.num_layers == 7
    assert parameters(found).non_embedding == pytest.approx(55e6, rel=0.005)


def test_what_cannot_be_met_shows_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    file = LWS / "framed_18l.yaml"
    assert main([str(file), "--free", "ffn.last", "--parameters", "30M"]) == 1
    shown = capsys.readouterr()
    assert "ffn_multipliers: [0.5, 0.5]" in shown.out
    assert "not met: this is the nearest, and more than 0.5% away; with ffn.last at its" in (
        shown.err
    )


def test_layers_that_tensor_parallelism_cannot_split_are_noted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["parallel.tensor=2", "--free", "ffn.last", "--parameters", "106M"]
    assert main([str(LWS / "framed_18l.yaml"), *arguments]) == 0
    assert "note: stage 'all', layer 2: 9 heads in 3 key/value groups" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parameters", "1M", "--free", "ffn.lst"], "no endpoint 'ffn.lst' in variant framed"),
        (["--parameters", "many", "--free", "ffn.last"], "--parameters: 'many' is no number"),
        (
            ["--parameters", "1M", "--flops", "x", "--free", "ffn.last"],
            "--flops: 'x' is no number; write a whole number, such as 143M",
        ),
        (["--like", "nowhere.yaml", "--free", "ffn.last"], "no such file"),
        (["--parameters", "1M", "--free", "ffn.last", "--stage", "al"], "did you mean all?"),
        (
            ["--parameters", "1M", "--free", "ffn.last", "model.layer_scaling=null"],
            "the model has no layer_scaling",
        ),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[Any]) -> None:
    assert main([str(LWS / "framed_18l.yaml"), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one budget: --parameters N or --like YAML"),
        (["--parameters", "1M", "--like", "x"], "give one budget: --parameters N or --like YAML"),
        (["--parameters", "1M", "--flops"], "--flops without a number takes that of --like"),
    ],
)
def test_budgets_that_contradict(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[Any]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(LWS / "framed_18l.yaml"), "--free", "ffn.last", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_help_teaches() -> None:
    result = subprocess.run(
        [sys.executable, "tools/solve_layer_scaling.py", "--help"],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--like examples/lws/baseline_18l.yaml" in result.stdout
    assert "exit codes: 0 met; 1 not met" in result.stdout


def test_a_stage_that_grows_is_solved_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """How the run grows into it is for --plan to judge, so neither growth nor tokens matter."""
    overrides = [
        "model.layer_scaling={variant: vanilla, ffn_multipliers: [1, 4], ffn_multiple: 32}",
        "model.ffn_hidden_size=null", "parallel.pipeline=1", "initialise_from=checkpoints/x",
        "stages.seedling.tokens=0", "stages.sapling.trainable=new",
    ]  # fmt: skip
    for stage, thousands in (("seedling", 259), ("sapling", 518)):
        arguments = ["--free", "ffn.last", "--stage", stage, "--parameters", f"{thousands}K"]
        assert main([str(ROOT / "examples" / "quickstart.yaml"), *overrides, *arguments]) == 0
        assert f"layers of {stage} (vanilla)" in capsys.readouterr().out
