"""Tiny runs of the real command line: data, configuration, processes, and what they leave."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from megagrow.data.writer import BucketWriter
from tests.distributed import World

ROOT = Path(__file__).parents[2]
ENTRY = ROOT / "pretrain_grow.py"
KILLED_AT = Path(__file__).with_name("killed_at.py")
VOCABULARY = 128
PATIENCE_S = 300.0

STEP_TOKENS = 64
"""Tokens of one optimizer step of `CONFIG`."""

STEPS = 12
"""Optimizer steps of `CONFIG`: 5 in the first stage, 7 in the second."""

CONFIG: Mapping[str, Any] = {
    "seed": 7,
    "precision": "fp32",
    "model": {
        "style": "llama",
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_query_groups": 2,
        "ffn_hidden_size": 64,
        "vocab_size": VOCABULARY,
        "seq_length": 16,
        "dropout": 0.1,
    },
    "data": {"buckets": {"easy": "easy", "hard": "hard"}, "validation_fraction": 0.1},
    "batch": {"global_size": 4, "micro_size": 1},
    "parallel": {"pipeline": 2},
    "learning_rate": {"peak": 5e-3, "warmup": 2 * STEP_TOKENS},
    "stages": [
        {"name": "small", "layers": 2, "tokens": 5 * STEP_TOKENS, "mixture": {"easy": 1.0}},
        {
            "name": "large",
            "layers": 4,
            "tokens": 7 * STEP_TOKENS,
            "mixture": {"easy": 0.5, "hard": 0.5},
            "mixture_end": {"hard": 1.0},
            "transition": {"optimizer": "copy", "learning_rate": "continue"},
        },
    ],
    "checkpoint": {"interval": 2 * STEP_TOKENS, "keep": 2},
    "evaluation": {"interval": 4 * STEP_TOKENS, "sequences": 4},
    "logging": {"tensorboard": False},
}
"""A run that grows 2 -> 4 layers with pipeline parallelism 2, a checkpoint every 2 steps."""


def write_data(folder: Path, *, documents: int = 120, seed: int = 0) -> Path:
    """Two buckets of documents in which the next token is easy, or hard, to guess."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for name, noise in (("easy", 1), ("hard", 5)):
        with BucketWriter(folder / name, vocab_size=VOCABULARY, eod=0) as writer:
            for _ in range(documents):
                steps = random.integers(1, noise + 1, size=int(random.integers(8, 24)))
                writer.add(1 + np.cumsum(steps) % (VOCABULARY - 1))
    return folder


