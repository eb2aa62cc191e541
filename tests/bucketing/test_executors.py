"""Other executors give the very bytes of the local one, whatever happens to their tasks."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.bucketing.cluster import tasks
from megagrow.bucketing.cluster.slurm import SlurmSettings
from megagrow.bucketing.command.bucket import _local_command
from megagrow.bucketing.command.parser import build_parser
from megagrow.bucketing.job import finish, prepare
from megagrow.bucketing.output import sole_writer
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.settings import Settings
from megagrow.errors import DataError
from megagrow.shards.shard import Shard
from tests.bucketing import inputs
from tests.slurm_cluster import SlurmCluster, missing, slurm_cluster
from tools import bucket_by_difficulty as tool

TOOL = Path(tool.__file__).resolve()
SHARDS = 16
QUIET = Progress(quiet=True)

needs_datatrove = pytest.mark.skipif(
    importlib.util.find_spec("datatrove") is None, reason="needs megagrow[slurm]"
)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs megagrow[ray]"
)
needs_slurm = pytest.mark.skipif(missing() is not None, reason=f"no Slurm here: {missing()}")


def files(folder: Path) -> dict[str, str]:
    """sha256 of every file but the lock."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """Shards that take a while each, two of them empty, and `expected`: the local result."""
    folder = tmp_path_factory.mktemp("executors")
    for number in range(SHARDS - 2):
        rows = inputs.records(number, 200 + 10 * number) * 4
        inputs.write(folder / "in" / f"{number:02d}.jsonl.zst", inputs.jsonl(rows))
    for number in range(SHARDS - 2, SHARDS):
        inputs.write(folder / "in" / f"{number:02d}.jsonl", b"")
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    assert tool.main([*arguments(folder, "expected"), "-j", "1", "--quiet"]) == 0
    return folder


def arguments(place: Path, output: str) -> list[str]:
    """Of a job that is slow enough to be killed on its way."""
    return [str(place / "in"), "--tokenizer", str(place / "tokenizer.json"),
            "--output", str(place / output), "--engine", "reference",
            "--sample-documents", "300", "--sample-shards", "3"]  # fmt: skip


def settings(place: Path, output: str) -> Settings:
    return Settings(
        inputs=(str(place / "in"),),
        output=place / output,
        tokenizer=place / "tokenizer.json",
        engine="reference",
        sample_documents=300,
        sample_shards=3,
    )


def run(
    place: Path, output: str, *more: str, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments(place, output), *more],
        env=environment, cwd=place, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], what: str, patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# --- lists of shards ---------------------------------------------------------------------------


def shard(number: int, size: int) -> Shard:
    return Shard(location=f"/{number}", format="jsonl", size=size, fingerprint=f"{size}-{number}")


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 10))
def test_every_shard_is_in_one_list_and_no_list_is_empty_or_much_too_long(
    sizes: list[int], count: int
) -> None:
    shards = [shard(number, size) for number, size in enumerate(sizes)]
    lists = tasks.spread(shards, count)
    assert sorted(each.location for one in lists for each in one) == sorted(
        each.location for each in shards
    )
    assert len(lists) == min(count, len(shards))
    assert all(lists)
    loads = [sum(each.size + 1 for each in one) for one in lists]
    if loads:
        assert max(loads) - min(loads) <= max(sizes) + 1
    assert lists == tasks.spread(shards[::-1], count)


def test_tasks_with_cores_of_their_own_make_what_one_process_makes(place: Path) -> None:
    with sole_writer(place / "by-hand") as output:
        job = prepare(settings(place, "by-hand"), output, QUIET)
        assert job is not None
        missing = tasks.missing(job)
        assert len(missing) == SHARDS - 1  # the empty ones are one part
        lists = tasks.spread(missing, 3)
        step = tasks.write(job, lists, 2)
        assert tasks.write(job, tasks.spread(missing, 2), 2).folder != step.folder
        step(None, 2, 3)
        assert tasks.parts_in(output.parts) == len(lists[2])
        made = {file: file.stat().st_mtime_ns for file in output.parts.rglob("*")}
        step(None, 2, 3)
        assert made == {file: file.stat().st_mtime_ns for file in output.parts.rglob("*")}
        left = tasks.missing(job)
        assert {each.location for each in left} == {
            each.location for one in lists[:2] for each in one
        }
        with pytest.raises(DataError, match="made for 3 tasks, not for 4"):
            step(None, 0, 4)
        with pytest.raises(DataError, match="cannot be read"):
            replace(step, folder=place / "elsewhere")(None, 0, 3)
        finish(job, QUIET)
    assert files(place / "by-hand") == files(place / "expected")


# --- what goes into batch scripts --------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"partition": "a\n#SBATCH --uid=0"}, "partition.*control characters"),
        ({"time": "1' --uid='0"}, "time.*quotes"),
        ({"options": (("account", 'a"b'),)}, "account.*quotes"),
        ({"options": (("--a b", "c"),)}, "write KEY=VALUE"),
        ({"options": (("array", "0-9"),)}, "array: is set by this tool"),
        ({"tasks": 0}, "must be 1 or more"),
        ({"cpus": 0}, "must be 1 or more"),
    ],
)
def test_options_that_would_break_a_script_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        SlurmSettings(**{"tasks": 2, **options})


@needs_datatrove
def test_the_batch_script_quotes_paths(tmp_path: Path) -> None:
    from megagrow.bucketing.cluster.task_array import TaskArray, job_id

    folder = tmp_path / "a $(touch x) b"
    step = tasks.Step(folder=folder, tasks=1, workers=1)
    array = TaskArray(
        pipeline=[step], tasks=1, time=None, partition=None, qos=None, logging_dir=str(folder)
    )
    script = array.get_launch_file_contents({"output": f"{folder}/%j", "requeue": ""}, "ignored")
    assert f"#SBATCH --output='{folder}/%j'\n#SBATCH --requeue\n" in script
    last = script.splitlines()[-1]
    assert last.startswith(f"exec {sys.executable} ")
    assert last.endswith(f" '{folder}/executor.pik'")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "partition" not in array.get_sbatch_args()
    assert [job_id("12\n"), job_id("12;cluster\n")] == ["12", "12"]


def test_the_job_that_finishes_is_the_same_command_done_locally() -> None:
    given_ = ["in", "--output", "out", "--tokenizer", "t", "--overwrite", "--executor", "slurm"]
    command = _local_command([*given_, "--wait"], 3)
    options = build_parser().parse_args(command[3:])
    assert (options.executor, options.workers) == ("local", 3)
    assert (options.overwrite, options.wait) == (False, False)
    assert command == _local_command(given_, 3)
    dashed = _local_command(["--output", "out", "--tokenizer", "t", "--", "-in"], 1)
    assert build_parser().parse_args(dashed[3:]).inputs == ["-in"]


@pytest.mark.parametrize("executor", ["slurm", "ray"])
def test_missing_packages_are_named(
    executor: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("sbatch", "squeue"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, f"datatrove.executor.{executor}", None)
    given_ = [*arguments(tmp_path, "out"), "--executor", executor]
    assert tool.main(given_) == 2
    assert f"pip install 'megagrow[{executor}]'" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    if executor == "slurm":
        assert tool.main(given_) == 2
        assert "there is no sbatch here" in capsys.readouterr().err


def test_an_output_that_slurm_would_read_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert tool.main([*arguments(tmp_path, "it's"), "--executor", "slurm"]) == 2
    assert "choose another --output" in capsys.readouterr().err


# --- datatrove's executors ---------------------------------------------------------------------


@pytest.mark.slow
@needs_datatrove
def test_datatrove_local_executor(place: Path) -> None:
    from datatrove.executor.local import LocalPipelineExecutor

    with sole_writer(place / "datatrove") as output:
        job = prepare(settings(place, "datatrove"), output, QUIET)
        assert job is not None
        lists = tasks.spread(tasks.missing(job), 3)
        LocalPipelineExecutor(
            pipeline=[tasks.write(job, lists, 2)],
            tasks=3,
            workers=2,
            logging_dir=str(place / "datatrove.logs"),
            skip_completed=False,
        ).run()
        assert tasks.missing(job) == []
        finish(job, QUIET)
    assert files(place / "datatrove") == files(place / "expected")


@pytest.mark.slow
@needs_datatrove
@needs_ray
def test_ray(place: Path) -> None:
    # Ray keeps a token in the home folder.
    environment = {**os.environ, "HOME": str(place), "RAY_USAGE_STATS_ENABLED": "0"}
    done = run(place, "ray", "--executor", "ray", "--tasks", "2", environment=environment)
    assert done.returncode == 0, done.stderr
    assert f"{SHARDS} files are done already" in done.stderr  # by the tasks
    assert files(place / "ray") == files(place / "expected")


# --- a real Slurm ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with slurm_cluster() as found:
        yield found


def submit(cluster: SlurmCluster, place: Path, output: str, *more: str) -> str:
    """Every task has a node for itself."""
    done = run(place, output, "--executor", "slurm", "--slurm-option", "exclusive", *more,
               environment=cluster.environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def launch(place: Path, output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / f"{output}.logs" / "launch.json").read_text())
    return found


def wait_until_task_0_has_made_some(place: Path, output: str) -> None:
    """Until it has done two of its files; it has some more to do."""
    (folder,) = (place / output / ".work" / "tasks").iterdir()
    recipe, parts = tasks._read_recipe(folder / "recipe.json")
    shards = [Shard(**each) for each in json.loads((folder / "00000.json").read_text())]

    def made() -> int:
        return sum((parts / recipe.key(each)).exists() for each in shards)

    wait_for(lambda: made() >= 2, "no parts")
    assert made() < len(shards), "too late to be killed"


@pytest.mark.slow
@needs_datatrove
@needs_slurm
def test_slurm(cluster: SlurmCluster, place: Path) -> None:
    name = "slurm $(touch hacked) %A"
    submit(cluster, place, name, "--tasks", "2", "--slurm-cpus", "2", "--wait",
           "--slurm-time", "10", "-j", "1",
           "--slurm-option", "comment=a b")  # fmt: skip
    assert files(place / name) == files(place / "expected")
    assert not (place / "hacked").exists()
    (log,) = (place / f"{name}.logs").glob("finish-*.out")
    assert f"{SHARDS} files are done already" in log.read_text()  # by the tasks
    assert len(list((place / f"{name}.logs").glob("*/task-*_[01].out"))) == 2
    assert submit(cluster, place, name).count("up to date") == 1


@pytest.mark.slow
@needs_datatrove
@needs_slurm
def test_a_node_dies(cluster: SlurmCluster, place: Path) -> None:
    submit(cluster, place, "dies", "--tasks", "2")
    array = launch(place, "dies")["array"]
    wait_until_task_0_has_made_some(place, "dies")
    node = cluster.command("squeue", "-h", "-j", f"{array}_0", "-o", "%N")
    cluster.kill_node(node)
    cluster.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    requeued = re.compile(rf"{array}_0 .* PENDING")
    wait_for(lambda: any(map(requeued.match, cluster.jobs())), "the task is requeued")
    # Nobody else may begin there meanwhile.
    for executor in ("local", "slurm"):
        refused = run(place, "dies", "--executor", executor, environment=cluster.environment)
        assert refused.returncode == 2
        assert f"Slurm jobs {array}" in refused.stderr
    cluster.start_node(node)
    # Follows the jobs that were submitted before.
    said = submit(cluster, place, "dies", "--tasks", "2", "--wait")
    assert f"following jobs {array}" in said
    assert files(place / "dies") == files(place / "expected")
    (log,) = (place / "dies.logs").glob("*/task-*_0.out")
    assert "files are done already" in log.read_text()  # by the same task, before


@pytest.mark.slow
@needs_datatrove
@needs_slurm
def test_a_task_is_cancelled_and_the_last_job_does_its_work(
    cluster: SlurmCluster, place: Path
) -> None:
    submit(cluster, place, "cancelled", "--tasks", "2")
    wait_until_task_0_has_made_some(place, "cancelled")
    cluster.command("scancel", f"{launch(place, 'cancelled')['array']}_0")
    submit(cluster, place, "cancelled", "--tasks", "2", "--wait")
    assert files(place / "cancelled") == files(place / "expected")
    (log,) = (place / "cancelled.logs").glob("finish-*.out")
    assert f"{SHARDS} files are done already" not in log.read_text()


@pytest.mark.slow
@needs_datatrove
@needs_slurm
def test_another_number_of_tasks_goes_on_with_the_same_parts(
    cluster: SlurmCluster, place: Path
) -> None:
    submit(cluster, place, "changed", "--tasks", "2")
    wait_until_task_0_has_made_some(place, "changed")
    jobs = launch(place, "changed")
    cluster.command("scancel", jobs["array"], jobs["finish"])
    wait_for(lambda: not cluster.jobs(), "the jobs end")
    done = tasks.parts_in(place / "changed" / ".work" / "parts")
    said = submit(cluster, place, "changed", "--tasks", "3", "--wait")
    assert f"3 tasks for {SHARDS - 1 - done} files" in said
    assert files(place / "changed") == files(place / "expected")


@pytest.mark.slow
@needs_datatrove
@needs_slurm
def test_damaged_input_is_what_the_last_job_reports(
    cluster: SlurmCluster, place: Path, tmp_path: Path
) -> None:
    whole = (place / "in" / "00.jsonl.zst").read_bytes()
    for number in range(4):
        inputs.write(tmp_path / "in" / f"{number}.jsonl", inputs.jsonl(inputs.records(number, 50)))
    damaged = tmp_path / "in" / "damaged.jsonl.zst"
    damaged.write_bytes(whole[:-40])
    (tmp_path / "tokenizer.json").write_bytes((place / "tokenizer.json").read_bytes())
    more = ("--executor", "slurm", "--tasks", "2", "--wait")
    done = run(tmp_path, "out", *more, environment=cluster.environment)
    assert done.returncode == 3, done.stderr
    assert str(damaged) in done.stderr
    logs = [log.read_text() for log in (tmp_path / "out.logs").glob("*/task-*.out")]
    assert sum(str(damaged) in log for log in logs) == 1
    damaged.write_bytes(whole)
    # Nothing but that file is left to do.
    done = run(tmp_path, "out", *more, environment=cluster.environment)
    assert done.returncode == 0, done.stderr
    assert "1 tasks for 1 files" in done.stderr
