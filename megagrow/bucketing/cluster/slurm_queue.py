"""The Slurm jobs of an output folder: their names, whether they are at work, how they ended."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megagrow.bucketing.cluster.tasks import parts_in
from megagrow.bucketing.progress import Progress
from megagrow.data.manifest import MANIFEST_NAME
from megagrow.errors import DataError

_FIRST_POLL_S, _LAST_POLL_S = 1.0, 20.0
_PATIENCE_S = 5.0
_MOST_FAILURES = 30  # in a row; minutes
_LOG_LINES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Jobs that were submitted, as `launch.json` keeps them."""

    command: list[str]
    """What the last job runs."""

    array: str | None
    """Job that makes parts; None if all were there."""

    finish: str
    """Job that finishes."""

    parts: int
    """Parts there will be."""

    folder: str
    """Working folder the parts are counted in."""

    def is_this(self, command: Sequence[str], running: Sequence[str]) -> bool:
        """Whether these jobs are of this launch, and do what `command` does."""
        return self.command == list(command) and {*running} <= {self.array, self.finish}


def logs_folder(output: Path) -> Path:
    """Where the jobs' logs are: beside the output folder, as it is to hold data only."""
    output = output.absolute()
    return output.with_name(f"{output.name}.logs")


def job_names(output: Path) -> tuple[str, str]:
    """Names of the array and of the last job: the same for every launch into a folder.

    A launch is found by them even if the launching process was killed before it noted anything.
    """
    digest = hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:10]
    return f"bucket-{digest}", f"bucket-{digest}-finish"


def check_idle(output: Path, progress: Progress) -> None:
    """No jobs of an output folder may be at work in it when another executor begins.

    Raises:
        DataError: they are.
    """
    names = job_names(output)
    logs = logs_folder(output)
    # Scripts are written before they are submitted, launch.json after.
    if not any(logs.glob("finish.sh")) and not any(logs.glob("*/launch_script.slurm")):
        return
    if os.environ.get("SLURM_JOB_NAME") == names[1]:
        return  # this is the job that finishes
    try:
        running = active(names)
    except DataError as error:
        progress.say(f"jobs may still work in {output}, which cannot be seen from here: {error}")
        return
    if running:
        raise DataError(busy(output, running))


def active(names: Sequence[str]) -> list[str]:
    """Ids of the jobs of these names that wait or run.

    Raises:
        DataError: Slurm does not answer.
    """
    printed = slurm_command("squeue", "--noheader", f"--name={','.join(names)}", "--format=%F")
    return sorted(set(printed.split()), key=lambda found: (len(found), found))


def busy(output: Path, running: Sequence[str]) -> str:
    """What to tell who wants to begin while jobs are at work."""
    return (
        f"{output}: Slurm jobs {', '.join(running)} still work on this folder: wait for them "
        f"(the command that submitted them, with --wait), or scancel {' '.join(running)} and run "
        "again; parts that are done are kept"
    )


def outcome(launch: Launch, output: Path, progress: Progress) -> int | None:
    """Waits until the jobs of a launch have ended.

    Args:
        launch: the jobs.
        output: the folder they work on.
        progress: where to show how far they are, and the end of the last job's log if it failed.

    Returns:
        The last job's exit code; 1 if it was stopped before its end; None if the output is
        complete.

    Raises:
        DataError: Slurm has not answered for minutes.
    """
    _follow(launch, job_names(output), progress)
    logs = logs_folder(output)
    log = logs / f"finish-{launch.finish}.out"
    if not _appears(logs / "finish.code"):
        progress.say(
            f"job {launch.finish} was stopped before its end: see {log}, and run the same command "
            "again to go on"
        )
        return 1
    code = int((logs / "finish.code").read_text())
    if code == 0 and _appears(output / MANIFEST_NAME):
        return None
    progress.say(f"job {launch.finish} ended with exit code {code}; the end of {log}:")
    if log.exists():
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]:
            progress.say(f"  {line}")
    return code or 1


def _appears(file: Path) -> bool:
    """Whether a file is there, or comes in a moment: other nodes' files can be late in showing."""
    deadline = time.monotonic() + _PATIENCE_S
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(_FIRST_POLL_S)
        list(file.parent.iterdir())  # has a network file system look again
    return True


def _follow(launch: Launch, names: Sequence[str], progress: Progress) -> None:
    pause, shown, failures = _FIRST_POLL_S, "", 0
    while True:
        try:
            running, failures = active(names), 0
        except DataError as error:  # a controller that restarts is back soon
            failures += 1
            if failures > _MOST_FAILURES:
                raise
            progress.say(str(error))
            running = [launch.finish]
        if not running:
            return
        line = f"{parts_in(Path(launch.folder))} of {launch.parts} files done"
        if launch.array not in running:
            line = f"job {launch.finish} finishes"
        if line != shown:
            progress.say(line)
            shown = line
        time.sleep(pause)
        pause = min(pause * 1.1, _LAST_POLL_S)


def read_launch(output: Path) -> Launch | None:
    """The latest launch into a folder, if it is known."""
    try:
        text = (logs_folder(output) / "launch.json").read_text(encoding="utf-8")
        return Launch(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return None


def slurm_command(*command: str) -> str:
    """What one of Slurm's commands prints.

    Raises:
        DataError: it failed, or is not there.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DataError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        raise DataError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
