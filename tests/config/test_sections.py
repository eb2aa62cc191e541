"""Parts of a configuration written as YAML read back as they were."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from megagrow.config.schema import LayerScalingConfig
from megagrow.config.sections import to_yaml, without_defaults

FRAMED: dict[str, Any] = {
    "variant": "framed",
    "ffn_multipliers": (0.5, 4.27),
    "qkv_multipliers": (0.5, 1.0),
    "queries_per_group": 3,
}


@pytest.mark.parametrize(
    "keys",
    [
        FRAMED,
        {**FRAMED, "framed": False, "rounding": "openelm", "ffn_multiple": 64, "head_multiple": 6},
        {**FRAMED, "frame_multipliers": (4.25, 1.0)},
        {"variant": "crown", "ffn_multipliers": (0.5, 3.1416, 0.5)},
    ],
)
def test_a_section_reads_back_without_defaults(keys: dict[str, Any]) -> None:
    text = to_yaml({"layer_scaling": without_defaults(LayerScalingConfig(**keys))})
    read = yaml.safe_load(text)["layer_scaling"]
    assert {
        key: tuple(value) if isinstance(value, list) else value for key, value in read.items()
    } == keys


def test_a_list_takes_one_line() -> None:
    assert to_yaml({"part": {"sizes": [1, 2.5]}}) == "part:\n  sizes: [1, 2.5]\n"
