"""What every benchmark needs: where it ran, how sure a ratio is, and how it ends."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """One compared quantity: ours over theirs."""

    value: float
    """Median over the rounds."""

    low: float
    """Lower quartile over the rounds."""

    high: float
    """Upper quartile over the rounds."""

    at_least: float | None = None
    """The target, where more is better."""

    at_most: float | None = None
    """The target, where less is better."""

    @property
    def ok(self) -> bool:
        """Whether it meets its target; True where it has none."""
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    @property
    def target(self) -> str:
        """The target as text."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"


def ratio(
    values: Sequence[float], *, at_least: float | None = None, at_most: float | None = None
) -> Ratio:
    """The median and quartiles of one ratio per round."""
    if len(values) < 2:
        low = high = values[0]
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    value = statistics.median(values)
    return Ratio(value=value, low=low, high=high, at_least=at_least, at_most=at_most)


def print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table; the first column left, the others right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(head):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=140, markup=False, highlight=False).print(table)


def print_ratios(ratios: Mapping[str, Ratio]) -> None:
    """Prints what was compared, with targets."""
    rows = [
        (
            name,
            f"{each.value:.3f}",
            f"{each.low:.3f} to {each.high:.3f}",
            each.target,
            ("yes" if each.ok else "NO") if each.target else "",
        )
        for name, each in ratios.items()
    ]
    print_table("Ratios", ("ours over theirs", "median", "quartiles", "target", "met"), rows)


def finish(name: str, ratios: Mapping[str, Ratio], details: Mapping[str, Any], save: str) -> int:
    """Prints the result as the last line, one JSON object; 0 if every target is met, else 1.

    Args:
        name: the benchmark.
        ratios: what was compared.
        details: more to keep with the result.
        save: name of a file to keep it in, under `benchmarks/results`; empty: none.
    """
    document = {
        "benchmark": name,
        "ok": all(each.ok for each in ratios.values()),
        "ratios": {key: round(each.value, 4) for key, each in ratios.items()},
        "targets": {key: each.target for key, each in ratios.items() if each.target},
        "spread": {key: [round(each.low, 4), round(each.high, 4)] for key, each in ratios.items()},
        **details,
        "hardware": hardware(),
        "software": software(),
        "commit": commit(),
    }
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{save}.json").write_text(json.dumps(document, indent=2) + "\n")
    sys.stdout.flush()
    print(json.dumps(document))
    return 0 if document["ok"] else 1


def hardware() -> dict[str, Any]:
    """The machine, and how busy it was."""
    import psutil
    import torch

    cuda = torch.cuda.is_available()
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": torch.cuda.device_count() if cuda else 0,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "load_average": round(os.getloadavg()[1], 1),
    }


def software() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for name in ("torch", "megatron-core", "transformer-engine"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that ran, with `-dirty` where files differ from it; `unknown` outside git."""
    try:
        text = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return text.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
