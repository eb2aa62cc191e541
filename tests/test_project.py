"""The project's own rules: style budget, pure rooms, make, packaging, container, documentation."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import megagrow

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "megagrow").rglob("*.py"))
BIN = Path(sys.executable).parent

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80
PURE_ROOMS = [
    "megagrow.config",
    "megagrow.model.shape",
    "megagrow.growth.plan",
    "megagrow.pipeline.balancing.balance",
    "megagrow.curriculum",
    "megagrow.plan",
]

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in the project's root, with `environment` added to ours."""
    # Our own make may be running this test: its flags and variables must not reach an inner one.
    make = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "GNUMAKEFLAGS")
    ours = {name: value for name, value in os.environ.items() if name not in make}
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**ours, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def definitions(
    tree: ast.Module | Definition, *, public: bool = True
) -> Iterator[tuple[Definition, bool]]:
    """Every function and class that is not inside a function, and whether it is public."""
    for node in tree.body:
        if isinstance(node, Definition):
            is_public = public and (not node.name.startswith("_"))
            yield node, is_public
            if isinstance(node, ast.ClassDef):
                yield from definitions(node, public=is_public)


def is_overload(node: Definition) -> bool:
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def style_faults(source: str) -> list[str]:
    """What a file of the package breaks of the style budget."""
    tree = ast.parse(source)
    lines = source.count("\n")
    faults = [f"{lines} lines, at most {MAX_FILE_LINES}"] if lines > MAX_FILE_LINES else []
    if source.strip() and ast.get_docstring(tree) is None:
        faults.append("no module docstring")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                faults.append(f"{node.name}: {length} lines, at most {MAX_FUNCTION_LINES}")
    for node, public in definitions(tree):
        if public and ast.get_docstring(node) is None and not is_overload(node):
            faults.append(f"{node.name}: no docstring")
    return faults


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_style_budget(path: Path) -> None:
    assert not style_faults(path.read_text(encoding="utf-8"))


def test_style_budget_notices() -> None:
    long_function = "def f():\n    '''Do.'''\n" + "    x = 1\n" * 80
    source = long_function + "class A:\n    def b(self): ...\n    def _c(self): ...\n" + "\n" * 600
    assert style_faults(source) == [
        "685 lines, at most 600",
        "no module docstring",
        "f: 82 lines, at most 80",
        "A: no docstring",
        "b: no docstring",
    ]


@pytest.mark.parametrize("module", PURE_ROOMS)
def test_pure_room_needs_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "print(*sorted({'torch', 'megatron', 'transformers'} & set(sys.modules)))"
    )
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "", f"{module} imports {result.stdout.strip()}"


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_version_is_semantic() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?(dev|rc)\d+)?", megagrow.__version__)


def test_package_is_marked_typed(pyproject: dict[str, Any]) -> None:
    assert (ROOT / "megagrow" / "py.typed").exists()
    assert "py.typed" in pyproject["tool"]["setuptools"]["package-data"]["megagrow"]


def test_supported_pythons_agree(pyproject: dict[str, Any]) -> None:
    from tools import setup_environment

    first, beyond = setup_environment.SUPPORTED
    wanted = f">={first[0]}.{first[1]},<{beyond[0]}.{beyond[1]}"
    assert pyproject["project"]["requires-python"] == wanted
    assert pyproject["tool"]["ruff"]["target-version"] == f"py{first[0]}{first[1]}"


def test_make_alone_is_help_and_names_every_target() -> None:
    result = run("make")
    assert result.returncode == 0, result.stderr
    promised = ["setup", "quickstart", "compare", "test", "check", "bench", "cuda", "docs", "clean"]
    listed = re.findall(r"^  make ([a-z-]+) +\S", result.stdout, flags=re.MULTILINE)
    assert set(promised) <= set(listed)


