"""A bucketing job on Slurm: an array of tasks makes the parts, one more job finishes.

The launching process freezes thresholds and submits; the last job is the same command with
`--executor local`, so what was left undone, for whatever reason, is done or reported there.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from megagrow.bucketing.cluster import tasks
from megagrow.bucketing.cluster.slurm_queue import (
    Launch,
    active,
    busy,
    job_names,
    logs_folder,
    outcome,
    read_launch,
    slurm_command,
)
from megagrow.bucketing.job import Job, prepare
from megagrow.bucketing.output import sole_writer
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.settings import Settings
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.shards.shard import Shard

DEFAULT_TASKS = 16
"""Tasks of an array where none are asked for."""

_OWN_OPTIONS = frozenset(
    ("array", "chdir", "cpus-per-task", "dependency", "error", "export", "job-name", "mem",
     "mem-per-cpu", "no-requeue", "nodes", "ntasks", "output", "parsable", "partition", "requeue",
     "time", "wait", "wrap")
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmSettings:
    """What to ask Slurm for; None leaves the choice to the cluster."""

    tasks: int
    """Tasks of the array."""

    cpus: int = 1
    """Cores of each task, and worker processes in it; also of the job that finishes."""

    memory: str = "2G"
    """Memory for each core, as `--mem-per-cpu` takes it."""

    partition: str | None = None
    """Partition."""

    time: str | None = None
    """Time limit of each task, as `--time` takes it."""

    options: tuple[tuple[str, str], ...] = ()
    """More options of sbatch, for all jobs: names without dashes, and values."""

    def __post_init__(self) -> None:
        """Refuses what would break a batch script, or another option's meaning."""
        if min(self.tasks, self.cpus) < 1:
            raise DataError("--tasks and --slurm-cpus must be 1 or more")
        for name, value in self.sbatch.items():
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
                raise DataError(f"--slurm-option {name!r}: write KEY=VALUE, such as account=nlp")
            if not value.isprintable() or set(value) & set("\\'\""):
                raise DataError(
                    f"the Slurm option {name}={value!r} has quotes, backslashes or control "
                    "characters: leave them out"
                )
        for name, _ in self.options:
            if name in _OWN_OPTIONS:
                raise DataError(
                    f"--slurm-option {name}: is set by this tool or by an option of its "
                    "own, see --help: leave it out"
                )

    @property
    def sbatch(self) -> dict[str, str]:
        """Options of sbatch."""
        given = {"partition": self.partition, "time": self.time}
        return {
            "cpus-per-task": str(self.cpus),
            "mem-per-cpu": self.memory,
            **{name: value for name, value in given.items() if value is not None},
            **dict(self.options),
        }


def submit(
    settings: Settings,
    slurm: SlurmSettings,
    command: Sequence[str],
    progress: Progress,
    *,
    wait: bool,
) -> int | None:
    """Prepares a job and submits it.

    Args:
        settings: what to do.
        slurm: what to ask for.
        command: runs the same job with the local executor; it finishes.
        progress: where to say what was submitted, and to show how far it is.
        wait: stay until the jobs have ended.

    Returns:
        Exit code: 0 if submitted, or the last job's; None if the output is complete.

    Raises:
        DataError: settings or inputs that cannot be used, no Slurm or datatrove, or jobs of this
            output that still wait or run.
    """
    for name in ("sbatch", "squeue"):
        if shutil.which(name) is None:
            raise DataError(f"--executor slurm: there is no {name} here; run it on a login node")
    _check_path(logs_folder(settings.output))
    _check_datatrove()
    names = job_names(settings.output)
    if running := active(names):
        launch = read_launch(settings.output)
        if wait and launch is not None and launch.is_this(command, running):
            progress.say(f"following jobs {', '.join(running)}, submitted before")
            return outcome(launch, settings.output, progress)
        raise DataError(busy(settings.output, running))
    with sole_writer(settings.output) as output:
        job = prepare(settings, output, progress)
        if job is None:
            return None
        launch = _submit_both(job, slurm, command, progress)
    if wait:
        return outcome(launch, settings.output, progress)
    _say_how_to_follow(launch, settings.output, progress)
    return 0


