"""The rounds of the data benchmark: who runs when, and what is kept of it."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _data_corpus import TIMES_LARGER, Corpus
from _data_process import Outcome, run
from _harness import Ratio, print_table, ratio

MEMORY_BYTES = 400e6
"""Most that a worker may have resident."""

WARM_PASSES = 3
"""Timed passes over the input in a process whose caches are full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is measured, and where."""

    corpus: Corpus
    """The text."""

    frozen: Path
    """Output folder of a job that froze scorer and thresholds of this text."""

    facts: Mapping[str, Any]
    """End-of-document text and id, and the engine."""

    cores: tuple[int, ...]
    """Cores that may be used; all but the two-worker runs have the last one."""

    def one(self, function: str, argument: Mapping[str, Any]) -> Outcome:
        """Calls a function of a contender in a process on one core."""
        shared = {"tokenizer": self.corpus.tokenizer, "frozen": str(self.frozen)}
        return run(function, {**shared, **argument}, self.cores[-1:])


@dataclass(slots=True)
class Figures:
    """What was seen of one contender."""

    text_bytes: int
    """UTF-8 bytes of the text of one pass."""

    seconds: list[float] = field(default_factory=list)
    """Of each round, after imports."""

    cpu: list[float] = field(default_factory=list)
    """Processor time of the same."""

    wall: list[float] = field(default_factory=list)
    """Of each round's whole process."""

    peaks: list[int] = field(default_factory=list)
    """Peak resident bytes of each round's process."""

    @property
    def rates(self) -> list[float]:
        """MB of text a second, by round."""
        return [self.text_bytes / each / 1e6 for each in self.seconds]

    def note(
        self, outcome: Outcome, seconds: float | None = None, cpu: float | None = None
    ) -> None:
        """Adds a round; its times are those that the process returned, if not given."""
        self.seconds.append(outcome.result["seconds"] if seconds is None else seconds)
        self.cpu.append(outcome.result["cpu"] if cpu is None else cpu)
        self.wall.append(outcome.wall)
        self.peaks.append(int(outcome.result.get("peak_bytes", outcome.peak_bytes)))


