"""The progress line: formats, fit to the width, and time left by FLOPs."""

from __future__ import annotations

import io
import logging
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megagrow.train.progress import (
    Progress,
    ProgressLine,
    TimeLeft,
    format_progress,
)

AT = Progress(
    step=1200,
    total_steps=4000,
    stage="middle",
    layers=8,
    loss=3.41234,
    flops=3e15,
    total_flops=9e15,
    tokens_per_second=52_100,
    tflops_per_device=0.048,
    mfu=None,
)


def test_full_line() -> None:
    assert format_progress(AT, seconds_left=3780) == (
        "step 1,200/4,000 | middle | 8 layers | loss 3.4123 | 52.1K tokens/s"
        " | 48 GFLOP/s per device | 1h 03m left"
    )
    assert "MFU 41.3%" in format_progress(replace(AT, mfu=0.413), seconds_left=None)


def test_narrow_line_keeps_step_and_loss() -> None:
    assert format_progress(AT, seconds_left=60, width=48) == (
        "step 1,200/4,000 | loss 3.4123 | 1m 00s left"
    )
    assert format_progress(AT, seconds_left=60, width=32) == "step 1,200/4,000 | loss 3.4123"


@settings(deadline=None)  # a busy machine is no failure
@given(width=st.integers(1, 150), loss=st.floats(), stage=st.text(max_size=30))
def test_line_always_fits(width: int, loss: float, stage: str) -> None:
    line = format_progress(replace(AT, loss=loss, stage=stage), seconds_left=9.0, width=width)
    assert len(line) <= width


def test_time_left_follows_flops_not_steps() -> None:
    """A quarter of the steps done is less than a quarter of the work: later layers are dearer."""
    left = TimeLeft()
    for second in range(11):
        left.update(second, 1e12 * second)
    assert left.seconds(100e12) == pytest.approx(90.0)


def test_time_left_is_unknown_at_first_and_does_not_count_a_resumed_runs_past() -> None:
    left = TimeLeft()
    assert left.seconds(1.0) is None
    left.update(50.0, 80e12)
    assert left.seconds(100e12) is None
    left.update(52.0, 82e12)
    assert left.seconds(100e12) == pytest.approx(18.0)


def test_time_left_forgets_the_small_models_rate() -> None:
    left = TimeLeft(window=20.0)
    flops = 0.0
    for second in range(200):
        flops += 4e12 if second < 100 else 1e12
        left.update(float(second), flops)
    assert left.seconds(flops + 10e12) == pytest.approx(10.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(line: ProgressLine, clock: Clock, steps: int, seconds: float) -> None:
    for step in range(1, steps + 1):
        clock.now += seconds
        line.update(replace(AT, step=step, total_steps=steps, flops=step, total_flops=steps))


def test_log_lines_at_an_interval_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    line = ProgressLine(stream=io.StringIO(), interval=10.0, clock=clock)
    with caplog.at_level(logging.INFO, logger="megagrow.train.progress"):
        run(line, clock, steps=25, seconds=1.0)
        line.note("grew 4 -> 8 layers")
    assert [message.split(" | ")[0] for message in caplog.messages] == [
        "step 1/25",
        "step 11/25",
        "step 21/25",
        "step 25/25",
        "grew 4 -> 8 layers",
    ]
    assert "4.0s left" in caplog.messages[2]


def test_live_line_redraws_in_place_and_notes_stay() -> None:
    clock, stream = Clock(), io.StringIO()
    line = ProgressLine(stream=stream, live=True, clock=clock)
    run(line, clock, steps=2, seconds=1.0)
    line.note("grew")
    line.close()
    line.close()
    pieces = stream.getvalue().split("\r\x1b[2K")
    assert pieces[1].startswith("step 1/2")
    assert pieces[3].startswith("grew\nstep 2/2")
    assert stream.getvalue().count("\n") == 2
    assert stream.getvalue().endswith("\n")
    assert all(len(piece.split("\n")[0]) < 80 for piece in pieces)


def test_live_line_is_not_redrawn_faster_than_eyes_read() -> None:
    clock, stream = Clock(), io.StringIO()
    run(ProgressLine(stream=stream, live=True, clock=clock), clock, steps=100, seconds=0.001)
    assert stream.getvalue().count("\r") == 2


def test_disabled_line_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock, stream = Clock(), io.StringIO()
    with caplog.at_level(logging.INFO):
        for live in (True, False):
            line = ProgressLine(stream=stream, live=live, enabled=False, clock=clock)
            run(line, clock, steps=3, seconds=20.0)
            line.note("grew")
            line.close()
    assert not stream.getvalue()
    assert not caplog.messages
