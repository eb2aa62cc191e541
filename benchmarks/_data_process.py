"""One contender in a fresh process on fixed cores; run as a script, this file is that process."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

_TIMEOUT_S = 600.0
_ENVIRONMENT = {
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a process did."""

    result: dict[str, Any]
    """What its function returned."""

    wall: float
    """Seconds from its start to its end, interpreter and imports included."""

    peak_bytes: int
    """Most memory it had resident, processes of its own left out."""


def run(function: str, argument: Mapping[str, Any], cores: Sequence[int]) -> Outcome:
    """Calls a function in a fresh process.

    Args:
        function: `module:name`; it takes a dict and returns one, both as JSON can hold them.
        argument: the dict.
        cores: what the process, and all that it starts, may run on.

    Raises:
        RuntimeError: it failed; holds the end of what it wrote to standard error.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, function, ",".join(map(str, cores))],
        input=json.dumps(dict(argument)),
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    wall = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{function} failed:\n{done.stderr[-4000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Outcome(result=answer["result"], wall=wall, peak_bytes=answer["peak_bytes"])


def peak_bytes() -> int:
    """Most memory that this process has had resident so far.

    Not `ru_maxrss`, which begins with what the parent had when it started this process.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def cpu_seconds() -> float:
    """Processor time of this process so far, and of those it started that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _main() -> None:
    function, cores = sys.argv[1:]
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    module, _, name = function.partition(":")
    argument = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        contender: Callable[[dict[str, Any]], dict[str, Any]] = getattr(import_module(module), name)
        result = contender(argument)
    print(json.dumps({"result": result, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    _main()
