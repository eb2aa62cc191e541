"""datatrove's Slurm executor, made safe for any path. Tasks unpickle it by its name."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from datatrove.executor.slurm import SlurmPipelineExecutor

_LAUNCHER = "datatrove.tools.launch_pickled_pipeline"


class TaskArray(SlurmPipelineExecutor):
    """An array of tasks, submitted by `launch_job`.

    datatrove puts names and paths into its batch script as they are. This one quotes them, runs
    the very interpreter that submits, and needs neither `srun` nor a shell's start-up files.
    """

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """Options of sbatch; those that were not given are left to the cluster."""
        options: dict[str, Any] = super().get_sbatch_args(max_array)
        return {name: value for name, value in options.items() if value is not None}

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """The batch script."""
        pickled = str(self.logging_dir.resolve_paths("executor.pik"))
        return "\n".join(
            [
                "#!/bin/bash",
                *(_directive(name, str(value)) for name, value in sbatch_args.items()),
                # The cores of a task are for its worker processes.
                "export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1",
                # In the shell's place, so that signals reach it.
                f"exec {shlex.join([sys.executable, '-m', _LAUNCHER, pickled])}",
                "",
            ]
        )

    def launch_merge_stats(self) -> None:
        """Does nothing.

        The step keeps no statistics, and after a failed task a job that merges them would wait
        for ever.
        """


def job_id(printed: str) -> str:
    """The job's number in what `sbatch --parsable` prints: `12`, or `12;cluster`."""
    return printed.strip().split(";")[0]


def _directive(name: str, value: str) -> str:
    return f"#SBATCH --{name}={shlex.quote(value)}" if value else f"#SBATCH --{name}"
