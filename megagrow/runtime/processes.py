"""The processes of a run: start and end of the process group, ranks, small collectives.

Ranks come from torchrun (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``,
``MASTER_PORT``), or from srun (``SLURM_PROCID``, ``SLURM_NTASKS``, ``SLURM_LOCALID``) when
``MASTER_ADDR`` is set. A plain ``python`` process is a world of one and needs neither port
nor network.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]

from megagrow.errors import LayoutError
from megagrow.runtime import compat, cpu, device, failure

T = TypeVar("T")

#: Seconds that a collective may wait for a peer before the run ends with an error.
DEFAULT_TIMEOUT_S = 1800.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where this process stands among those of the run."""

    rank: int
    """Number of this process in the run, from 0."""
    world_size: int
    """Number of processes of the run."""
    local_rank: int
    """Number of this process on its machine, from 0; the index of its GPU."""


def place_from_environment(environ: Mapping[str, str]) -> Place:
    """Read this process's place from the variables of torchrun or srun.

    Without either, the place is the only one of a world of one.

    Raises:
        LayoutError: a variable is missing, is not a number, or the rank is out of range.
    """
    if "RANK" in environ or "WORLD_SIZE" in environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "MASTER_ADDR" in environ and "SLURM_PROCID" in environ:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    else:
        return Place(rank=0, world_size=1, local_rank=0)
    rank, world_size, local_rank = (_number(environ, name, names) for name in names)
    if not 0 <= rank < world_size:
        raise LayoutError(
            f"{names[0]}={rank} is not below {names[1]}={world_size}: "
            "start all processes of a run with one torchrun or srun command."
        )
    if world_size > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in environ:
                raise LayoutError(
                    f"{names[1]}={world_size} but {name} is not set: start with torchrun, "
                    "or export MASTER_ADDR (first node) and MASTER_PORT (a free port)."
                )
    return Place(rank=rank, world_size=world_size, local_rank=local_rank)


def _number(environ: Mapping[str, str], name: str, names: tuple[str, ...]) -> int:
    text = environ.get(name)
    if text is None and name in ("LOCAL_RANK", "SLURM_LOCALID"):
        return 0
    if text is None or not text.isdecimal():
        shown = "not set" if text is None else f"{text!r}, not a number"
        raise LayoutError(
            f"{name} is {shown}: set {', '.join(names)} together, as torchrun and srun do, "
            "or none of them for a single process."
        )
    return int(text)


def start(timeout_s: float = DEFAULT_TIMEOUT_S) -> bool:
    """Join the process group of the run: NCCL with CUDA, gloo without.

    Sets this process's device, and installs the CPU stand-in and the megatron-core fixes.

    Args:
        timeout_s: Seconds that a collective waits for a peer. A peer that dies ends the others
            with an error after that time at the latest (gloo: at once).

    Returns:
        True if this call created the group, so that who started also stops; False if there
        was one.

    Raises:
        LayoutError: the environment does not say consistently who this process is.
    """
    started = dist.is_initialized()
    place = place_from_environment(os.environ)
    cpu.install()
    compat.install()
    if started:
        return False
    timeout = timedelta(seconds=timeout_s)
    # Told its device, NCCL connects here, where failing is cheap, and need not guess it later.
    gpu = _choose_gpu(place.local_rank) if device.is_cuda() else None
    if place.world_size == 1:
        dist.init_process_group(
            device.backend(),
            store=HashStore(),
            rank=0,
            world_size=1,
            timeout=timeout,
            device_id=gpu,
        )
    else:
        try:
            dist.init_process_group(
                device.backend(),
                rank=place.rank,
                world_size=place.world_size,
                timeout=timeout,
                device_id=gpu,
            )
        except dist.DistNetworkError as error:
            raise LayoutError(_no_rendezvous(place, error)) from error
    return True


def _no_rendezvous(place: Place, error: dist.DistNetworkError) -> str:
    meeting = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return (
        f"rank {place.rank} of {place.world_size} could not meet the others at {meeting}: "
        f"{str(error).splitlines()[0]}\n"
        "If the address is in use, another job on that machine has it: choose another "
        "MASTER_PORT. If nobody answers, MASTER_ADDR must name the machine of rank 0."
    )


def _choose_gpu(local_rank: int) -> torch.device:
    count = torch.cuda.device_count()
    # With one visible GPU a process (srun --gpus-per-task=1), every process has its own GPU 0.
    index = 0 if count == 1 else local_rank
    if index >= count:
        raise LayoutError(
            f"local rank {local_rank} has no GPU: this machine shows {count}. "
            f"Start at most {count} processes on it (--nproc-per-node {count})."
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def stop(*, failed: bool = False, own_error: bool = False) -> None:
    """Leave the process group and end the helper processes that checkpoint saving started.

    Safe to call twice.

    Args:
        failed: this process ends by an error, maybe alone: wait for no peer and give up what is
            being communicated. Not the error itself, whose frames would keep connections open.
        own_error: that error is its own, and others will ask who failed first.
    """
    compat.stop_checkpoint_helpers()
    if not dist.is_initialized():
        return
    ranks, store = world_size(), None
    if is_main() and own_error:
        # Without torchrun it lives in this process, and the others ask it who failed first.
        store = dist.distributed_c10d._get_default_store()
    if failed and device.is_cuda():
        # destroy_process_group lets NCCL finish first (torch's ProcessGroupNCCL::shutdown), which
        # it cannot when a peer is gone or does something else.
        with contextlib.suppress(RuntimeError):  # this process ends anyway
            dist.distributed_c10d._abort_process_group()
    else:
        from megagrow.runtime import groups  # imports megatron-core: only where it is in use

        groups.tear_down()
        dist.destroy_process_group()
        if failed:
            gc.collect()  # frames of an error that refer to it hold connections, and others wait
    if store is not None and ranks > 1:
        failure.let_others_hear(store, ranks)


def rank() -> int:
    """Number of this process in the run; 0 before :func:`start`."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes of the run; 1 before :func:`start`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is rank 0, which writes what is written once."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process of the run is here."""
    if world_size() > 1:
        dist.barrier(device_ids=[torch.cuda.current_device()] if device.is_cuda() else None)


def gather_objects(mine: T) -> list[T]:
    """What every process has, by rank."""
    if world_size() == 1:
        return [mine]
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def broadcast_object(obj: T, source: int = 0) -> T:
    """Give every process the ``obj`` of rank ``source`` (pickled: only between our processes)."""
    if world_size() == 1:
        return obj
    box: list[T] = [obj]
    dist.broadcast_object_list(box, src=source, device=device.device())
    return box[0]
