"""Processes that fail: together where they can, and with one message.

A process that ends alone takes the others with it: torchrun ends them at once, a lost gloo
connection does too, and any collective gives up after `processes.DEFAULT_TIMEOUT_S`. Those others
fail for no reason of their own and must not bury the reason under their tracebacks.

Imports torch only where there are processes to speak of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from megagrow.errors import MegagrowError

T = TypeVar("T")

EXIT_ERROR = 2
"""Exit code of an error the user can mend."""

EXIT_CRASH = 1
"""Exit code of anything else, such as a process that was lost."""

EXIT_INTERRUPT = 130
"""Exit code after a second Ctrl-C, as shells have it."""

_HEARD = "megagrow/heard"
_HEARING_S = 10.0
"""Seconds that rank 0 waits at most, as it ends, for others to ask who failed first."""

_GRACE_S = 2.0

#: What gloo, NCCL and torch's store say when the other end is gone.
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Timed out waiting",
    "remote process exited",
    "ncclRemoteError",
)


@contextmanager
def together() -> Iterator[None]:
    """If the block raises a MegagrowError on any rank, raises it on all; every rank must enter.

    For work without communication, such as rank 0's on the disk: the other ranks would wait for it
    in the next collective.
    """
    import torch.distributed as dist

    from megagrow.runtime import processes

    error: MegagrowError | None = None
    try:
        yield
    except MegagrowError as caught:
        error = caught
    errors: list[MegagrowError | None] = [error]
    if processes.world_size() > 1:
        errors = [None] * processes.world_size()
        dist.all_gather_object(errors, error)
    found = next((each for each in errors if each is not None), None)
    if found is not None:
        raise found


def on_main(work: Callable[[], T]) -> T:
    """What `work`, run on rank 0 alone, returns, on every rank; call on every rank.

    For what all ranks need from the disk, so that they agree about it, also where one of them sees
    an older state of a network file system, and the disk is read once and not by every rank.

    Args:
        work: communicates with no other rank; its result is pickled.

    Raises:
        MegagrowError: the one that `work` raised, on every rank.
    """
    from megagrow.runtime import processes

    told: tuple[T | None, MegagrowError | None] = (None, None)
    if processes.is_main():
        try:
            told = (work(), None)
        except MegagrowError as caught:
            told = (None, caught)
    result, error = processes.broadcast_object(told)
    if error is not None:
        raise error
    return cast("T", result)


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another process is gone."""
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)


def is_own(error: BaseException) -> bool:
    """Whether a process ends for a reason of its own: no interrupt, and no lost peer."""
    return isinstance(error, Exception) and not is_lost_peer(error)


def report_early(error: MegagrowError) -> int:
    """Says on stderr why this process ends before it has joined the others; its exit code."""
    rank = int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)
    if rank:
        # If rank 0 fails alike, torchrun or srun ends this process meanwhile.
        time.sleep(_GRACE_S)
    _say(f"error{_on(rank)}: {error}")
    return EXIT_ERROR


def report(error: BaseException) -> int:
    """Says on stderr why this process ends; returns its exit code.

    Call it while the process group is up: ranks that fail alike then print their message once, and
    ranks that only lost another one say no more than that.
    """
    from megagrow.runtime import processes

    rank = processes.rank()
    store = _store()
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted: what was trained since the last checkpoint is lost")
        return EXIT_INTERRUPT
    if not isinstance(error, Exception):
        raise error
    first = _first_to_fail(store, rank)
    if isinstance(error, MegagrowError):
        if _is_mine_to_say(store, rank, str(error)):
            _say(f"error{_on(rank)}: {error}")
        else:
            _leave_to_torchrun(f"error: {error}")  # which may see this process end first
        return EXIT_ERROR
    if first != rank:
        _say(f"rank {rank} ends because rank {first} failed")
    elif is_lost_peer(error):
        reason = str(error).splitlines()[0]
        _say(
            f"error{_on(rank)}: another process is gone ({reason}). Look for its message, or for "
            "what killed it (out of memory, a lost node), and start the same command again: it "
            "goes on from the last checkpoint."
        )
    else:
        traceback.print_exception(error)
    return EXIT_CRASH


def _on(rank: int) -> str:
    return f" on rank {rank}" if rank else ""


def _store() -> Any:
    """The key-value store all processes share; None for a single one."""
    import torch.distributed as dist

    from megagrow.runtime import processes

    if processes.world_size() == 1:
        return None
    return dist.distributed_c10d._get_default_store()


def _first_to_fail(store: Any, rank: int) -> int:
    """The rank that failed first, as far as any has said; `rank` if none has."""
    if store is None:
        return rank
    try:
        store.add(_HEARD, 1)
        return int(store.compare_set("megagrow/failed", "", str(rank)))
    except (RuntimeError, ValueError):  # the store is gone, with the process that kept it
        return rank


def let_others_hear(store: Any, ranks: int) -> None:
    """Keeps the store that lives in this process until all ranks have asked it who failed first.

    Or for `_HEARING_S`: some may have been killed.
    """
    end = time.monotonic() + _HEARING_S
    with contextlib.suppress(RuntimeError):
        while store.add(_HEARD, 0) < ranks and time.monotonic() < end:
            time.sleep(0.05)


def _is_mine_to_say(store: Any, rank: int, message: str) -> bool:
    """Whether to print `message` here; rank 0 prints what several ranks have to say."""
    if store is None:
        return True
    key = "megagrow/error/" + hashlib.sha256(message.encode()).hexdigest()
    try:
        if rank == 0:
            store.set(key, "")
            return True
        store.wait([key], timedelta(seconds=_GRACE_S))
    except RuntimeError:  # not in time: rank 0 has another fate
        return True
    return False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    _leave_to_torchrun(text)


def _leave_to_torchrun(text: str) -> None:
    """Gives torchrun the text to close its own report with."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        Path(file).write_text(
            json.dumps({"message": {"message": text, "extraInfo": extra}}), encoding="utf-8"
        )
