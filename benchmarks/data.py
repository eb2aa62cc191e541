"""What data preparation costs: MB of text a second and memory, against the tools in use.

    python benchmarks/data.py [--input FILE ...] [--tokenizer PATH] [--rounds N] [--quick]

- ours: `tools/bucket_by_difficulty.py` with frozen thresholds: three levels by surprisal, from the
  shards to the manifest. `steady` is the second and later pass of one long-lived worker.
- megatron: the path of Megatron-LM's `preprocess_data.py`, on the first documents.
- datatrove: its reader and `MegatronDocumentTokenizer`, on the same documents.
- megatron-fast: the path of Megatron-LM's `preprocess_data_fast.py`, on everything.
- encode_files: gigatoken reads and encodes, and writes nothing. The bound.

Each runs in a fresh process on one core; they take turns, in an order that is reversed every
round. A ratio is taken in every round; the result is the median over the rounds. That all make the
same documents is checked first. More is measured: two workers, memory with three times the text,
the scorer's share, and the writing of an index. The last line is one JSON object; the exit code is
0 if every target is met.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _data_checks as checks
from _data_corpus import TIMES_LARGER, Corpus, Size, prepare
from _data_process import Outcome, run
from _harness import Ratio, finish, print_ratios, print_table, ratio

from megagrow.errors import DataError

FULL = Size(shard_bytes=41_000_000, vocabulary=32_768, part=1_500)
QUICK = Size(shard_bytes=600_000, vocabulary=2_048, part=60)

AT_LEAST = {
    "megatron/speed": 25.0,
    "datatrove/speed": 20.0,
    "megatron-fast/speed": 1.5,
    "encode_files/speed of steady": 0.6,
    "workers/two over one": 1.8,
    "index/speed": 8.0,
}
"""Least speed of ours over theirs."""

AT_MOST = {
    "memory/of 400 MB": 1.0,
    f"memory/{TIMES_LARGER}x text, of 400 MB": 1.0,
    "scorer/share of steady": 0.15,
    "index/other bytes": 0.0,
}
"""Most of a share, or of what must not be."""

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

    wall: list[float] = field(default_factory=list)
    """Of each round's whole process."""

    peaks: list[int] = field(default_factory=list)
    """Peak resident bytes of each round's process."""

    @property
    def rates(self) -> list[float]:
        """MB of text a second, by round."""
        return [self.text_bytes / each / 1e6 for each in self.seconds]

    def note(self, outcome: Outcome, seconds: float) -> None:
        """Adds a round."""
        self.seconds.append(seconds)
        self.wall.append(outcome.wall)
        self.peaks.append(int(outcome.result.get("peak_bytes", outcome.peak_bytes)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    options = _options(arguments)
    size = QUICK if options.quick else FULL
    rounds = options.rounds or (1 if options.quick else 5)
    try:
        corpus = prepare(options.input, options.tokenizer, size)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="megagrow-bench-") as name:
        work = _begin(corpus, Path(name))
        wrong = _check(work, Path(name) / "check")
        measured = _Measured(work, Path(name))
        for number in range(rounds):
            measured.round(reverse=number % 2 == 1)
        measured.once(documents=20_000 if options.quick else 1_000_000, rounds=rounds)
    for each in wrong:
        print(f"NOT THE SAME: {each}")
    ratios = measured.ratios()
    if not options.quick:
        ratios = {name: _with_target(name, each) for name, each in ratios.items()}
    ratios["check/contenders with other documents"] = ratio([float(len(wrong))], at_most=0)
    measured.print()
    print_ratios(ratios)
    details = {
        "unit": "MB/s of text of ours over theirs, unless it says otherwise",
        "measured": measured.summary(),
        "wrong": wrong,
        "rounds": rounds,
        "corpus": _describe(corpus, options.input),
        "engine": work.facts["engine"],
        "versions": {
            name: version(name)
            for name in ("gigatoken", "tokenizers", "transformers", "datatrove", "numpy", "orjson")
        },
    }
    return finish("data", ratios, details, options.save)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Speed and memory of data preparation.",
        epilog="Without --input, text is made of the installed packages' documentation; that, and "
        "the forms in which the contenders take the input, is kept in data/benchmark.",
    )
    parser.add_argument(
        "--input", nargs="+", default=[], metavar="INPUT", help="JSON Lines, plain or compressed"
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="PATH",
        help="tokenizer.json, or GPT-2's two files, or their folder (default: one is trained)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="rounds (default: 5)")
    parser.add_argument(
        "--quick", action="store_true", help="one round over little text, no targets: does it run?"
    )
    parser.add_argument("--save", default="", metavar="NAME", help="keep it in benchmarks/results")
    return parser.parse_args(arguments)


def _begin(corpus: Corpus, folder: Path) -> Work:
    work = Work(
        corpus=corpus,
        frozen=folder / "frozen",
        facts={},
        cores=tuple(sorted(os.sched_getaffinity(0))),
    )
    done = work.one("_data_ours:fit", {"inputs": corpus.shards, "folder": str(work.frozen)})
    return replace(work, facts=done.result)


def _check(work: Work, folder: Path) -> list[str]:
    """Runs every contender that writes; says where documents differ."""
    corpus = work.corpus
    folder.mkdir()
    ours = folder / "ours"
    buckets = work.one(
        "_data_ours:cold", {"inputs": corpus.shards, "folder": str(ours)}
    ).result["buckets"]
    single = work.one(
        "_data_ours:single", {"inputs": [corpus.part], "folder": str(folder / "single")}
    ).result["prefix"]
    work.one("_data_peers:preprocess", {"input": corpus.part, "prefix": str(folder / "megatron")})
    datatrove = work.one("_data_peers:datatrove", _datatrove(work, folder)).result["prefix"]
    fast = work.one("_data_peers:preprocess_fast", _fast(work, folder)).result["prefixes"]
    part = checks.first_rows(ours, buckets, corpus.part_documents)
    compared = {
        "megatron": checks.difference(part, checks.multiset([folder / "megatron"])),
        "datatrove": checks.difference(part, checks.multiset([datatrove])),
        "megatron-fast": checks.difference(
            checks.multiset([ours / name for name in buckets]), checks.multiset(fast)
        ),
    }
    wrong = [f"{name}: {found}" for name, found in compared.items() if found]
    if not checks.same_bytes(single, folder / "megatron"):
        wrong.append("megatron: other bytes than one bucket of ours")
    shutil.rmtree(folder)
    return wrong


def _datatrove(work: Work, folder: Path) -> dict[str, Any]:
    return {
        "input": work.corpus.part_zst,
        "folder": str(folder / "datatrove"),
        "end": work.facts["end"],
    }


def _fast(work: Work, folder: Path) -> dict[str, Any]:
    (folder / "fast").mkdir(exist_ok=True)
    return {
        "inputs": work.corpus.shards,
        "eod": work.facts["eod"],
        "folder": str(folder / "fast"),
    }


class _Measured:
    """Runs rounds and keeps what they gave."""

    def __init__(self, work: Work, folder: Path) -> None:
        self._work, self._folder = work, folder
        whole, part = work.corpus.text_bytes, work.corpus.part_bytes
        self._figures = {
            "ours": Figures(text_bytes=whole),
            "ours, steady": Figures(text_bytes=whole),
            "megatron": Figures(text_bytes=part),
            "datatrove": Figures(text_bytes=part),
            "megatron-fast": Figures(text_bytes=whole),
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
            self._ours, self._megatron, self._fast, self._bound, self._steady, self._datatrove,
            self._scale,
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
        self._large.note(large, large.result["seconds"])
        shutil.rmtree(folder / "large")
        self._index = self._work.one(
            "_data_checks:index", {"documents": documents, "rounds": rounds, "folder": str(folder)}
        ).result

    def _ours(self, folder: Path) -> None:
        argument = {"inputs": self._work.corpus.shards, "folder": str(folder / "ours")}
        done = self._work.one("_data_ours:cold", argument)
        self._figures["ours"].note(done, done.result["seconds"])

    def _steady(self, folder: Path) -> None:
        argument = {
            "inputs": self._work.corpus.shards,
            "folder": str(folder),
            "passes": WARM_PASSES,
        }
        done = self._work.one("_data_ours:steady", argument)
        self._figures["ours, steady"].note(done, statistics.median(done.result["seconds"]))
        self._scoring.append(sum(done.result["scoring"]) / sum(done.result["seconds"]))

    def _megatron(self, folder: Path) -> None:
        argument = {"input": self._work.corpus.part, "prefix": str(folder / "megatron")}
        done = self._work.one("_data_peers:preprocess", argument)
        self._figures["megatron"].note(done, done.result["seconds"])

    def _datatrove(self, folder: Path) -> None:
        done = self._work.one("_data_peers:datatrove", _datatrove(self._work, folder))
        self._figures["datatrove"].note(done, done.result["seconds"])

    def _fast(self, folder: Path) -> None:
        done = self._work.one("_data_peers:preprocess_fast", _fast(self._work, folder))
        self._figures["megatron-fast"].note(done, done.result["seconds"])

    def _bound(self, folder: Path) -> None:
        argument = {"inputs": self._work.corpus.shards, "passes": WARM_PASSES}
        done = self._work.one("_data_peers:encode_files", argument)
        found = done.result
        self._figures["encode_files, cold"].note(done, found["load"] + found["cold"])
        self._figures["encode_files, warm"].note(done, statistics.median(found["warm"]))

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

    def ratios(self) -> dict[str, Ratio]:
        """Ours over theirs, without targets."""
        rates = {name: each.rates for name, each in self._figures.items()}
        peak = {name: max(each.peaks) for name, each in self._figures.items()}
        large = max(self._large.peaks)
        found = {
            "megatron/speed": _over(rates["ours"], rates["megatron"]),
            "datatrove/speed": _over(rates["ours"], rates["datatrove"]),
            "megatron-fast/speed": _over(rates["ours"], rates["megatron-fast"]),
            "megatron-fast/memory": [peak["ours"] / peak["megatron-fast"]],
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
                    f"{each['wall_seconds']:,.1f}",
                    f"{each['text_mb_per_second']:,.2f}",
                    f"{spread[0]:,.2f} to {spread[1]:,.2f}",
                    f"{each['peak_mb']:,.0f}",
                )
            )
        head = ("contender", "MB of text", "seconds", "wall s", "MB/s", "quartiles", "peak MB")
        print_table("One core, one fresh process each; seconds after imports", head, rows)

    def summary(self) -> dict[str, Any]:
        """Figures to keep."""
        found: dict[str, Any] = {}
        for name, each in (*self._figures.items(), (f"ours, {TIMES_LARGER}x text", self._large)):
            rates = ratio(each.rates)
            found[name] = {
                "text_mb": round(each.text_bytes / 1e6, 3),
                "seconds": round(statistics.median(each.seconds), 4),
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


def _over(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def _with_target(name: str, found: Ratio) -> Ratio:
    return replace(found, at_least=AT_LEAST.get(name), at_most=AT_MOST.get(name))


def _describe(corpus: Corpus, inputs: Sequence[str]) -> dict[str, Any]:
    return {
        "text": "given" if inputs else "made of installed packages' documentation",
        "shards": len(corpus.shards),
        "documents": corpus.documents,
        "text_mb": round(corpus.text_bytes / 1e6, 1),
        "part_documents": corpus.part_documents,
        "part_mb": round(corpus.part_bytes / 1e6, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
