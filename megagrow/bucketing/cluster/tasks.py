"""The work of a job as fixed lists of shards, one for each task of a cluster.

Lists are written once, so what a task does depends on its number alone. A task asks which of its
parts are there already: being killed, requeued or run twice costs at most the shards in progress.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megagrow.bucketing.job import Job, make_parts
from megagrow.bucketing.levels import Levels
from megagrow.bucketing.pool import Damaged
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.recipe import Encoding, Recipe
from megagrow.bucketing.writing import part
from megagrow.data.writer import token_dtype
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.shards.shard import Shard

_RECIPE = "recipe.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What a task does; a step of a datatrove pipeline, for any of its executors.

    It is sent as these few names: everything else is read from `folder`.
    """

    folder: Path
    """Folder that `write` filled, on a file system that all nodes see."""

    tasks: int
    """How many lists it holds."""

    workers: int
    """Processes of a task, one for each of its cores."""

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        """Makes the parts of list `rank` that are not there yet.

        Damaged shards are noted in the log. Whoever finishes the job reads them again and says so.

        Raises:
            DataError: `world_size` is not the number of lists, or a list cannot be read.
            OSError: a part cannot be written.
        """
        if world_size != self.tasks:
            raise DataError(f"{self.folder} is made for {self.tasks} tasks, not for {world_size}")
        recipe, parts = _read_recipe(self.folder / _RECIPE)
        shards = [Shard(**each) for each in _read(self.folder / _list_name(rank))]
        progress = Progress(sys.stderr)
        progress.say(f"task {rank} of {world_size}: {len(shards)} files")
        for result in make_parts(shards, recipe, parts, self.workers, progress):
            if isinstance(result, Damaged):
                progress.say(f"damaged: {result.error}")
        progress.say("done")


def missing(job: Job) -> list[Shard]:
    """Shards of which no part is there, each content once."""
    itemsize = token_dtype(job.recipe.encoding.vocab_size).itemsize
    found: dict[str, Shard] = {}
    for shard in job.shards:
        # Empty files have one part between them: two tasks must not both make it.
        key = job.recipe.key(shard)
        if key not in found and not part.load(
            job.output.parts / key, len(job.recipe.levels.names), itemsize
        ):
            found[key] = shard
    return list(found.values())


def spread(shards: Sequence[Shard], tasks: int) -> list[list[Shard]]:
    """At most `tasks` lists with about the same number of bytes; none is empty.

    The largest shards are given out first, each to the task that has least to do.
    """
    lists: list[list[Shard]] = [[] for _ in range(min(tasks, len(shards)))]
    loads = [(0, number) for number in range(len(lists))]
    for shard in sorted(shards, key=lambda each: (-each.size, each.location)):
        load, number = loads[0]
        lists[number].append(shard)
        heapq.heapreplace(loads, (load + shard.size + 1, number))
    return lists


def write(job: Job, lists: Sequence[Sequence[Shard]], workers: int) -> Step:
    """Writes what the tasks need into the job's working folder.

    Args:
        job: a prepared job.
        lists: shards of each task, not empty.
        workers: processes of a task.

    Returns:
        The step. The name of its folder says what is in it: other lists, other folder.
    """
    recipe = asdict(job.recipe)
    recipe["encoding"]["tokenizer"] = str(job.recipe.encoding.tokenizer.absolute())
    recipe["scorer"] = str(job.recipe.scorer.absolute())
    recipe["parts"] = str(job.output.parts.absolute())
    names = [[job.recipe.key(shard) for shard in each] for each in lists]
    digest = hashlib.sha256(json.dumps([names, workers]).encode()).hexdigest()
    folder = job.output.work.absolute() / "tasks" / f"{digest[:12]}-{len(lists)}"
    folder.mkdir(parents=True, exist_ok=True)
    for number, shards in enumerate(lists):
        _write(folder / _list_name(number), [asdict(shard) for shard in shards])
    _write(folder / _RECIPE, recipe)
    return Step(folder=folder, tasks=len(lists), workers=workers)


def parts_in(folder: Path) -> int:
    """Finished parts in a folder of parts."""
    try:
        return sum(not each.name.startswith(".") for each in folder.iterdir())
    except FileNotFoundError:  # the job is finished
        return 0


@contextmanager
def datatrove_is_quiet() -> Iterator[None]:
    """Keeps datatrove from logging in this process inside the block; tasks log as ever."""
    from datatrove.utils.logging import logger

    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")


def _list_name(rank: int) -> str:
    return f"{rank:05d}.json"


def _read_recipe(file: Path) -> tuple[Recipe, Path]:
    """The recipe, and the folder of the parts."""
    found = _read(file)
    encoding, levels = found["encoding"], found["levels"]
    recipe = Recipe(
        encoding=Encoding(**{**encoding, "tokenizer": Path(encoding["tokenizer"])}),
        scorer=Path(found["scorer"]),
        levels=Levels(
            names=tuple(levels["names"]),
            thresholds=tuple(levels["thresholds"]),
            scorer_digest=levels["scorer_digest"],
            tokenizer_hash=levels["tokenizer_hash"],
        ),
    )
    return recipe, Path(found["parts"])


def _write(file: Path, content: Any) -> None:
    write_atomically(file, json.dumps(content, indent=1) + "\n")


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read ({error}). The job is finished or was begun anew since this "
            "task was submitted, or this node does not see the output folder"
        ) from None
