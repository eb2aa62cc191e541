"""What may change between two starts of a run, and what may not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from megagrow.config import load, to_dict
from megagrow.errors import CheckpointError
from megagrow.train.identity import check_identity
from tests.train import trial


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    return to_dict(load(trial.configure(tmp_path, tmp_path)))


def _changed(plain: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(plain)
    place: Any = changed
    *parents, last = [int(key) if key.isdecimal() else key for key in dotted.split(".")]
    for key in parents:
        place = place[key]
    assert place[last] != value
    place[last] = value
    return changed


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 8),
        ("precision", "bf16"),
        ("model.hidden_size", 64),
        ("model.dropout", 0.0),
        ("model.init.std", 0.01),
        ("optimizer.beta2", 0.9),
        ("data.validation_fraction", 0.2),
        ("data.buckets.easy", ["other"]),
        ("stages.0.layers", 1),
        ("stages.0.tokens", 128),
        ("stages.0.mixture.easy", 0.5),
        ("stages.0.mixture_end", {"easy": 1.0}),
        ("stages.0.batch.global_size", 8),
        ("stages.0.learning_rate.peak", 1.0),
    ],
)
def test_what_decides_the_losses_may_not_change(
    plain: dict[str, Any], key: str, value: Any
) -> None:
    with pytest.raises(CheckpointError, match="of another configuration") as caught:
        check_identity(plain, _changed(plain, key, value), 0, "there")
    assert f"\n  {key}" in str(caught.value)
    assert "there" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("output", "elsewhere"),
        ("data.path", "moved"),
        ("data.cache", "elsewhere"),
        ("parallel.tensor", 2),
        ("stages.0.parallel.pipeline", 1),
        ("stages.0.parallel.distributed_optimizer", False),
        ("stages.0.parallel.recompute", "full"),
        ("stages.0.batch.micro_size", 2),
        ("stages.0.name", "renamed"),
        ("checkpoint.interval", 1),
        ("checkpoint.keep", 9),
        ("evaluation.sequences", 9),
        ("logging.interval", 9),
        ("limits.wall_time", 9.0),
        ("limits.on_nan", "skip"),
        ("stages.1.layers", 8),
        ("stages.1.tokens", 128),
        ("stages.1.transition.optimizer", "reset"),
    ],
)
def test_layout_places_and_stages_to_come_may_change(
    plain: dict[str, Any], key: str, value: Any
) -> None:
    check_identity(plain, _changed(plain, key, value), 0, "there")


def test_a_stage_that_has_begun_may_not_change(plain: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"stages\.1\.layers: 4 in the checkpoint, 8 now"):
        check_identity(plain, _changed(plain, "stages.1.layers", 8), 1, "there")


def test_stages_may_be_added_but_not_taken_away(plain: dict[str, Any]) -> None:
    more = _changed(plain, "stages", [*plain["stages"], plain["stages"][1]])
    check_identity(plain, more, 1, "there")
    with pytest.raises(CheckpointError, match=r"stages: 2 in the checkpoint, 1 now"):
        check_identity(plain, _changed(plain, "stages", plain["stages"][:1]), 1, "there")


def test_a_bucket_may_not_be_added(plain: dict[str, Any]) -> None:
    buckets = {**plain["data"]["buckets"], "new": ["new"]}
    with pytest.raises(CheckpointError, match=r"data\.buckets\.new: absent -> "):
        check_identity(plain, _changed(plain, "data.buckets", buckets), 0, "there")


def test_many_differences_are_cut_short(plain: dict[str, Any]) -> None:
    other = copy.deepcopy(plain)
    other["model"] = dict.fromkeys(plain["model"], "x")
    with pytest.raises(CheckpointError) as caught:
        check_identity(plain, other, 0, "there")
    assert str(caught.value).count("\n  ") == 9
    assert "..." in str(caught.value)


@pytest.mark.parametrize("saved", [{}, None, [], {"stages": []}, {"stages": [{}]}])
def test_a_damaged_configuration_is_one_clear_error(plain: dict[str, Any], saved: Any) -> None:
    with pytest.raises(CheckpointError, match="the configuration in it is damaged"):
        check_identity(saved, plain, 0, "there")
