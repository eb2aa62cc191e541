from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from megagrow.config.schema import ModelConfig
from tests.conversion.models import write_folder
from tools.convert_checkpoint import main


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_there_and_back(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "in", family, torch.bfloat16, eos_token_id=7)
    ours, out = str(tmp_path / "ours"), str(tmp_path / "out")
    assert main(["from-hf", str(tmp_path / "in"), "--output", ours, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "2 layers" in shown
    assert "padded with 78 rows of zeros" in shown
    text = (tmp_path / "ours" / "model.yaml").read_text()
    assert text in shown
    assert "eos_token_id 7" in text
    section = yaml.safe_load(text)["model"]
    model = ModelConfig(**section)
    assert (model.hidden_size, model.seq_length, model.qk_norm) == (32, 24, family == "qwen3")
    assert "dropout" not in section

    arguments = ["to-hf", ours, "--output", out, "--shard-size", "8KB", "--eos-token-id", "7"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert f"{family}, " in shown.out
    assert "checking the checkpoint's files" in shown.err
    before = load_file(tmp_path / "in" / "model.safetensors")
    after = {}
    for path in (tmp_path / "out").glob("model-*.safetensors"):
        after |= load_file(path)
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "in", "llama")
    for command in ("from-hf", "to-hf"):
        arguments = [command, str(tmp_path / "in"), "--output", str(tmp_path / "in"), "--quiet"]
        assert main(arguments) == 2
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["to-hf", "here"], "--output"),
        (["to-hf", "here", "--output", "there", "--family", "mamba"], "invalid choice"),
        (["to-hf", "here", "--output", "there", "--shard-size", "big"], "bytes"),
        (["from-hf", "here", "--output", "there", "--seq-length", "0"], "whole number above 0"),
        (["from-hf", "nowhere", "--output", "there"], "config.json is missing"),
        (["to-hf", "nowhere", "--output", "there"], "neither a run nor a checkpoint"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        code: object = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [[], ["to-hf"], ["from-hf"]])
def test_help_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    shown = capsys.readouterr().out
    for part in ("--shard-size", "qwen3", "never pickles", "exit codes"):
        assert part in shown