def configure(folder: Path, data: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """A YAML file like `CONFIG` in `folder`, whose run writes to `folder/run`.

    Args:
        folder: where the file goes.
        data: folder from `write_data`.
        changes: dotted key to value; None removes the key.
    """
    config = copy.deepcopy(dict(CONFIG))
    config["data"]["path"] = str(data)
    config["output"] = str(folder / "run")
    for dotted, value in (changes or {}).items():
        *parents, last = dotted.split(".")
        place: Any = config
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    file = folder / "run.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


class Job:
    """The processes of one start of a run; a context manager that leaves none behind."""

    def __init__(
        self,
        file: Path,
        *arguments: str,
        processes: int = 2,
        torchrun: bool = False,
        freeze_at: tuple[str, str] | None = None,
    ) -> None:
        """Starts it.

        Args:
            file: from `configure`.
            arguments: more arguments of `pretrain_grow.py`.
            processes: how many.
            torchrun: start them as `torchrun --standalone` does, which costs a process more;
                otherwise as `srun` does.
            freeze_at: event and pattern, see `killed_at`.
        """
        self.file = file
        self.run = Path(yaml.safe_load(file.read_text())["output"])
        self._seen: dict[int, psutil.Process] = {}
        self._sessions: set[int] = set()
        self._log = file.with_name(f"log_{time.monotonic_ns()}.txt")
        self._marker = file.with_name(f"frozen_{time.monotonic_ns()}")
        command = [str(ENTRY), str(file), *arguments]
        if freeze_at is not None:
            command = [str(KILLED_AT), *freeze_at, str(self._marker), *command]
        common = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            common.pop(name, None)
        if torchrun:
            runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
            starts = [([*runner, str(processes), *command], {})]
        elif processes == 1:
            starts = [(command, {})]
        else:
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
            starts = [
                (command, {**place, "SLURM_PROCID": str(rank), "SLURM_NTASKS": str(processes)})
                for rank in range(processes)
            ]
        self.roots: list[subprocess.Popen[bytes]] = []
        with self._log.open("wb") as log:
            for words, environ in starts:
                self.roots.append(
                    subprocess.Popen(
                        [sys.executable, *words],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env={**common, **environ},
                        cwd=file.parent,
                        start_new_session=True,
                    )
                )

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    def tree(self) -> list[psutil.Process]:
        """Every process of it that lives, helpers and orphans included."""
        for root in self.roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                # torchrun puts each trainer into a session of its own.
                self._sessions.add(root.pid)
                self._sessions.update(each.pid for each in psutil.Process(root.pid).children())
        for pid in psutil.pids():
            # Processes keep their session when their parent is gone.
            with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
                if os.getsid(pid) in self._sessions:
                    self._seen.setdefault(pid, psutil.Process(pid))
        return [each for each in self._seen.values() if _lives(each)]

    def kill(self) -> None:
        """SIGKILL to every process at once, as a lost machine would end them."""
        # Stopped first, until none is left that could start another or react to the end of one.
        stopped: set[int] = set()
        while new := [each for each in self.tree() if each.pid not in stopped]:
            for each in new:
                stopped.add(each.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.suspend()
        for each in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        for root in self.roots:
            root.wait()

    def until(self, condition: Callable[[], Any], *, patience: float = PATIENCE_S) -> Any:
        """Waits for a condition, which is asked very often; its value."""
        deadline = time.monotonic() + patience
        while not (value := condition()):
            if all(root.poll() is not None for root in self.roots):
                raise AssertionError(f"the run ended before that\n{self.output}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not so after {patience:g} s\n{self.output}")
            time.sleep(0.01)
        return value

    def until_frozen(self) -> psutil.Process:
        """Waits for the moment of `freeze_at`; the process that froze."""
        pid = self.until(lambda: self._marker.exists() and self._marker.read_text())
        return psutil.Process(int(pid))

    def until_step(self, step: int) -> None:
        """Waits until a step is in the metrics."""
        self.until(lambda: step in losses(self.run, strict=False))

    def wait(self, *, patience: float = PATIENCE_S) -> list[int]:
        """Waits for the end; exit codes by rank (of torchrun alone, with torchrun)."""
        deadline = time.monotonic() + patience
        while any(root.poll() is None for root in self.roots):
            self.tree()
            if time.monotonic() > deadline:
                raise AssertionError(f"it has not ended after {patience:g} s\n{self.output}")
            time.sleep(0.1)
        return [root.returncode for root in self.roots]

    def finish(self) -> Job:
        """Waits for the end, which must be a good one, with no process left."""
        codes = self.wait()
        assert codes == [0] * len(codes), self.output
        self.assert_gone()
        return self

    def assert_gone(self, *, patience: float = 30.0) -> None:
        """No process of the job may live, helpers included."""
        deadline = time.monotonic() + patience
        while left := self.tree():
            assert time.monotonic() < deadline, [each.cmdline() for each in left]
            time.sleep(0.05)


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Only one test process at a time gets past this."""
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder for what all test processes of a session make once."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def shared_data(factory: pytest.TempPathFactory) -> Path:
    """The buckets, written once a session; not to be changed."""
    folder = shared_folder(factory)
    with alone(folder / "trial_data.lock"):
        data = folder / "trial_data"
        return data if (data / "hard.idx").exists() else write_data(data)


def reference(
    factory: pytest.TempPathFactory, changes: Mapping[str, Any] | None = None, name: str = ""
) -> Path:
    """The folder of `CONFIG`'s run that nothing disturbed, trained once a session.

    Args:
        factory: pytest's.
        changes: as for `configure`.
        name: tells runs with different changes apart.
    """
    data = shared_data(factory)
    folder = shared_folder(factory) / f"trial_reference{name}"
    with alone(folder.with_suffix(".lock")):
        run = folder / "run"
        if not (run / "status.json").exists() or status(run)["state"] != "completed":
            train(configure(folder, data, changes))
    return run


def train(file: Path, *arguments: str, processes: int = 2) -> Path:
    """Runs a configuration to its good end; the run's folder."""
    with Job(file, *arguments, processes=processes) as job:
        return job.finish().run


def attempt(file: str, overrides: Sequence[str] = (), resume: str = "auto") -> tuple[int, str]:
    """One rank of a start in processes that are up (`World.run`): exit code and error message."""
    from megagrow.config import load
    from megagrow.errors import MegagrowError
    from megagrow.train.pretrain import pretrain

    try:
        return pretrain(load(file, overrides), resume=resume), ""
    except MegagrowError as error:
        return 2, str(error)


def start(world: World, file: Path, *overrides: str, resume: str = "auto") -> tuple[int, str]:
    """A start on all ranks of `world`, which must come to the same end: exit code and message."""
    first, *others = world.run(attempt, str(file), overrides, resume)
    assert all(other == first for other in others), (first, *others)
    code, message = first
    return code, message


def records(run: Path, *, strict: bool = True) -> Iterator[dict[str, Any]]:
    """The metrics of a run as they were written; not strict: while it is being written."""
    file = run / "metrics.jsonl"
    if not strict and not file.exists():
        return
    for line in file.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)


def losses(run: Path, *, strict: bool = True) -> dict[int, float]:
    """Loss of every step; of one that was run again, the last."""
    return {r["step"]: r["loss"] for r in records(run, strict=strict) if r["event"] == "step"}


def resumed_at(run: Path) -> list[int]:
    """Step of each resume."""
    return [record["step"] for record in records(run) if record["event"] == "resume"]


def status(run: Path) -> dict[str, Any]:
    """Content of status.json."""
    content: dict[str, Any] = json.loads((run / "status.json").read_text())
    return content


def checkpoints(run: Path) -> list[str]:
    """Names of the complete checkpoints, oldest first."""
    return sorted(path.name for path in (run / "checkpoints").glob("step_*"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leftovers(run: Path) -> list[Path]:
    """What a killed process leaves and the next start removes."""
    return [*run.glob(".growth-*"), *(run / "checkpoints").glob(".partial-*")]


def assert_same(run: Path, reference: Path) -> None:
    """Every step trained on the same samples to the same loss, and the last evaluation agrees.

    Bit by bit, also for steps that were run more than once: each run of them must agree.
    """
    expected = {r["step"]: r for r in records(reference) if r["event"] == "step"}
    found = [record for record in records(run) if record["event"] == "step"]
    for record in found:
        same = expected[record["step"]]
        for key in ("loss", "grad_norm", "lr", "samples", "tokens", "layers", "mixture"):
            assert record[key] == same[key], (record["step"], key, record[key], same[key])
    assert {record["step"] for record in found} == set(expected)
    assert _evaluations(run) == _evaluations(reference)


def _evaluations(run: Path) -> dict[int, Mapping[str, float]]:
    return {r["step"]: r["losses"] for r in records(run) if r["event"] == "eval"}


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    """A port that nobody listens on and that no outgoing connection is given meanwhile.

    Those come from /proc/sys/net/ipv4/ip_local_port_range, which starts above these.
    """
    choose = SystemRandom()  # not one that a test seeds, alike in every test process
    while True:
        port = choose.randrange(15_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
