from __future__ import annotations

import math

import pytest

from megagrow.errors import ConfigError
from megagrow.growth.lesa.settings import PRESETS, LesaSettings


def test_presets_are_the_two_published_sets() -> None:
    assert set(PRESETS) == {"paper", "notebook"}
    paper, notebook = PRESETS["paper"], PRESETS["notebook"]
    assert (paper.norm_weight, paper.epochs) == (5e-5, 5)
    assert (notebook.norm_weight, notebook.epochs) == (5e-4, 10)
    for preset in (paper, notebook):
        assert (preset.learning_rate, preset.weight_decay) == (1e-3, 1e-2)
        assert (preset.batch_rows, preset.hidden_width) == (64, 256)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm_weight", -0.1),
        ("norm_weight", 1.1),
        ("norm_weight", math.nan),
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("weight_decay", -1.0),
        ("batch_rows", 0),
        ("hidden_width", 0),
        ("seed", -1),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        LesaSettings(**{name: value})  # type: ignore[arg-type]