def _submit_both(
    job: Job, slurm: SlurmSettings, command: Sequence[str], progress: Progress
) -> Launch:
    logs = logs_folder(job.settings.output)
    logs.mkdir(exist_ok=True)
    missing = tasks.missing(job)
    array = _submit_array(job, slurm, tasks.spread(missing, slurm.tasks), logs) if missing else None
    try:
        finish = _submit_finish(job, slurm, command, array, logs)
    except DataError:
        if array is not None:
            slurm_command("scancel", array)
        raise
    launch = Launch(
        command=list(command),
        array=array,
        finish=finish,
        parts=len({job.recipe.key(shard) for shard in job.shards}),
        folder=str(job.output.parts.absolute()),
    )
    write_atomically(logs / "launch.json", json.dumps(asdict(launch), indent=1) + "\n")
    count = min(slurm.tasks, len(missing))
    if array is not None:
        progress.say(f"job {array}: {count} tasks for {len(missing)} files")
    progress.say(f"job {finish}: finishes; log in {logs / f'finish-{finish}.out'}")
    return launch


def _submit_array(job: Job, slurm: SlurmSettings, lists: list[list[Shard]], logs: Path) -> str:
    from megagrow.bucketing.cluster.task_array import TaskArray, job_id

    # One datatrove task is one Slurm task of some cores. Inside, the pool of the local executor
    # hands out its shards, so a core is never idle while its task has shards left.
    step = tasks.write(job, lists, slurm.cpus)
    logging = logs / step.folder.name
    log = _pattern(logging / "task-%A_%a.out", "%A_%a")
    array = TaskArray(
        pipeline=[step],
        tasks=len(lists),
        time=slurm.time,
        partition=slurm.partition,
        cpus_per_task=slurm.cpus,
        job_name=job_names(job.settings.output)[0],
        qos=None,
        sbatch_args={**slurm.sbatch, "output": log, "error": log, "parsable": ""},
        max_array_size=-1,
        job_id_retriever=job_id,
        logging_dir=str(logging),
        slurm_logs_folder=str(logging),
        skip_completed=False,  # what is done is seen by the parts
        with_srun=False,
    )
    try:
        with tasks.datatrove_is_quiet():
            array.launch_job()
    except subprocess.CalledProcessError:
        raise DataError(
            f"sbatch refused an array of {len(lists)} tasks, for the reason above: change the "
            "--slurm options, or --tasks where the cluster's MaxArraySize is lower"
        ) from None
    return str(array.job_id)


def _submit_finish(
    job: Job, slurm: SlurmSettings, command: Sequence[str], array: str | None, logs: Path
) -> str:
    log = _pattern(logs / "finish-%j.out", "%j")
    code = logs / "finish.code"
    code.unlink(missing_ok=True)
    script = logs / "finish.sh"
    quoted = shlex.quote(str(code))
    write_atomically(
        script,
        "#!/bin/bash\nexport OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1\n"
        f'{shlex.join(command)}\ncode=$?\necho "$code" > {quoted}\nexit "$code"\n',
    )
    options = {
        **slurm.sbatch,
        "job-name": job_names(job.settings.output)[1],
        "output": log,
        "error": log,
        "export": "ALL",
        "nodes": "1",
    }
    if array is not None:
        options["dependency"] = f"afterany:{array}"
    arguments = [f"--{name}={value}" if value else f"--{name}" for name, value in options.items()]
    printed = slurm_command("sbatch", "--parsable", "--requeue", *arguments, str(script))
    return printed.strip().split(";")[0]


def _say_how_to_follow(launch: Launch, output: Path, progress: Progress) -> None:
    ids = [each for each in (launch.array, launch.finish) if each is not None]
    progress.say(f"watch: squeue --jobs {','.join(ids)}, or the same command with --wait")
    progress.say(f"stop:  scancel {' '.join(ids)}; run the same command again to go on")
    progress.say(f"done when {output / 'manifest.json'} is there")


def _pattern(path: Path, placeholders: str) -> str:
    """A file name pattern of Slurm's, of which only the end is one."""
    head, _, tail = str(path).rpartition(placeholders)
    return head.replace("%", "%%") + placeholders + tail


def _check_path(path: Path) -> None:
    text = str(path)
    if not text.isprintable() or set(text) & set("\\'\"") or "::" in text or "://" in text:
        raise DataError(
            f"--executor slurm: {text!r} has quotes, backslashes, colons in a row or control "
            "characters, which Slurm and datatrove read otherwise: choose another --output"
        )


def _check_datatrove() -> None:
    try:
        import datatrove.executor.slurm  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"--executor slurm needs datatrove ({error}): pip install 'megagrow[slurm]'"
        ) from None
