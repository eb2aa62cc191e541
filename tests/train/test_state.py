"""The training state in a checkpoint: back as it was, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.curriculum import SamplerState
from megagrow.errors import CheckpointError
from megagrow.train.state import TrainState

counts = st.integers(0, 2**62)
buckets = st.dictionaries(st.text(min_size=1), counts, max_size=4)
states = st.builds(
    TrainState,
    step=counts,
    stage=st.integers(0, 50),
    updates=counts,
    skipped=st.integers(0, 100),
    sampler=st.builds(SamplerState, stage=st.integers(0, 50), drawn=buckets, cursors=buckets),
)


@given(states)
def test_json_and_back_is_the_same(state: TrainState) -> None:
    assert TrainState.from_dict(json.loads(json.dumps(state.to_dict())), "here") == state


def _plain() -> dict[str, Any]:
    sampler = SamplerState(stage=0, drawn={"a": 3}, cursors={"a": 3})
    return TrainState(step=3, stage=0, updates=3, skipped=0, sampler=sampler).to_dict()


@pytest.mark.parametrize("key", ["step", "stage", "updates", "skipped", "sampler"])
@pytest.mark.parametrize("value", [None, "", "x", [], {}, {"stage": -1}, -1, 2.5, True])
def test_a_wrong_value_is_a_checkpoint_error(key: str, value: object) -> None:
    with pytest.raises(CheckpointError):
        TrainState.from_dict({**_plain(), key: value}, "here")


@pytest.mark.parametrize("key", ["step", "stage", "updates", "skipped", "sampler"])
def test_a_missing_key_is_a_checkpoint_error_that_names_the_place(key: str) -> None:
    data = _plain()
    del data[key]
    with pytest.raises(CheckpointError, match="here: the training state is damaged"):
        TrainState.from_dict(data, "here")


@pytest.mark.parametrize("data", [None, [], "text", 7])
def test_what_is_no_mapping_is_a_checkpoint_error(data: Any) -> None:
    with pytest.raises(CheckpointError):
        TrainState.from_dict(data, "here")
