"""The command line of bucketing, as users run it."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bucketing import inputs
from tools import bucket_by_difficulty

ROOT = Path(__file__).parents[2]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    inputs.write_shards(tmp_path / "in")
    inputs.tokenizer(tmp_path)
    return [
        f"{tmp_path}/in/*.zst", "--tokenizer", f"{tmp_path}/tokenizer.json",
        "--output", f"{tmp_path}/out", "-j", "1",
    ]  # fmt: skip


def test_it_ends_with_a_table_and_what_to_paste(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bucket_by_difficulty.main([*arguments, "--levels", "plain,hard"]) == 0
    said = capsys.readouterr()
    assert re.search(r"^plain +\d+ +[\d.]+K +\d\d\.\d% +\d+ +1$", said.out, re.M)
    assert "150 rows" in said.out
    assert f"path: {tmp_path}/out\n  buckets: {{plain: plain, hard: hard}}" in said.out
    assert re.search(r"thresholds \(bits/token\): plain < [\d.]+ <= hard", said.err)
    assert (tmp_path / "out" / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert bucket_by_difficulty.main([*arguments, "--levels", "plain,hard", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--shares", "0.9,0.2,0.1"], 2, "shares must add up to 1"),
        (["--levels", "a,a"], 2, "level 'a' is named twice"),
        (["--thresholds", "2,1"], 2, "thresholds must rise"),
        (["--scorer", "readabilty"], 2, "readability"),
        (["--tokenizer", "/nowhere/t.json"], 2, "/nowhere/t.json"),
        (["--text-key", "txt"], 2, "--text-key"),
        (["--reference", "/nowhere"], 2, "/nowhere"),
        (["/nowhere/*.zst"], 2, "matches no file"),
        (["--wait"], 2, "--wait does nothing without --executor slurm"),
        (["--tasks", "3"], 2, "--tasks does nothing without --executor"),
        (["--price-per-core-hour", "1"], 2, "does nothing without --plan"),
        (
            ["--frozen", "x/levels.json", "--levels", "a,b"],
            2,
            "--levels does nothing with --frozen",
        ),
    ],
)
def test_bad_input_is_one_clear_error(
    arguments: list[str],
    more: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = arguments[1:] if more[0].startswith("/") else arguments
    assert bucket_by_difficulty.main([*start, *more]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(re.findall("^error: ", said.err, re.M)) == 1
    assert message in said.err
    assert "Traceback" not in said.err


def test_damaged_files_have_an_exit_code_of_their_own(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "in" / "shard_00000000_processed.jsonl.zst"
    victim.write_bytes(victim.read_bytes()[:-9])
    assert bucket_by_difficulty.main([*arguments, "--plan"]) == 0
    assert "of text" in capsys.readouterr().out
    assert bucket_by_difficulty.main(arguments) == 3
    assert "leave them out with --skip-damaged" in capsys.readouterr().err
    assert bucket_by_difficulty.main([*arguments, "--skip-damaged"]) == 0
    assert "1 of 3 files are damaged and were left out; see inputs.jsonl" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_one_clear_error_and_nothing_is_lost(
    arguments: list[str], tmp_path: Path, workers: str
) -> None:
    inputs.write(tmp_path / "in" / "large.jsonl.zst", inputs.jsonl(inputs.records(9, 3000)))

    def run(limit: int | None) -> subprocess.CompletedProcess[str]:
        def set_limit() -> None:
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        script = (
            "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            "from tools.bucket_by_difficulty import main; sys.exit(main(sys.argv[1:]))"
        )
        return subprocess.run(
            [sys.executable, "-c", script, *arguments[:-1], workers],
            cwd=ROOT,
            preexec_fn=set_limit,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    full = run(100_000)
    assert full.returncode == 1, full.stderr
    assert "cannot be written: [Errno 27] File too large" in full.stderr
    assert "run the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert run(None).returncode == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"] == 150 + 3000
    shutil.rmtree(tmp_path / "out")


def test_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        bucket_by_difficulty.main(["--help"])
    said = capsys.readouterr().out
    for code in ("0 done", "1 the output", "2 input", "3 some input", "130 interrupted"):
        assert code in said
