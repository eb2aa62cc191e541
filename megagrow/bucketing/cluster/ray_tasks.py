"""A bucketing job on Ray: datatrove's executor makes the parts, this process finishes."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from megagrow.bucketing.cluster import tasks
from megagrow.bucketing.cluster.slurm_queue import logs_folder
from megagrow.bucketing.job import Job, finish, prepare
from megagrow.bucketing.output import sole_writer
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.settings import Settings
from megagrow.data.manifest import read_manifest
from megagrow.errors import DataError
from megagrow.shards.shard import Shard

_GB_PER_TASK = 1
_SHOW_S = 10.0


def bucket_on_ray(settings: Settings, count: int | None, progress: Progress) -> dict[str, Any]:
    """Makes the buckets on a Ray cluster, or finishes making them.

    Joins the cluster that `RAY_ADDRESS` names or that this machine belongs to; without one, a
    small one is started here for as long as the job takes. A task has one core, as a worker has.

    Args:
        settings: what to do; `workers` is for what this process does itself.
        count: tasks; None: as many as the cluster has cores.
        progress: where to show how far it is.

    Returns:
        The manifest.

    Raises:
        DamagedInputError: as `megagrow.bucketing.job.bucket`.
        DataError: settings or inputs that cannot be used, no Ray or datatrove, or Ray failed.
    """
    if count is not None and count < 1:
        raise DataError("--tasks must be 1 or more")
    ray, executor = _import("ray"), _import("datatrove.executor.ray").RayPipelineExecutor
    with sole_writer(settings.output) as output:
        job = prepare(settings, output, progress)
        if job is None:
            return read_manifest(output.folder) or {}
        if missing := tasks.missing(job):
            with _cluster(ray, progress) as cores:
                _run(executor, job, tasks.spread(missing, count or cores), progress)
        return finish(job, progress)


def _run(executor: Any, job: Job, lists: list[list[Shard]], progress: Progress) -> None:
    step = tasks.write(job, lists, 1)
    logs = logs_folder(job.settings.output) / step.folder.name
    progress.say(f"{len(lists)} Ray tasks; logs in {logs}")
    try:
        with tasks.datatrove_is_quiet(), _watched(job, progress):
            executor(
                pipeline=[step],
                tasks=len(lists),
                mem_per_cpu_gb=_GB_PER_TASK,
                logging_dir=str(logs),
                skip_completed=False,  # what is done is seen by the parts
            ).run()
    except Exception as error:  # Ray's, datatrove's and their file systems' own
        raise DataError(
            f"Ray stopped: {error}. What is done is kept: run the same command again to go on"
        ) from error
    if left := len(tasks.missing(job)):
        progress.say(f"{left} files were not done by Ray's tasks, see their logs: doing them here")


@contextmanager
def _watched(job: Job, progress: Progress) -> Iterator[None]:
    """Says how many parts are there, from time to time, inside the block."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SHOW_S):
            progress.say(f"{tasks.parts_in(job.output.parts)} of {len(job.shards)} files done")

    thread = threading.Thread(target=watch, name="parts", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _cluster(ray: Any, progress: Progress) -> Iterator[int]:
    """Connects to Ray inside the block; gives the number of its cores."""
    started = not ray.is_initialized()
    if started:
        variables = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        try:
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"env_vars": variables},
            )
        except Exception as error:
            raise DataError(f"Ray cannot be started or reached: {error}") from error
    try:
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        progress.say(f"Ray: {cores} cores")
        yield cores
    finally:
        if started:
            ray.shutdown()


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"--executor ray needs ray and datatrove ({error}): pip install 'megagrow[ray]'"
        ) from None
