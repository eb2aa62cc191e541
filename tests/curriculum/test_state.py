from __future__ import annotations

import json
from typing import Any

import pytest

from megagrow.curriculum import SamplerState, begin_stage, initial_state
from megagrow.errors import CheckpointError

STATE = SamplerState(stage=2, drawn={"a": 3, "b": 4}, cursors={"a": 30, "b": 40, "c": 0})


def test_survives_json() -> None:
    again = SamplerState.from_dict(json.loads(json.dumps(STATE.to_dict(), sort_keys=True)))
    assert again == STATE
    assert again.samples == 7


def test_what_is_saved_is_a_copy() -> None:
    saved = STATE.to_dict()
    saved["cursors"]["a"] = 99
    assert STATE.cursors["a"] == 30


def test_a_run_begins_at_zero() -> None:
    assert initial_state(["b", "a"]) == SamplerState(stage=0, drawn={}, cursors={"a": 0, "b": 0})


def test_a_new_stage_keeps_the_cursors() -> None:
    assert begin_stage(STATE, 3) == SamplerState(stage=3, drawn={}, cursors=STATE.cursors)


@pytest.mark.parametrize(
    "damage",
    [
        {"stage": None},
        {"stage": -1},
        {"drawn": [1, 2]},
        {"drawn": {"a": 1.5}},
        {"cursors": {"a": "7"}},
        {"cursors": {"a": True}},
        {"cursors": {"a": -1}},
    ],
)
def test_damaged_state(damage: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"sampler state .* older checkpoint"):
        SamplerState.from_dict(STATE.to_dict() | damage)


def test_missing_key() -> None:
    with pytest.raises(CheckpointError, match="cursors"):
        SamplerState.from_dict({"stage": 0, "drawn": {}})
