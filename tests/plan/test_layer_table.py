"""What `--plan` says of layers that differ, and how it splits them."""

from __future__ import annotations

from pathlib import Path

import pytest

from megagrow.config import load
from megagrow.plan.command import plan_text
from megagrow.plan.render import to_dict
from megagrow.plan.schedule import make_plan

LWS = Path(__file__).parents[2] / "examples" / "lws"


def test_every_layer_is_listed_with_its_cost_and_drawn() -> None:
    text = plan_text(load(LWS / "crown_18l.yaml"))
    lines = text.splitlines()
    assert (
        "layers of all (crown): 182M parameters, 105M without embeddings and output layer" in lines
    )
    at = next(place for place, line in enumerate(lines) if line.split()[:2] == ["layer", "heads"])
    rows = [line.split() for line in lines[at + 2 : at + 19]]
    # Two neighbours of one shape share a line: 8 and 9, the two middle layers.
    assert [row[0] for row in rows] == [str(n) for n in range(8)] + ["8-9"] + [
        str(n) for n in range(10, 18)
    ]
    assert [row[3] for row in rows[:9]] == [
        "3072", "768", "1024", "1280", "1536", "2048", "2304", "2560", "2816"
    ]  # fmt: skip
    assert rows[0][-2:] == ["█" * 16, "█" * 16]
    assert rows[1][-2:] == ["█" * 12, "█" * 4]  # 9 of 12 heads, a quarter of the FFN


def test_layers_that_are_alike_are_not_listed() -> None:
    assert "layers of" not in plan_text(load(LWS / "baseline_18l.yaml"))


def test_json_has_the_sizes_of_every_layer() -> None:
    plan = make_plan(load(LWS / "vanilla_12l.yaml"))
    shapes = to_dict(plan)["stages"][0]["layer_shapes"]
    assert [shape["num_attention_heads"] for shape in shapes] == [
        6, 9, 9, 12, 12, 15, 15, 18, 18, 21, 21, 24
    ]  # fmt: skip
    assert shapes[0] == {
        "num_attention_heads": 6, "num_query_groups": 2, "kv_channels": 64, "ffn_hidden_size": 1536
    }  # fmt: skip


@pytest.mark.parametrize("name", ["vanilla_18l", "reverse_18l", "crown_18l"])
def test_pipeline_stages_are_balanced_by_what_each_layer_costs(name: str) -> None:
    config = load(LWS / f"{name}.yaml", ["parallel.pipeline=4"])
    stage = make_plan(config).stages[0]
    even, chosen = stage.splits[0], stage.splits[-1]
    assert (even.name, chosen.name) == ("even", "chosen")
    assert chosen.imbalance < even.imbalance
    assert stage.layout == chosen.layout
