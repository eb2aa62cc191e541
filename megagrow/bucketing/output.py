"""The output folder of a job: what is where in it, and what an earlier job left there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megagrow.bucketing.levels import LEVELS_NAME
from megagrow.data.manifest import MANIFEST_NAME, bucket_files, read_manifest
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.runtime.lock import LockedError, hold
from megagrow.shards.shard import Shard

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
    def dropping(self) -> Path:
        """Is there while an earlier job's result is being dropped."""
        return self.work / "dropping"

    @property
    def locations(self) -> Path:
        """The input files of the unfinished job when it began."""
        return self.work / "locations.json"

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
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{folder} is a file: choose another --output") from None
    try:
        with hold(folder / ".lock", patience_s=_PATIENCE_S):
            yield Output(folder=folder)
    except LockedError as holder:
        raise DataError(
            f"{folder}: another job works in this folder ({holder}): wait for it, or choose "
            "another --output"
        ) from None


def inputs_digest(shards: Sequence[Shard]) -> str:
    """sha256 of names and fingerprints, in order."""
    lines = "\n".join(f"{shard.location} {shard.fingerprint}" for shard in shards)
    return hashlib.sha256(lines.encode()).hexdigest()


def is_finished(output: Output, arguments: Mapping[str, Any]) -> bool:
    """Whether the folder is complete, and just what these arguments give.

    Raises:
        DataError: it is, or was to be, what other arguments give; or files of it are gone.
    """
    manifest = read_manifest(output.folder)
    if manifest is not None:
        _same(output, manifest.get("arguments", {}), arguments, "holds the result")
        _check_whole(output, manifest)
        return True
    if output.manifest.exists():
        raise DataError(f"{output.manifest}: another tool's: choose another --output")
    if not output.arguments.exists():
        _check_free(output)
        return False
    if not _has_work(output):
        return False
    try:
        earlier = json.loads(output.arguments.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{output.arguments}: cannot be read ({error}); pass --overwrite") from None
    # Files may be mended while the job is unfinished: see `fitted.check_sampled`.
    same_inputs = {**earlier, "inputs": arguments.get("inputs")}
    _same(output, same_inputs, arguments, "holds unfinished work")
    return False


def _has_work(output: Output) -> bool:
    """Whether a job has done more than to note what it was asked for."""
    parts = output.parts.is_dir() and any(output.parts.iterdir())
    others = {path.name for path in output.work.iterdir()} - {
        output.parts.name,
        output.arguments.name,
        output.locations.name,
    }
    return output.levels.exists() or parts or bool(others)


def _check_whole(output: Output, manifest: Mapping[str, Any]) -> None:
    """The files that the manifest lists are there, and of the size it says."""
    for file in (file for files in bucket_files(manifest).values() for file in files):
        tokens, index = (output.folder / f"{file.prefix}{end}" for end in (".bin", ".idx"))
        if not index.is_file() or not tokens.is_file() or tokens.stat().st_size != file.bytes:
            raise DataError(
                f"{output.folder} is not what its manifest says: {file.prefix}.bin or .idx is gone "
                "or has another size; restore it, or make everything again with --overwrite"
            )


def _check_free(output: Output) -> None:
    """What no job of ours made must not be written over."""
    names = (path.name for path in output.folder.iterdir())
    found = sorted(name for name in names if name.endswith((".bin", ".idx", output.levels.name)))
    if found:
        raise DataError(
            f"{output.folder} holds {found[0]}, which no job of this tool made: choose another "
            "--output"
        )


def begin(output: Output, arguments: Mapping[str, Any], locations: Sequence[str]) -> None:
    """Notes what the folder is about to hold, and of what; the latter stays once work is done."""
    output.parts.mkdir(parents=True, exist_ok=True)
    if not output.levels.exists():
        write_atomically(output.locations, json.dumps(list(locations)) + "\n")
    write_atomically(output.arguments, json.dumps(dict(arguments), indent=1) + "\n")


def clear(output: Output) -> None:
    """Drops what an earlier job left; parts stay, as some may be those of the next one.

    A mark says that this has begun: killed half-way, the next job goes on with it.
    """
    if not (output.dropping.exists() or output.arguments.exists() or _has_manifest(output)):
        return  # no job of ours was here
    output.work.mkdir(exist_ok=True)
    output.dropping.touch()
    for file in (output.manifest, output.levels, output.arguments):
        file.unlink(missing_ok=True)
    drop_buckets(output, keep=())
    output.dropping.unlink()


def drop_buckets(output: Output, keep: Collection[str]) -> None:
    """Removes the files of every bucket but those of the prefixes `keep`."""
    for ending in (".idx", ".bin", ".documents.npy"):
        for file in output.folder.glob(f"*{ending}"):
            if file.name.removesuffix(ending) not in keep:
                file.unlink()


def _has_manifest(output: Output) -> bool:
    """Whether there is one of ours, which may be damaged."""
    try:
        return read_manifest(output.folder) is not None
    except DataError:
        return True


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
