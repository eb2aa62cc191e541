"""What torch and megatron-core raise when a checkpoint cannot be written or read -> one error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.distributed.checkpoint.api import CheckpointException

from megagrow.errors import CheckpointError
from megagrow.runtime import processes


@contextmanager
def guarded(where: Path, action: str, mend: str) -> Iterator[None]:
    """Turns what goes wrong with the files inside the block into a CheckpointError.

    Args:
        where: the folder, for the message.
        action: what is being done, such as `saving`.
        mend: what to do about it.
    """
    try:
        yield
    except CheckpointException as error:  # derives from BaseException
        # Raised on every rank, but only the first knows why.
        reasons = processes.broadcast_object(_reasons(error))
        raise CheckpointError(f"{where}: {action} failed: {reasons}. {mend}") from error
    except _failures() as error:
        raise CheckpointError(f"{where}: {action} failed: {error}. {mend}") from error
    except RuntimeError as error:
        if not _is_torn_file(str(error)):
            raise
        raise CheckpointError(f"{where}: {action} failed: {_TORN_FILE}. {mend}") from error


def _failures() -> tuple[type[Exception], ...]:
    """Megatron-core's too where it is in use: tensors are also read and written without it."""
    core = sys.modules.get("megatron.core.dist_checkpointing.core")
    return (OSError,) if core is None else (OSError, core.CheckpointingException)


_TORN_FILE = "a file could not be written to its end (a full disk, a quota or a size limit)"


def _is_torn_file(text: str) -> bool:
    # Neither torch.save nor the writer of megatron-core 0.19 passes the system's reason on.
    return any(mark in text for mark in ("inline_container", "PytorchStreamWriter", "'OSError'"))


def _reasons(error: CheckpointException) -> str:
    found = {str(cause).strip() for cause, _ in error.failures.values()}
    readable = {_TORN_FILE if _is_torn_file(text) else text for text in found}
    return "; ".join(sorted(readable)) or str(error).splitlines()[0]
