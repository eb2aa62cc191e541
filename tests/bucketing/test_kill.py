"""Jobs that are killed, and end with the same bytes when they are run again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from megagrow.bucketing import output
from tests.bucketing import inputs
from tests.bucketing.test_job import contents

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "bucket_by_difficulty.py"
FREEZE = ROOT / "tests" / "train" / "killed_at.py"
KILLS = int(os.environ.get("MEGAGROW_KILLS", "20"))
"""How many jobs to kill at random; more of them find rarer faults."""


def command(tokenizer_file: Path, folder: Path, workers: int) -> list[str]:
    return [
        str(TOOL), str(folder / "in"), "--tokenizer", str(tokenizer_file),
        "--output", str(folder / "out"), "--workers", str(workers), "--tokens-per-file", "9K",
    ]  # fmt: skip


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(arguments: list[str]) -> None:
    process = start(arguments)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said.decode()


def reference(tokenizer_file: Path, folder: Path) -> dict[str, str]:
    """What a job that nobody disturbs makes of these inputs."""
    finish(command(tokenizer_file, folder, 1))
    found = contents(folder / "out")
    (folder / "out").rename(folder / "undisturbed")
    return found


def workers(pid: int) -> list[int]:
    """Those of a job, without Python's own helper."""
    return [
        child.pid
        for child in psutil.Process(pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments(tokenizer_file: Path, tmp_path: Path) -> None:
    inputs.write_shards(tmp_path / "in", shards=10, documents=150)
    began = time.monotonic()
    expected = reference(tokenizer_file, tmp_path)
    length = time.monotonic() - began
    generator = random.Random(11)
    arguments = command(tokenizer_file, tmp_path, 2)
    killed = finished = 0
    while killed < KILLS:
        process = start(arguments)
        try:
            process.wait(generator.uniform(0.2, 1.1) * length)
        except subprocess.TimeoutExpired:
            victims = [process.pid]
            if generator.random() < 0.3:  # a worker, which the rest of the job has to notice
                victims = workers(process.pid) or victims
            try:
                os.kill(generator.choice(victims), signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended just now
            killed += 1
            process.wait(60)
            if process.returncode == 0:  # the victim was not needed any more
                killed -= 1
        if (tmp_path / "out" / "manifest.json").exists():
            assert contents(tmp_path / "out").items() >= expected.items()
            finished += 1
            finish(arguments)  # removes what is left of the work, if anything is
            (tmp_path / "out").rename(tmp_path / f"finished-{finished}")
        said = process.stdout.read() if process.stdout else b""
        # Python's own start of a worker complains when the parent is gone before it is told what
        # to do; whatever the job itself says must be clear.
        assert b"Traceback" not in said or b"spawn_main" in said, said.decode()
    finish(arguments)
    assert contents(tmp_path / "out") == expected
    for number in range(1, finished + 1):
        assert contents(tmp_path / f"finished-{number}") == expected


@pytest.mark.parametrize(
    ("event", "pattern"),
    [
        ("open", r"sample\.npz"),
        ("os.rename", r"levels\.json"),
        ("open", r"/parts/\..*/1\.bin"),
        ("open", r"/parts/\..*/part\.json"),
        ("os.rename", r"/parts/[0-9a-f]{24}"),
        ("os.rename", r"/middle[-0-9]*\.bin"),
        ("os.rename", r"/middle[-0-9]*\.documents\.npy"),
        ("os.rename", r"/middle[-0-9]*\.idx"),
        ("os.rename", r"/inputs\.jsonl"),
        ("open", r"scores\.png"),
        ("os.rename", r"manifest\.json"),
        ("shutil.rmtree", r"out/\.work -1|out/\.work None|out/\.work$"),
    ],
)
def test_killed_at_every_step(
    tokenizer_file: Path, tmp_path: Path, event: str, pattern: str
) -> None:
    inputs.write_shards(tmp_path / "in", shards=3, documents=20)
    expected = reference(tokenizer_file, tmp_path)
    arguments = command(tokenizer_file, tmp_path, 1)
    marker = tmp_path / "marker"
    process = start([str(FREEZE), event, pattern, str(marker), *arguments])
    while not marker.exists():
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.02)
    complete = (tmp_path / "out" / "manifest.json").exists()
    assert complete == (event == "shutil.rmtree")
    process.kill()
    process.wait()
    finish(arguments)
    assert contents(tmp_path / "out") == expected


def test_a_killed_job_leaves_no_workers(tokenizer_file: Path, tmp_path: Path) -> None:
    inputs.write_shards(tmp_path / "in", shards=12, documents=300)
    process = start([*command(tokenizer_file, tmp_path, 2), "--engine", "reference"])
    found: list[int] = []
    while len(found) < 2:
        assert process.poll() is None, process.communicate()[0].decode()
        found = workers(process.pid)
        time.sleep(0.02)
    process.kill()
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(each) for each in found):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_jobs_in_one_folder(tokenizer_file: Path, tmp_path: Path) -> None:
    inputs.write_shards(tmp_path / "in", shards=2, documents=20)
    arguments = command(tokenizer_file, tmp_path, 1)
    with output.sole_writer(tmp_path / "out"):
        process = start(arguments)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"another job works in this folder (pid " in said
    assert b"Traceback" not in said
    finish(arguments)


def test_interrupted_by_the_user(tokenizer_file: Path, tmp_path: Path) -> None:
    inputs.write_shards(tmp_path / "in", shards=3, documents=20)
    expected = reference(tokenizer_file, tmp_path)
    arguments = command(tokenizer_file, tmp_path, 2)
    process = start(arguments)
    while not (tmp_path / "out" / "levels.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said.decode()
    assert b"run the same command again to go on" in said
    assert b"KeyboardInterrupt" not in said
    finish(arguments)
    assert contents(tmp_path / "out") == expected
