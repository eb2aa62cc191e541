from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tools import setup_environment as setup
from tools.setup_environment import Options, SetupError, Torch

NGC = "2.12.0a0+1f2e3d4.nv26.5"


def options(tmp_path: Path, *, torch_index: str = "") -> Options:
    return Options(
        venv=tmp_path / "venv",
        extras="",
        torch_version="2.13.0",
        torch_index=torch_index,
        ignore_installed_torch=False,
    )


def write_torch(folder: Path, version: str, code: str = "") -> None:
    """A distribution named torch in `folder`, as pip and import see it."""
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text(code)
    info = folder / f"torch-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    files = ["torch/__init__.py", f"{info.name}/METADATA", f"{info.name}/RECORD"]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if requires:
        metadata += f"Requires-Dist: {requires}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")


def packages(prefix: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(prefix), "platbase": str(prefix)}))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The interpreter of a new environment without pip, torch or anything else."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "PYTHON"))]:
        monkeypatch.delenv(name)
    venv.create(tmp_path / "bare", with_pip=False)
    return str(tmp_path / "bare" / "bin" / "python")


def test_find_torch_none_present_broken(bare: str, tmp_path: Path) -> None:
    assert setup.find_torch(bare) is None
    site = packages(tmp_path / "bare")
    write_torch(site, NGC, code="print('a warning on import')")
    assert setup.find_torch(bare) == Torch(NGC, str(site))
    (site / "torch" / "__init__.py").write_text("import libcuda_is_elsewhere")
    with pytest.raises(SetupError, match=r"does not import.*libcuda_is_elsewhere"):
        setup.find_torch(bare)


def pip(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_constraint_keeps_a_prerelease_that_images_carry(bare: str, tmp_path: Path) -> None:
    """pip takes an image's `2.12.0a0+...` for `torch>=2.6` and never replaces it."""
    write_torch(packages(tmp_path / "bare"), NGC)
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "torch", "2.13.0")
    write_wheel(wheels, "content", "1.0", requires="torch>=2.6.0")
    write_wheel(wheels, "greedy", "1.0", requires="torch>=2.13")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(f"torch=={NGC}\n")
    held = ["--constraint", str(constraints), "--find-links", str(wheels)]

    result = pip(bare, *held, "content", "torch>=2.6")
    assert result.returncode == 0, result.stderr
    result = pip(bare, *held, "--upgrade", "--upgrade-strategy", "eager", "content")
    assert result.returncode == 0, result.stderr
    found = setup.find_torch(bare)
    assert found is not None
    assert found.version == NGC

    assert pip(bare, *held, "greedy").returncode != 0
    assert setup.find_torch(bare) == found
    # Without the constraint the same request replaces it: the test can fail.
    assert pip(bare, "--find-links", str(wheels), "greedy").returncode == 0
    assert setup.find_torch(bare) != found


def test_torch_of_an_active_environment_is_shared(bare: str, tmp_path: Path) -> None:
    """--system-site-packages does not reach a parent environment; share_torch does."""
    parent = tmp_path / "parent" / "site"
    write_torch(parent, NGC)
    torch = Torch(NGC, str(parent))
    assert setup.find_torch(bare) is None
    setup.share_torch(bare, torch)
    assert setup.find_torch(bare) == torch
    with pytest.raises(SetupError, match="not visible"):
        setup.share_torch(bare, Torch("2.9.0", str(parent)))


def test_make_venv_keeps_a_working_one_and_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", sys._base_executable)  # type: ignore[attr-defined]
    folder = tmp_path / "venv"
    python = setup.make_venv(folder, system_packages=False)
    mark = folder / "mark"
    mark.touch()
    assert setup.make_venv(folder, system_packages=False) == python
    assert mark.exists()
    # One whose interpreter is gone is made anew; a folder that is no environment is left alone.
    Path(python).unlink()
    setup.make_venv(folder, system_packages=True)
    assert not mark.exists()
    assert "include-system-site-packages = true" in (folder / "pyvenv.cfg").read_text()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter").touch()
    with pytest.raises(SetupError, match="not a virtual environment"):
        setup.make_venv(other, system_packages=False)
    assert (other / "chapter").exists()


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1+cu121", "nonsense"])
def test_old_torch_is_refused(version: str) -> None:
    with pytest.raises(SetupError, match=r"older than 2\.6"):
        setup.check_torch_version(Torch(version, "/site"))


@pytest.mark.parametrize("version", ["2.6.0", "2.13.0+cpu", NGC, "3.0"])
def test_new_torch_is_accepted(version: str) -> None:
    setup.check_torch_version(Torch(version, "/site"))


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 13, 0), (2, 7, 18)])
def test_unsupported_interpreter_is_named(
    version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SetupError, match=r"Python 3\.10 to 3\.12, but .* is \d\.\d+\.\d+"):
        setup.check_interpreter()


def test_torch_source_follows_the_machine(tmp_path: Path) -> None:
    install = ["python", "-m", "pip", "install"]
    cpu = setup.torch_commands("python", options(tmp_path), gpu=False)
    assert [setup.CPU_INDEX in command for command in cpu] == [True, False]
    assert "--timeout" in cpu[0]
    gpu = setup.torch_commands("python", options(tmp_path), gpu=True)
    assert gpu == [[*install, "torch==2.13.0"]]
    own = options(tmp_path, torch_index="https://own")
    for has_gpu in (False, True):
        named = setup.torch_commands("python", own, gpu=has_gpu)
        assert named == [[*install, "--index-url", "https://own", "torch==2.13.0"]]


def test_mistake_is_one_line_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    script = Path(setup.__file__)
    command = [sys.executable, str(script), "--venv", str(tmp_path), "--ignore-installed-torch"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "setup: error:" in result.stderr
    assert "Traceback" not in result.stderr