@pytest.mark.parametrize("target", ["test", "check", "quickstart", "bench", "docs"])
def test_targets_set_up_first(target: str, tmp_path: Path) -> None:
    result = run("make", "-n", target, f"VENV={tmp_path}/venv", "PYTHON=python3")
    assert result.returncode == 0, result.stderr
    first = result.stdout.splitlines()[0]
    assert first.startswith("python3 tools/setup_environment.py")


def test_gate_runs_checks_then_ends_with_the_tests() -> None:
    gate = ROOT / ".ci" / "run"
    assert os.access(gate, os.X_OK)
    commands = re.findall(r"^(?:step|exec) (make \w+)", gate.read_text(), flags=re.MULTILINE)
    assert commands[-1] == "make test"
    assert "make check" in commands[:-1]
    assert gate.read_text().rstrip().endswith("exec make test")


def test_gate_stops_at_a_failure(tmp_path: Path) -> None:
    """The gate, with a make that fails at `check`: the failure is the gate's, no test is run."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    log = tmp_path / "log"
    fake = tmp_path / "bin" / "make"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" != check ]\n')
    fake.chmod(0o755)
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    result = run("bash", tmp_path / ".ci" / "run", PATH=path)
    assert result.returncode == 1
    assert log.read_text().split() == ["setup", "check"]


def test_container_base_is_pinned_and_installs_by_make() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert re.search(r"^ARG NGC_TAG=\d\d\.\d\d-py3$", code, flags=re.MULTILINE)
    assert re.findall(r"^FROM (.+)$", code, flags=re.MULTILINE) == [
        "nvcr.io/nvidia/pytorch:${NGC_TAG}"
    ]
    assert "RUN make setup" in code
    assert not re.search(r"\b(pip|pip3|conda|apt-get) install\b", code), "install through make"
    users = re.findall(r"^USER (\S+)", code, flags=re.MULTILINE)
    assert users
    assert users[-1].split(":")[0] not in {"root", "0"}


def test_container_receives_every_file_it_copies() -> None:
    """What the Dockerfile copies by name must not be held back by .dockerignore."""
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")
    }
    copies = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    names = {name.split("/")[0] for line in copies for name in line.split()} - {"."}
    assert names
    assert names <= allowed
    assert {"pretrain_grow.py", "megagrow", "examples", "tools"} <= allowed


@pytest.mark.parametrize(
    ("tool", "files"),
    [
        ("hadolint", ["Dockerfile"]),
        ("shellcheck", [".ci/run", "examples/slurm/pretrain.sbatch"]),
    ],
)
def test_linter_is_content(tool: str, files: list[str]) -> None:
    program = BIN / tool
    if not program.exists():
        pytest.skip(f"{tool} is not installed: make setup EXTRAS=dev")
    result = run(program, *files)
    assert result.returncode == 0, result.stdout


def test_hooks_are_local_and_their_programs_come_with_setup() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    assert {"ruff", "ruff-format", "mypy", "large-files", "yaml"} <= {hook["id"] for hook in hooks}
    for hook in hooks:
        program = Path(hook["entry"].split()[0])
        assert program.parent == Path(".venv/bin")
        assert (BIN / program.name).exists(), f"{program.name}: add its package to the dev extra"


def test_license_is_the_one_declared(pyproject: dict[str, Any]) -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert pyproject["project"]["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_changelog_has_one_unreleased_section_on_top() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert titles[0] == "Unreleased"
    assert titles.count("Unreleased") == 1


def test_documents_name_files_that_exist() -> None:
    """Relative links of the Markdown files at the root lead somewhere."""
    for document in ROOT.glob("*.md"):
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
        missing = [link for link in links if not (ROOT / link).exists()]
        assert not missing, f"{document.name} links to {missing}"


def test_documentation_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the dev extra is not installed")
    options = ("-W", "--keep-going", "-q", "-d", tmp_path / "cache")
    result = run(sys.executable, "-m", "sphinx", *options, "docs", tmp_path / "html")
    assert result.returncode == 0, result.stderr
    front = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or f'href="{page.stem}.html"' in front, f"{page} is not linked"
