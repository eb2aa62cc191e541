from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from megagrow.config import BatchConfig, ParallelConfig, RunConfig, load, to_dict
from tests.config.conftest import Load

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


def test_values_and_defaults(base: str, load_text: Load) -> None:
    config = load_text(base)
    assert config.name == "run"
    assert config.output == "runs/run"
    assert config.model.hidden_size == 64
    assert config.data.buckets == {"easy": ("easy",), "hard": ("hard-0", "hard-1")}
    assert config.learning_rate.peak == 3e-4
    assert [stage.tokens for stage in config.stages] == [10_000, 20_000]
    assert config.limits.wall_time is None


def test_output_follows_the_name(base: str, load_text: Load) -> None:
    assert load_text(base, "name=first").output == "runs/first"
    assert load_text(base, "name=first", "output=there").output == "there"


def test_unnamed_stages_are_numbered(base: str, load_text: Load) -> None:
    text = base.replace("name: small\n    layers", "layers")
    assert [stage.name for stage in load_text(text).stages] == ["stage0", "large"]


def test_stage_inherits_key_by_key(base: str, load_text: Load) -> None:
    small, large = load_text(base).stages
    assert small.parallel == ParallelConfig(pipeline=2)
    assert large.parallel == ParallelConfig(pipeline=2, tensor=2)
    assert small.batch == large.batch == BatchConfig(global_size=8, micro_size=2)


def test_override_of_the_run_reaches_stages_that_set_nothing(base: str, load_text: Load) -> None:
    small, large = load_text(base, "batch.micro_size=4", "parallel.tensor=1").stages
    assert small.batch.micro_size == large.batch.micro_size == 4
    assert (small.parallel.tensor, large.parallel.tensor) == (1, 2)


def test_override_of_a_stage_stays_there(base: str, load_text: Load) -> None:
    config = load_text(base, "stages.large.batch.micro_size=1", "stages.0.tokens=64K")
    assert [stage.batch.micro_size for stage in config.stages] == [2, 1]
    assert config.batch.micro_size == 2
    assert config.stages[0].tokens == 64_000


def test_transition_defaults_follow_growth(base: str, load_text: Load) -> None:
    text = base + "  - {layers: 4, tokens: 1K, mixture: {hard: 1}}\n"
    small, large, last = load_text(text).stages
    assert small.transition is None
    assert large.transition is not None
    assert last.transition is not None
    grown, same = large.transition, last.transition
    assert (grown.operator, grown.optimizer, grown.learning_rate) == ("stack", "reset", "restart")
    assert (same.operator, same.optimizer, same.learning_rate) == ("none", "copy", "continue")


def test_transition_keys_are_taken_one_by_one(base: str, load_text: Load) -> None:
    config = load_text(base + "    transition: {optimizer: copy}\n")
    transition = config.stages[1].transition
    assert transition is not None
    assert (transition.operator, transition.optimizer) == ("stack", "copy")


def test_continuing_stage_takes_its_predecessors_schedule(base: str, load_text: Load) -> None:
    text = base + "    learning_rate: {peak: 1e-3}\n"
    text += "  - {layers: 4, tokens: 1K, mixture: {hard: 1}}\n"
    small, large, last = load_text(text).stages
    assert small.learning_rate.peak == 3e-4
    assert last.learning_rate == large.learning_rate
    assert last.learning_rate.peak == 1e-3
    assert last.learning_rate.warmup == 1000


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_resolved_configuration_loads_as_itself(path: Path, tmp_path: Path) -> None:
    config = load(path)
    plain = to_dict(config)
    assert json.loads(json.dumps(plain)) == plain
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert load(again) == config


def test_load_leaves_no_trace_in_the_next_load(base: str, load_text: Load) -> None:
    first: RunConfig = load_text(base)
    load_text(base, "model.hidden_size=128")
    assert load_text(base) == first
