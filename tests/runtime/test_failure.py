"""Processes that fail together, and what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megagrow.errors import CheckpointError, DataError, MegagrowError
from megagrow.runtime import failure, processes
from tests.distributed import World


def _fail_on(ranks: list[int]) -> tuple[str, str]:
    try:
        with failure.together():
            if processes.rank() in ranks:
                raise DataError(f"rank {processes.rank()}: mend it")
    except MegagrowError as error:
        return type(error).__name__, str(error)
    return "", ""


def test_an_error_of_any_rank_is_raised_on_all(world2: World) -> None:
    assert world2.run(_fail_on, []) == [("", "")] * 2
    assert world2.run(_fail_on, [0]) == [("DataError", "rank 0: mend it")] * 2
    assert world2.run(_fail_on, [1]) == [("DataError", "rank 1: mend it")] * 2
    assert world2.run(_fail_on, [0, 1]) == [("DataError", "rank 0: mend it")] * 2


def test_one_process_needs_no_group() -> None:
    with pytest.raises(CheckpointError, match="as it was"), failure.together():
        raise CheckpointError("as it was")
    with pytest.raises(ZeroDivisionError), failure.together():
        raise ZeroDivisionError


def _on_main(value: str, error: bool) -> tuple[str, list[int]]:
    """What `on_main` gives or raises, and the ranks that did the work here."""
    ran = []

    def work() -> str:
        ran.append(processes.rank())
        if error:
            raise DataError(f"rank {processes.rank()}: mend it")
        return f"{value} of rank {processes.rank()}"

    try:
        return failure.on_main(work), ran
    except MegagrowError as caught:
        return f"{type(caught).__name__} {caught}", ran


def test_what_rank_0_finds_or_raises_is_known_to_all(world2: World) -> None:
    found = "what of rank 0"
    assert world2.run(_on_main, "what", False) == [(found, [0]), (found, [])]
    raised = "DataError rank 0: mend it"
    assert world2.run(_on_main, "what", True) == [(raised, [0]), (raised, [])]
    assert _on_main("what", False) == (found, [0])
    assert _on_main("what", True) == (raised, [0])


def test_an_error_to_mend_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.report(DataError("bucket 'x': no such file")) == 2
    assert capsys.readouterr().err == "error: bucket 'x': no such file\n"
    assert failure.report_early(DataError("early")) == 2
    assert capsys.readouterr().err == "error: early\n"


def test_an_interrupt_has_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.report(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


def test_a_lost_peer_is_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:525] Connection closed by peer [::1]:1\nmore")
    assert failure.is_lost_peer(lost)
    assert not failure.is_lost_peer(RuntimeError("size mismatch"))
    assert failure.report(lost) == 1
    text = capsys.readouterr().err
    assert "another process is gone ([gloo/transport/tcp/pair.cc:525] Connection closed" in text
    assert "more" not in text.splitlines()[0]


def test_a_mistake_in_the_code_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure.report(KeyError("oops")) == 1
    assert "KeyError: 'oops'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        failure.report(SystemExit(3))


def test_torchrun_is_given_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    failure.report(DataError("the reason"))
    content = json.loads((tmp_path / "error.json").read_text())
    assert content["message"]["extraInfo"]["py_callstack"] == "error: the reason"
    assert int(content["message"]["extraInfo"]["timestamp"]) > 0
