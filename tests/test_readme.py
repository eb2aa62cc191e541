"""What README.md tells people to type works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bucketing import inputs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split(" #")[0].strip() for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.endswith("--plan")] or ["none"])
def test_plans(command: str) -> None:
    _python(command)


def test_data_of_your_own(tmp_path: Path) -> None:
    inputs.write_shards(tmp_path / "shards")
    inputs.tokenizer(tmp_path)
    (block,) = [block for block in BLOCKS if "tools/bucket_by_difficulty.py" in block]
    for command in block.replace("\\\n", " ").splitlines():
        if "python" in command:
            _python(command, tmp_path)
    assert (tmp_path / "data" / "mine" / "high-school.idx").is_file()


def test_commands_that_take_long_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert {"quickstart", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_tree_is_the_tree() -> None:
    rooms = re.findall(r"^  (\w+)/ ", README, re.MULTILINE)
    assert rooms
    for room in rooms:
        assert (ROOT / "megagrow" / room / "__init__.py").is_file(), room


def _python(command: str, folder: Path = ROOT) -> None:
    words = shlex.split(command)
    while not words[0].endswith("python"):
        words = words[1:]
    done = subprocess.run(
        [sys.executable, str(ROOT / words[1]), *words[2:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
