"""The batch script, with real torchrun and stand-ins for Slurm's commands and for the trainer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain_grow import parse

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "examples" / "slurm" / "pretrain.sbatch"

TRAINER = """
import json, os, pathlib, signal, sys, time
if "--plan" in sys.argv:
    pathlib.Path("record/plan.json").write_text(json.dumps(sys.argv[1:]))
    sys.exit("no stage can use them" if "badworld=1" in sys.argv else 0)
signals = []
signal.signal(signal.SIGUSR1, lambda *_: signals.append(1))
folder = pathlib.Path("record")
(folder / "arguments.json").write_text(json.dumps(sys.argv[1:]))
if "save=1" in sys.argv:
    pathlib.Path("the run/checkpoints").mkdir(parents=True, exist_ok=True)
    pathlib.Path("the run/checkpoints/latest").write_text("step_00000150")
(folder / "trainer.pid.part").write_text(str(os.getpid()))
(folder / "trainer.pid.part").rename(folder / "trainer.pid")
if "crash=1" in sys.argv:
    sys.exit(3)
while "wait=1" in sys.argv and not signals:
    time.sleep(0.05)
time.sleep(1 if signals else 0)  # saving
state = "wall_time" if signals else "completed"
pathlib.Path("the run").mkdir(exist_ok=True)
pathlib.Path("the run/status.json").write_text(json.dumps({"state": state}))
sys.exit(75 if signals else 0)
"""
CONFIG = """
import types
def load(path, overrides):
    assert path == "a config.yaml" and all("=" in item for item in overrides)
    return types.SimpleNamespace(output="the run")
"""
COMMANDS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; SLURM_NODEID=0 exec "$@"',
    "scontrol": 'if [[ $1 == show ]]; then echo 127.0.0.1; else echo "$@" >> record/scontrol; fi',
    # Slurm signals every process of the step; torchrun is the trainer's parent.
    "scancel": """
pid=$(cat record/trainer.pid)
kill -USR1 "$(ps -o ppid= -p "$pid" | tr -d ' ')" "$pid"
""",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a space in its name that looks like a checkout to the script."""
    root = tmp_path / "check out"
    (root / "record").mkdir(parents=True)
    (root / "megagrow" / "config").mkdir(parents=True)
    (root / "megagrow" / "config" / "__init__.py").write_text(CONFIG)
    (root / "megagrow" / "__init__.py").touch()
    (root / "pretrain_grow.py").write_text(TRAINER)
    for name, body in COMMANDS.items():
        program = root / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    return root


def start(checkout: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    slurm = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_SUBMIT_DIR": str(checkout),
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_NNODES": "1",
        "MEGAGROW_PYTHON": sys.executable,
        "PATH": f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.Popen(
        ["bash", SCRIPT, "a config.yaml", *arguments],
        env={**os.environ, **slurm, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def requeued(checkout: Path) -> bool:
    record = checkout / "record" / "scontrol"
    return record.exists() and record.read_text().split() == ["requeue", str(os.getpid())]


def signal_when_training(process: subprocess.Popen[str], checkout: Path) -> None:
    deadline = time.monotonic() + 120
    while not (checkout / "record" / "trainer.pid").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the trainer did not start"
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)


def test_arguments_arrive_as_given_and_a_completed_run_is_final(checkout: Path) -> None:
    given = ["a b=1", "x=$(touch hacked) `id` \"q\" 'r' *", "--resume", "auto", "empty="]
    process = start(checkout, *given)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert received(checkout) == ["a config.yaml", *given]
    assert not list((checkout / "the run").glob(".begun-*"))
    assert not (checkout / "hacked").exists()
    assert not requeued(checkout)


@pytest.mark.parametrize(("restarts", "again"), [("0", True), ("5", False)])
def test_signal_before_the_limit_saves_and_requeues(
    checkout: Path, restarts: str, again: bool
) -> None:
    process = start(checkout, "wait=1", SLURM_RESTART_COUNT=restarts, MAX_REQUEUES="5")
    signal_when_training(process, checkout)
    output = process.communicate(timeout=120)[0]
    assert "the run is wall_time" in output
    assert requeued(checkout) is again, output
    assert process.returncode == (0 if again else 2)


def received(checkout: Path) -> list[str]:
    """What the trainer was started with."""
    arguments: list[str] = json.loads((checkout / "record" / "arguments.json").read_text())
    return arguments


def attempt(checkout: Path, restarts: int, *arguments: str) -> list[str]:
    """One attempt of the job that time ends; what the trainer was started with."""
    (checkout / "record" / "trainer.pid").unlink(missing_ok=True)
    process = start(checkout, "wait=1", *arguments, SLURM_RESTART_COUNT=str(restarts))
    signal_when_training(process, checkout)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    return received(checkout)


def test_a_later_attempt_goes_on_from_the_newest_checkpoint(checkout: Path) -> None:
    # Newer than the one to begin from: what a run that is wound back has.
    latest = checkout / "the run" / "checkpoints" / "latest"
    latest.parent.mkdir(parents=True)
    latest.write_text("step_00000200")
    given = ["--resume", "the run/checkpoints/step_00000100"]
    assert resume_of(attempt(checkout, 0, *given)) == given[1]
    # Requeued by Slurm before the job had saved anything: it begins as it did.
    assert resume_of(attempt(checkout, 1, "save=1", *given)) == given[1]
    assert resume_of(attempt(checkout, 2, *given)) == "auto"
    assert len(list((checkout / "the run").glob(".begun-*"))) == 1


def test_never_is_for_the_first_attempt(checkout: Path) -> None:
    given = ["save=1", "--resume=never"]
    assert resume_of(attempt(checkout, 0, *given)) == "never"
    assert resume_of(attempt(checkout, 1, *given)) == "auto"


def resume_of(arguments: list[str]) -> str:
    """What the real command line understands."""
    resume: str = parse(arguments).resume
    return resume


def test_the_plan_is_for_the_processes_of_the_job(checkout: Path) -> None:
    process = start(checkout, "badworld=1", SLURM_NNODES="3", SLURM_GPUS_ON_NODE="4")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert "no stage can use them" in output
    planned = json.loads((checkout / "record" / "plan.json").read_text())
    assert planned == ["a config.yaml", "badworld=1", "--plan", "--world-size", "12"]
    assert not (checkout / "record" / "trainer.pid").exists()


def test_crash_is_final_whatever_an_earlier_attempt_left(checkout: Path) -> None:
    status = checkout / "the run" / "status.json"
    status.parent.mkdir()
    status.write_text('{"state": "preempted"}')
    process = start(checkout, "crash=1")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1, output
    assert not requeued(checkout)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "pretrain_grow.py").unlink(), "no pretrain_grow.py in"),
        (lambda root: shutil.rmtree(root / "megagrow"), "megagrow"),
    ],
)
def test_wrong_folder_is_named_before_anything_starts(
    checkout: Path, break_it: object, message: str
) -> None:
    assert callable(break_it)
    break_it(checkout)
    process = start(checkout)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert message in output
    assert not (checkout / "record" / "trainer.pid").exists()
