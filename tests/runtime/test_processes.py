"""Start, end and small collectives of the processes of a run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megagrow.errors import LayoutError
from megagrow.runtime.processes import Place, place_from_environment
from tests.distributed import World

_RENDEZVOUS = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, Place(rank=0, world_size=1, local_rank=0)),
        (
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **_RENDEZVOUS},
            Place(rank=3, world_size=4, local_rank=1),
        ),
        (
            {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", **_RENDEZVOUS},
            Place(rank=1, world_size=2, local_rank=0),
        ),
        # A login shell inside an allocation has Slurm's variables and no rendezvous.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Place(rank=0, world_size=1, local_rank=0)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Place(rank=0, world_size=1, local_rank=0)),
    ],
)
def test_place_from_environment(environ: dict[str, str], place: Place) -> None:
    assert place_from_environment(environ) == place


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x'"),
        ({"RANK": "2", "WORLD_SIZE": "2", **_RENDEZVOUS}, "RANK=2 is not below WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "MASTER_PORT is not set"),
    ],
)
def test_environment_that_is_not_consistent(environ: dict[str, str], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        place_from_environment(environ)


def _collectives() -> tuple[Any, ...]:
    from megagrow.runtime import processes

    rank = processes.rank()
    processes.barrier()
    return (
        processes.world_size(),
        processes.is_main(),
        processes.broadcast_object({"from": rank}),
        processes.broadcast_object(("from", rank), source=1),
        processes.start(),
    )


def test_collectives(world2: World) -> None:
    expected = ({"from": 0}, ("from", 1), False)
    assert world2.run(_collectives) == [(2, True, *expected), (2, False, *expected)]


_PLAIN = """
from megagrow.runtime import groups, processes
import torch
if __name__ == "__main__":
    assert processes.start() and not processes.start()
    groups.set_up()
    processes.barrier()
    assert processes.world_size() == 1 and processes.is_main()
    assert processes.broadcast_object("x") == "x"
    processes.stop()
    processes.stop()
    assert not torch.distributed.is_initialized()
"""

_SAVES = """
import sys
from pathlib import Path
from megagrow.runtime import processes
if __name__ == "__main__":
    processes.start()
    from tests.runtime import tiny_gpt
    job = tiny_gpt.build(tiny_gpt.Trial())
    Path(sys.argv[1]).mkdir()
    tiny_gpt.save(job, sys.argv[1])
    print("saved", flush=True)
    if sys.argv[2] == "stop":
        processes.stop()
    elif sys.argv[2] == "raise":
        raise ValueError("an error of the run")
    else:
        sys.stdin.read()
"""

_DIES = """
import os, sys, time
from megagrow.runtime import processes
if __name__ == "__main__":
    processes.start(timeout_s=float(sys.argv[1]))
    if processes.rank() == 1:
        if sys.argv[2] == "die":
            os._exit(3)
        time.sleep(200)
    processes.barrier()
"""


_CHOOSES_A_GPU = """
import sys
import torch
import torch.distributed as dist
from megagrow.runtime import device, processes
joined = []
device.is_cuda = lambda: True
device.backend = lambda: "gloo"
torch.cuda.device_count = lambda: int(sys.argv[1])
torch.cuda.set_device = lambda index: None

dist.init_process_group = lambda backend, **options: joined.append(str(options["device_id"]))
processes.start()
print(*joined)
"""

_FAILS = """
import torch.distributed as dist
from megagrow.runtime import device, groups, processes
if __name__ == "__main__":
    processes.start()
    groups.set_up()
    device.is_cuda = lambda: True  # gloo's groups can be aborted too

    def destroy(group=None):
        raise SystemExit("would wait for what is pending")

    dist.destroy_process_group = destroy
    processes.stop(failed=True)
    processes.stop(failed=True)
    assert not dist.is_initialized()
"""


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_"))}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        kept.pop(name, None)
    root = str(Path(__file__).parents[2])
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "PYTHONWARNINGS": "ignore"}


def _script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(text)
    return str(path)


def test_a_plain_python_process_is_a_world_of_one(tmp_path: Path) -> None:
    command = [sys.executable, _script(tmp_path, _PLAIN)]
    done = subprocess.run(
        command, env=_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("visible", "index"), [("1", 0), ("8", 3)])
def test_nccl_is_told_the_gpu_of_the_process(tmp_path: Path, visible: str, index: int) -> None:
    done = subprocess.run(
        [sys.executable, _script(tmp_path, _CHOOSES_A_GPU), visible],
        env={**_environment(), "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "3"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == f"cuda:{index}\n", done.stderr


def test_a_failed_process_on_a_gpu_gives_up_what_is_pending(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, _script(tmp_path, _FAILS)],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("end", "code"), [("stop", 0), ("raise", 1), ("kill", -signal.SIGKILL)])
def test_no_helper_process_holds_the_pipes_after_the_end(
    tmp_path: Path, end: str, code: int
) -> None:
    command = [sys.executable, _script(tmp_path, _SAVES), str(tmp_path / "save"), end]
    process = subprocess.Popen(
        command,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        if end == "kill":
            process.kill()
        # communicate returns when the last holder of the pipe is gone.
        assert process.communicate(timeout=20)[0] == ""
        assert process.returncode == code
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("timeout_s", "end"), [("60", "die"), pytest.param("20", "hang", marks=pytest.mark.slow)]
)
def test_a_lost_peer_is_an_error_and_not_a_hang(tmp_path: Path, timeout_s: str, end: str) -> None:
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    workers = []
    for rank in range(2):
        place = {
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
        }
        workers.append(
            subprocess.Popen(
                [sys.executable, _script(tmp_path, _DIES), timeout_s, end],
                env={**_environment(), **place},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        _, errors = workers[0].communicate(timeout=100)
        assert workers[0].returncode == 1
        assert "Error" in errors
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_a_port_in_use_is_one_error_that_says_where(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other_job:
        port = str(other_job.getsockname()[1])
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **meeting}
        done = subprocess.run(
            [sys.executable, _script(tmp_path, _DIES), "60", "die"],
            env={**_environment(), **place},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    error = done.stderr[done.stderr.rindex("LayoutError") :]
    assert f"127.0.0.1:{port}" in error
    assert "another MASTER_PORT" in error