class Measured:
    """Runs rounds and keeps what they gave."""

    def __init__(self, work: Work, folder: Path) -> None:
        self._work, self._folder = work, folder
        whole, part = work.corpus.text_bytes, work.corpus.part_bytes
        self._figures = {
            "ours": Figures(text_bytes=whole),
            "ours, steady": Figures(text_bytes=whole),
            "megatron": Figures(text_bytes=part),
            "datatrove": Figures(text_bytes=part),
            "megatron-fast, joined": Figures(text_bytes=whole),
            "megatron-fast, by shard": Figures(text_bytes=whole),
            "encode_files, cold": Figures(text_bytes=whole),
            "encode_files, warm": Figures(text_bytes=whole),
        }
        self._scoring: list[float] = []
        self._workers: dict[str, list[float]] = {}
        self._index: dict[str, Any] = {}
        self._large = Figures(text_bytes=work.corpus.large_bytes)

    def round(self, *, reverse: bool) -> None:
        """Every contender once."""
        turns: list[Callable[[Path], None]] = [
            self._ours, self._fast, self._megatron, self._fast_by_shard, self._bound, self._steady,
            self._datatrove, self._scale,
        ]  # fmt: skip
        for turn in reversed(turns) if reverse else turns:
            folder = self._folder / "turn"
            folder.mkdir()
            turn(folder)
            shutil.rmtree(folder)

    def once(self, *, documents: int, rounds: int) -> None:
        """What does not depend on how busy the machine is, or takes its own turns."""
        folder = self._folder / "once"
        folder.mkdir()
        argument = {"inputs": self._work.corpus.large, "folder": str(folder / "large")}
        large = self._work.one("_data_ours:cold", argument)
        self._large.note(large)
        shutil.rmtree(folder / "large")
        self._index = self._work.one(
            "_data_checks:index", {"documents": documents, "rounds": rounds, "folder": str(folder)}
        ).result

    def _ours(self, folder: Path) -> None:
        argument = {"inputs": self._work.corpus.shards, "folder": str(folder / "ours")}
        done = self._work.one("_data_ours:cold", argument)
        self._figures["ours"].note(done)

    def _steady(self, folder: Path) -> None:
        argument = {
            "inputs": self._work.corpus.shards,
            "folder": str(folder),
            "passes": WARM_PASSES,
        }
        done = self._work.one("_data_ours:steady", argument)
        self._figures["ours, steady"].note(
            done, statistics.median(done.result["seconds"]), statistics.median(done.result["cpu"])
        )
        self._scoring.append(sum(done.result["scoring"]) / sum(done.result["seconds"]))

    def _megatron(self, folder: Path) -> None:
        argument = {"input": self._work.corpus.part, "prefix": str(folder / "megatron")}
        done = self._work.one("_data_peers:preprocess", argument)
        self._figures["megatron"].note(done)

    def _datatrove(self, folder: Path) -> None:
        done = self._work.one("_data_peers:datatrove", datatrove_argument(self._work, folder))
        self._figures["datatrove"].note(done)

    def _fast(self, folder: Path) -> None:
        argument = fast_argument(self._work, [self._work.corpus.joined], folder)
        done = self._work.one("_data_peers:preprocess_fast", argument)
        self._figures["megatron-fast, joined"].note(
            done, done.result["seconds"], done.result["cpu"]
        )

    def _fast_by_shard(self, folder: Path) -> None:
        argument = fast_argument(self._work, self._work.corpus.shards, folder)
        done = self._work.one("_data_peers:preprocess_fast", argument)
        self._figures["megatron-fast, by shard"].note(
            done, done.result["seconds"], done.result["cpu"]
        )

    def _bound(self, folder: Path) -> None:
        argument = {"inputs": self._work.corpus.shards, "passes": WARM_PASSES}
        done = self._work.one("_data_peers:encode_files", argument)
        found = done.result
        self._figures["encode_files, cold"].note(done, found["cold"], found["cold_cpu"])
        self._figures["encode_files, warm"].note(
            done, statistics.median(found["warm"]), statistics.median(found["warm_cpu"])
        )

    def _scale(self, folder: Path) -> None:
        if len(self._work.cores) < 2:
            return
        for workers in (1, 2):
            argument = {
                "inputs": self._work.corpus.cut,
                "folder": str(folder / str(workers)),
                "tokenizer": self._work.corpus.tokenizer,
                "frozen": str(self._work.frozen),
                "workers": workers,
            }
            done = run("_data_ours:scale", argument, self._work.cores[-workers:])
            for name in ("seconds", "files"):
                self._workers.setdefault(f"{name} {workers}", []).append(done.result[name])

    def _by_cpu_time(self) -> dict[str, list[float]]:
        """The same by processor time, which other programs disturb little."""
        pairs = {
            "megatron": ("ours", "megatron"),
            "datatrove": ("ours", "datatrove"),
            "megatron-fast": ("ours", "megatron-fast, joined"),
            "encode_files": ("ours, steady", "encode_files, warm"),
        }
        found = {}
        for name, (mine, other) in pairs.items():
            ours, theirs = self._figures[mine], self._figures[other]
            scale = ours.text_bytes / theirs.text_bytes
            found[f"{name}/by CPU time"] = [scale * each for each in _over(theirs.cpu, ours.cpu)]
        return found

    def ratios(self) -> dict[str, Ratio]:
        """Ours over theirs, without targets."""
        rates = {name: each.rates for name, each in self._figures.items()}
        peak = {name: max(each.peaks) for name, each in self._figures.items()}
        large = max(self._large.peaks)
        found = {
            "megatron/speed": _over(rates["ours"], rates["megatron"]),
            "datatrove/speed": _over(rates["ours"], rates["datatrove"]),
            "megatron-fast/speed": _over(rates["ours"], rates["megatron-fast, joined"]),
            "megatron-fast/speed, by shard": _over(rates["ours"], rates["megatron-fast, by shard"]),
            "megatron-fast/memory": [peak["ours"] / peak["megatron-fast, joined"]],
            "encode_files/speed of steady": _over(
                rates["ours, steady"], rates["encode_files, warm"]
            ),
            "encode_files/cold over warm": _over(rates["ours"], rates["encode_files, warm"]),
            "encode_files/cold over cold": _over(rates["ours"], rates["encode_files, cold"]),
        }
        if self._workers:
            one, two = self._workers["seconds 1"], self._workers["seconds 2"]
            found["workers/two over one"] = _over(one, two)
            found["workers/two over one, encode_files alone"] = _over(
                self._workers["files 1"], self._workers["files 2"]
            )
        found |= {
            **self._by_cpu_time(),
            "memory/of 400 MB": [peak["ours"] / MEMORY_BYTES],
            f"memory/{TIMES_LARGER}x text, of 400 MB": [large / MEMORY_BYTES],
            f"memory/{TIMES_LARGER}x text, growth": [large / peak["ours"]],
            "scorer/share of steady": self._scoring,
            "index/speed": _over(self._index["theirs"], self._index["ours"]),
            "index/other bytes": [0.0 if self._index["same"] else 1.0],
        }
        return {name: ratio(each) for name, each in found.items()}

    def print(self) -> None:
        """The contenders in a table."""
        rows = []
        for name, each in self.summary().items():
            if "text_mb_per_second" not in each:
                continue
            spread = each["spread"]
            rows.append(
                (
                    name,
                    f"{each['text_mb']:,.1f}",
                    f"{each['seconds']:,.2f}",
                    f"{each['cpu_seconds']:,.2f}",
                    f"{each['wall_seconds']:,.1f}",
                    f"{each['text_mb_per_second']:,.2f}",
                    f"{spread[0]:,.2f} to {spread[1]:,.2f}",
                    f"{each['peak_mb']:,.0f}",
                )
            )
        head = (
            "contender",
            "MB of text",
            "seconds",
            "CPU s",
            "wall s",
            "MB/s",
            "quartiles",
            "peak MB",
        )
        print_table("One core, one fresh process each; seconds after imports", head, rows)

    def summary(self) -> dict[str, Any]:
        """Figures to keep."""
        found: dict[str, Any] = {}
        for name, each in (*self._figures.items(), (f"ours, {TIMES_LARGER}x text", self._large)):
            rates = ratio(each.rates)
            found[name] = {
                "text_mb": round(each.text_bytes / 1e6, 3),
                "seconds": round(statistics.median(each.seconds), 4),
                "cpu_seconds": round(statistics.median(each.cpu), 4),
                "wall_seconds": round(statistics.median(each.wall), 3),
                "text_mb_per_second": round(rates.value, 3),
                "spread": [round(rates.low, 3), round(rates.high, 3)],
                "peak_mb": round(max(each.peaks) / 1e6, 1),
            }
        found["workers"] = {
            name: round(statistics.median(each), 4) for name, each in self._workers.items()
        }
        found["index"] = {
            name: round(statistics.median(self._index[name]), 5) for name in ("ours", "theirs")
        }
        return found


def datatrove_argument(work: Work, folder: Path) -> dict[str, Any]:
    """What datatrove is to do."""
    return {
        "input": work.corpus.part_zst,
        "folder": str(folder / "datatrove"),
        "end": work.facts["end"],
    }


def fast_argument(work: Work, inputs: Sequence[str], folder: Path) -> dict[str, Any]:
    """What the path of `preprocess_data_fast.py` is to do."""
    (folder / "fast").mkdir()
    return {
        "inputs": inputs,
        "eod": work.facts["eod"],
        "folder": str(folder / "fast"),
    }


def _over(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(numerators, denominators, strict=True)]
