"""The report on disk: one whole HTML page that needs nothing else, PNGs, and the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from megagrow.errors import ConfigError
from megagrow.report.build import Report, write_report
from megagrow.report.profiles import layer_profiles
from megagrow.report.reader import read
from megagrow.train.metrics import MetricsWriter

ROOT = Path(__file__).parents[2]
VOID = {"meta", "br", "img", "link", "hr", "input", "area", "base", "col", "source", "wbr"}
ALL_PLOTS = {"loss_flops", "speedup", "loss_tokens", "eval", "mixture", "lr", "throughput"}


class Page(HTMLParser):
    """Checks the nesting, and gathers ids, references and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._look(attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._look(attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def _look(self, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "xlink:href", "src"):
                self.references.append(value or "")
            elif "url(" in (value or ""):
                self.references += re.findall(r"url\((.*?)\)", value or "")


@pytest.fixture(scope="module")
def report(grown_run: Path, scratch_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write_report([grown_run, scratch_run], output=tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    parser = Page()
    parser.feed(report.path.read_text(encoding="utf-8"))
    parser.close()
    return parser


def test_page_is_balanced_with_unique_ids(page: Page) -> None:
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_page_needs_nothing_outside(report: Report, page: Page) -> None:
    assert page.references
    assert {reference[0] for reference in page.references} == {"#"}
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert not {"script", "link", "img", "iframe"} & page.tags
    assert not re.search(r"https?:|@import", report.path.read_text(encoding="utf-8"))


def test_names_and_configuration_are_escaped(report: Report, page: Page) -> None:
    text = "".join(page.words)
    assert "grow <2-4-8> & co against scratch_8" in text
    assert '<b>bold & "quoted"</b>' in text
    assert "b" not in page.tags
    assert "<2-4-8>" not in report.path.read_text(encoding="utf-8")


def test_page_says_what_happened(page: Page) -> None:
    text = re.sub(r"\s+", " ", "".join(page.words))
    assert "reaches scratch_8's final" in text
    assert "mixtures differ along the way" in text
    assert "2 → 4 → 8 layers" in text
    assert "completed, resumed 1x" in text
    assert "megatron-core: 0.16.1" in text
    for row in ("150 2 → 4 stack reset 0.42s 8.96 MiB", "300 4 → 8 stack reset 0.42s"):
        assert row in re.sub(r"\s+", " ", " ".join(page.words))


def test_plots_are_there_and_show_something(report: Report, page: Page) -> None:
    assert {path.stem for path in report.plots} == ALL_PLOTS
    for path in report.plots:
        pixels = matplotlib.image.imread(path)[..., :3]
        assert pixels.shape[1] == 1600, path
        assert pixels.shape[0] >= 700, path
        coloured = np.ptp(pixels, axis=2) > 0.25
        assert coloured.mean() > 0.002, f"{path} shows no line"
    assert sum(tag == "svg" for tag in page.tags) == 1
    assert report.path.read_text().count("<svg") == len(ALL_PLOTS)


def test_layers_that_differ_are_drawn(synthetic: type[Any], tmp_path: Path) -> None:
    run = synthetic(folder=tmp_path / "run", grows=True, scaled=True)
    with MetricsWriter(run.folder, tensorboard=False) as writer:
        run.begin(writer, 0.0)
        run.write(writer, 0, 320, 5.0)
    report = write_report([run.folder])
    assert {path.stem for path in report.plots} >= {"layers"}
    stages = read(run.folder).stages
    assert [stage.layer_sizes["num_attention_heads"] for stage in stages] == [
        tuple(run.sizes(layers)["num_attention_heads"]) for layers in (2, 4, 8)
    ]
    figure = layer_profiles([read(run.folder)])
    assert figure is not None
    heads, widths = (axes.patches for axes in figure.axes)
    assert [len(patch.get_data().values) for patch in heads] == [2, 4, 8]
    assert widths[-1].get_data().values.tolist() == run.sizes(8)["ffn_hidden_size"]


def test_svg_ink_follows_the_page(report: Report) -> None:
    text = report.path.read_text()
    styles = text[: text.index("</style>")]
    assert "prefers-color-scheme: dark" in styles
    assert "#1b1f24" not in text[len(styles) :]
    assert "currentColor" in text


def test_same_input_gives_the_same_page(
    report: Report, grown_run: Path, scratch_run: Path, tmp_path: Path
) -> None:
    def without_date(path: Path) -> str:
        return re.sub(r"written [\d\- :]+", "", path.read_text())

    again = write_report([grown_run, scratch_run], output=tmp_path)
    assert without_date(again.path) == without_date(report.path)


def test_single_run_has_no_speedup_and_no_legend_of_runs(scratch_run: Path, tmp_path: Path) -> None:
    single = write_report([scratch_run], output=tmp_path)
    assert {path.stem for path in single.plots} == ALL_PLOTS - {"speedup"}
    assert "speedup" not in single.text.lower()


def test_odd_names_survive(grown_run: Path, tmp_path: Path) -> None:
    """Dollar signs are mathematics to matplotlib, a leading underscore hides a label."""
    runs = []
    for name in ("_$hidden$", "run $x$"):
        folder = tmp_path / name
        folder.mkdir()
        text = (grown_run / "metrics.jsonl").read_text().replace('"stories"', '"$\\\\frac{$"')
        (folder / "metrics.jsonl").write_text(text)
        runs.append(folder)
    assert "$hidden$" in write_report(runs, output=tmp_path / "out").text


def test_smallest_run(tmp_path: Path) -> None:
    """One step, nothing optional: the report of a run that has just begun."""
    step = {"event": "step", "step": 1, "stage": "s", "tokens": 10, "flops": 1e6, "time": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(step | {"loss": 3.0}) + "\n")
    assert "running or killed" in write_report([tmp_path]).text
    (tmp_path / "metrics.jsonl").write_text(json.dumps(step | {"loss": "NaN"}) + "\n")
    assert (tmp_path / "report" / "report.html").is_file()
    write_report([tmp_path])


def test_unusable_arguments(scratch_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run given"):
        write_report([])
    with pytest.raises(ConfigError, match="smoothing is a share"):
        write_report([scratch_run], smoothing=2.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the report"):
        write_report([scratch_run], output=tmp_path / "file")


def command(*arguments: str | Path, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "report.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
    )


def test_command_prints_a_table_and_the_path(scratch_run: Path) -> None:
    done = command(scratch_run)
    assert done.returncode == 0, done.stderr
    assert "Training compute" in done.stdout
    path = scratch_run / "report" / "report.html"
    assert done.stdout.rstrip().endswith(f"Report: {path}")
    assert path.is_file()
    assert (path.parent / "loss_flops.png").is_file()


def test_command_prints_on_a_terminal_without_unicode(grown_run: Path, tmp_path: Path) -> None:
    done = command(grown_run, "--output", tmp_path, encoding="ascii")
    assert done.returncode == 0, done.stderr
    assert "2 ? 4 ? 8 layers" in done.stdout


def test_command_fails_with_one_clear_line(scratch_run: Path) -> None:
    done = command(scratch_run.parent / "scratch_9")
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: no run folder .*; did you mean .*scratch_8\?\n", done.stderr)
