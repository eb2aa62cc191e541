"""The output folder of a job: what is where in it, and what an earlier job left there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megagrow.bucketing.levels import LEVELS_NAME
from megagrow.bucketing.reading.shards import Shard
from megagrow.data.manifest import MANIFEST_NAME, read_manifest
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.runtime.lock import LockedError, hold

_PATIENCE_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """Paths in an output folder."""

    folder: Path
    """The folder: buckets, tokenizer, `levels.json`, `inputs.jsonl`, `manifest.json`."""

    @property
    def levels(self) -> Path:
        """Frozen names and thresholds."""
        return self.folder / LEVELS_NAME

    @property
    def scorer(self) -> Path:
        """Folder of the frozen scorer."""
        return self.folder / "scorer"

    @property
    def sample(self) -> Path:
        """Scores of the sample that thresholds were fitted on."""
        return self.folder / "sample.npz"

    @property
    def inputs(self) -> Path:
        """What became of every input file."""
        return self.folder / "inputs.jsonl"

    @property
    def plot(self) -> Path:
        """Distribution of the scores."""
        return self.folder / "scores.png"

    @property
    def manifest(self) -> Path:
        """What makes the folder complete."""
        return self.folder / MANIFEST_NAME

    @property
    def work(self) -> Path:
        """What an unfinished job has done so far; gone when it is finished."""
        return self.folder / ".work"

    @property
    def parts(self) -> Path:
        """Finished parts."""
        return self.work / "parts"

    @property
    def arguments(self) -> Path:
        """What the unfinished job was asked to do."""
        return self.work / "arguments.json"


@contextmanager
def sole_writer(folder: Path) -> Iterator[Output]:
    """Makes the folder and keeps other jobs out of it inside the block.

    Raises:
        DataError: it is no folder, cannot be written, or another job works in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder / ".lock", patience_s=_PATIENCE_S):
            yield Output(folder=folder)
    except LockedError as holder:
        raise DataError(
            f"{folder}: another job works in this folder ({holder}): wait for it, or choose "
            "another --output"
        ) from None
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{folder} is a file: choose another --output") from None


def inputs_digest(shards: Sequence[Shard]) -> str:
    """sha256 of names and fingerprints, in order."""
    lines = "\n".join(f"{shard.location} {shard.fingerprint}" for shard in shards)
    return hashlib.sha256(lines.encode()).hexdigest()


def is_finished(output: Output, arguments: Mapping[str, Any]) -> bool:
    """Whether the folder is complete, and just what these arguments give.

    Raises:
        DataError: it is, or was to be, what other arguments give.
    """
    manifest = read_manifest(output.folder)
    if manifest is not None:
        _same(output, manifest.get("arguments", {}), arguments, "holds the result")
        return True
    if output.manifest.exists():
        raise DataError(f"{output.manifest}: another tool's: choose another --output")
    try:
        earlier = json.loads(output.arguments.read_text(encoding="utf-8"))
    except FileNotFoundError:
        _check_free(output.folder)
        return False
    except (OSError, ValueError) as error:
        raise DataError(f"{output.arguments}: cannot be read ({error}); pass --overwrite") from None
    # Files may be mended or added while the job is unfinished: what is frozen stays frozen.
    same_inputs = {**earlier, "inputs": arguments.get("inputs")}
    _same(output, same_inputs, arguments, "holds unfinished work")
    return False


def _check_free(folder: Path) -> None:
    """Datasets that no job of ours made must not be written over."""
    found = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".idx"))
    if found:
        raise DataError(
            f"{folder} holds {found[0]}, which no job of this tool made: choose another --output"
        )


def begin(output: Output, arguments: Mapping[str, Any]) -> None:
    """Notes what the folder is about to hold."""
    output.parts.mkdir(parents=True, exist_ok=True)
    write_atomically(output.arguments, json.dumps(dict(arguments), indent=1) + "\n")


def clear(output: Output) -> None:
    """Drops what an earlier job left; parts stay, as some may be those of the next one."""
    if read_manifest(output.folder) is None and not output.arguments.exists():
        return  # no job of ours was here
    for file in (output.manifest, output.arguments, output.levels):
        file.unlink(missing_ok=True)
    for pattern in ("*.idx", "*.bin", "*.documents.npy"):
        for file in output.folder.glob(pattern):
            file.unlink()


def drop_stale_parts(output: Output, wanted: set[str]) -> None:
    """Removes parts of other jobs, and what killed workers left."""
    for found in output.parts.iterdir():
        if found.name not in wanted:
            shutil.rmtree(found, ignore_errors=True)


def _same(
    output: Output, earlier: Mapping[str, Any], arguments: Mapping[str, Any], what: str
) -> None:
    for key in (*arguments, *earlier):
        if earlier.get(key) != arguments.get(key):
            raise DataError(
                f"{output.folder} {what} of other arguments ({key}: {_short(earlier.get(key))} "
                f"there, {_short(arguments.get(key))} now): choose another --output, or drop what "
                "is there with --overwrite"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
