"""How every command that writes buckets ends: with their table, or one error and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from megagrow.bucketing import summary
from megagrow.bucketing.job import DamagedInputError
from megagrow.errors import MegagrowError


def run(work: Callable[[], Mapping[str, Any] | int], output: Path) -> int:
    """Does the work and says how it ended.

    Args:
        work: gives the manifest, or an exit code where there is none to show.
        output: folder that it writes.

    Returns:
        0; 1 where the output cannot be written; 2 for what cannot be used; 3 for damaged inputs;
        130 when interrupted.
    """
    try:
        manifest = work()
    except DamagedInputError as error:
        return _failed(str(error), 3)
    except MegagrowError as error:
        return _failed(str(error), 2)
    except OSError as error:
        return _failed(
            f"{output} cannot be written: {error}. What is done is kept: make room or mend it, "
            "and run the same command again",
            1,
        )
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to go on", file=sys.stderr)
        return 130
    if isinstance(manifest, int):
        return manifest
    show(f"{summary.table(manifest)}\n\n{summary.configuration(output, manifest)}")
    return 0


def show(text: str) -> None:
    """Prints the result; who reads it may have seen enough before its end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python would complain again when it closes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
