"""Make the virtual environment that every make target runs in.

    python tools/setup_environment.py --venv .venv --extras dev

Standard library only, because it runs before anything is installed. In order:

1. Check this interpreter, then make the environment, or keep the working one that is there.
2. PyTorch: one that this interpreter can import (an NGC image, a cluster module, conda) is made
   visible in the environment and kept. Otherwise the pinned release is installed: the CPU wheel
   where there is no NVIDIA GPU, PyPI's CUDA wheel where there is one.
3. Write the version found to ``<venv>/constraints.txt`` and install megagrow, editable, under that
   constraint: no dependency can replace PyTorch, pip would rather fail.
4. Check that PyTorch is still the same, and that megagrow and megatron-core import.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 10), (3, 13))
"""First supported Python version, and the first that is not."""
MINIMUM_TORCH = (2, 6)
"""megatron-core refuses older releases."""
TORCH_VERSION = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
GPU_DEVICES = (Path("/dev/nvidia0"), Path("/proc/driver/nvidia/version"))

PROBE_TORCH = """
import json
try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    print(json.dumps(None))
else:
    import importlib.metadata, os
    print(json.dumps({
        "version": importlib.metadata.version("torch"),
        "site": os.path.dirname(os.path.dirname(os.path.abspath(torch.__file__))),
    }))
"""


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


class Torch(NamedTuple):
    """An installed PyTorch."""

    version: str
    """Version of the distribution, local part included: ``2.13.0+cpu``, ``2.12.0a0+1f2e``."""
    site: str
    """The folder on ``sys.path`` that holds the package."""


class Options(NamedTuple):
    """What the command line asks for."""

    venv: Path
    """Folder of the environment."""
    extras: str
    """Comma-separated extras of megagrow to install; may be empty."""
    torch_version: str
    """PyTorch release to install where none is found."""
    torch_index: str
    """Package index to take PyTorch from; empty: chosen by whether there is a GPU."""
    ignore_installed_torch: bool
    """Install PyTorch into the environment even where this interpreter has one."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"setup: {text}", flush=True)


def run(command: list[str], *, what: str) -> None:
    """Run ``command`` in the project root; a failure is a :class:`SetupError` naming ``what``."""
    started = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, check=False)
    if result.returncode:
        raise SetupError(f"{what} failed (exit {result.returncode}): {' '.join(command)}")
    say(f"{what}: {time.monotonic() - started:.1f} s")


