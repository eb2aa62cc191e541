"""What may change between two starts of a run, and what may not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from megagrow.config import load, to_dict
from megagrow.config.loader import from_source
from megagrow.config.source import Source
from megagrow.errors import CheckpointError
from megagrow.plan.schedule import make_plan
from megagrow.train.identity import check_identity
from megagrow.train.learning_rate import learning_rates
from tests.train import trial


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    return to_dict(load(trial.configure(tmp_path, tmp_path)))


def test_a_run_of_drawn_weights_does_not_go_on_as_one_of_given_ones(plain: dict[str, Any]) -> None:
    given = _changed(plain, "initialise_from", "checkpoints/mine")
    with pytest.raises(CheckpointError, match="initialise_from: nothing in the checkpoint, a ch"):
        check_identity(plain, given, 0, "there")
    check_identity(given, _changed(given, "initialise_from", "moved/mine"), 0, "there")
    older = {key: value for key, value in plain.items() if key != "initialise_from"}
    check_identity(older, plain, 0, "there")


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
        ("stages.1.tokens", 7 * trial.STEP_TOKENS - 1),  # the same whole steps
        ("stages.1.mixture", {"hard": 1.0}),
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


@pytest.mark.parametrize("decay", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize(
    ("key", "value", "horizon"),
    [
        ("stages.1.tokens", 9 * trial.STEP_TOKENS, 14),
        ("stages.1.transition.learning_rate", "restart", 5),
        ("stages.1.batch.global_size", 8, 13),  # whole steps, twice as large
    ],
)
def test_a_later_stage_may_not_move_the_schedule_in_force(
    plain: dict[str, Any], decay: str, key: str, value: Any, horizon: int
) -> None:
    for stage in plain["stages"]:
        stage["learning_rate"] |= {"decay": decay, "decay_tokens": trial.STEP_TOKENS}
    changed = _changed(plain, key, value)
    with pytest.raises(CheckpointError) as caught:
        check_identity(plain, changed, 0, "there")
    before, now = trial.STEPS * trial.STEP_TOKENS, horizon * trial.STEP_TOKENS
    assert f"learning_rate.horizon: {before} in the checkpoint, {now} now" in str(caught.value)
    hint = f"stages.0.learning_rate.horizon={before}"
    assert hint in str(caught.value)
    # What the message says makes it the same schedule, and the later stage free.
    for stage in changed["stages"]:
        stage["learning_rate"]["horizon"] = before
    check_identity(plain, changed, 0, "there")


def test_a_constant_schedule_has_no_end_that_could_move(plain: dict[str, Any]) -> None:
    for stage in plain["stages"]:
        stage["learning_rate"]["decay"] = "constant"
    check_identity(plain, _changed(plain, "stages.1.tokens", 128), 0, "there")


def test_a_stage_to_come_that_restarts_may_change_its_schedule(plain: dict[str, Any]) -> None:
    plain["stages"][1]["transition"]["learning_rate"] = "restart"
    check_identity(plain, _changed(plain, "stages.1.tokens", 128), 0, "there")
    check_identity(plain, _changed(plain, "stages.1.learning_rate.peak", 1.0), 0, "there")


def test_the_identity_has_the_schedule_that_is_trained_with(plain: dict[str, Any]) -> None:
    """Configurations of one identity have one learning rate at every point of the stage."""
    changed = _changed(plain, "stages.1.tokens", 9 * trial.STEP_TOKENS)
    for stage in changed["stages"]:
        stage["learning_rate"]["horizon"] = trial.STEPS * trial.STEP_TOKENS
    check_identity(plain, changed, 0, "there")
    before, now = (
        learning_rates(config.stages, [stage.tokens for stage in make_plan(config, 2).stages])
        for config in (
            from_source(Source(file="", data=data, lines={})) for data in (plain, changed)
        )
    )
    points = range(0, 5 * trial.STEP_TOKENS, trial.STEP_TOKENS)
    assert [before.at(0, at, 64) for at in points] == [now.at(0, at, 64) for at in points]


def test_stages_may_be_added_but_not_taken_away(plain: dict[str, Any]) -> None:
    restarting = copy.deepcopy(plain["stages"][1])
    restarting["transition"]["learning_rate"] = "restart"
    more = _changed(plain, "stages", [*plain["stages"], restarting])
    check_identity(plain, more, 1, "there")
    continuing = _changed(plain, "stages", [*plain["stages"], plain["stages"][1]])
    with pytest.raises(CheckpointError, match=r"learning_rate\.horizon"):
        check_identity(plain, continuing, 1, "there")
    with pytest.raises(CheckpointError, match=r"stages: 2 in the checkpoint, 1 now"):
        check_identity(plain, _changed(plain, "stages", plain["stages"][:1]), 1, "there")


def test_a_bucket_may_not_be_added(plain: dict[str, Any]) -> None:
    buckets = {**plain["data"]["buckets"], "new": ["new"]}
    with pytest.raises(CheckpointError, match=r"data\.buckets\.new: absent -> "):
        check_identity(plain, _changed(plain, "data.buckets", buckets), 0, "there")


def test_many_differences_are_cut_short(plain: dict[str, Any]) -> None:
    other = copy.deepcopy(plain)
    other["model"] |= dict.fromkeys(set(plain["model"]) - {"seq_length"}, "x")
    with pytest.raises(CheckpointError) as caught:
        check_identity(plain, other, 0, "there")
    assert str(caught.value).count("\n  ") == 9
    assert "..." in str(caught.value)


@pytest.mark.parametrize("saved", [{}, None, [], {"stages": []}, {"stages": [{}]}, "no batch"])
def test_a_damaged_configuration_is_one_clear_error(plain: dict[str, Any], saved: Any) -> None:
    if saved == "no batch":
        saved = _changed(plain, "stages.1.batch.global_size", 0)
    with pytest.raises(CheckpointError, match="the configuration in it is damaged"):
        check_identity(saved, plain, 0, "there")
