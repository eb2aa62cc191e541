from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megagrow.bucketing.command import rebucket as rebucket_command
from megagrow.bucketing.job import bucket
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.settings import Settings
from tests.bucketing.make_inputs import tiny_tokenizer, write_rows, write_shards
from tools.inspect_buckets import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = tmp_path_factory.mktemp("text")
    write_shards(text, seed=5, shards=2, documents=120)
    write_rows(text / "z.jsonl", [{"text": f"dear [bold]reader \x1b[31m {n}"} for n in range(40)])
    output = tmp_path_factory.mktemp("buckets")
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    bucket(Settings(inputs=(str(text),), output=output, tokenizer=tokenizer), Progress(quiet=True))
    return output


def test_pipe_gets_plain_text(folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "tools/inspect_buckets.py", str(folder), "-n", "60", "--source"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=False,
    )
    shown = result.stdout.decode()
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in shown
    assert "dear [bold]reader ␛[31m" in shown  # neither markup nor escapes of a text are obeyed
    for part in ("from", "median", "easy", "middle", "hard", "bits/token", "z.jsonl row"):
        assert part in shown
    assert "url: https://example.org/" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_one_bucket(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--bucket", "hard", "-n", "2", "--hardest"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("tokens ─") == 2
    assert "── easy" not in shown


def test_table_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "-n", "0"]) == 0
    assert "─ score" not in capsys.readouterr().out


@pytest.mark.parametrize("choice", ["--easiest", "--near-thresholds"])
def test_choices(folder: Path, choice: str) -> None:
    assert main([str(folder), choice, "-n", "1"]) == 0


def test_verify(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--verify", "--quiet", "-j", "2"]) == 0
    assert "are as they were written" in capsys.readouterr().out
    path = folder / "easy.bin"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:50] + b"\x01\x01" + whole[52:])
        assert main([str(folder), "--verify", "--quiet"]) == 1
        assert "fault: " in capsys.readouterr().out
        path.write_bytes(whole[:-2])
        assert main([str(folder), "--verify", "--quiet"]) == 1
        assert "truncated" in capsys.readouterr().err
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bucket", "hrad"], "did you mean 'hard'"),
        (["--verify", "--nowhere"], "unrecognized"),
        (["-n", "-1"], "whole number"),
    ],
)
def test_bad_arguments(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code: object = main([str(folder), *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--verify"]) == 2
    assert "no finished buckets here" in capsys.readouterr().err


def test_rebucket_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--rebucket={folder}", "--output", str(tmp_path / "new"), "--quiet", "-j", "1"]
    assert rebucket_command.is_asked_for(arguments)
    assert not rebucket_command.is_asked_for(["in", "--", "--rebucket"])
    assert rebucket_command.main([*arguments, "--levels", "a,b", "--shares", "0.8,0.2"]) == 0
    assert "a  " in capsys.readouterr().out
    assert main([str(tmp_path / "new"), "--verify", "--quiet"]) == 0
    capsys.readouterr()
    assert rebucket_command.main([*arguments, "--levels", "a,b", "--thresholds", "999"]) == 2
    assert "other arguments" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert rebucket_command.main([f"--rebucket={folder}", "--output", str(tmp_path / "file")]) == 2
