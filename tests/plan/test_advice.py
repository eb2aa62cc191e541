from __future__ import annotations

from megagrow.plan.schedule import make_plan
from tests.plan.configs import config_of, stage


def test_a_sound_run_has_no_warnings() -> None:
    config = config_of(stage(2, 9984), stage(8, 9984), learning_rate={"peak": 1, "warmup": "1K"})
    assert make_plan(config).warnings == ()


def test_schedule_that_is_all_warmup() -> None:
    config = config_of(stage(2, 9984), stage(4, 1024), learning_rate={"peak": 1, "warmup": "2K"})
    (warning,) = make_plan(config).warnings
    assert warning == (
        "the schedule that starts at stage 'stage1' lasts 1.02K tokens, all of them warmup (2K)"
    )


def test_schedule_counts_the_stages_that_continue_it() -> None:
    config = config_of(
        stage(2, 9984), stage(4, 1024), stage(4, 1024, name="on"),
        learning_rate={"peak": 1, "warmup": "2K"},
    )  # fmt: skip
    assert make_plan(config).warnings == ()


def test_final_fall_that_does_not_fit() -> None:
    rate = {"peak": 1, "warmup": "5K", "decay": "wsd", "decay_tokens": "6K"}
    (warning,) = make_plan(config_of(stage(2, 9984), learning_rate=rate)).warnings
    assert "lasts 9.98K tokens, too few for its warmup and a final fall over 6K" in warning
    assert make_plan(config_of(stage(2, 12000), learning_rate=rate)).warnings == ()
    assert (
        make_plan(config_of(stage(2, 9984), learning_rate={**rate, "horizon": "11K"})).warnings
        == ()
    )


def test_growth_that_the_paper_advises_against() -> None:
    one, eightfold = make_plan(config_of(stage(1), stage(2), stage(16))).warnings
    assert "'stage1' grows from a single layer" in one
    assert "'stage2' grows 8-fold; the G_stack paper found 2 to 4 best" in eightfold


def test_keys_of_the_way_of_growing_that_no_transition_takes() -> None:
    grown = stage(4, transition={"through": "checkpoint"})
    both = {"growth_scratch": "/dev/shm", "growth_staging": "1MiB"}
    (scratch,) = make_plan(config_of(stage(2), stage(4), checkpoint=both)).warnings
    assert scratch.startswith("checkpoint.growth_scratch has no effect: every transition goes thro")
    (staging,) = make_plan(config_of(stage(2), grown, checkpoint=both)).warnings
    assert staging.startswith("checkpoint.growth_staging has no effect: every transition goes thro")
    assert (
        make_plan(config_of(stage(2), stage(4), {**grown, "layers": 8}, checkpoint=both)).warnings
        == ()
    )
    assert make_plan(config_of(stage(2), checkpoint=both)).warnings == ()
    usual = {"growth_staging": "256MiB"}
    assert make_plan(config_of(stage(2), grown, checkpoint=usual)).warnings == ()
