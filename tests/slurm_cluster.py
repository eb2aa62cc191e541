"""A real Slurm of two nodes on this machine, for tests: its own daemons, ports and folder.

Needs root and the packages `slurmctld`, `slurmd`, `slurm-client` and `munge`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
NODES = ("n1", "n2")
CPUS = 2  # of each node, whatever the machine has
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_PATIENCE_S = 30.0

# No accounting, no cgroups. A requeued job waits as long as credentials last (`cred_expire`).
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={controller}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=5
KillWait=2
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PriorityType=priority/basic
{nodes}
PartitionName=work Nodes=n1,n2 Default=YES MaxTime=1:00:00 State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None where one can."""
    absent = [name for name in (*DAEMONS, *COMMANDS) if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"no {', '.join(absent)}: install slurm-wlm and munge"
    return None if os.geteuid() == 0 else "Slurm's daemons are started as root"


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmCluster:
    """A running cluster."""

    folder: Path
    """Configuration, state and logs."""

    environment: Mapping[str, str]
    """Environment variables for processes that talk to it."""

    def command(self, *arguments: str) -> str:
        """Output of one of Slurm's commands."""
        done = subprocess.run(
            arguments, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """Jobs and array tasks in the queue, each as `ID NAME STATE`."""
        return self.command("squeue", "-h", "-r", "-o", "%i %j %T").splitlines()

    def start_node(self, name: str) -> None:
        """Starts the daemon of a node."""
        self.command("slurmd", "-N", name, "-f", str(self.folder / "slurm.conf"))

    def kill_node(self, name: str) -> None:
        """Kills a node: its daemon and all that it started, without a word to the controller."""
        daemon = _pid_in(self.folder / f"slurmd.{name}.pid")
        mark = f"SLURMD_NODENAME={name}".encode()
        for pid in self._processes():
            if mark in _environment(pid):
                _kill(_parent(pid), only="slurmstepd")
                _kill(pid)
        if daemon is not None:
            _kill(daemon)

    def stop(self) -> None:
        """Ends the daemons and whatever they started."""
        files = [*(f"slurmd.{name}.pid" for name in NODES), "slurmctld.pid", "munge/pid"]
        for daemon in filter(None, [_pid_in(self.folder / file) for file in files]):
            _kill(daemon)
        for pid in self._processes():
            _kill(_parent(pid), only="slurmstepd")
            _kill(pid)

    def _processes(self) -> list[int]:
        """Processes of jobs: those that know of this cluster and of a node."""
        mark = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                variables = _environment(int(entry.name))
                if mark in variables and any(v.startswith(b"SLURMD_NODENAME=") for v in variables):
                    found.append(int(entry.name))
        return found


@contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A cluster of two nodes, in a folder of its own that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets want a short path
    folder.chmod(0o755)
    configuration = folder / "slurm.conf"
    cluster = SlurmCluster(
        folder=folder,
        environment={**os.environ, "PATH": _PATH, "SLURM_CONF": str(configuration)},
    )
    host, ports = socket.gethostname().split(".")[0], _free_ports(3)
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
        f"CPUs={CPUS} RealMemory=8000"
        for name, port in zip(NODES, ports[1:], strict=True)
    )
    configuration.write_text(
        _CONFIGURATION.format(host=host, folder=folder, controller=ports[0], nodes=nodes)
    )
    # Cleans up when its input ends, which is also when this process is killed.
    guard = subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        _start_munge(cluster)
        (folder / "state").mkdir()
        cluster.command("slurmctld", "-f", str(configuration))
        for name in NODES:
            (folder / f"spool.{name}").mkdir()
            cluster.start_node(name)
        _wait_for_nodes(cluster)
        yield cluster
    finally:
        guard.communicate()


def _start_munge(cluster: SlurmCluster) -> None:
    folder = cluster.folder / "munge"
    folder.mkdir(mode=0o755)
    key = folder / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log",
             "seed-file": "seed"}  # fmt: skip
    # --force: /tmp is a folder that anybody may write to.
    cluster.command(
        "munged", "--force", *(f"--{name}={folder / file}" for name, file in names.items())
    )


def _wait_for_nodes(cluster: SlurmCluster) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with suppress(subprocess.SubprocessError):
            states = cluster.command("sinfo", "-h", "-N", "-o", "%T").split()
            if states == ["idle"] * len(NODES):
                return
        if time.monotonic() > deadline:
            logs = "\n".join(log.read_text() for log in cluster.folder.glob("*.log"))
            raise RuntimeError(f"the nodes did not come up:\n{logs[-4000:]}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _pid_in(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # ended, or not ours to look at
        return []


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _kill(pid: int | None, *, only: str = "") -> None:
    with suppress(ProcessLookupError, OSError):
        if pid and (not only or Path(f"/proc/{pid}/comm").read_text().startswith(only)):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.stdin.read()
    place = Path(sys.argv[1])
    SlurmCluster(folder=place, environment={}).stop()
    shutil.rmtree(place, ignore_errors=True)
