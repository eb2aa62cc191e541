"""Ratios, targets, and how a benchmark ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import _harness
from benchmarks._harness import Ratio, finish, ratio


def test_ratio_is_the_median_and_the_quartiles_of_the_rounds() -> None:
    found = ratio([1.0, 5.0, 2.0, 3.0, 4.0])
    assert (found.low, found.value, found.high) == (2.0, 3.0, 4.0)
    assert ratio([2.0]) == Ratio(value=2.0, low=2.0, high=2.0)


@pytest.mark.parametrize(
    ("value", "at_least", "at_most", "ok"),
    [
        (0.97, 0.97, None, True),
        (0.96, 0.97, None, False),
        (1.02, None, 1.02, True),
        (1.03, None, 1.02, False),
        (0.1, None, None, True),
    ],
)
def test_target(value: float, at_least: float | None, at_most: float | None, ok: bool) -> None:
    assert ratio([value], at_least=at_least, at_most=at_most).ok is ok


@pytest.mark.parametrize(("value", "code"), [(0.98, 0), (0.9, 1)])
def test_finish_ends_with_one_json_object_and_says_by_its_code_whether_targets_hold(
    value: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios = {"speed": ratio([value], at_least=0.97), "other": ratio([0.1])}
    assert finish("name", ratios, {"rounds": 1}, save="") == code
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["ok"] is (code == 0)
    assert document["ratios"] == {"speed": value, "other": 0.1}
    assert document["targets"] == {"speed": ">= 0.97"}
    assert document["rounds"] == 1
    assert document["hardware"]["cores"] >= 1
    assert document["commit"]


def test_finish_keeps_the_result_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_harness, "RESULTS", tmp_path)
    finish("name", {}, {}, save="kept")
    assert json.loads((tmp_path / "kept.json").read_text()) == json.loads(capsys.readouterr().out)