def check_interpreter() -> None:
    """Refuse an unsupported Python, and name those on PATH that would do."""
    first, beyond = SUPPORTED
    if first <= sys.version_info[:2] < beyond:
        return
    names = [f"python3.{minor}" for minor in range(beyond[1] - 1, first[1] - 1, -1)]
    found = [name for name in names if shutil.which(name)]
    hint = f"use make PYTHON={found[0]} ..." if found else "install one of them"
    have = ".".join(map(str, sys.version_info[:3]))
    raise SetupError(
        f"megagrow needs Python 3.{first[1]} to 3.{beyond[1] - 1}, but {sys.executable} is {have}: "
        + hint
    )


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU with its driver."""
    return any(path.exists() for path in GPU_DEVICES) or shutil.which("nvidia-smi") is not None


def find_torch(python: str) -> Torch | None:
    """The PyTorch that interpreter ``python`` imports, or None.

    Raises:
        SetupError: PyTorch is there but broken, or has no package metadata that pip could respect.
    """
    result = subprocess.run(
        [python, "-c", PROBE_TORCH], capture_output=True, text=True, check=False, cwd="/"
    )
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise SetupError(
            f"{python} has a PyTorch that does not import ({last}): mend or uninstall it, "
            "or leave it out with make setup SETUP_FLAGS=--ignore-installed-torch"
        )
    found = json.loads(result.stdout.strip().splitlines()[-1])
    return None if found is None else Torch(found["version"], found["site"])


def check_torch_version(torch: Torch) -> None:
    """Refuse a PyTorch that megatron-core cannot use."""
    numbers = re.match(r"(\d+)\.(\d+)", torch.version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < MINIMUM_TORCH:
        least = ".".join(map(str, MINIMUM_TORCH))
        raise SetupError(
            f"PyTorch {torch.version} in {torch.site} is older than {least}: choose another "
            "interpreter with make PYTHON=..., or leave it out with "
            "make setup SETUP_FLAGS=--ignore-installed-torch"
        )


def works(command: list[str], *, show: bool = False) -> bool:
    """Whether ``command`` can be run and succeeds; its output is dropped unless ``show``."""
    try:
        return subprocess.run(command, capture_output=not show, check=False).returncode == 0
    except OSError:
        return False


def make_venv(venv: Path, *, system_packages: bool) -> str:
    """Make ``venv``, or keep the working one that is there; the path of its interpreter.

    An image without ``ensurepip`` (NGC, Debian without python3-venv) gets pip from the system.
    """
    python = str(venv / "bin" / "python")
    if works([python, "-m", "pip", "--version"]):
        say(f"keeping {venv}")
        return python
    if venv.exists() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").exists():
        raise SetupError(f"{venv} exists and is not a virtual environment: move it, or set VENV=")
    create = [sys.executable, "-m", "venv", "--clear"]
    if system_packages:
        create.append("--system-site-packages")
    if not works([sys.executable, "-c", "import ensurepip"]):
        run([*create, "--without-pip", str(venv)], what=f"making {venv} without ensurepip")
        if not works([python, "-m", "pip", "--version"]):
            pip = [sys.executable, "-m", "pip"]
            if not works([*pip, "--version"]):
                raise SetupError(
                    f"{sys.executable} has neither ensurepip nor pip: "
                    "install them (Debian, Ubuntu: apt install python3-venv)"
                )
            run([*pip, "--python", python, "install", "pip"], what="installing pip")
    else:
        run([*create, str(venv)], what=f"making {venv}")
    return python


def share_torch(python: str, torch: Torch) -> None:
    """Make ``torch`` visible to the environment of ``python``, and check that it is.

    ``--system-site-packages`` reaches the base interpreter's packages, not those of an environment
    that was active when make was called, nor those added to an older environment's interpreter
    later: these are added with a path file.
    """
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    path_file = Path(folder.stdout.strip()) / "installed_torch.pth"
    path_file.write_text(torch.site + "\n", encoding="utf-8")
    if find_torch(python) != torch:
        raise SetupError(f"PyTorch {torch.version} in {torch.site} is not visible to {python}")


def torch_commands(python: str, options: Options, *, gpu: bool) -> list[list[str]]:
    """The pip commands that install PyTorch, in order.

    An index that the user named is the only one asked. Our CPU index is an extra one: its ``+cpu``
    wheel wins over PyPI's of the same release because a local version sorts higher, and where it
    cannot be reached pip takes PyPI's. It is asked for this one package only, with a short timeout
    and one retry, so that a network that swallows packets costs half a minute.
    """
    install = [python, "-m", "pip", "install"]
    wanted = f"torch=={options.torch_version}"
    if options.torch_index:
        return [[*install, "--index-url", options.torch_index, wanted]]
    if gpu:
        return [[*install, wanted]]
    hurry = ["--timeout", "15", "--retries", "1", "--no-deps", "--extra-index-url", CPU_INDEX]
    return [[*install, *hurry, wanted], [*install, "--quiet", wanted]]


def install_torch(python: str, options: Options) -> Torch:
    """Install PyTorch into the environment of ``python`` where it has none; what is there now."""
    present = find_torch(python)
    if present is not None:
        say(f"keeping PyTorch {present.version} in {present.site}")
        return present
    gpu = has_gpu()
    say(f"installing PyTorch {options.torch_version}, {'CUDA' if gpu else 'CPU'} wheel")
    *first, last = torch_commands(python, options, gpu=gpu)
    for command in first:
        # Not fatal: the short timeout may have cut a slow download, and the last command asks for
        # the same with pip's own settings.
        works(command, show=True)
    run(last, what="installing PyTorch")
    installed = find_torch(python)
    if installed is None:
        raise SetupError(f"pip reported success, but {python} cannot import torch")
    return installed


def install_project(python: str, options: Options, torch: Torch) -> None:
    """Install megagrow and its dependencies, with PyTorch held at the version that is there."""
    constraints = options.venv / "constraints.txt"
    constraints.write_text(f"torch=={torch.version}\n", encoding="utf-8")
    target = f"{ROOT}[{options.extras}]" if options.extras else str(ROOT)
    command = [python, "-m", "pip", "install", "--quiet", "--timeout", "30", "--retries", "2"]
    command += ["--constraint", str(constraints), "--editable", target]
    run(command, what="installing megagrow and its dependencies")
    now = find_torch(python)
    if now != torch:
        raise SetupError(f"PyTorch changed during installation: {torch} became {now}")
    check = [python, "-W", "ignore", "-c", "import megagrow, megatron.core"]
    run(check, what="importing megagrow and megatron-core")
    say_kernels(python)


def say_kernels(python: str) -> None:
    """Say which kernels of csrc were built for ``python``: pip hides a build that was left out."""
    ask = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    folder = ROOT / "megagrow" / "kernels"
    for kind, need in (("CPU", "a C++ compiler and Python's headers"), ("CUDA", "nvcc")):
        built = (folder / f"_{kind.lower()}{answer.stdout.strip()}").exists()
        say(f"{kind} kernels: " + ("built" if built else f"not built, torch copies; needs {need}"))


def set_up(options: Options) -> None:
    """Make the environment as the module's docstring says.

    Raises:
        SetupError: a step failed; what is already installed is kept for the next try.
    """
    check_interpreter()
    torch = None if options.ignore_installed_torch else find_torch(sys.executable)
    if torch is not None:
        check_torch_version(torch)
    python = make_venv(options.venv, system_packages=torch is not None)
    if torch is not None and find_torch(python) is None:
        share_torch(python, torch)
    installed = install_torch(python, options)
    check_torch_version(installed)
    install_project(python, options, installed)


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder to make")
    parser.add_argument("--extras", default="dev", help="extras to install, comma-separated")
    parser.add_argument("--torch-version", default=TORCH_VERSION, help="release to install")
    parser.add_argument("--torch-index", default="", help="package index to take PyTorch from")
    parser.add_argument(
        "--ignore-installed-torch", action="store_true", help="install PyTorch in any case"
    )
    given = parser.parse_args(arguments)
    return Options(
        venv=Path(os.path.abspath(given.venv)),
        extras=given.extras,
        torch_version=given.torch_version,
        torch_index=given.torch_index,
        ignore_installed_torch=given.ignore_installed_torch,
    )


def main() -> int:
    """Entry point: 0 when the environment is ready, 1 with a message when it is not."""
    started = time.monotonic()
    options = parse()
    try:
        set_up(options)
    except SetupError as error:
        print(f"setup: error: {error}", file=sys.stderr)
        return 1
    say(f"ready in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
