"""The folder of a run's checkpoints: complete or absent, newest known, old ones removed.

    checkpoints/
        step_00000100/          one complete checkpoint: megatron-core's files and state.json
        latest                  the name of the newest complete one
        .partial-...            being written, or left by a process that was killed

A checkpoint is written under a `.partial` name. Only when every file of it is on disk is it
renamed, and only then does `latest` move, so a kill at any moment leaves the last good one.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megagrow.checkpoint import integrity
from megagrow.errors import CheckpointError
from megagrow.runtime.files import write_atomically

FORMAT = 2
STATE_FILE = "state.json"
LATEST_FILE = "latest"
BYTES_PER_PARAMETER = 16
"""Of a checkpoint: weights (up to 4 bytes), fp32 master weights and two moments."""

_PARTIAL = ".partial-"
_NAME = re.compile(r"^step_(\d{8,})$")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointStore:
    """Checkpoints of one run. Writing methods are for rank 0 alone."""

    folder: Path
    """The run's `checkpoints` folder."""

    keep: int
    """Complete checkpoints to keep, at least 1."""

    def clean(self) -> None:
        """Removes what killed processes left half written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry in self.folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(entry, ignore_errors=True)

    def begin(self, needed_bytes: int) -> Path:
        """A new empty folder to write a checkpoint of about `needed_bytes` into.

        Raises:
            CheckpointError: the disk has no room for it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free < needed_bytes:
            raise CheckpointError(
                f"{self.folder}: a checkpoint needs about {needed_bytes / 1e9:.2f} GB and "
                f"{free / 1e9:.2f} GB are free. Free some space or move the run's output, and "
                "start it again: the last complete checkpoint is intact."
            )
        # A process killed while it saved may still have a writer at work: never share a name.
        partial = self.folder / f"{_PARTIAL}{secrets.token_hex(6)}"
        partial.mkdir()
        return partial

    def commit(self, partial: Path, step: int, state: Mapping[str, Any]) -> Path:
        """Turns a completely written folder into the latest checkpoint."""
        document = {"format": FORMAT, "step": step, "files": integrity.collect(partial), **state}
        document["crc32"] = _digest(document)
        write_atomically(partial / STATE_FILE, json.dumps(document, indent=1))
        final = self.folder / f"step_{step:08d}"
        if final.exists():  # the run went back to an older checkpoint and came here again
            self._replace_by_older(final)
        partial.rename(final)
        write_atomically(self.folder / LATEST_FILE, final.name)
        self._prune(final)
        return final

    def discard(self, partial: Path) -> None:
        """Removes a folder from `begin` whose checkpoint could not be written."""
        shutil.rmtree(partial, ignore_errors=True)

    def latest(self) -> Path | None:
        """The newest complete checkpoint.

        Raises:
            CheckpointError: `latest` names a checkpoint that is not there.
        """
        pointer = self.folder / LATEST_FILE
        if not pointer.is_file():
            complete = self.complete()
            return complete[-1] if complete else None
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
        found = self.folder / name
        if not _NAME.match(name) or not (found / STATE_FILE).is_file():
            others = ", ".join(path.name for path in self.complete()) or "none"
            raise CheckpointError(
                f"{pointer} names {name!r}, which is not a complete checkpoint. Complete ones: "
                f"{others}; resume one with --resume {self.folder}/NAME."
            )
        return found

    def complete(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.match(path.name)]
        return sorted((path for path in found if (path / STATE_FILE).is_file()), key=_step)

    def _prune(self, newest: Path) -> None:
        old = [path for path in self.complete() if path != newest and _step(path) < _step(newest)]
        for path in old[: max(0, len(old) + 1 - self.keep)]:
            self._remove(path)

    def _replace_by_older(self, doomed: Path) -> None:
        """Removes a checkpoint that `latest` may name, so that `latest` is good at any moment."""
        others = [path for path in self.complete() if path != doomed]
        before = [path for path in others if _step(path) < _step(doomed)] or others
        if before:
            write_atomically(self.folder / LATEST_FILE, before[-1].name)
        else:
            (self.folder / LATEST_FILE).unlink(missing_ok=True)
        self._remove(doomed)

    def _remove(self, path: Path) -> None:
        # Out of sight first: a half-deleted folder must not look complete.
        doomed = path.rename(self.folder / f"{_PARTIAL}{secrets.token_hex(6)}")
        shutil.rmtree(doomed, ignore_errors=True)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The `state.json` of a checkpoint whose files are all there, at their full size.

    Raises:
        CheckpointError: no such checkpoint, or a file that is missing or damaged.
    """
    file = checkpoint / STATE_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{checkpoint} is not a checkpoint: it has no {STATE_FILE}. Give a folder such as "
            "runs/NAME/checkpoints/step_00000100, or --resume auto for the newest one."
        )
    try:
        state = dict(json.loads(file.read_text(encoding="utf-8")))
        form = state["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error!r}. {MEND}") from None
    if form != FORMAT:
        raise CheckpointError(
            f"{file} has format {form}; this version reads {FORMAT}. Use the version of megagrow "
            "that wrote it."
        )
    if state.pop("crc32", None) != _digest(state):
        raise CheckpointError(f"{file} is damaged: its checksum does not fit its text. {MEND}")
    integrity.check_sizes(checkpoint, state["files"], MEND)
    return state


MEND = (
    "Resume another checkpoint with --resume FOLDER (older ones lie beside it), or delete this one."
)


def _digest(document: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(document, sort_keys=True).encode())


def _step(path: Path) -> int:
    match = _NAME.match(path.name)
    return int(match[1]) if match else -1
